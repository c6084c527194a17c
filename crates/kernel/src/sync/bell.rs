//! The bell: a word that counts what happened and says whether somebody listens.
//!
//! | bits | |
//! |---|---|
//! | 0 | 1 while somebody may be waiting |
//! | 1–31 | counted up at each ring; it comes round after 2^31 of them |
//!
//! Who waits sleeps on the whole word. So a wait that begins after a ring was counted does not sleep through
//! the next, and taking the mark down by mistake only wakes those who put it up.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::futex::{self, Waited};
use crate::io::Deadline;

/// Somebody may be waiting.
pub(super) const LISTENED: u32 = 1;
const STEP: u32 = 2;

/// Puts the mark up. What it returns is what to sleep on.
#[inline]
pub(super) fn listen(word: &AtomicU32) -> u32 {
    word.fetch_or(LISTENED, Ordering::SeqCst) | LISTENED
}

/// Sleeps while the bell is as it was heard last.
pub(super) fn wait(word: &AtomicU32, seen: u32, deadline: Deadline) -> Result<Waited> {
    futex::wait(word, seen, deadline)
}

/// Rings for one. Whoever is about to sleep and has not yet is woken too.
#[inline]
pub(super) fn ring_one(word: &AtomicU32) -> Result<()> {
    let before = word.fetch_add(STEP, Ordering::SeqCst);
    if before & LISTENED != 0 { wake_one(word, before.wrapping_add(STEP)) } else { Ok(()) }
}

/// The mark comes down before the wake, for only then nobody falls asleep in between whom the next ring
/// would not see. It goes up again if there was somebody to wake, for there may be more.
#[cold]
fn wake_one(word: &AtomicU32, rung: u32) -> Result<()> {
    let unmarked = rung & !LISTENED;
    let is_down = take_down(word, rung);
    if futex::wake(word, 1)? > 0
        && is_down
        && word.fetch_or(LISTENED, Ordering::SeqCst) & !LISTENED != unmarked
    {
        // Somebody rang meanwhile and found no mark.
        futex::wake(word, u32::MAX)?;
    }
    Ok(())
}

fn take_down(word: &AtomicU32, rung: u32) -> bool {
    word.compare_exchange(rung, rung & !LISTENED, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Rings for all.
#[inline]
pub(super) fn ring_all(word: &AtomicU32) -> Result<()> {
    let before = word.fetch_add(STEP, Ordering::SeqCst);
    if before & LISTENED != 0 {
        // Before the wake: whoever fell asleep until here is woken, whoever does later finds the word
        // changed, or has put the mark up again.
        take_down(word, before.wrapping_add(STEP));
        futex::wake(word, u32::MAX)?;
    }
    Ok(())
}
