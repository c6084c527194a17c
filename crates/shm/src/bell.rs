//! The doorbell: a byte per reader, raised while it sleeps.
//!
//! All readers of one writer share it, so that the writer looks at one word for eight of them. Whoever lies
//! here wakes others for nothing, or lets them sleep until they look by themselves.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::Words;
use crate::atomic::fence;
use crate::layout::PAGE_BYTES;

/// How many readers a doorbell has bytes for.
pub const READERS: usize = PAGE_BYTES;

/// How somebody sleeps, and so how it is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleeps {
    /// By the futex of the word that it polls.
    OnFutex,
    /// By a descriptor: a byte on the link's socket wakes it.
    OnDescriptor,
}

impl Sleeps {
    /// As it stands in a word or byte.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::OnFutex => 1,
            Self::OnDescriptor => 2,
        }
    }

    /// From a word; `None` where it says that nobody sleeps.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number & HOW {
            0 => None,
            1 => Some(Self::OnFutex),
            _ => Some(Self::OnDescriptor),
        }
    }
}

const HOW: u64 = 3;
const TURN_SHIFT: u32 = 2;
const BYTE: u64 = 0xff;

const fn place(reader: usize) -> (usize, u32) {
    (reader / 8, (reader % 8) as u32 * 8)
}

/// Raises a reader's byte. What it does next is look once more whether anything came. `turn` is another one
/// each time: by it the writer knows a sleep for which it has given a wake-up already.
///
/// The fence pairs with [`after_commit`]: either the writer sees the byte, or the reader what was committed
/// before the writer looked.
pub fn raise(bell: &impl Words, reader: usize, how: Sleeps, turn: u8) {
    let (index, shift) = place(reader);
    let word = &bell.words()[index];
    let byte = how.number() | (u64::from(turn) << TURN_SHIFT & BYTE);
    word.fetch_and(!(BYTE << shift), Relaxed);
    word.fetch_or(byte << shift, SeqCst);
    fence(SeqCst);
}

/// Lowers a reader's byte.
pub fn lower(bell: &impl Words, reader: usize) {
    let (index, shift) = place(reader);
    bell.words()[index].fetch_and(!(BYTE << shift), Relaxed);
}

/// To be called between a commit and looking at the words.
#[inline]
pub fn after_commit() {
    fence(SeqCst);
}

/// The bytes of eight readers, from `8 * index` on: 0 where none of them sleeps.
#[inline]
#[must_use]
pub fn raised_word(bell: &impl Words, index: usize) -> u64 {
    bell.words()[index].load(Relaxed)
}

/// A sleep that a reader's byte tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    byte: u8,
    /// How it is to be ended.
    pub how: Sleeps,
}

/// A reader's sleep, by a word of [`raised_word`].
#[inline]
#[must_use]
pub fn in_word(word: u64, reader: usize) -> Option<Raised> {
    let byte = word >> place(reader).1 & BYTE;
    Sleeps::from_number(byte).map(|how| Raised { byte: byte as u8, how })
}
