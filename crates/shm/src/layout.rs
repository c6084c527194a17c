//! Where everything lies: docs/design/shm.md, "W", "R" and "B". Indices count words of 8 bytes.

/// A page, in bytes.
pub const PAGE_BYTES: usize = crate::atomic::PAGE_BYTES;
/// A word, in bytes.
pub const WORD_BYTES: u64 = 8;
/// A line of the cache, in bytes: what goes from one processor to another at a time.
pub const LINE_BYTES: u64 = 64;
/// The same in words.
pub const LINE_WORDS: usize = (LINE_BYTES / WORD_BYTES) as usize;
/// What the version words say.
pub const VERSION: u32 = 1;

/// The header page of a writer's memory.
pub mod writer {
    /// `SWBDRNG1`.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"SWBDRNG1");
    /// Index of the magic word.
    pub const MAGIC_WORD: usize = 0;
    /// Version in the low half, pattern in the high one.
    pub const KIND_WORD: usize = 1;
    /// Capacity of the ring, in bytes.
    pub const CAPACITY_WORD: usize = 2;
    /// [`LOSSY`] or 0.
    pub const FLAGS_WORD: usize = 3;
    /// 1 once messages with a priority come.
    pub const PRIORITIES_WORD: usize = 4;
    /// What lies before this position may have been overwritten.
    pub const TAIL_WORD: usize = 8;
    /// How the writer sleeps for room or acknowledgements; 0: not at all.
    pub const WANTED_WORD: usize = 16;
    /// Counters: see [`crate::ring::Counters`].
    pub const COUNTERS_WORD: usize = 24;
    /// The first word of the ring.
    pub const RING_WORD: usize = super::PAGE_BYTES / 8;

    /// Flag: the oldest frames are dropped.
    pub const LOSSY: u64 = 1;
    /// Flag: the writer fences after each commit ([`crate::barrier::Busy::Fences`]).
    pub const FENCES: u64 = 2;

    /// The least and the greatest capacity, in bytes; it is a power of two.
    pub const CAPACITY_BYTES: std::ops::RangeInclusive<u64> =
        crate::atomic::LEAST_CAPACITY_BYTES..=64 << 20;
}

/// A reader's page.
pub mod reader {
    /// `SWBDCUR1`.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"SWBDCUR1");
    /// Index of the magic word.
    pub const MAGIC_WORD: usize = 0;
    /// The version.
    pub const VERSION_WORD: usize = 1;
    /// [`FENCES`] or 0.
    pub const FLAGS_WORD: usize = 2;
    /// How far the reader is.
    pub const CURSOR_WORD: usize = 8;
    /// Numbers settled out of order, a bit each.
    pub const SETTLED_WORD: usize = 16;
    /// How many words those are.
    pub const SETTLED_WORDS: usize = 8;
    /// How many numbers have a bit.
    pub const SETTLED_BITS: u64 = SETTLED_WORDS as u64 * 64;
    /// Counters: see [`crate::cursor::Counters`].
    pub const COUNTERS_WORD: usize = 32;
    /// How the reader sleeps, where it has no doorbell.
    pub const SLEEPS_WORD: usize = 40;

    /// Flag: the reader fences after each cursor ([`crate::barrier::Busy::Fences`]).
    pub const FENCES: u64 = 1;
}

/// Bytes of a writer's memory with a ring of this capacity.
#[must_use]
pub const fn writer_bytes(capacity_bytes: usize) -> usize {
    PAGE_BYTES + capacity_bytes
}

/// The memory of an event or a state.
pub mod feed {
    /// `SWBDFEED`.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"SWBDFEED");
    /// Index of the magic word.
    pub const MAGIC_WORD: usize = 0;
    /// Version in the low half, pattern in the high one.
    pub const KIND_WORD: usize = 1;
    /// How many entries there is room for.
    pub const CAPACITY_WORD: usize = 2;
    /// [`FENCES`] or 0.
    pub const FLAGS_WORD: usize = 3;
    /// How many changes there were; readers sleep on its low half.
    pub const CHANGES_WORD: usize = 8;
    /// How many entries there are.
    pub const COUNT_WORD: usize = 16;
    /// Changes, bytes, sleeps of readers that were ended.
    pub const COUNTERS_WORD: usize = 24;
    /// How many counters there are.
    pub const COUNTERS: usize = 3;
    /// Of how many changes it is known what they were of.
    pub const RECENT: u64 = crate::atomic::RECENT_CHANGES;
    /// The first of those words.
    pub const RECENT_WORD: usize = 32;

    /// Flag: the writer fences after each change ([`crate::barrier::Busy::Fences`]).
    pub const FENCES: u64 = 1;
    /// How many entries there may be room for.
    pub const CAPACITY: std::ops::RangeInclusive<u64> = 1..=1 << 20;

    /// Index of the word that says what a change was of.
    #[inline]
    #[must_use]
    pub const fn recent_word(number: u64) -> usize {
        RECENT_WORD + (number % RECENT) as usize
    }

    /// Index of the first of the two words of an entry.
    #[inline]
    #[must_use]
    pub const fn entry_word(at: u64) -> usize {
        RECENT_WORD + RECENT as usize + at as usize * 2
    }

    /// Bytes of memory for this many entries.
    #[must_use]
    pub const fn bytes(capacity: u64) -> u64 {
        let bytes = entry_word(capacity) as u64 * super::WORD_BYTES;
        bytes.next_multiple_of(super::PAGE_BYTES as u64)
    }
}
