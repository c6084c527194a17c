//! Messages of a queue that have no receiver: given back, or their receiver is gone. They go out before new
//! ones.

use switchboard_shm::arena::Block;
use switchboard_shm::bell::Sleeps;
use switchboard_shm::ring::Prefix;

use super::SenderCore;
use super::receiver::small_bytes;
use crate::error::SendError;
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::control::LinkId;

/// A message that has no receiver.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) body: Body,
    pub(super) prefix: Prefix,
}

#[derive(Debug)]
pub(super) enum Body {
    Small(Vec<u8>),
    Large(Block, u64),
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Large(_, len) => *len,
        }
    }

    fn frame_bytes(&self, prefix: Prefix) -> u64 {
        match self {
            Self::Small(bytes) => small_bytes(bytes.len(), prefix),
            Self::Large(..) => Blocks::FRAME_BYTES,
        }
    }
}

impl SenderCore {
    /// A receiver is gone: what it has not settled goes to others, marked.
    pub(super) fn lose(&mut self, link: LinkId, lied: bool) {
        let Some(at) = self.position(link) else { return };
        let one = self.receivers.remove(at);
        let id = one.id;
        let (settled, mut again) = one.take_all_back(&mut self.side.blocks, lied);
        if let Some(returned) = &mut self.returned {
            for message in again {
                let bytes = match message.body {
                    Body::Small(bytes) => bytes,
                    Body::Large(block, len) => {
                        let words = self.side.blocks.room(&block);
                        let mut bytes = vec![0; len as usize];
                        switchboard_shm::copy_out(words, &mut bytes);
                        self.side.blocks.give_back(block);
                        bytes
                    }
                };
                returned.push((id, bytes, lied));
            }
            return;
        }
        self.acknowledged += settled;
        // Before what waits already, in their order.
        again.append(&mut self.backlog);
        self.backlog = again;
    }

    /// A receiver gave a message back.
    pub(super) fn reject(&mut self, link: LinkId, number: u64) {
        let Some(at) = self.position(link) else { return };
        match self.receivers[at].take_back(number) {
            Ok(Some(message)) => self.keep(message),
            Ok(None) => {}
            Err(what) => return self.turn_away(link, what.0),
        }
        self.side.control.taken(link, number);
    }

    /// Keeps a message to give it out again, unless it was given out as often as is allowed.
    fn keep(&mut self, message: Waiting) {
        if message.prefix.deliveries < self.side.setup.options.max_deliveries.max(1) {
            return self.backlog.push_back(message);
        }
        self.rejected += 1;
        if let Body::Large(block, _) = message.body {
            self.side.blocks.give_back(block);
        }
    }

    /// Gives out again what waits. `Full` if something is left: that goes out when a receiver has settled
    /// something, also while the caller is elsewhere.
    #[cold]
    pub(super) fn give_out(&mut self) -> Result<(), SendError> {
        let mut result = self.send_backlog();
        if result.is_err() && !self.armed && !self.asks {
            self.asks = true;
            self.want(Some(Sleeps::OnDescriptor));
            // One that has settled something before this did not see it.
            result = self.send_backlog();
        }
        if result.is_ok() && !self.armed && std::mem::take(&mut self.asks) {
            self.want(None);
        }
        result
    }

    fn send_backlog(&mut self) -> Result<(), SendError> {
        // Out of the backlog before a receiver is looked for: that may end links, whose messages come in front.
        while let Some(Waiting { body, prefix }) = self.backlog.pop_front() {
            let frame_bytes = body.frame_bytes(prefix);
            let Some(at) = self.choose(frame_bytes, body.len()) else {
                self.backlog.push_front(Waiting { body, prefix });
                return Err(SendError::Full);
            };
            match body {
                Body::Small(bytes) => self.receivers[at].put_small(&bytes, prefix, frame_bytes),
                Body::Large(block, len) => self.put_large(at, block, len, prefix),
            }
            self.ring_bell(at);
        }
        Ok(())
    }
}
