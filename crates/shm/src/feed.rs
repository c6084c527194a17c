//! A feed: a table of entries that its one writer changes, and which of them changed last.
//!
//! An event's entry is an id and how often it happened; a state's is a key and where its newest value lies
//! ([`crate::values`]). The *changes* count every change of any entry; the low half of that word is what
//! readers sleep on. The last [`RECENT`](layout::RECENT) changes say which entry each was of. A reader that is
//! further behind looks at all entries: so nothing is lost, however slow it is, and the writer never waits.
//!
//! docs/design/event.md draws the memory, and says what is found when a process dies at any step, or lies.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::atomic::fence;
use crate::barrier::Busy;
use crate::layout::feed as layout;
use crate::layout::{VERSION, WORD_BYTES};
use crate::{AtomicU64, Misbehaved, Words};

/// One entry, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is of: never changes.
    pub name: u64,
    /// What changes.
    pub value: u64,
}

/// The feed as its writer has it.
#[derive(Debug)]
pub struct FeedWriter<W> {
    memory: W,
    busy: Busy,
    capacity: u64,
    count: u64,
    changes: u64,
}

impl<W: Words> FeedWriter<W> {
    /// Makes a feed in memory of [`layout::bytes`] for this many entries, which is all zeroes.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn create(memory: W, pattern: u32, capacity: u64, busy: Busy) -> Result<Self, Misbehaved> {
        if !fits(memory.words(), capacity) {
            return Err(Misbehaved("a feed whose size does not hold"));
        }
        let words = memory.words();
        words[layout::KIND_WORD].store(u64::from(pattern) << 32 | u64::from(VERSION), Relaxed);
        words[layout::CAPACITY_WORD].store(capacity, Relaxed);
        words[layout::FLAGS_WORD].store(busy.flag(layout::FENCES), Relaxed);
        words[layout::MAGIC_WORD].store(layout::MAGIC, Release);
        Ok(Self { memory, busy, capacity, count: 0, changes: 0 })
    }

    /// The memory.
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// What its writer does before it looks who sleeps.
    #[inline]
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.busy
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many changes there were.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds an entry: its number. `None` where there is no room. It is seen at once, without a change.
    pub fn add(&mut self, entry: Entry) -> Option<u64> {
        if self.count >= self.capacity {
            return None;
        }
        let at = self.count;
        let words = self.memory.words();
        let first = layout::entry_word(at);
        words[first].store(entry.name, Relaxed);
        words[first + 1].store(entry.value, Relaxed);
        self.count += 1;
        // Partner: `FeedReader::count`. Whoever sees the entry counted sees what it is.
        words[layout::COUNT_WORD].store(self.count, Release);
        Some(at)
    }

    /// Changes an entry that was added, and says so. Then it is to be looked who sleeps.
    #[inline]
    pub fn change(&mut self, at: u64, value: u64) {
        let words = self.memory.words();
        // Partner: `FeedReader::entry`. What the value leads to was stored before.
        words[layout::entry_word(at) + 1].store(value, Release);
        // Release: who reads this number of a later turn sees, behind its fence, that the changes before it were
        // counted, and so that it was overtaken.
        words[layout::recent_word(self.changes)].store(at, Release);
        self.changes += 1;
        // Partner: `FeedReader::take`. The entry and its number come before the count. This is the commit.
        words[layout::CHANGES_WORD].store(self.changes, Release);
    }

    /// The word that readers sleep on.
    #[must_use]
    pub fn changes_word(&self) -> &AtomicU64 {
        &self.memory.words()[layout::CHANGES_WORD]
    }

    /// Stores what is counted, for those who look from outside.
    pub fn count_up(&self, counters: [u64; layout::COUNTERS]) {
        for (word, value) in self.memory.words()[layout::COUNTERS_WORD..].iter().zip(counters) {
            word.store(value, Relaxed);
        }
    }
}

/// Which entries have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Those that were given.
    These,
    /// Perhaps any: too many changes came in between.
    Any,
}

/// The feed as a reader has it: somebody else's words.
#[derive(Debug)]
pub struct FeedReader<W> {
    memory: W,
    busy: Busy,
    capacity: u64,
    /// The largest count that was seen.
    count: u64,
    /// The changes that were taken.
    seen: u64,
}

impl<W: Words> FeedReader<W> {
    /// Checks memory that came from a peer. The reader begins at the first change.
    ///
    /// # Errors
    /// When it is no feed of this pattern.
    pub fn open(memory: W, pattern: u32) -> Result<Self, Misbehaved> {
        let words = memory.words();
        if words.len() <= layout::FLAGS_WORD
            || words[layout::MAGIC_WORD].load(Acquire) != layout::MAGIC
        {
            return Err(Misbehaved("memory that is no feed"));
        }
        if words[layout::KIND_WORD].load(Relaxed) != u64::from(pattern) << 32 | u64::from(VERSION) {
            return Err(Misbehaved("a feed of another version or pattern"));
        }
        let capacity = words[layout::CAPACITY_WORD].load(Relaxed);
        if !fits(words, capacity) {
            return Err(Misbehaved("a feed whose size does not hold"));
        }
        let flags = words[layout::FLAGS_WORD].load(Relaxed);
        if flags & !layout::FENCES != 0 {
            return Err(Misbehaved("a feed with flags that nobody knows"));
        }
        let busy = Busy::from_flag(flags, layout::FENCES);
        Ok(Self { memory, busy, capacity, count: 0, seen: 0 })
    }

    /// The memory.
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// What the writer does before it looks who sleeps.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.busy
    }

    /// The changes that were taken: the low half is what to sleep for.
    #[inline]
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether there was a change that was not taken.
    #[inline]
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.memory.words()[layout::CHANGES_WORD].load(Acquire) != self.seen
    }

    /// Takes what has changed: calls `with` for each change of which it is known what it was of. An entry may
    /// be given several times; at most [`RECENT`](layout::RECENT) are.
    ///
    /// # Errors
    /// The writer counts back, or names an entry that is not there.
    pub fn take(&mut self, mut with: impl FnMut(u64)) -> Result<Changed, Misbehaved> {
        let words = self.memory.words();
        // Partner: the commit in `change`.
        let changes = words[layout::CHANGES_WORD].load(Acquire);
        let Some(new) = changes.checked_sub(self.seen) else {
            return Err(Misbehaved("it counts changes back"));
        };
        if new > layout::RECENT {
            self.seen = changes;
            return Ok(Changed::Any);
        }
        let count = self.count()?;
        let words = self.memory.words();
        let mut any = false;
        for number in self.seen..changes {
            let at = words[layout::recent_word(number)].load(Relaxed);
            any |= at >= count;
            if at < count {
                with(at);
            }
        }
        let from = std::mem::replace(&mut self.seen, changes);
        // Partner: the release stores of `change`. Whatever overwrote a number that was read was counted up to
        // the change before it.
        fence(Acquire);
        let now = words[layout::CHANGES_WORD].load(Relaxed);
        // The one that comes next may be half there.
        if from < changes && now.wrapping_sub(from) >= layout::RECENT {
            return Ok(Changed::Any);
        }
        if any {
            Err(Misbehaved("a change of an entry that is not there"))
        } else {
            Ok(Changed::These)
        }
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// Fewer than before, or more than there is room for.
    pub fn count(&mut self) -> Result<u64, Misbehaved> {
        // Partner: the store in `add`.
        let count = self.memory.words()[layout::COUNT_WORD].load(Acquire);
        if count < self.count || count > self.capacity {
            return Err(Misbehaved("it counts entries that cannot be"));
        }
        self.count = count;
        Ok(count)
    }

    /// The entry of a number below the [count](Self::count).
    #[inline]
    #[must_use]
    pub fn entry(&self, at: u64) -> Entry {
        let words = self.memory.words();
        let first = layout::entry_word(at.min(self.capacity - 1));
        let name = words[first].load(Relaxed);
        // Partner: the store in `change`.
        Entry { name, value: words[first + 1].load(Acquire) }
    }
}

/// Whether a feed of this capacity is what these words are.
fn fits(words: &[AtomicU64], capacity: u64) -> bool {
    layout::CAPACITY.contains(&capacity)
        && layout::bytes(capacity) == words.len() as u64 * WORD_BYTES
}
