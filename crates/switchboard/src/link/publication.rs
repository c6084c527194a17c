//! What a publisher has published and not everybody has taken: each message encoded once, for all
//! subscribers and the history. `docs/design/link.md` has the rules.
//!
//! Frames lie one behind the other in blocks. A position counts every byte ever published, so that a
//! subscriber's [`Place`] is a number, and falling behind costs nobody a copy.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::{HEADER_BYTES, Header, Kind};

/// Small frames are gathered into blocks of this size; a longer frame has a block of its own.
const BLOCK_BYTES: usize = 64 * 1024;

/// The history is at most this long.
pub(crate) const HISTORY_BYTES: u64 = 4 << 20;

/// Frames, whole ones.
#[derive(Debug)]
struct Block {
    start: u64,
    /// Shared with places that are inside one of its frames: then nothing is added to it.
    bytes: Arc<Vec<u8>>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes from a position on.
    fn from(&self, position: u64) -> &[u8] {
        &self.bytes[(position - self.start) as usize..]
    }
}

/// The messages of one publisher.
#[derive(Debug)]
pub(crate) struct Publication {
    blocks: VecDeque<Block>,
    /// The position behind the last frame.
    end: u64,
    /// The number of the last message; 0 before the first.
    last: u64,
    /// The longest payload so far.
    longest: usize,
    /// How much may wait for a subscriber.
    capacity_bytes: u64,
    /// Where the history begins, and how many messages it has and may have.
    history: u64,
    history_messages: u64,
    most_history_messages: u64,
}

/// Where a subscriber is.
#[derive(Debug)]
pub(crate) struct Place {
    /// The first frame of which no byte is written.
    next: u64,
    /// What was published before does not count as waiting.
    joined: u64,
    /// The longest payload that the subscriber takes.
    longest: usize,
    /// What is left of a frame that was begun: it has to be written to its end.
    begun: Option<Rest>,
    /// More is to be written, and the kernel takes nothing now.
    pub(crate) stuck: bool,
    /// It was stuck already when the last message was published.
    pub(crate) slow: bool,
}

/// The rest of a frame, and the block it is in.
#[derive(Debug)]
struct Rest {
    bytes: Arc<Vec<u8>>,
    from: usize,
    to: usize,
}

impl Publication {
    pub(crate) fn new(capacity_bytes: u32, most_history_messages: u32) -> Self {
        Self {
            blocks: VecDeque::new(),
            end: 0,
            last: 0,
            longest: 0,
            capacity_bytes: capacity_bytes.into(),
            history: 0,
            history_messages: 0,
            most_history_messages: most_history_messages.into(),
        }
    }

    /// The number of the last message; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Publishes a message.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        self.last += 1;
        self.longest = self.longest.max(payload.len());
        let header = Header::new(Kind::Message, payload.len(), self.last).to_bytes();
        let len = HEADER_BYTES + payload.len();
        let bytes = self.room(len);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        self.end += len as u64;
        if self.most_history_messages == 0 {
            self.history = self.end;
            return;
        }
        self.history_messages += 1;
        while self.history_messages > self.most_history_messages
            || self.end - self.history > HISTORY_BYTES
        {
            self.history_messages -= 1;
            self.history = self.after(self.history);
        }
    }

    /// Where the next frame goes.
    fn room(&mut self, len: usize) -> &mut Vec<u8> {
        let fits = self.blocks.back_mut().is_some_and(|block| {
            let is_free = Arc::get_mut(&mut block.bytes).is_some();
            is_free && (block.bytes.is_empty() || block.bytes.len() + len <= BLOCK_BYTES)
        });
        if !fits {
            // A block of which little is used would take more memory than was published.
            let filled = self.blocks.back().is_some_and(|b| b.bytes.len() > BLOCK_BYTES / 2);
            let bytes = Vec::with_capacity(if filled { BLOCK_BYTES.max(len) } else { len });
            self.blocks.push_back(Block { start: self.end, bytes: Arc::new(bytes) });
        }
        let last = self.blocks.len() - 1;
        // Nobody else has it: that was looked at, or it is new.
        Arc::make_mut(&mut self.blocks[last].bytes)
    }

    /// A place for a subscriber that joins, and the number of the first message that it can have.
    pub(crate) fn join(&self, longest: usize) -> (Place, u64) {
        let (next, joined) = (self.history, self.end);
        let place = Place { next, joined, longest, begun: None, stuck: false, slow: false };
        (place, self.number_at(next))
    }

    /// The number of the message at a position.
    fn number_at(&self, position: u64) -> u64 {
        self.header_at(position).map_or(self.last + 1, |header| header.sequence)
    }

    /// Messages that wait for a subscriber, with one that is begun.
    pub(crate) fn waiting_messages(&self, place: &Place) -> u64 {
        self.last + 1 - self.number_at(place.next) + u64::from(place.begun.is_some())
    }

    /// Whether nothing waits for a subscriber.
    pub(crate) fn is_taken(&self, place: &Place) -> bool {
        place.next == self.end && place.begun.is_none()
    }

    /// What counts as waiting for a subscriber, in bytes.
    fn lag(&self, place: &Place) -> u64 {
        self.end - place.next.max(place.joined)
    }

    /// Whether a message of this length may wait for a subscriber. One that is longer than the capacity
    /// goes alone.
    #[inline]
    pub(crate) fn has_room_for(&self, place: &Place, len: usize) -> bool {
        let lag = self.lag(place);
        lag == 0 || lag + (HEADER_BYTES + len) as u64 <= self.capacity_bytes
    }

    /// Drops the oldest messages that wait for a subscriber until the others fit. How many.
    #[inline]
    pub(crate) fn drop_oldest(&self, place: &mut Place) -> u64 {
        let mut dropped = 0;
        while self.lag(place) > self.capacity_bytes {
            let after = self.after(place.next);
            if after == self.end {
                break;
            }
            place.next = after;
            dropped += 1;
        }
        dropped
    }

    /// What to write next for a subscriber, in order, as far as `slices` go. Messages that are longer than
    /// it takes are passed.
    pub(crate) fn unwritten<'a>(&'a self, place: &'a mut Place, slices: &mut [&'a [u8]]) -> usize {
        let to = self.run(place);
        let next = place.next;
        let rest = place.begun.iter().map(|rest| &rest.bytes[rest.from..rest.to]);
        let first = self.blocks.partition_point(|block| block.end() <= next);
        let whole = self.blocks.range(first..).take_while(|block| block.start < to).map(|block| {
            let beyond = block.end().saturating_sub(to) as usize;
            let bytes = block.from(next.max(block.start));
            &bytes[..bytes.len() - beyond]
        });
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(rest.chain(whole)) {
            *slice = bytes;
            count += 1;
        }
        count
    }

    /// Passes messages that a subscriber does not take, and says how far those go that it does.
    fn run(&self, place: &mut Place) -> u64 {
        if place.longest >= self.longest {
            return self.end;
        }
        let takes =
            |at: u64| self.header_at(at).is_some_and(|header| header.body_bytes <= place.longest);
        let mut next = place.next;
        while next < self.end && !takes(next) {
            next = self.after(next);
        }
        let mut to = next;
        while to < self.end && to - next < BLOCK_BYTES as u64 && takes(to) {
            to = self.after(to);
        }
        place.next = next;
        to
    }

    /// Says that `n` bytes of [`unwritten`](Self::unwritten) were written.
    pub(crate) fn wrote(&self, place: &mut Place, n: usize) {
        let mut n = n;
        if let Some(rest) = &mut place.begun {
            let step = n.min(rest.to - rest.from);
            rest.from += step;
            n -= step;
            if rest.from < rest.to {
                return;
            }
            place.begun = None;
        }
        let to = place.next + n as u64;
        if to == self.end {
            place.next = to;
            return;
        }
        let block = &self.blocks[self.blocks.partition_point(|block| block.end() <= to)];
        let mut at = place.next.max(block.start);
        while at < to {
            let end = self.after(at);
            if end > to {
                let offset = |position: u64| (position - block.start) as usize;
                let (from, to) = (offset(to), offset(end));
                place.begun = Some(Rest { bytes: Arc::clone(&block.bytes), from, to });
            }
            at = end;
        }
        place.next = at;
    }

    /// Forgets what neither the history nor any of these places needs.
    pub(crate) fn release<'a>(&mut self, places: impl Iterator<Item = &'a Place>) {
        let needed = places.map(|place| place.next).min().unwrap_or(self.end).min(self.history);
        while self.blocks.front().is_some_and(|block| block.end() <= needed) {
            if self.blocks.len() > 1 {
                self.blocks.pop_front();
                continue;
            }
            // The last one is used again, unless somebody is inside one of its frames.
            match Arc::get_mut(&mut self.blocks[0].bytes) {
                Some(bytes) if bytes.capacity() <= 2 * BLOCK_BYTES => {
                    bytes.clear();
                    self.blocks[0].start = self.end;
                    break;
                }
                _ => self.blocks.clear(),
            }
        }
    }

    /// The header of the frame at a position; `None` at the end.
    fn header_at(&self, position: u64) -> Option<Header> {
        let block = self.blocks.get(self.blocks.partition_point(|b| b.end() <= position))?;
        // These are our own bytes.
        Header::parse(block.from(position), usize::MAX).ok()?
    }

    /// The position behind the frame at this one.
    fn after(&self, position: u64) -> u64 {
        let header = self.header_at(position);
        header.map_or(self.end, |header| position + (HEADER_BYTES + header.body_bytes) as u64)
    }
}

impl Place {
    /// Whether it is inside a frame: nothing else may be written before its end.
    pub(crate) fn is_inside(&self) -> bool {
        self.begun.is_some()
    }
}

#[cfg(test)]
mod tests;
