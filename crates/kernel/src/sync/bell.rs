//! The bell: a word that counts what happened and says whether somebody listens.
//!
//! | bits | |
//! |---|---|
//! | 0 | 1 while somebody may be waiting |
//! | 1–31 | counted up at each ring; it comes round after 2^31 of them |
//!
//! Who waits sleeps on the whole word. So a wait that begins after a ring was counted does not sleep through
//! the next, and taking the mark down by mistake only wakes those who put it up.
//!
//! The steps are written over [`Word`], so that the tests can run them in a model checker.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::futex::{self, Waited};
use crate::io::Deadline;

/// What the bell needs of a word.
pub trait Word {
    /// An error of waking.
    type Error;
    /// `fetch_or`, SeqCst: the value before.
    fn fetch_or(&self, bits: u32) -> u32;
    /// `fetch_add`, SeqCst: the value before.
    fn fetch_add(&self, value: u32) -> u32;
    /// `compare_exchange`, SeqCst: whether it was changed.
    fn replace(&self, old: u32, new: u32) -> bool;
    /// Wakes up to `count` of those who sleep on the word; how many.
    ///
    /// # Errors
    /// Those of the system call.
    fn wake(&self, count: u32) -> core::result::Result<u32, Self::Error>;
}

impl Word for AtomicU32 {
    type Error = crate::Error;

    #[inline]
    fn fetch_or(&self, bits: u32) -> u32 {
        AtomicU32::fetch_or(self, bits, Ordering::SeqCst)
    }

    #[inline]
    fn fetch_add(&self, value: u32) -> u32 {
        AtomicU32::fetch_add(self, value, Ordering::SeqCst)
    }

    #[inline]
    fn replace(&self, old: u32, new: u32) -> bool {
        self.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn wake(&self, count: u32) -> Result<u32> {
        futex::wake(self, count)
    }
}

/// Somebody may be waiting.
pub const LISTENED: u32 = 1;
const STEP: u32 = 2;

/// Puts the mark up. What it returns is what to sleep on.
#[inline]
pub fn listen(word: &impl Word) -> u32 {
    word.fetch_or(LISTENED) | LISTENED
}

/// Sleeps while the bell is as it was heard last.
pub(super) fn wait(word: &AtomicU32, seen: u32, deadline: Deadline) -> Result<Waited> {
    futex::wait(word, seen, deadline)
}

/// Rings for one. Whoever is about to sleep and has not yet is woken too.
///
/// # Errors
/// Those of waking.
#[inline]
pub fn ring_one<W: Word>(word: &W) -> core::result::Result<(), W::Error> {
    let before = word.fetch_add(STEP);
    if before & LISTENED != 0 { wake_one(word, before.wrapping_add(STEP)) } else { Ok(()) }
}

/// The mark comes down before the wake, for only then nobody falls asleep in between whom the next ring
/// would not see. It goes up again if there was somebody to wake, for there may be more.
#[cold]
fn wake_one<W: Word>(word: &W, rung: u32) -> core::result::Result<(), W::Error> {
    let unmarked = rung & !LISTENED;
    let is_down = word.replace(rung, unmarked);
    if word.wake(1)? > 0 && is_down && word.fetch_or(LISTENED) & !LISTENED != unmarked {
        // Somebody rang meanwhile and found no mark.
        word.wake(u32::MAX)?;
    }
    Ok(())
}

/// Rings for all.
///
/// # Errors
/// Those of waking.
#[inline]
pub fn ring_all<W: Word>(word: &W) -> core::result::Result<(), W::Error> {
    let before = word.fetch_add(STEP);
    if before & LISTENED != 0 {
        // Before the wake: whoever fell asleep until here is woken, whoever does later finds the word
        // changed, or has put the mark up again.
        let rung = before.wrapping_add(STEP);
        word.replace(rung, rung & !LISTENED);
        word.wake(u32::MAX)?;
    }
    Ok(())
}
