//! Room for messages that are built where their readers read them.
//!
//! A loan is taken from the core, filled outside of it, and given back to it, committed or not. Nothing of it is
//! seen before.

use std::ops::RangeInclusive;

use switchboard_kernel::shared_memory::{OwnMemory, Place};
use switchboard_shm::arena::Block;
use switchboard_shm::ring::{Claim, Gathering, Grant, RingWriter};

use super::blocks::Blocks;
use super::control::LinkId;
use super::memory::Own;

/// The loan that is out, if one is, and its memory: for as long as the caller may write, whatever becomes of the
/// link.
///
/// It is written here part by part, and not returned: to move it around would cost more than all else.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    ring: Option<(LinkId, Place<OwnMemory>)>,
    segment: Option<(u32, Place<OwnMemory>)>,
    /// In whose ring.
    pub(super) link: LinkId,
    /// Messages that were accepted and wait for others.
    pub(super) gathering: Gathering,
    /// How many such messages there were before them.
    pub(super) gathered: u64,
    out: Out,
    claim: Claim,
    /// Room for the next one, in the ring that is at hand.
    granted: Grant,
    /// Where a large message is built, and not in the ring.
    pub(super) block: Option<Block>,
    /// For the next one, in the segment that is at hand, if its frame goes where room was granted.
    spare: Option<Spare>,
    pub(super) len: usize,
}

/// A block that nobody uses, and where it is.
#[derive(Debug)]
struct Spare {
    block: Block,
    word: usize,
    /// For messages of such lengths.
    lens: RangeInclusive<usize>,
}

/// Where a loan's room comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Out {
    /// None is out.
    #[default]
    Nothing,
    /// It was claimed of the core.
    Claimed,
    /// It is what was granted.
    Granted,
    /// It is a block that was spare; its frame is what was granted.
    Spare,
}

impl Lending {
    /// Whether a loan is out.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        self.out != Out::Nothing
    }

    /// The loan comes back, if it is out.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<Claim> {
        match std::mem::take(&mut self.out) {
            Out::Nothing => None,
            Out::Claimed => Some(self.claim),
            // Whatever was written there, it is not as it was granted any more.
            Out::Granted => Some(std::mem::take(&mut self.granted).claim(self.len as u64)),
            Out::Spare => Some(std::mem::take(&mut self.granted).claim(Blocks::FRAME_BYTES)),
        }
    }

    /// The loan comes back, if it is what was granted: that, and for how much there was room.
    #[inline(always)]
    pub(super) fn take_granted(&mut self) -> Option<(&Grant, usize)> {
        if self.out != Out::Granted {
            return None;
        }
        self.out = Out::Nothing;
        Some((&self.granted, self.len))
    }

    /// The loan comes back, if it is a block that was spare: what was granted for its frame.
    #[inline(always)]
    pub(super) fn take_spare_loan(&mut self) -> Option<&Grant> {
        if self.out != Out::Spare {
            return None;
        }
        self.out = Out::Nothing;
        Some(&self.granted)
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
        (self.link, self.claim, self.out) = (link, claim, Out::Claimed);
        self.revoke();
        self.len = claim.payload_bytes() as usize;
        if let Some((_, ring)) = &mut self.ring {
            ring.lend(word, self.len);
        }
    }

    /// Room for the next loan, in the ring where the last one was.
    #[inline(always)]
    pub(super) fn grant(&mut self, granted: Grant) {
        self.granted = granted;
    }

    /// Lends what was granted, if that is room enough and nothing is out.
    #[inline(always)]
    pub(super) fn lend_granted(&mut self, len: usize) -> bool {
        if self.is_out() {
            return false;
        }
        let Some((_, ring)) = &mut self.ring else { return false };
        let Some(word) = self.granted.room(ring.memory().words(), len) else { return false };
        ring.lend(word, len);
        (self.out, self.len) = (Out::Granted, len);
        true
    }

    /// Keeps a block for the next loan like this one, if it is in the segment that is at hand.
    /// `lens`: those that it lends.
    pub(super) fn keep_spare(
        &mut self,
        blocks: &mut Blocks,
        len: usize,
        lens: RangeInclusive<usize>,
    ) {
        self.give_spare_back(blocks);
        let Some(block) = blocks.take(len as u64) else { return };
        let place = blocks.place(&block, len as u64);
        if self.segment.as_ref().is_none_or(|(index, _)| *index != place.segment) {
            return blocks.give_back(block);
        }
        self.spare = Some(Spare { block, word: place.offset as usize / 8, lens });
    }

    /// The block that is spare is anybody's again.
    pub(super) fn give_spare_back(&mut self, blocks: &mut Blocks) {
        if let Some(spare) = self.spare.take() {
            blocks.give_back(spare.block);
        }
    }

    /// Lends the block that is spare, if it is what is wanted, its frame has room, and nothing is out.
    #[inline]
    pub(super) fn lend_spare(&mut self, len: usize) -> bool {
        if self.is_out() || !self.granted.has_room(Blocks::FRAME_BYTES) {
            return false;
        }
        let Some((_, segment)) = &mut self.segment else { return false };
        let is_wanted = |spare: &mut Spare| spare.lens.contains(&len);
        let Some(spare) = self.spare.take_if(is_wanted) else { return false };
        segment.lend(spare.word, len);
        (self.out, self.len, self.block) = (Out::Spare, len, Some(spare.block));
        true
    }

    /// Something else is claimed.
    #[inline(always)]
    pub(super) fn revoke(&mut self) {
        self.granted = Grant::default();
    }

    #[cold]
    fn hold(&mut self, link: LinkId, ring: &Own) {
        self.ring = Some((link, Place::nothing_of(ring.0.clone())));
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
        self.ring
            .as_ref()
            .is_some_and(|(_, ring)| self.gathering.add(ring.memory().words(), payload))
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
            let Some(room) = ring.room_at(word, len) else { break };
            let Some(filled) = fill(room) else { return (count, true) };
            // A child of `fork` that comes back from there does not have the memory.
            if !is_here() {
                break;
            }
            filling.gathering.keep(ring.memory().words(), filled.min(len));
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
            self.segment = segment.map(|one| (place.segment, Place::nothing_of(one.0.clone())));
        }
        (self.link, self.claim, self.out) = (link, claim, Out::Claimed);
        self.revoke();
        self.block = Some(block);
        self.len = len;
        if let Some((_, segment)) = &mut self.segment {
            segment.lend(place.offset as usize / 8, len);
        }
    }

    /// The room, to be written. One loan is out at a time, so nobody else has it.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        match self.block {
            Some(_) => self.segment.as_mut().map(|(_, segment)| segment.room()),
            None => self.ring.as_mut().map(|(_, ring)| ring.room()),
        }
        .unwrap_or_default()
    }

    /// What was built so far.
    #[inline]
    pub(super) fn built(&self) -> &[u8] {
        match self.block {
            Some(_) => self.segment.as_ref().map(|(_, segment)| segment.bytes()),
            None => self.ring.as_ref().map(|(_, ring)| ring.bytes()),
        }
        .unwrap_or_default()
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
