//! Large messages of a topic: each lies in a block, and a frame says where.

use switchboard_shm::arena::Block;
use switchboard_shm::ring::{Claim, Kind, Prefix};

use super::{OF_TOPIC, PublisherCore};
use crate::error::SendError;
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::lending::Lending;

/// Subscribers that have no more large messages before them are waiting for the next one.
const FEW_IN_FLIGHT: usize = 2;

impl PublisherCore {
    /// Lends a block, if one is free and its frame has room: a short cut, after which
    /// [`lend_large`](Self::lend_large) does the rest.
    #[inline(never)]
    pub(super) fn lend_block(&mut self, len: usize, lending: &mut Lending) -> bool {
        if self.side.check_length(len).is_err() {
            return false;
        }
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
        self.commit_block(claim, block, payload.len() as u64);
        Ok(())
    }

    /// Sends the first bytes of what was built in a block. Whether one was lent.
    #[inline(never)]
    pub(super) fn commit_lent_block(&mut self, len: usize, lending: &mut Lending) -> bool {
        let Some(claim) = lending.take() else { return false };
        let Some(block) = lending.block.take() else { return false };
        self.commit_block(claim, block, len.min(lending.len) as u64);
        true
    }

    /// A block for a large message, and its frame.
    fn claim_block(&mut self, len: usize) -> Result<(Claim, Block), SendError> {
        self.side.check_length(len)?;
        let claim = self.claim(Blocks::FRAME_BYTES)?;
        let block = self.block(len as u64)?.ok_or(SendError::Full)?;
        Ok((claim, block))
    }

    #[inline]
    fn commit_block(&mut self, claim: Claim, block: Block, len: u64) {
        let place = self.side.blocks.place(&block, len).to_bytes(Prefix::default());
        self.ring.write(&claim, 0, &place);
        self.side.blocks.sent(block, claim.end());
        self.commit(claim, Kind::InArena, Blocks::FRAME_BYTES, len);
        if self.side.blocks.in_flight() <= FEW_IN_FLIGHT {
            // Now, and not when the next one is to go out.
            self.reclaim();
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
