//! Large messages: blocks in segments of memory that their writer adds when it needs them.
//!
//! Which block is in use only the writer knows; a frame says where its message lies
//! ([`Place`]), and the reader checks that. A block is used again when every reader is past its frame.
//!
//! A segment has blocks of one size, a power of two. Memory that was given away sealed cannot be taken back, so
//! segments are small at first: each further one of a size has twice as many blocks.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;

use crate::layout::{PAGE_BYTES, WORD_BYTES};
use crate::ring::{PREFIX_BYTES, Prefix};
use crate::{AtomicU64, Misbehaved, Words};

/// The smallest block, in bytes.
pub const SMALLEST_BLOCK_BYTES: u64 = PAGE_BYTES as u64;
/// The largest message, in bytes.
pub const LARGEST_BYTES: u64 = 1 << 30;
/// Segments of a writer at most.
pub const MOST_SEGMENTS: usize = 1024;
/// Bytes of a segment.
pub const SEGMENT_BYTES: RangeInclusive<usize> = PAGE_BYTES..=LARGEST_BYTES as usize;
/// Blocks of the first segment of a size: as few as can be, and where more are wanted, of small ones.
const FIRST_BLOCKS: u64 = 2;
const FIRST_SMALL_BLOCKS: RangeInclusive<u64> = 4..=128;
/// Blocks of a segment at most: one bit each.
const MOST_BLOCKS: u64 = u128::BITS as u64;
/// A segment is no larger than this, unless one block is.
const LARGE_SEGMENT_BYTES: u64 = 64 << 20;

/// A block of an arena that somebody uses.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is forgotten is never used again"]
pub struct Block {
    segment: u32,
    index: u32,
}

/// Where a message lies, as its frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which segment, in the order in which they were added.
    pub segment: u32,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Bytes of a frame's payload that says a place.
pub const PLACE_BYTES: usize = PREFIX_BYTES + 24;
/// The same in words.
pub const PLACE_WORDS: usize = PLACE_BYTES / WORD_BYTES as usize;

impl Place {
    /// The payload of its frame.
    #[must_use]
    pub fn to_bytes(self, prefix: Prefix) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes.copy_from_slice(self.to_words(prefix).map(u64::to_le_bytes).as_flattened());
        bytes
    }

    /// The same in words.
    #[inline]
    #[must_use]
    pub fn to_words(self, prefix: Prefix) -> [u64; PLACE_WORDS] {
        let prefix = u64::from_le_bytes(prefix.to_bytes());
        [prefix, u64::from(self.segment), self.offset, self.len]
    }

    /// From the payload of a frame.
    ///
    /// # Errors
    /// When it is no place that can be.
    pub fn from_bytes(bytes: &[u8; PLACE_BYTES]) -> Result<(Prefix, Self), Misbehaved> {
        let mut words = [0; PLACE_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self::from_numbers(words)
    }

    /// From the words of a frame's payload, each of which is loaded once.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    #[inline]
    pub fn from_words(words: &[AtomicU64; PLACE_WORDS]) -> Result<(Prefix, Self), Misbehaved> {
        Self::from_numbers(words.each_ref().map(|word| word.load(Relaxed)))
    }

    #[inline]
    fn from_numbers(words: [u64; PLACE_WORDS]) -> Result<(Prefix, Self), Misbehaved> {
        let [prefix, segment, offset, len] = words;
        let segment = u32::try_from(segment)
            .ok()
            .filter(|segment| (*segment as usize) < MOST_SEGMENTS)
            .ok_or(Misbehaved("a segment that cannot be"))?;
        if !offset.is_multiple_of(WORD_BYTES) || len > LARGEST_BYTES {
            return Err(Misbehaved("a message at a place that cannot be"));
        }
        Ok((Prefix::from_bytes(prefix.to_le_bytes()), Self { segment, offset, len }))
    }

    /// The words of the message in its segment.
    ///
    /// # Errors
    /// When it reaches beyond.
    pub fn words<'a>(&self, memory: &'a impl Words) -> Result<&'a [AtomicU64], Misbehaved> {
        let first = usize::try_from(self.offset / WORD_BYTES).ok();
        let count = usize::try_from(self.len.div_ceil(WORD_BYTES)).ok();
        let range =
            first.zip(count).and_then(|(first, count)| Some(first..first.checked_add(count)?));
        range
            .and_then(|range| memory.words().get(range))
            .ok_or(Misbehaved("a message that reaches beyond its segment"))
    }
}

#[derive(Debug)]
struct Segment<W> {
    memory: W,
    block_bytes: u64,
    free: Free,
}

/// Which blocks of a segment are free: a bit each. They are taken in the order of their addresses, round and round, in whatever
/// order they were given back. So the one taken next is the one used longest ago, but for those that are held; and it lies
/// behind the one before, which is where processors fetch ahead when somebody reads to the end of a message. In another order
/// they take lines away from where the writer writes (docs/design/shm.md, "By address").
#[derive(Debug)]
struct Free {
    blocks: u128,
    /// The first to look at.
    next: u32,
}

impl Free {
    /// So many blocks, all of them free.
    fn all(blocks: u64) -> Self {
        let beyond = u128::BITS.saturating_sub(blocks.min(MOST_BLOCKS) as u32);
        Self { blocks: u128::MAX.checked_shr(beyond).unwrap_or(0), next: 0 }
    }

    #[inline]
    fn take(&mut self) -> Option<u32> {
        let ahead = self.blocks & (u128::MAX << self.next);
        let from = if ahead == 0 { self.blocks } else { ahead };
        if from == 0 {
            return None;
        }
        let index = from.trailing_zeros();
        self.blocks &= !(1 << index);
        self.next = (index + 1) % u128::BITS;
        Some(index)
    }

    #[inline]
    fn give_back(&mut self, index: u32) {
        self.blocks |= 1 << index;
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.blocks == 0
    }
}

/// The segments of a writer.
#[derive(Debug)]
pub struct Arena<W> {
    segments: Vec<Segment<W>>,
    first_bytes: u64,
}

impl<W> Default for Arena<W> {
    fn default() -> Self {
        Self { segments: Vec::new(), first_bytes: 0 }
    }
}

impl<W: Words> Arena<W> {
    /// With first segments of about so many bytes, where that is at least two blocks. The blocks of a segment are used in turn:
    /// what was read long ago is written to faster, since its lines have left the reader's own caches.
    #[must_use]
    pub fn with_first_bytes(first_bytes: u64) -> Self {
        Self { first_bytes, ..Self::default() }
    }

    /// A block for so many bytes, if one is free.
    pub fn take(&mut self, bytes: u64) -> Option<Block> {
        let wanted = block_bytes(bytes);
        let fitting =
            |segment: &Segment<W>| segment.block_bytes == wanted && !segment.free.is_empty();
        let at = self.segments.iter().position(fitting)?;
        let index = self.segments[at].free.take()?;
        Some(Block { segment: at as u32, index })
    }

    /// Whether there is a block for so many bytes that is free.
    #[must_use]
    pub fn has_free(&self, bytes: u64) -> bool {
        let wanted = block_bytes(bytes);
        self.segments.iter().any(|one| one.block_bytes == wanted && !one.free.is_empty())
    }

    /// How large the next segment for messages of so many bytes is to be, where there is memory for no more than `free_bytes`:
    /// a size of which there is no block yet gets one all the same. `None` where there are as many as may be.
    #[must_use]
    pub fn next_segment_bytes(&self, bytes: u64, free_bytes: u64) -> Option<u64> {
        if self.segments.len() >= MOST_SEGMENTS || bytes > LARGEST_BYTES {
            return None;
        }
        let block = block_bytes(bytes);
        let there = self.segments.iter().filter(|segment| segment.block_bytes == block).count();
        let first = match self.first_bytes / block {
            0 | 1 => FIRST_BLOCKS,
            more => more.clamp(*FIRST_SMALL_BLOCKS.start(), *FIRST_SMALL_BLOCKS.end()),
        };
        let doubled = first << there.min(5);
        let wanted = doubled.min(MOST_BLOCKS).min((LARGE_SEGMENT_BYTES / block).max(1));
        match wanted.min(free_bytes / block) {
            0 => (there == 0).then_some(block),
            blocks => Some(block * blocks),
        }
    }

    /// Adds a segment, of a size that [`next_segment_bytes`](Self::next_segment_bytes) gave for so many bytes. Returns
    /// its number.
    pub fn add(&mut self, memory: W, bytes: u64) -> u32 {
        let block_bytes = block_bytes(bytes);
        let blocks = memory.words().len() as u64 * WORD_BYTES / block_bytes;
        self.segments.push(Segment { memory, block_bytes, free: Free::all(blocks) });
        self.segments.len() as u32 - 1
    }

    /// The memory of all segments, in their order.
    pub fn segments(&self) -> impl Iterator<Item = &W> {
        self.segments.iter().map(|segment| &segment.memory)
    }

    /// Where a message of this length in the block lies.
    #[must_use]
    pub fn place(&self, block: &Block, len: u64) -> Place {
        let segment = &self.segments[block.segment as usize];
        Place { segment: block.segment, offset: u64::from(block.index) * segment.block_bytes, len }
    }

    /// The words of a block: the caller's alone until its place is committed.
    #[must_use]
    pub fn room(&self, block: &Block) -> &[AtomicU64] {
        let segment = &self.segments[block.segment as usize];
        let words = (segment.block_bytes / WORD_BYTES) as usize;
        let first = block.index as usize * words;
        &segment.memory.words()[first..first + words]
    }

    /// Nobody uses the block any more.
    pub fn give_back(&mut self, block: Block) {
        self.segments[block.segment as usize].free.give_back(block.index);
    }
}

/// Blocks that readers may still look at, in the order of their frames.
#[derive(Debug, Default)]
pub struct InFlight(VecDeque<(u64, Block)>);

impl InFlight {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A block's frame ends at a position.
    pub fn add(&mut self, block: Block, end: u64) {
        self.0.push_back((end, block));
    }

    /// Every reader is past this position: blocks whose frames end there or before are nobody's any more.
    pub fn reclaim<W: Words>(&mut self, through: u64, arena: &mut Arena<W>) {
        while self.0.front().is_some_and(|(end, _)| *end <= through) {
            let Some((_, block)) = self.0.pop_front() else { break };
            arena.give_back(block);
        }
    }

    /// Where the oldest of the frames ends.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.0.front().map(|(end, _)| *end)
    }
}

/// How large a block for so many bytes is.
#[inline]
#[must_use]
pub fn block_bytes(bytes: u64) -> u64 {
    bytes.next_power_of_two().max(SMALLEST_BLOCK_BYTES)
}
