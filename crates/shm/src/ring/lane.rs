//! The next messages of a ring, for who takes them one by one without going to its reader.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::Shape;
use super::frame::{Kind, NUMBER_SHIFT, TO_LINE, Unit, frame_end, header};
use crate::AtomicU64;
use crate::arena::{PLACE_BYTES, PLACE_WORDS, Place};
use crate::layout::{LINE_BYTES, LINE_WORDS, WORD_BYTES};
use crate::machine::will_read;

/// Where a reader of a ring that loses nothing goes on, for who takes plain messages in its place:
/// [`RingReader::lane`](super::RingReader::lane). The reader goes on behind them when it is told to
/// [pass](super::RingReader::pass_lane); until then their room is kept.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    shape: Shape,
    /// Where the next frame will be.
    position: u64,
    /// Frames that begin here or later are the reader's, which gives room back before.
    end: u64,
    /// The header of the next message, without its length and where the next one begins.
    expected: u64,
    most_bytes: u64,
    most_in_arena: u64,
    /// Of the last message.
    number: u64,
    /// Messages that were taken.
    taken: u64,
    /// The last one is in the arena.
    is_in_arena: bool,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is there yet.
    Nothing,
    /// A plain message: index of its payload's first word among the words of the memory, and its length.
    Message(usize, usize),
    /// Something that the reader has to look at.
    Other,
}

impl Lane {
    /// From a position on, up to where the reader gives room back, after the message of a number.
    pub(super) fn new(shape: Shape, (position, end): (u64, u64), number: u64, most: u64) -> Self {
        let expected = header(Kind::Message, 0, number + 1, Unit::WORD);
        Self {
            shape,
            position,
            end,
            expected,
            most_bytes: most,
            most_in_arena: 0,
            number,
            taken: 0,
            is_in_arena: false,
        }
    }

    /// Messages in the arena too, of at most so many bytes.
    #[inline]
    #[must_use]
    pub fn with_arena(self, most_bytes: u64) -> Self {
        Self { most_in_arena: most_bytes, ..self }
    }

    /// Where the next frame will be.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many messages were taken.
    #[inline(always)]
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Number of the last message.
    #[inline(always)]
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the last message is in the arena. Nothing is taken after it: its writer may wait for its room.
    #[inline]
    #[must_use]
    pub fn is_in_arena(&self) -> bool {
        self.is_in_arena
    }

    /// Whether nothing is there yet. Whoever finds something looks again, and acquires.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self, memory: &[AtomicU64]) -> bool {
        let polled = memory.get(self.shape.word(self.position));
        polled.is_some_and(|polled| polled.load(Relaxed) == 0)
    }

    /// Takes the next message, among the words of the memory, if it is plain.
    #[inline(always)]
    pub fn take(&mut self, memory: &[AtomicU64]) -> Next {
        let word = self.shape.word(self.position);
        let Some(polled) = memory.get(word) else { return Next::Other };
        // Partner: the release store of the commit.
        let header = polled.load(Acquire);
        if header == 0 {
            return Next::Nothing;
        }
        // Of the header that it has to be, the length is open, and where the next one begins.
        let open = header ^ self.expected;
        let len = open & !TO_LINE;
        let room = self.shape.rest(self.position) - WORD_BYTES;
        if len > self.most_bytes || len > room || self.position >= self.end {
            return Next::Other;
        }
        // Its caller comes there some time later.
        if let Some(behind) = memory.get((word | (LINE_WORDS - 1)) + 1)
            && len > LINE_BYTES - WORD_BYTES
        {
            will_read(behind);
        }
        self.position = frame_end(self.position, len, Unit::of(open));
        self.expected = self.expected.wrapping_add(1 << NUMBER_SHIFT);
        self.number += 1;
        self.taken += 1;
        Next::Message(word + 1, len as usize)
    }

    /// Where the next message lies, if it is one in the arena that is to be taken here, and where its frame ends: what
    /// [`pass_in_arena`](Self::pass_in_arena) is for.
    #[inline]
    #[must_use]
    pub fn next_in_arena(&self, memory: &[AtomicU64]) -> Option<(Place, u64)> {
        if self.position >= self.end {
            return None;
        }
        let (words, end) = in_arena_at(self.shape, memory, self.position, self.number)?;
        let (_, place) = Place::from_words(words).ok()?;
        (place.len <= self.most_in_arena).then_some((place, end))
    }

    /// Takes it.
    #[inline]
    pub fn pass_in_arena(&mut self, end: u64) {
        (self.position, self.end) = (end, end);
        self.number += 1;
        self.taken += 1;
        self.is_in_arena = true;
    }
}

/// The words that say where the message at a position lies, after the one of a number, if it is one in the arena; and
/// where its frame ends.
#[inline]
pub(super) fn in_arena_at(
    shape: Shape,
    memory: &[AtomicU64],
    position: u64,
    number: u64,
) -> Option<(&[AtomicU64; PLACE_WORDS], u64)> {
    let word = shape.word(position);
    // Partner: the release store of the commit.
    let found = memory.get(word)?.load(Acquire);
    let len = PLACE_BYTES as u64;
    let wanted = header(Kind::InArena, len, number + 1, Unit::WORD);
    let is_other = (found ^ wanted) & !TO_LINE != 0;
    if is_other || len > shape.rest(position) - WORD_BYTES {
        return None;
    }
    let place = memory.get(word + 1..)?.first_chunk()?;
    Some((place, frame_end(position, len, Unit::of(found))))
}
