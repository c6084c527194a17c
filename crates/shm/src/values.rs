//! The values of a state: blocks in segments, of which each change takes another one.
//!
//! A block has a version, and its length with the number of its entry, and then the bytes. Which block has the
//! newest value of an entry is said by the entry ([`crate::feed`]). A value is written to a block that has been
//! nobody's newest for at least [`spare`] further values of its size; only then does its entry point there. So a
//! reader that copies a block sees it overwritten only if the writer has set so many values meanwhile: then it
//! looks again, and finds out by the version.
//!
//! docs/design/state-links.md draws the blocks, and says what is found when a process dies at any step, or lies.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::atomic::{AtomicU64, LOOKS, PAGE_BYTES, fence};
use crate::layout::WORD_BYTES;
use crate::{Misbehaved, Words, copy_in, copy_out};

/// Blocks begin at multiples of this, in bytes.
pub const UNIT_BYTES: u64 = 64;
/// What comes before a value in its block, in bytes.
pub const HEADER_BYTES: u64 = 16;
/// The longest value, in bytes.
pub const LARGEST_BYTES: u64 = (1 << 30) - HEADER_BYTES;
/// Segments of a writer at most.
pub const MOST_SEGMENTS: usize = 1024;
/// A segment, in bytes.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = PAGE_BYTES..=1 << 30;

const FIRST_SEGMENT_BYTES: u64 = 16 << 10;
const LARGE_SEGMENT_BYTES: u64 = 64 << 20;
const WORDS_OF_HEADER: usize = (HEADER_BYTES / WORD_BYTES) as usize;
const WORDS_OF_UNIT: usize = (UNIT_BYTES / WORD_BYTES) as usize;

/// A version that no value has: the block is being written.
const WRITING: u64 = u64::MAX;

const UNIT_BITS: u32 = 24;
const SEGMENT_SHIFT: u32 = UNIT_BITS;
const VERSION_SHIFT: u32 = UNIT_BITS + 10;
const VERSION_MASK: u64 = (1 << (64 - VERSION_SHIFT)) - 1;

/// Where a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    segment: u32,
    unit: u32,
}

/// A block as an entry names it: where it is, and the low bits of its version.
fn named(spot: Spot, version: u64) -> u64 {
    // Never 0, which is no block: version 0 is none.
    u64::from(spot.unit)
        | u64::from(spot.segment) << SEGMENT_SHIFT
        | (version & VERSION_MASK) << VERSION_SHIFT
}

fn spot_of(name: u64) -> Spot {
    Spot {
        segment: (name >> SEGMENT_SHIFT) as u32 & (MOST_SEGMENTS as u32 - 1),
        unit: name as u32 & ((1 << UNIT_BITS) - 1),
    }
}

/// How many blocks of a size are kept unused, longest unused first, before one is used again.
#[must_use]
pub const fn spare(block_bytes: u64) -> usize {
    match block_bytes {
        0..=4096 => crate::atomic::SPARE_BLOCKS,
        4097..=65_536 => 16,
        _ => 3,
    }
}

/// The blocks of a writer.
#[derive(Debug)]
pub struct Values<W> {
    segments: Vec<W>,
    /// The first unit of the last segment that was never used.
    fresh: u64,
    /// Blocks that are nobody's newest, by the logarithm of their units, longest unused first.
    unused: Vec<VecDeque<Spot>>,
    bytes: u64,
}

impl<W> Default for Values<W> {
    fn default() -> Self {
        Self { segments: Vec::new(), fresh: 0, unused: Vec::new(), bytes: 0 }
    }
}

impl<W: Words> Values<W> {
    /// A block for a value of this length. `None`: there has to be [another segment](Self::next_segment_bytes).
    pub fn take(&mut self, len: u64) -> Option<Spot> {
        let class = class_of(len);
        let units = 1_u64 << class;
        if self.unused.len() <= class {
            self.unused.resize_with(class + 1, VecDeque::new);
        }
        if self.unused[class].len() >= spare(units * UNIT_BYTES) {
            return self.unused[class].pop_front();
        }
        let last = self.segments.last()?;
        let has = last.words().len() as u64 * WORD_BYTES / UNIT_BYTES;
        if self.fresh + units > has {
            return None;
        }
        let spot = Spot { segment: self.segments.len() as u32 - 1, unit: self.fresh as u32 };
        self.fresh += units;
        Some(spot)
    }

    /// A block that was used before, although there are few: where there is no memory for more. Never the
    /// newest of any entry, and never the only one.
    pub fn take_again(&mut self, len: u64) -> Option<Spot> {
        let unused = self.unused.get_mut(class_of(len))?;
        if unused.len() > 1 { unused.pop_front() } else { None }
    }

    /// How large another segment is to be; `None`: there are as many as may be, or `most_bytes` would be too few.
    #[must_use]
    pub fn next_segment_bytes(&self, len: u64, most_bytes: u64) -> Option<u64> {
        let block = UNIT_BYTES << class_of(len);
        let grown = (FIRST_SEGMENT_BYTES << self.segments.len().min(12)).min(LARGE_SEGMENT_BYTES);
        let bytes = grown.max(block).next_multiple_of(PAGE_BYTES as u64);
        let possible = self.segments.len() < MOST_SEGMENTS
            && bytes <= *SEGMENT_BYTES.end() as u64
            && (self.segments.is_empty() || self.bytes + bytes <= most_bytes);
        possible.then_some(bytes)
    }

    /// Adds a segment: its number.
    pub fn add(&mut self, memory: W) -> u32 {
        self.bytes += memory.words().len() as u64 * WORD_BYTES;
        self.segments.push(memory);
        self.fresh = 0;
        self.segments.len() as u32 - 1
    }

    /// The memory of all segments, in their order.
    pub fn segments(&self) -> impl Iterator<Item = &W> {
        self.segments.iter()
    }

    /// Writes a value to a block that was taken: what its entry is to say. `version` is at least 1, and another
    /// one each time.
    pub fn write(&self, spot: Spot, at: u64, version: u64, bytes: &[u8]) -> u64 {
        let first = spot.unit as usize * WORDS_OF_UNIT;
        let words = &self.segments[spot.segment as usize].words()[first..];
        words[0].store(WRITING, Relaxed);
        // Partner: the acquire fence in `read`. Who copies any of what follows sees that it is being written.
        fence(Release);
        words[1].store(bytes.len() as u64 | at << 32, Relaxed);
        copy_in(&words[WORDS_OF_HEADER..], bytes);
        // Who sees the entry that names this version sees all of it: that is released later.
        words[0].store(version, Relaxed);
        named(spot, version)
    }

    /// The block of a value of this length is nobody's newest any more.
    pub fn give_back(&mut self, spot: Spot, len: u64) {
        if let Some(unused) = self.unused.get_mut(class_of(len)) {
            unused.push_back(spot);
        }
    }
}

/// The logarithm of the units of a block for a value of this length.
fn class_of(len: u64) -> usize {
    let units = (len + HEADER_BYTES).div_ceil(UNIT_BYTES).next_power_of_two();
    units.trailing_zeros() as usize
}

/// What came of reading a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It was copied: its version.
    Value(u64),
    /// No value was set.
    Nothing,
    /// It lies in a segment that has not come: which.
    NoSegment(u32),
}

/// Copies that were overwritten, at most, of small values and of large ones. A writer that keeps to the rules sets
/// [`spare`] others during each.
const MOST_COPIES: u32 = 1_000;
const MOST_LARGE_COPIES: u32 = 8;
const LARGE_BYTES: usize = 256 << 10;

/// Copies the newest value of an entry. `name` gives what the entry says, newly each time; `segment` the memory
/// of a segment.
///
/// # Errors
/// The value cannot be, or never becomes whole.
pub fn read<'a, W: Words + 'a>(
    at: u64,
    name: impl Fn() -> u64,
    segment: impl Fn(u32) -> Option<&'a W>,
    largest: usize,
    bytes: &mut Vec<u8>,
) -> Result<Read, Misbehaved> {
    read_by(at, name, segment, largest, bytes, copy_out)
}

/// As [`read`]. `copy` fills the bytes with what the words say: a writer can be let go on in the middle of it.
///
/// # Errors
/// As [`read`].
pub fn read_by<'a, W: Words + 'a>(
    at: u64,
    name: impl Fn() -> u64,
    segment: impl Fn(u32) -> Option<&'a W>,
    largest: usize,
    bytes: &mut Vec<u8>,
    mut copy: impl FnMut(&[AtomicU64], &mut [u8]),
) -> Result<Read, Misbehaved> {
    let (mut copies, mut large) = (0, 0);
    for _ in 0..LOOKS {
        let name = name();
        if name == 0 {
            return Ok(Read::Nothing);
        }
        let spot = spot_of(name);
        let Some(memory) = segment(spot.segment) else {
            return Ok(Read::NoSegment(spot.segment));
        };
        let first = spot.unit as usize * WORDS_OF_UNIT;
        let words = memory.words().get(first..).unwrap_or_default();
        let Some((header, rest)) = words.split_at_checked(WORDS_OF_HEADER) else {
            return Err(Misbehaved("a value beyond its segment"));
        };
        let version = header[0].load(Relaxed);
        if version == WRITING || version & VERSION_MASK != name >> VERSION_SHIFT {
            // It was used again since the entry was looked at.
            std::hint::spin_loop();
            continue;
        }
        let said = header[1].load(Relaxed);
        let len = (said & u64::from(u32::MAX)) as usize;
        let can_be = said >> 32 == at && len <= largest && len.div_ceil(8) <= rest.len();
        if can_be {
            bytes.resize(len, 0);
            copy(rest, bytes);
        }
        // Partner: the release fence in `write`.
        fence(Acquire);
        if header[0].load(Relaxed) == version {
            if !can_be {
                return Err(Misbehaved("a value that cannot be"));
            }
            return Ok(Read::Value(version));
        }
        copies += 1;
        large += u32::from(can_be && len >= LARGE_BYTES);
        if copies >= MOST_COPIES || large >= MOST_LARGE_COPIES {
            break;
        }
    }
    Err(Misbehaved("a value that is never whole"))
}
