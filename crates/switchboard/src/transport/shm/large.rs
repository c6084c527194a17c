//! Large messages on the reading side: segments that came, and the messages in them.

use std::os::fd::OwnedFd;

use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::arena::{MOST_SEGMENTS, PLACE_BYTES, Place, SEGMENT_BYTES};
use switchboard_shm::ring::{Frame, Prefix, RingReader};
use switchboard_shm::{Misbehaved, copy_out};

use super::memory::Theirs;

/// The segments of one writer, in their order.
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<Theirs>);

/// What a frame of a large message led to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Message(Prefix),
    /// It is longer than this side takes.
    TooLarge,
    /// Its segment has not come yet: it was sent before the frame, so it waits on the control path.
    NotYet,
}

impl Segments {
    /// Takes a segment that came.
    pub(super) fn add(&mut self, index: u32, fd: OwnedFd) -> Result<(), Misbehaved> {
        if index as usize != self.0.len() || self.0.len() >= MOST_SEGMENTS {
            return Err(Misbehaved("a segment out of turn"));
        }
        let memory = PeerMemory::received(fd, SEGMENT_BYTES)
            .map_err(|_| Misbehaved("a segment that cannot be trusted"))?;
        self.0.push(Theirs(memory));
        Ok(())
    }

    /// Replaces what is in `bytes` by the message that a frame stands for.
    pub(super) fn read(
        &self,
        ring: &RingReader<Theirs>,
        frame: &Frame,
        largest: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<Found, Misbehaved> {
        let (prefix, place) = Self::place(ring, frame)?;
        let Some(segment) = self.0.get(place.segment as usize) else { return Ok(Found::NotYet) };
        let words = place.words(segment)?;
        if place.len > largest as u64 {
            return Ok(Found::TooLarge);
        }
        bytes.clear();
        bytes.resize(place.len as usize, 0);
        copy_out(words, bytes);
        Ok(Found::Message(prefix))
    }

    /// Whether the segment of a frame's message has come.
    pub(super) fn has(&self, ring: &RingReader<Theirs>, frame: &Frame) -> Result<bool, Misbehaved> {
        let (_, place) = Self::place(ring, frame)?;
        Ok((place.segment as usize) < self.0.len())
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
