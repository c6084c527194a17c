//! A receiver, as its sender knows it: its ring, and what lies in it unsettled.

use std::collections::VecDeque;

use switchboard_shm::Misbehaved;
use switchboard_shm::arena::{Block, PLACE_BYTES};
use switchboard_shm::barrier::Sleeper;
use switchboard_shm::ring::{Claim, Kind, PREFIX_BYTES, Prefix, RingWriter};

use super::backlog::{Body, Waiting};
use super::unsettled::{Message, Unsettled};
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::control::LinkId;
use crate::transport::shm::hello::Id;
use crate::transport::shm::memory::Own;
use crate::transport::shm::writing::Reader;

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) id: Id,
    pub(super) reader: Reader,
    pub(super) ring: RingWriter<Own>,
    window: Window,
    /// The largest message that it takes.
    pub(super) largest: u64,
    unsettled: Unsettled,
    /// It was told that no message follows.
    pub(super) ended: bool,
    /// What it knows of this end's sleeps.
    pub(super) sleeper: Sleeper,
    /// Room in its ring is lent: nothing else goes there.
    pub(super) lent: bool,
}

/// What a receiver takes unsettled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) messages: usize,
    pub(super) bytes: u64,
}

/// Payload of the frame of a small message.
#[inline]
pub(super) fn small_bytes(len: usize, prefix: Prefix) -> u64 {
    len as u64 + if prefix == Prefix::default() { 0 } else { PREFIX_BYTES as u64 }
}

impl Receiver {
    pub(super) fn new(
        (id, reader): (Id, Reader),
        ring: RingWriter<Own>,
        window: Window,
        largest: u64,
    ) -> Self {
        let sleeper = Sleeper::new(reader.cursor.busy());
        let unsettled = Unsettled::new();
        Self { id, reader, ring, window, largest, unsettled, ended: false, sleeper, lent: false }
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    pub(super) fn link(&self) -> LinkId {
        self.reader.link
    }

    /// Messages in its ring that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Those of them that are nowhere else.
    pub(super) fn pending(&self) -> usize {
        self.unsettled.iter().filter(|message| !message.taken_back).count()
    }

    /// Whether it takes a frame of this payload, as far as is known, or when looked at again.
    #[inline]
    pub(super) fn takes(&mut self, frame_bytes: u64, len: u64) -> bool {
        self.is_open_for(len) && self.ring.claim(frame_bytes).is_some()
    }

    /// Whether it takes a message of this length, if there is room in the ring.
    #[inline]
    pub(super) fn is_open_for(&self, len: u64) -> bool {
        if self.ended
            || self.lent
            || len > self.largest
            || self.unsettled.len() >= self.window.messages
        {
            return false;
        }
        self.unsettled.bytes() + len <= self.window.bytes || self.unsettled.len() == 0
    }

    /// Commits a small message for which there is room.
    #[inline]
    pub(super) fn put_small(&mut self, payload: &[u8], prefix: Prefix, frame_bytes: u64) {
        let Some(claim) = self.ring.claim(frame_bytes) else {
            unreachable!("chosen because it has room")
        };
        if prefix.priority > 0 {
            self.ring.set_priorities();
        }
        let (kind, begin) = if prefix == Prefix::default() {
            (Kind::Message, 0)
        } else {
            self.ring.write(&claim, 0, &prefix.to_bytes());
            (Kind::Prefixed, PREFIX_BYTES)
        };
        self.ring.write(&claim, begin, payload);
        self.commit_small(claim, (kind, begin), payload.len(), prefix);
    }

    /// Commits a message that was written, behind so many bytes of a prefix.
    ///
    /// It is noted after that: the receiver need not wait for what is only this side's.
    #[inline(always)]
    pub(super) fn commit_small(
        &mut self,
        claim: Claim,
        (kind, begin): (Kind, usize),
        len: usize,
        prefix: Prefix,
    ) {
        let frame_bytes = (begin + len) as u64;
        let (payload, end) = (claim.payload() + begin as u64, claim.end_of(frame_bytes));
        self.ring.commit(claim, kind, frame_bytes);
        self.unsettled.push(Message {
            payload: (payload, len as u32),
            end,
            prefix,
            block: None,
            taken_back: false,
        });
    }

    /// Commits the place of a large message, for which there is room.
    pub(super) fn put_large(
        &mut self,
        place: &[u8; PLACE_BYTES],
        (block, len): (Block, u64),
        prefix: Prefix,
    ) {
        let Some(claim) = self.ring.claim(Blocks::FRAME_BYTES) else {
            unreachable!("chosen because it has room")
        };
        if prefix.priority > 0 {
            self.ring.set_priorities();
        }
        self.commit_large(claim, place, (block, len), prefix);
    }

    /// Commits a large message that was written.
    pub(super) fn commit_large(
        &mut self,
        claim: Claim,
        place: &[u8; PLACE_BYTES],
        (block, len): (Block, u64),
        prefix: Prefix,
    ) {
        self.ring.write(&claim, 0, place);
        self.unsettled.push(Message {
            payload: (claim.payload(), len as u32),
            end: claim.end(),
            prefix,
            block: Some((block, len)),
            taken_back: false,
        });
        self.ring.commit(claim, Kind::InArena, Blocks::FRAME_BYTES);
    }

    /// Looks what was settled in order. How many messages.
    pub(super) fn settle(&mut self, blocks: &mut Blocks) -> Result<u64, Misbehaved> {
        let (seen, head) = (self.reader.cursor.seen(), self.ring.head());
        let cursor = self.reader.cursor.peek(head)?;
        // Else what is said to be unsettled would be overwritten, and given to another so.
        if cursor != seen && !self.unsettled.ends_at(cursor) {
            return Err(Misbehaved("a cursor within a message"));
        }
        self.reader.cursor.see(cursor);
        let mut count = 0;
        while let Some(message) = self.unsettled.pop_through(cursor) {
            count += u64::from(!message.taken_back);
            if let Some((block, _)) = message.block {
                blocks.give_back(block);
            }
        }
        self.ring.set_smallest_cursor(cursor);
        if self.sleeper.step() {
            self.ring.set_wanted(0);
        }
        Ok(count)
    }

    /// Takes back a message that it gave back; none if that was done already.
    ///
    /// # Errors
    /// It does not have it.
    pub(super) fn take_back(&mut self, number: u64) -> Result<Option<Waiting>, Misbehaved> {
        let message = self.unsettled.get_mut(number);
        let message = message.ok_or(Misbehaved("it gave back what it does not have"))?;
        if std::mem::replace(&mut message.taken_back, true) {
            return Ok(None);
        }
        let (payload, prefix, block) = (message.payload, message.prefix, message.block.take());
        Ok(Some(self.read_back(payload, prefix, block)))
    }

    /// It is gone: how many messages it had settled that were not counted, and the others. Of a liar nothing
    /// is believed any more.
    pub(super) fn take_all_back(
        mut self,
        blocks: &mut Blocks,
        mut lied: bool,
    ) -> (u64, VecDeque<Waiting>) {
        let mut settled = 0;
        if !lied {
            match self.settle(blocks) {
                Ok(count) => settled = count,
                Err(_) => lied = true,
            }
        }
        let mut again = VecDeque::new();
        for (number, message) in self.unsettled.drain() {
            if message.taken_back {
                continue;
            }
            if !lied && self.reader.cursor.is_marked(number) {
                settled += 1;
                if let Some((block, _)) = message.block {
                    blocks.give_back(block);
                }
                continue;
            }
            again.push_back(self.read_back(message.payload, message.prefix, message.block));
        }
        (settled, again)
    }

    /// A message as it has to be given out again.
    fn read_back(
        &self,
        (begin, len): (u64, u32),
        prefix: Prefix,
        block: Option<(Block, u64)>,
    ) -> Waiting {
        let deliveries = prefix.deliveries.saturating_add(1);
        let body = match block {
            Some((block, len)) => Body::Large(block, len),
            None => {
                let mut bytes = vec![0; len as usize];
                self.ring.read_back(begin, &mut bytes);
                Body::Small(bytes)
            }
        };
        Waiting { body, prefix: Prefix { deliveries, ..prefix } }
    }
}
