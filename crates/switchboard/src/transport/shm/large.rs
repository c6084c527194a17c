//! Large messages on the reading side: segments that came, and the messages in them.

use std::os::fd::OwnedFd;

use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::Misbehaved;
use switchboard_shm::arena::{MOST_SEGMENTS, PLACE_BYTES, Place, SEGMENT_BYTES};
use switchboard_shm::ring::{Frame, Prefix, RingReader};

use super::control::LinkId;
use super::hand::{Hand, Manner};
use super::memory::{Theirs, Unusable};

/// The segments of one writer, in their order.
#[derive(Debug, Default)]
pub(super) struct Segments {
    mapped: Vec<Theirs>,
    /// Those that follow: this process had no room for them.
    waiting: Vec<OwnedFd>,
}

/// What a frame of a large message led to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Large {
    Message(Prefix, Place),
    /// It is longer than this side takes.
    TooLong,
    /// Its segment has not come yet: it was sent before the frame, so it waits on the control path. Or there is no
    /// room for it.
    NotYet,
}

impl Segments {
    /// Takes a segment that came. If there is no room for it now, it waits until there is.
    pub(super) fn add(&mut self, index: u32, fd: OwnedFd) -> Result<(), Misbehaved> {
        let count = self.mapped.len() + self.waiting.len();
        if index as usize != count || count >= MOST_SEGMENTS {
            return Err(Misbehaved("a segment out of turn"));
        }
        self.waiting.push(fd);
        match self.map_waiting() {
            Err(Unusable::Wrong(what)) => Err(what),
            _ => Ok(()),
        }
    }

    /// Maps those for which there was no room. Whether there were any.
    pub(super) fn map_waiting(&mut self) -> Result<bool, Unusable> {
        let mut some = false;
        while let Some(fd) = self.waiting.first() {
            let memory = PeerMemory::map(fd, SEGMENT_BYTES)
                .map_err(|error| Unusable::of(error, "a segment that cannot be trusted"))?;
            self.mapped.push(Theirs(memory));
            self.waiting.remove(0);
            some = true;
        }
        Ok(some)
    }

    /// Where the message is that a frame stands for.
    pub(super) fn find(
        &self,
        ring: &RingReader<Theirs>,
        frame: &Frame,
        largest: usize,
    ) -> Result<Large, Misbehaved> {
        let (prefix, place) = Self::place(ring, frame)?;
        let Some(segment) = self.get(&place) else { return Ok(Large::NotYet) };
        place.words(segment)?;
        let fits = place.len <= largest as u64;
        Ok(if fits { Large::Message(prefix, place) } else { Large::TooLong })
    }

    /// The segment of a place.
    pub(super) fn get(&self, place: &Place) -> Option<&Theirs> {
        self.mapped.get(place.segment as usize)
    }

    /// Takes the message at a place that was [found](Self::find).
    pub(super) fn take(
        &self,
        manner: Manner,
        link: LinkId,
        place: &Place,
        hand: &mut Hand,
    ) -> Result<(), Misbehaved> {
        let segment =
            self.get(place).ok_or(Misbehaved("a message in a segment that never came"))?;
        hand.take_large(manner, link, (place.segment, segment), place)
    }

    /// Whether the segment of a frame's message is there.
    pub(super) fn has(&self, ring: &RingReader<Theirs>, frame: &Frame) -> Result<bool, Misbehaved> {
        let (_, place) = Self::place(ring, frame)?;
        Ok(self.get(&place).is_some())
    }

    fn place(ring: &RingReader<Theirs>, frame: &Frame) -> Result<(Prefix, Place), Misbehaved> {
        if frame.payload_bytes != PLACE_BYTES as u64 {
            return Err(Misbehaved("a place in the arena of another length"));
        }
        let mut place = [0; PLACE_BYTES];
        ring.copy(frame, 0, &mut place);
        Place::from_bytes(&place)
    }
}
