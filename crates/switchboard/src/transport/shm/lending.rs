//! Room for messages that are built where their readers read them.
//!
//! A loan is taken from the core, filled outside of it, and given back to it, committed or not. Nothing of it is
//! seen before.

use switchboard_shm::arena::Block;
use switchboard_shm::ring::{Claim, Gathering, RingWriter};

use super::blocks::Blocks;
use super::control::LinkId;
use super::memory::Own;

/// The loan that is out, if one is, and its memory: for as long as the caller may write, whatever becomes of the
/// link.
///
/// It is written here part by part, and not returned: to move it around would cost more than all else.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    ring: Option<(LinkId, Own)>,
    segment: Option<(u32, Own)>,
    /// In whose ring.
    pub(super) link: LinkId,
    /// Messages that were accepted and wait for others.
    pub(super) gathering: Gathering,
    /// How many such messages there were before them.
    pub(super) gathered: u64,
    is_out: bool,
    claim: Claim,
    /// Where a large message is built, and not in the ring.
    pub(super) block: Option<Block>,
    word: usize,
    pub(super) len: usize,
}

impl Lending {
    /// Whether a loan is out.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }

    /// The loan comes back, if it is out.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<Claim> {
        if !self.is_out {
            return None;
        }
        self.is_out = false;
        Some(self.claim)
    }

    /// As [`take`](Self::take), if it is in a ring.
    #[inline(always)]
    pub(super) fn take_plain(&mut self) -> Option<Claim> {
        if self.block.is_some() { None } else { self.take() }
    }

    /// In a ring, from a word on.
    #[inline]
    pub(super) fn in_ring(&mut self, (link, ring): (LinkId, &Own), claim: Claim, word: usize) {
        if self.ring.as_ref().is_none_or(|(held, _)| *held != link) {
            self.hold(link, ring);
        }
        (self.link, self.claim, self.is_out) = (link, claim, true);
        (self.word, self.len) = (word, claim.payload_bytes() as usize);
    }

    #[cold]
    fn hold(&mut self, link: LinkId, ring: &Own) {
        self.ring = Some((link, ring.clone()));
    }

    /// Whether messages wait for others, or could.
    #[inline(always)]
    pub(super) fn gathers(&self) -> bool {
        self.gathering.is_open()
    }

    /// Room in a ring for messages that wait for each other.
    pub(super) fn gather(&mut self, link: LinkId, ring: &mut RingWriter<Own>, most_bytes: u64) {
        self.gathering = ring.gather(most_bytes);
        if self.ring.as_ref().is_none_or(|(held, _)| *held != link) {
            self.hold(link, ring.memory());
        }
    }

    /// Accepts a message that waits for the next ones, if there is room for it.
    #[inline(always)]
    pub(super) fn add(&mut self, payload: &[u8]) -> bool {
        self.ring.as_ref().is_some_and(|(_, ring)| self.gathering.add(ring, payload))
    }

    /// Messages of up to so many bytes that `fill` writes, until it says `None` or there is no more room. How many there
    /// were, and whether it said so.
    #[inline(always)]
    pub(super) fn fill_each(
        &mut self,
        len: usize,
        fill: &mut impl FnMut(&mut [u8]) -> Option<usize>,
        is_here: impl Fn() -> bool,
    ) -> (usize, bool) {
        let Some((_, ring)) = &mut self.ring else { return (0, false) };
        let gathering = std::mem::take(&mut self.gathering);
        let mut filling = Filling { gathering, of: &mut self.gathering };
        let mut count = 0;
        while let Some(word) = filling.gathering.room(len) {
            let Some(room) = ring.0.room(word, len) else { break };
            let Some(filled) = fill(room) else { return (count, true) };
            // A child of `fork` that comes back from there does not have the memory.
            if !is_here() {
                break;
            }
            filling.gathering.keep(ring, filled.min(len));
            count += 1;
        }
        (count, false)
    }

    /// In a block, of which the frame that is claimed will tell.
    pub(super) fn in_block(
        &mut self,
        link: LinkId,
        claim: Claim,
        (blocks, block): (&Blocks, Block),
        len: usize,
    ) {
        let place = blocks.place(&block, len as u64);
        if self.segment.as_ref().is_none_or(|(index, _)| *index != place.segment) {
            let segment = blocks.segments().nth(place.segment as usize);
            self.segment = segment.map(|segment| (place.segment, segment.clone()));
        }
        (self.link, self.claim, self.is_out) = (link, claim, true);
        self.block = Some(block);
        (self.word, self.len) = (place.offset as usize / 8, len);
    }

    /// The room, to be written. One loan is out at a time, so nobody else has it.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        let memory = match self.block {
            Some(_) => self.segment.as_mut().map(|(_, segment)| segment),
            None => self.ring.as_mut().map(|(_, ring)| ring),
        };
        // It was within its memory when it was lent.
        memory.and_then(|memory| memory.0.room(self.word, self.len)).unwrap_or_default()
    }

    /// What was built so far.
    #[inline]
    pub(super) fn built(&self) -> &[u8] {
        let memory = match self.block {
            Some(_) => self.segment.as_ref().map(|(_, segment)| segment),
            None => self.ring.as_ref().map(|(_, ring)| ring),
        };
        memory.and_then(|memory| memory.0.bytes(self.word, self.len)).unwrap_or_default()
    }
}

/// What is gathered, while the caller writes more of it: in registers, and back in its place also if the caller
/// panics.
struct Filling<'a> {
    gathering: Gathering,
    of: &'a mut Gathering,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        *self.of = std::mem::take(&mut self.gathering);
    }
}
