//! What a link has to write, and what it has written and not seen acknowledged.
//!
//! Frames are encoded into blocks, which are written as they are and kept until every message in
//! them is settled. Nothing is copied for keeping: a dead link's unsettled messages are read out of
//! its blocks again.

use std::collections::VecDeque;

use super::frame::{HEADER_BYTES, Header, Kind};

/// Small frames are gathered into blocks of this size, so that many go out in one system call.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;

/// Blocks kept for use again.
const SPARE_BLOCKS: usize = 8;

/// A message that was not settled when its link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The message.
    pub payload: Vec<u8>,
    /// Whether a receiver may have seen it: at least a part of it was written.
    pub redelivered: bool,
    /// How often it was given to a receiver.
    pub deliveries: u16,
}

#[derive(Debug, Default)]
struct Block {
    /// Encoded frames; bytes beyond `end` are spare room.
    bytes: Vec<u8>,
    end: usize,
    first_sequence: u64,
    messages: u32,
    settled: u32,
    /// Bytes of the messages that are not settled.
    unsettled_bytes: u64,
    /// How many messages at the front are settled, and where the next one starts.
    prefix: u32,
    prefix_end: usize,
    /// One flag per message once any was settled out of order.
    marks: Vec<bool>,
}

impl Block {
    fn holds(&self, sequence: u64) -> bool {
        sequence >= self.first_sequence && sequence - self.first_sequence < self.messages.into()
    }

    fn all_settled(&self) -> bool {
        self.settled == self.messages
    }

    fn is_settled(&self, sequence: u64) -> bool {
        let at = sequence - self.first_sequence;
        at < u64::from(self.prefix) || self.marks.get(at as usize).copied().unwrap_or(false)
    }

    /// Settles from the front through `sequence`: how many messages and bytes that was.
    fn settle_through(&mut self, sequence: u64) -> (u32, u64) {
        if sequence - self.first_sequence >= u64::from(self.messages) - 1 {
            let count = self.messages - self.settled;
            (self.settled, self.prefix, self.prefix_end) = (self.messages, self.messages, self.end);
            return (count, std::mem::take(&mut self.unsettled_bytes));
        }
        let (mut count, mut bytes, mut prefix, mut end) = (0, 0, self.prefix, self.prefix_end);
        for (header, payload, next) in self.messages_from(self.prefix_end) {
            if header.sequence > sequence {
                break;
            }
            if !self.marks.get(prefix as usize).copied().unwrap_or(false) {
                count += 1;
                bytes += payload.len() as u64;
            }
            prefix += 1;
            end = next;
        }
        (self.prefix, self.prefix_end) = (prefix, end);
        self.settled += count;
        self.unsettled_bytes -= bytes;
        (count, bytes)
    }

    /// Settles one message: its length, or `None` if it was settled already.
    fn settle_one(&mut self, sequence: u64) -> Option<u64> {
        if self.is_settled(sequence) {
            return None;
        }
        let (_, payload, _) =
            self.messages_from(self.prefix_end).find(|(header, ..)| header.sequence == sequence)?;
        let bytes = payload.len() as u64;
        self.marks.resize(self.messages as usize, false);
        self.marks[(sequence - self.first_sequence) as usize] = true;
        self.settled += 1;
        self.unsettled_bytes -= bytes;
        Some(bytes)
    }

    /// The frames of messages from an offset on, with the offset where each ends.
    fn messages_from(&self, mut at: usize) -> impl Iterator<Item = (Header, &[u8], usize)> {
        std::iter::from_fn(move || {
            while at < self.end {
                // These are our own bytes; anything else than a whole frame ends the walk.
                let header = Header::parse(&self.bytes[at..self.end], usize::MAX).ok()??;
                let body = at + HEADER_BYTES;
                at = body + header.body_bytes;
                if header.kind == Kind::Message {
                    return Some((header, self.bytes.get(body..at)?, at));
                }
            }
            None
        })
    }
}

/// Frames to write and messages to remember.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    blocks: VecDeque<Block>,
    /// The block that is being written, as an index, and how far.
    writing: usize,
    written: usize,
    unwritten_bytes: usize,
    last_sequence: u64,
    /// The highest cumulative acknowledgement.
    through: u64,
    outstanding_messages: u64,
    outstanding_bytes: u64,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Bytes encoded and not yet written.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// Messages encoded and not yet settled.
    pub(crate) fn outstanding_messages(&self) -> u64 {
        self.outstanding_messages
    }

    pub(crate) fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes
    }

    /// The sequence of the last message pushed; 0 before the first.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// How far the last message is ahead of the cumulative acknowledgement.
    pub(crate) fn spread(&self) -> u64 {
        self.last_sequence - self.through
    }

    /// Bytes that are not frames: the preface. Only before any frame.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        let (room, _) = self.room(bytes.len());
        room.copy_from_slice(bytes);
        self.commit(bytes.len());
        // Walks over the frames start behind them.
        if let Some(block) = self.blocks.back_mut() {
            block.prefix_end = block.end;
        }
    }

    /// Queues a frame that needs no acknowledgement.
    pub(crate) fn push_control(&mut self, kind: Kind, sequence: u64, body: &[u8]) {
        let header = Header::new(kind, body.len(), sequence).to_bytes();
        let (room, _) = self.room(HEADER_BYTES + body.len());
        room[..HEADER_BYTES].copy_from_slice(&header);
        room[HEADER_BYTES..].copy_from_slice(body);
        self.commit(HEADER_BYTES + body.len());
    }

    /// As [`push_control`](Self::push_control), with a body in two pieces.
    pub(crate) fn push_pieces(&mut self, kind: Kind, sequence: u64, first: &[u8], second: &[u8]) {
        let body = first.len() + second.len();
        let header = Header::new(kind, body, sequence).to_bytes();
        let (room, _) = self.room(HEADER_BYTES + body);
        room[..HEADER_BYTES].copy_from_slice(&header);
        room[HEADER_BYTES..HEADER_BYTES + first.len()].copy_from_slice(first);
        room[HEADER_BYTES + first.len()..].copy_from_slice(second);
        self.commit(HEADER_BYTES + body);
    }

    /// Queues a message.
    #[inline]
    pub(crate) fn push_message(&mut self, payload: &[u8], redelivered: bool, deliveries: u16) {
        self.reserve(payload.len()).copy_from_slice(payload);
        self.commit_message(payload.len(), redelivered, deliveries);
    }

    /// Room for a message of up to `len` bytes, to be filled in place and then committed.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [u8] {
        let (room, _) = self.room(HEADER_BYTES + len);
        &mut room[HEADER_BYTES..]
    }

    /// Queues the first `len` bytes of the room last reserved.
    #[inline]
    pub(crate) fn commit_message(&mut self, len: usize, redelivered: bool, deliveries: u16) {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let mut header = Header::new(Kind::Message, len, sequence);
        header.redelivered = redelivered;
        header.deliveries = deliveries;
        let Some(block) = self.blocks.back_mut() else { return };
        let end = block.end;
        block.bytes[end..end + HEADER_BYTES].copy_from_slice(&header.to_bytes());
        if block.messages == 0 {
            block.first_sequence = sequence;
        }
        block.messages += 1;
        block.unsettled_bytes += len as u64;
        if !block.marks.is_empty() {
            block.marks.push(false);
        }
        self.outstanding_messages += 1;
        self.outstanding_bytes += len as u64;
        self.commit(HEADER_BYTES + len);
    }

    /// Free bytes at the end of the last block, or of a new one.
    #[inline]
    fn room(&mut self, len: usize) -> (&mut [u8], usize) {
        let fits = self.blocks.back().is_some_and(|block| block.bytes.len() - block.end >= len);
        if !fits {
            self.add_block(len);
        }
        let last = self.blocks.len() - 1;
        let block = &mut self.blocks[last];
        let end = block.end;
        (&mut block.bytes[end..end + len], last)
    }

    #[cold]
    fn add_block(&mut self, len: usize) {
        let wanted = len.max(BLOCK_BYTES);
        let spare = self.spare.iter().position(|bytes| bytes.len() >= wanted);
        let bytes = match spare {
            Some(at) => self.spare.swap_remove(at),
            None => vec![0; wanted],
        };
        self.blocks.push_back(Block { bytes, ..Block::default() });
    }

    fn commit(&mut self, len: usize) {
        if let Some(block) = self.blocks.back_mut() {
            block.end += len;
            self.unwritten_bytes += len;
        }
    }

    /// The next bytes to write, and those after them for a vectored write.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks
            .iter()
            .skip(self.writing)
            .enumerate()
            .map(|(n, block)| &block.bytes[if n == 0 { self.written } else { 0 }..block.end])
            .filter(|bytes| !bytes.is_empty())
    }

    /// Says that `n` bytes were written.
    pub(crate) fn wrote(&mut self, mut n: usize) {
        self.unwritten_bytes -= n.min(self.unwritten_bytes);
        while n > 0 && self.writing < self.blocks.len() {
            let left = self.blocks[self.writing].end - self.written;
            let step = left.min(n);
            self.written += step;
            n -= step;
            if step == left {
                if self.writing + 1 == self.blocks.len() {
                    break;
                }
                self.writing += 1;
                self.written = 0;
            }
        }
        self.release();
    }

    /// Drops blocks at the front that are written and settled; keeps their memory for new ones.
    fn release(&mut self) {
        while let Some(front) = self.blocks.front() {
            let written = self.writing > 0 || self.written == front.end;
            if !(written && front.all_settled()) {
                break;
            }
            // The last block stays while it has room: the next frames go there.
            if self.blocks.len() == 1 {
                let block = &mut self.blocks[0];
                let bytes = std::mem::take(&mut block.bytes);
                *block = Block { bytes, ..Block::default() };
                self.written = 0;
                self.writing = 0;
                break;
            }
            if let Some(block) = self.blocks.pop_front()
                && self.spare.len() < SPARE_BLOCKS
            {
                self.spare.push(block.bytes);
            }
            if self.writing > 0 {
                self.writing -= 1;
            } else {
                self.written = 0;
            }
        }
    }

    /// Settles every message up to `sequence`. The number of messages that this settled.
    pub(crate) fn settle_through(&mut self, sequence: u64) -> u64 {
        let before = self.outstanding_messages;
        self.through = self.through.max(sequence);
        for block in &mut self.blocks {
            if block.messages > 0 && block.first_sequence > sequence {
                break;
            }
            if !block.all_settled() {
                let (messages, bytes) = block.settle_through(sequence);
                self.outstanding_messages -= u64::from(messages);
                self.outstanding_bytes -= bytes;
            }
        }
        self.release();
        before - self.outstanding_messages
    }

    /// Settles one message, out of order. `false` if it was settled already.
    pub(crate) fn settle_one(&mut self, sequence: u64) -> bool {
        let block = self.blocks.iter_mut().find(|block| block.holds(sequence));
        let Some(bytes) = block.and_then(|block| block.settle_one(sequence)) else { return false };
        self.outstanding_messages -= 1;
        self.outstanding_bytes -= bytes;
        self.release();
        true
    }

    /// A copy of one unsettled message.
    pub(crate) fn message(&self, sequence: u64) -> Option<Unsettled> {
        let block = self.blocks.iter().find(|block| block.holds(sequence))?;
        if block.is_settled(sequence) {
            return None;
        }
        let (header, payload, _) = block
            .messages_from(block.prefix_end)
            .find(|(header, ..)| header.sequence == sequence)?;
        Some(Unsettled {
            payload: payload.to_vec(),
            redelivered: true,
            deliveries: header.deliveries.saturating_add(1),
        })
    }

    /// Takes every unsettled message, in order.
    pub(crate) fn take_unsettled(&mut self) -> Vec<Unsettled> {
        let mut unsettled = Vec::new();
        for (n, block) in self.blocks.iter().enumerate() {
            for (header, payload, end) in block.messages_from(block.prefix_end) {
                if block.is_settled(header.sequence) {
                    continue;
                }
                let start = end - payload.len() - HEADER_BYTES;
                let seen = n < self.writing || (n == self.writing && self.written > start);
                unsettled.push(Unsettled {
                    payload: payload.to_vec(),
                    redelivered: header.redelivered || seen,
                    deliveries: header.deliveries.saturating_add(u16::from(seen)),
                });
            }
        }
        *self = Self { last_sequence: self.last_sequence, ..Self::default() };
        unsettled
    }
}
