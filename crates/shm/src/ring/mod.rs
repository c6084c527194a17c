//! A ring of frames: one writer, any number of readers, nobody waits here.
//!
//! A *position* counts bytes from the ring's beginning and only grows; its offset in the ring is the
//! position modulo the capacity. A frame is a header of 8 bytes and the payload, up to a multiple of 8. The
//! word where the next header will be is 0 until that frame is committed, by one store.

mod frame;
mod gathering;
mod grant;
mod lane;
mod reader;
mod writer;

pub use frame::{Frame, Kind, PREFIX_BYTES, Prefix};
pub use gathering::Gathering;
pub use grant::Grant;
pub use lane::{Lane, Next};
pub use reader::{Ahead, Overtaken, RingReader};
pub use writer::{Claim, RingWriter};

use crate::Words;
use crate::barrier::Busy;
use crate::layout::writer as at;
use crate::layout::{PAGE_BYTES, VERSION, WORD_BYTES};
use crate::{Misbehaved, layout};

/// What a writer counts, for those who look from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages committed.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were overwritten before somebody had read them, where the oldest are dropped.
    pub dropped: u64,
    /// How often the writer slept.
    pub sleeps: u64,
    /// How many wake-ups it gave.
    pub wakes: u64,
    /// How often a sleep that nobody ended found something: should stay 0.
    pub late: u64,
}

/// No ring comes to a position or a number beyond this: so what is added to one of them never overflows.
const LAST: u64 = u64::MAX / 2;

/// Where a ring lies in its memory. Private to each side: what the other one writes there later counts for
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Capacity less one.
    mask: u64,
    lossy: bool,
    busy: Busy,
}

impl Shape {
    #[inline]
    fn capacity(self) -> u64 {
        self.mask + 1
    }

    /// Index of the word at a position.
    #[inline]
    fn word(self, position: u64) -> usize {
        at::RING_WORD + (self.offset(position) / WORD_BYTES) as usize
    }

    #[inline]
    fn offset(self, position: u64) -> u64 {
        position & self.mask
    }

    /// Bytes from a position to the end of the ring.
    #[inline]
    fn rest(self, position: u64) -> u64 {
        (!position & self.mask) + 1
    }

    /// The largest frame, header included.
    #[inline]
    fn largest_frame(self) -> u64 {
        largest_payload(self.capacity()) + WORD_BYTES
    }

    /// An eighth of the ring: the steps of cursors and of the tail.
    #[inline]
    fn step(self) -> u64 {
        self.capacity() / 8
    }

    fn check_capacity(capacity: u64, words: usize) -> Result<(), Misbehaved> {
        // What cannot be is not calculated with.
        let can_be = capacity.is_power_of_two() && at::CAPACITY_BYTES.contains(&capacity);
        if can_be && words == layout::writer_bytes(capacity as usize) / WORD_BYTES as usize {
            Ok(())
        } else {
            Err(Misbehaved("a ring whose size does not hold"))
        }
    }

    /// What the header page of a peer's memory says.
    fn read(memory: &impl Words) -> Result<Self, Misbehaved> {
        use std::sync::atomic::Ordering::{Acquire, Relaxed};

        let words = memory.words();
        if words.len() < PAGE_BYTES / WORD_BYTES as usize {
            return Err(Misbehaved("a ring that is too short"));
        }
        if words[at::MAGIC_WORD].load(Acquire) != at::MAGIC {
            return Err(Misbehaved("memory that is no ring"));
        }
        if words[at::KIND_WORD].load(Relaxed) as u32 != VERSION {
            return Err(Misbehaved("a ring of another version"));
        }
        let capacity = words[at::CAPACITY_WORD].load(Relaxed);
        let flags = words[at::FLAGS_WORD].load(Relaxed);
        Self::check_capacity(capacity, words.len())?;
        if flags & !(at::LOSSY | at::FENCES) != 0 {
            return Err(Misbehaved("a ring with flags that nobody knows"));
        }
        let busy = Busy::from_flag(flags, at::FENCES);
        Ok(Self { mask: capacity - 1, lossy: flags & at::LOSSY != 0, busy })
    }
}

/// The largest payload that a ring of this capacity takes in a frame, in bytes: a quarter, with a prefix.
#[must_use]
pub const fn largest_payload(capacity_bytes: u64) -> u64 {
    capacity_bytes / 4 + PREFIX_BYTES as u64
}
