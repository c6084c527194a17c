//! A reader's page: how far it has read, and what a queue's receiver has settled.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::barrier::Busy;
use crate::bell::Sleeps;
use crate::layout::{VERSION, reader as at};
use crate::{AtomicU64, Misbehaved, Words};

/// What a reader counts, for those who look from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// Messages missed.
    pub missed: u64,
    /// How often it slept.
    pub sleeps: u64,
    /// How often a sleep that nobody ended found something: should stay 0.
    pub late: u64,
}

/// The page as its reader has it.
#[derive(Debug)]
pub struct OwnCursor<W> {
    memory: W,
    busy: Busy,
}

impl<W: Words> OwnCursor<W> {
    /// Makes the page, of a reader that begins at this position.
    pub fn create(memory: W, busy: Busy) -> Self {
        let words = memory.words();
        words[at::FLAGS_WORD].store(busy.flag(at::FENCES), Relaxed);
        words[at::VERSION_WORD].store(u64::from(VERSION), Relaxed);
        words[at::MAGIC_WORD].store(at::MAGIC, Release);
        Self { memory, busy }
    }

    /// Looks how the writer sleeps, after a store for which it may be sleeping: its word is in the ring's memory.
    #[inline]
    pub fn writer_sleeps(&self, wanted: &AtomicU64) -> Option<Sleeps> {
        Sleeps::from_number(self.busy.look(wanted))
    }

    /// Says how far the reader is: what lies before may be overwritten.
    #[inline]
    pub fn store(&self, position: u64) {
        self.memory.words()[at::CURSOR_WORD].store(position, Release);
    }

    /// The memory.
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// Stores the counters.
    pub fn count(&self, counters: &Counters) {
        let Counters { received, missed, sleeps, late } = *counters;
        for (word, value) in
            self.memory.words()[at::COUNTERS_WORD..].iter().zip([received, missed, sleeps, late])
        {
            word.store(value, Relaxed);
        }
    }

    fn mark(&self, number: u64) {
        let (index, bit) = bit(number);
        let word = &self.memory.words()[index];
        // This process alone stores here.
        word.store(word.load(Relaxed) | bit, Release);
    }

    fn unmark(&self, number: u64) {
        let (index, bit) = bit(number);
        let word = &self.memory.words()[index];
        word.store(word.load(Relaxed) & !bit, Relaxed);
    }
}

const fn bit(number: u64) -> (usize, u64) {
    let place = number % at::SETTLED_BITS;
    (at::SETTLED_WORD + (place / 64) as usize, 1 << (place % 64))
}

/// The page as the writer has it: somebody else's words.
#[derive(Debug)]
pub struct PeerCursor<W> {
    memory: W,
    busy: Busy,
    seen: u64,
}

impl<W: Words> PeerCursor<W> {
    /// Checks a page that came from a peer, of a reader that begins at this position.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub fn open(memory: W, begin: u64) -> Result<Self, Misbehaved> {
        let words = memory.words();
        if words.len() <= at::SLEEPS_WORD {
            return Err(Misbehaved("a reader's page that is too short"));
        }
        if words[at::MAGIC_WORD].load(Acquire) != at::MAGIC {
            return Err(Misbehaved("memory that is no reader's page"));
        }
        if words[at::VERSION_WORD].load(Relaxed) != u64::from(VERSION) {
            return Err(Misbehaved("a reader's page of another version"));
        }
        let busy = Busy::from_flag(words[at::FLAGS_WORD].load(Relaxed), at::FENCES);
        Ok(Self { memory, busy, seen: begin })
    }

    /// What the reader does between storing a cursor and looking whether the writer sleeps.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.busy
    }

    /// How far the reader is; before its first store, where it begins.
    ///
    /// # Errors
    /// When it went back, or beyond `head`.
    #[inline]
    pub fn load(&mut self, head: u64) -> Result<u64, Misbehaved> {
        let cursor = self.peek(head)?;
        self.see(cursor);
        Ok(cursor)
    }

    /// Takes for seen what [`peek`](Self::peek) returned. Something else may stand there by now, which was not checked.
    #[inline]
    pub fn see(&mut self, cursor: u64) {
        self.seen = cursor;
    }

    /// As [`load`](Self::load), and as if nobody had looked.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline]
    pub fn peek(&self, head: u64) -> Result<u64, Misbehaved> {
        let found = self.memory.words()[at::CURSOR_WORD].load(Acquire);
        if found == 0 {
            // Not stored to yet. A reader that stores 0 later only holds itself up.
            return Ok(self.seen);
        }
        if found < self.seen || found > head || !found.is_multiple_of(8) {
            return Err(Misbehaved("a cursor that jumps"));
        }
        Ok(found)
    }

    /// What was last seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether a number of the window is settled out of order.
    #[must_use]
    pub fn is_marked(&self, number: u64) -> bool {
        let (index, bit) = bit(number);
        self.memory.words()[index].load(Acquire) & bit != 0
    }

    /// The memory.
    pub fn memory(&self) -> &W {
        &self.memory
    }
}

/// What a queue's receiver has taken and not settled yet, in the order of the ring.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// The end of the frame of the only one, where there is one and it is not in `taken`: what is settled before the next one is taken
    /// never goes there.
    only: Option<u64>,
    /// End of each message's frame, and whether it is settled. The first one is not.
    taken: VecDeque<(u64, bool)>,
    /// Number of the first of them.
    first: u64,
}

impl Unsettled {
    /// Nothing taken, with the number of the first message to come.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { only: None, taken: VecDeque::new(), first }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len() + usize::from(self.only.is_some())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that the next message was taken; where its frame ends.
    #[inline]
    pub fn take(&mut self, end: u64) {
        if self.is_empty() {
            self.only = Some(end);
        } else {
            self.take_another(end);
        }
    }

    #[inline(never)]
    fn take_another(&mut self, end: u64) {
        self.put_away();
        self.taken.push_back((end, false));
    }

    /// Puts the only one where there is room for others.
    fn put_away(&mut self) {
        self.taken.extend(self.only.take().map(|end| (end, false)));
    }

    /// Settles a message, if it is the oldest and the one behind it is not settled: a short cut, after which
    /// [`settle`](Self::settle) does the rest. Whether the cursor moved.
    #[inline]
    pub fn settle_oldest<W: Words>(&mut self, number: u64, page: &OwnCursor<W>) -> bool {
        if number != self.first || self.taken.get(1).is_some_and(|next| next.1) {
            return false;
        }
        let oldest = self.only.take().or_else(|| self.taken.pop_front().map(|one| one.0));
        let Some(end) = oldest else { return false };
        self.first += 1;
        page.store(end);
        true
    }

    /// Settles a message. Whether the cursor moved; `false` also where the number is not unsettled.
    #[inline]
    pub fn settle<W: Words>(&mut self, number: u64, page: &OwnCursor<W>) -> bool {
        let Some(index) = number.checked_sub(self.first).and_then(|n| usize::try_from(n).ok())
        else {
            return false;
        };
        self.put_away();
        match self.taken.get_mut(index) {
            Some(entry) if !entry.1 => entry.1 = true,
            _ => return false,
        }
        if index > 0 {
            page.mark(number);
            return false;
        }
        let before = self.first;
        let mut end = 0;
        while let Some(&(next, true)) = self.taken.front() {
            end = next;
            self.taken.pop_front();
            self.first += 1;
        }
        page.store(end);
        // Only now: whoever dies in between has said it by the cursor.
        for passed in before + 1..self.first {
            page.unmark(passed);
        }
        true
    }

    /// Whether a number is taken and not settled.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let index = number.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        if self.only.is_some() {
            return index == Some(0);
        }
        index.and_then(|index| self.taken.get(index)).is_some_and(|entry| !entry.1)
    }
}
