//! Large messages of a topic: each lies in a block, and a frame says where.

use std::ops::RangeInclusive;

use switchboard_shm::arena::{Block, SMALLEST_BLOCK_BYTES, block_bytes};
use switchboard_shm::ring::{Claim, Kind, Prefix};

use super::{FEW, OF_TOPIC, PublisherCore};
use crate::error::SendError;
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::lending::Lending;

impl PublisherCore {
    /// Lends a block, if one is free and its frame has room: a short cut, after which
    /// [`lend_large`](Self::lend_large) does the rest.
    #[inline(never)]
    pub(super) fn lend_block(&mut self, len: usize, lending: &mut Lending) -> bool {
        if self.side.check_length(len).is_err() {
            return false;
        }
        lending.give_spare_back(&mut self.side.blocks);
        let Some(claim) = self.ring.claim(Blocks::FRAME_BYTES) else { return false };
        let Some(block) = self.side.blocks.take(len as u64) else { return false };
        lending.in_block(OF_TOPIC, claim, (&self.side.blocks, block), len);
        true
    }

    #[cold]
    pub(super) fn lend_large(
        &mut self,
        len: usize,
        lending: &mut Lending,
    ) -> Result<(), SendError> {
        let (claim, block) = self.claim_block(len)?;
        lending.in_block(OF_TOPIC, claim, (&self.side.blocks, block), len);
        Ok(())
    }

    #[cold]
    pub(super) fn try_send_large(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let (claim, block) = self.claim_block(payload.len())?;
        switchboard_shm::copy_in(self.side.blocks.room(&block), payload);
        self.commit_block(claim, block, (payload.len() as u64, payload.len()));
        Ok(())
    }

    /// Sends the first bytes of what was built in a block. Whether one was lent.
    #[inline(never)]
    pub(super) fn commit_lent_block(&mut self, len: usize, lending: &mut Lending) -> bool {
        let Some(block) = lending.block.take() else { return false };
        let lent = lending.len;
        let len = len.min(lent) as u64;
        if let Some(granted) = lending.take_spare_loan() {
            let place = self.side.blocks.place(&block, len).to_words(Prefix::default());
            self.ring.write_granted(granted, place);
            let frame = (Blocks::FRAME_BYTES, Blocks::FRAME_BYTES);
            self.ring.commit_granted(granted, Kind::InArena, frame);
            let end = granted.end_of(Blocks::FRAME_BYTES);
            self.side.counters.bytes += len;
            self.ring_bell();
            self.sent(block, (end, lent));
        } else {
            let Some(claim) = lending.take() else { return false };
            self.commit_block(claim, block, (len, lent));
        }
        if self.ring.lacks_room_ahead() && self.subscribers.len() <= FEW {
            self.make_room_ahead(Blocks::FRAME_BYTES);
        }
        if self.lends_ahead() {
            let lens = self.lens_like(lent);
            lending.keep_spare(&mut self.side.blocks, lent, lens);
            lending.grant(self.ring.grant());
        }
        true
    }

    /// Lengths of messages for which a block is the right one that is right for this length.
    fn lens_like(&self, len: usize) -> RangeInclusive<usize> {
        let most = block_bytes(len as u64);
        let least = if most == SMALLEST_BLOCK_BYTES { 0 } else { most / 2 + 1 };
        let least = least.max(self.ring.largest_payload() + 1);
        least as usize..=self.side.largest.min(most as usize)
    }

    /// A block for a large message, and its frame.
    fn claim_block(&mut self, len: usize) -> Result<(Claim, Block), SendError> {
        self.side.check_length(len)?;
        let claim = self.claim(Blocks::FRAME_BYTES)?;
        let block = self.block(len as u64)?.ok_or(SendError::Full)?;
        Ok((claim, block))
    }

    #[inline]
    fn commit_block(&mut self, claim: Claim, block: Block, (len, lent): (u64, usize)) {
        let place = self.side.blocks.place(&block, len).to_bytes(Prefix::default());
        self.ring.write(&claim, 0, &place);
        let end = claim.end();
        self.commit(claim, Kind::InArena, Blocks::FRAME_BYTES, len);
        self.sent(block, (end, lent));
    }

    /// A block for messages of such a length went out with a frame that ends here.
    #[inline]
    fn sent(&mut self, block: Block, (end, lent): (u64, usize)) {
        self.side.blocks.sent(block, end);
        if !self.side.blocks.has_free(lent as u64) {
            // Now, and not when the next one is to go out.
            self.reclaim();
            // Nobody waits for anyone.
            self.slowest = None;
        }
    }

    /// A block for a large message; none where subscribers still hold too much.
    fn block(&mut self, len: u64) -> Result<Option<Block>, SendError> {
        if let Some(block) = self.side.blocks.take(len) {
            return Ok(Some(block));
        }
        self.reclaim();
        loop {
            if let Some(block) = self.side.blocks.take(len) {
                return Ok(Some(block));
            }
            if self.side.blocks.may_grow(len) {
                self.side.grow(len, self.subscribers.iter())?;
                continue;
            }
            let Some(oldest) = self.side.blocks.oldest() else { return Ok(None) };
            if !self.ring.is_lossy() {
                return Ok(None);
            }
            self.ring.drop_before(oldest);
            let done = self.done_through();
            self.side.blocks.reclaim(done);
        }
    }

    /// Looks which blocks are nobody's any more.
    fn reclaim(&mut self) {
        self.look_at_cursors();
        let done = self.done_through();
        self.side.blocks.reclaim(done);
    }

    /// Frames that end at or before this are nobody's any more.
    fn done_through(&self) -> u64 {
        let begin = if self.ring.is_lossy() {
            self.ring.tail()
        } else {
            let cursors = self.subscribers.iter().map(|subscriber| subscriber.cursor.seen());
            cursors.min().unwrap_or(self.ring.head())
        };
        self.history.begin().map_or(begin, |oldest| begin.min(oldest))
    }
}
