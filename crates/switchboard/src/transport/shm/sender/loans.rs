//! Loans of a queue's sending end: room in the ring of one receiver, or in a block.
//!
//! While one is out its caller sends nothing else, and what is given out again goes to others.

use switchboard_shm::arena::Block;
use switchboard_shm::ring::{Claim, Kind, PREFIX_BYTES, Prefix};

use super::SenderCore;
use super::backlog::{Body, Waiting};
use crate::error::SendError;
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::ends::Lends;
use crate::transport::shm::lending::Lending;

impl Lends for SenderCore {
    #[inline]
    fn lend(&mut self, len: usize, lending: &mut Lending) -> Result<(), SendError> {
        if !self.backlog.is_empty() {
            self.give_out()?;
        }
        self.check_length(len)?;
        // Were it given out again, it would have a prefix.
        let longest_bytes = (len + PREFIX_BYTES) as u64;
        let is_large = longest_bytes > self.side.largest_frame;
        let frame_bytes = if is_large { Blocks::FRAME_BYTES } else { len as u64 };
        let mut at = self.choose(frame_bytes, len as u64).ok_or(SendError::Full)?;
        let mut block = None;
        if is_large {
            let found = self.block(len as u64)?.ok_or(SendError::Full)?;
            // Looking for a block may have ended links.
            match self.choose(frame_bytes, len as u64) {
                Some(chosen) => (at, block) = (chosen, Some(found)),
                None => {
                    self.side.blocks.give_back(found);
                    return Err(SendError::Full);
                }
            }
        }
        let one = &mut self.receivers[at];
        let Some(claim) = one.ring.claim(frame_bytes) else {
            unreachable!("chosen because it has room")
        };
        one.lent = true;
        let link = one.link();
        match block {
            Some(block) => lending.in_block(link, claim, (&self.side.blocks, block), len),
            None => {
                let word = one.ring.payload_index(&claim);
                lending.in_ring((link, one.ring.memory()), claim, word);
            }
        }
        Ok(())
    }

    #[inline]
    fn commit_loan(&mut self, len: usize, lending: &mut Lending) {
        let Some(claim) = lending.take() else { return };
        let len = len.min(lending.len);
        let Some(at) = self.position(lending.link) else {
            return self.redirect(len, lending);
        };
        let one = &mut self.receivers[at];
        one.lent = false;
        match lending.block.take() {
            None => one.commit_small(claim, (Kind::Message, 0), len, Prefix::default()),
            Some(block) => self.put_claimed(at, claim, block, len as u64),
        }
        self.sent(at, len as u64);
    }

    fn cancel_loan(&mut self, lending: &mut Lending) {
        let _ = lending.take();
        if let Some(at) = self.position(lending.link) {
            self.receivers[at].lent = false;
        }
        if let Some(block) = lending.block.take() {
            self.side.blocks.give_back(block);
        }
    }
}

impl SenderCore {
    fn put_claimed(&mut self, at: usize, claim: Claim, block: Block, len: u64) {
        let place = self.side.blocks.place(&block, len).to_bytes(Prefix::default());
        self.receivers[at].commit_large(claim, &place, (block, len), Prefix::default());
    }

    /// The receiver in whose ring it was built is gone: it goes to another one.
    #[cold]
    fn redirect(&mut self, len: usize, lending: &mut Lending) {
        self.side.counters.messages += 1;
        self.side.counters.bytes += len as u64;
        let body = match lending.block.take() {
            Some(block) => Body::Large(block, len as u64),
            None => Body::Small(lending.built()[..len].to_vec()),
        };
        self.backlog.push_back(Waiting { body, prefix: Prefix::default() });
        // What is left goes out when there is room.
        let _ = self.give_out();
    }
}
