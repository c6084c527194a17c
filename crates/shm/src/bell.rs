//! The doorbell: a byte per reader, raised while it sleeps.
//!
//! All readers of one writer share it, so that the writer looks at one word for eight of them. Whoever lies
//! here wakes others for nothing, or lets them sleep until they look by themselves.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::barrier::{Busy, Sleeper};
use crate::layout::{PAGE_BYTES, WORD_BYTES};
use crate::{AtomicU64, Words};

/// How many readers a doorbell has bytes for.
pub const READERS: usize = 3 * PAGE_BYTES / 4;

/// Behind them: the words that readers sleep on.
const FIRST_FUTEX_WORD: usize = READERS / WORD_BYTES as usize;
const FUTEX_WORDS: usize = PAGE_BYTES / WORD_BYTES as usize - FIRST_FUTEX_WORD;

/// Where a reader sleeps: a word whose low half its writer changes before it wakes those who sleep there.
///
/// Not the header that the reader polls, which is read-only to it: a futex there takes the kernel a second, slower
/// look at the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexWord(usize);

impl FutexWord {
    /// Of all readers of a topic: one wake-up is for all of them.
    pub const SHARED: Self = Self(FIRST_FUTEX_WORD);

    /// Of a reader that gets messages of its own. Few others have the same.
    #[must_use]
    pub const fn of(reader: usize) -> Self {
        Self(FIRST_FUTEX_WORD + reader % FUTEX_WORDS)
    }

    /// The word.
    #[inline]
    pub fn word(self, bell: &impl Words) -> &AtomicU64 {
        &bell.words()[self.0]
    }

    /// What the kernel is to compare with: read before the reader [raises](raise) its byte, for after that it may be
    /// changed by the wake-up.
    #[inline]
    #[must_use]
    pub fn before_sleep(self, bell: &impl Words) -> u32 {
        // Not after the byte is raised.
        self.word(bell).load(Acquire) as u32
    }

    /// Changes the word, so that nobody begins to sleep there who was not awake to see it; who sleeps is to be woken
    /// next. Only the writer does so.
    #[inline]
    pub fn change_for_wake(self, bell: &impl Words) -> &AtomicU64 {
        let word = self.word(bell);
        // Who finds it changed finds what was committed.
        word.store(word.load(Relaxed).wrapping_add(1), Release);
        word
    }
}

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
            1 => Some(Self::OnFutex),
            2 => Some(Self::OnDescriptor),
            _ => None,
        }
    }
}

const HOW: u64 = 3;
const TURN_SHIFT: u32 = 2;
const BYTE: u64 = 0xff;

const fn place(reader: usize) -> (usize, u32) {
    (reader / 8, (reader % 8) as u32 * 8)
}

/// Raises a reader's byte. What it does next is pass the barrier ([`Sleeper::pass`]), and look once more whether
/// anything came: either the writer sees the byte, or the reader what was committed before the writer looked.
/// `turn` is another one each time: by it the writer knows a sleep for which it has given a wake-up already.
pub fn raise(bell: &impl Words, reader: usize, how: Sleeps, turn: u8, sleeper: &mut Sleeper) {
    let byte = how.number() | (u64::from(turn) << TURN_SHIFT & BYTE);
    change(bell, reader, byte, sleeper);
}

/// Says that a reader is awake: its byte becomes [`Sleeper::awake`].
pub fn awake(bell: &impl Words, reader: usize, sleeper: &mut Sleeper) {
    let byte = sleeper.awake();
    change(bell, reader, byte, sleeper);
}

/// Lowers a reader's own byte to 0: it has not slept for long, or nobody woke it; whatever others made of it.
pub fn lower(bell: &impl Words, reader: usize, sleeper: &mut Sleeper) {
    clear(bell, reader);
    sleeper.byte = 0;
}

/// At once, so that it is never 0 in between: the writer would not fence then. The reader knows what its byte
/// is; if somebody else changed it, it is wrong from then on, and put right by [`lower`].
fn change(bell: &impl Words, reader: usize, byte: u64, sleeper: &mut Sleeper) {
    let (index, shift) = place(reader);
    bell.words()[index].fetch_xor((sleeper.byte ^ byte) << shift, Relaxed);
    sleeper.byte = byte;
}

/// Raises the byte of a reader that does not have the doorbell, and said that it sleeps. The writer does so itself,
/// between two commits: so it sees the byte after the next one, and there is nothing to fence for.
pub fn raise_for(bell: &impl Words, reader: usize, how: Sleeps, turn: u8) {
    let (index, shift) = place(reader);
    let byte = how.number() | (u64::from(turn) << TURN_SHIFT & BYTE);
    clear(bell, reader);
    bell.words()[index].fetch_or(byte << shift, Relaxed);
}

/// Makes a byte 0: its reader is new, or gone.
pub fn clear(bell: &impl Words, reader: usize) {
    let (index, shift) = place(reader);
    bell.words()[index].fetch_and(!(BYTE << shift), Relaxed);
}

/// Looks who sleeps, after a commit: calls `wake` with each of the first `words` words of which a reader does.
#[inline]
pub fn after_commit(bell: &impl Words, words: usize, busy: Busy, wake: impl FnMut(usize, u64)) {
    busy.pass();
    let Some(words) = bell.words().get(..words) else { return };
    for (index, word) in words.iter().enumerate() {
        if word.load(Relaxed) != 0 {
            return after_all(words, index, busy, wake);
        }
    }
}

/// Somebody sleeps now and then, in the word of this index, and nobody in those before.
#[cold]
fn after_all(words: &[AtomicU64], first: usize, busy: Busy, mut wake: impl FnMut(usize, u64)) {
    let mut busy = busy;
    for (index, word) in words.iter().enumerate().skip(first) {
        if word.load(Relaxed) == 0 {
            continue;
        }
        let raised = busy.look_again(word);
        // One fence is enough for all that follows.
        busy = Busy::Fences;
        if any_sleeps(raised) {
            wake(index, raised);
        }
    }
}

/// As [`after_commit`], for a commit that concerns one reader.
#[inline]
pub fn after_commit_for(bell: &impl Words, reader: usize, busy: Busy) -> Option<Raised> {
    in_word(busy.look(&bell.words()[place(reader).0]), reader)
}

/// The bytes of eight readers, from `8 * index` on.
#[inline]
#[must_use]
pub fn raised_word(bell: &impl Words, index: usize) -> u64 {
    bell.words()[index].load(Relaxed)
}

/// Whether any of eight readers sleeps.
#[inline]
fn any_sleeps(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    // Of the two low bits of a byte just one is set.
    (word ^ word >> 1) & LOW != 0
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
