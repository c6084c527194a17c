//! The words of a log's bell: how many segments were made, how far each lane is, and who wants to be woken.
//! `docs/design/log.md`, "Waiting".

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use switchboard_kernel as kernel;

use super::{END_BYTES, ENDS_AT, FLAG_AT, Folder, RECEIVED_AT, RING_AT, ROOM_AT};
use crate::error::Error;
use crate::log::ends::{self, End};

/// Counts segments made.
const GENERATION_AT: usize = 0;
/// Where that count begins, at random: far above what anybody would guess, and far below what no log comes to.
const FIRST_BEGINNING: u64 = 1 << 40;
const LAST_BEGINNING: u64 = 1 << 59;

impl Folder {
    /// A word of the bell; `None` where it may only be read.
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.page.atomic_u64(at).ok()
    }

    /// Changes when there are new segments.
    pub(crate) fn generation(&self) -> u64 {
        // It acquires: pairs with the count of `changed`. Where the page is gone, who asks looks.
        self.page.load_u64(GENERATION_AT).unwrap_or_else(|_| self.looks.fetch_add(1, Relaxed))
    }

    /// How far a lane was written, as far as that was noted.
    pub(crate) fn noted_end(&self, lane: u32) -> End {
        End::read(lane, &self.end_words(lane))
    }

    /// Notes how far a lane is written: when a segment is made, and when its sender ends.
    pub(crate) fn note_end(&self, lane: u32, end: End) {
        for (at, value) in end.write(lane, &self.end_words(lane)) {
            if let Some(word) = self.word(Self::end_at(lane) + 8 * at) {
                // What was written before it stays there, whoever dies.
                word.store(value, Release);
            }
        }
    }

    /// The lane is locked by who asks, so that nobody changes them meanwhile.
    fn end_words(&self, lane: u32) -> [u64; ends::WORDS] {
        std::array::from_fn(|at| self.page.load_u64(Self::end_at(lane) + 8 * at).unwrap_or(0))
    }

    fn end_at(lane: u32) -> usize {
        ENDS_AT + END_BYTES * lane as usize
    }

    /// Has the count of segments begin at random where it has not begun: numbers of segments are part of each checksum, so
    /// that who sends a message cannot put one into it that holds.
    pub(crate) fn begin_count(&self) -> Result<(), Error> {
        let Some(count) = self.word(GENERATION_AT) else { return Ok(()) };
        if count.load(Relaxed) == 0 {
            let mut first = [0; 8];
            kernel::random::fill(&mut first)
                .map_err(|error| self.kernel("cannot begin a log at random", error))?;
            let first =
                u64::from_ne_bytes(first) % (LAST_BEGINNING - FIRST_BEGINNING) + FIRST_BEGINNING;
            // Somebody else may have been faster.
            let _ = count.compare_exchange(0, first, SeqCst, Relaxed);
        }
        Ok(())
    }

    /// Whether somebody received from the queue.
    pub(crate) fn was_received_from(&self) -> bool {
        self.page.load_u64(RECEIVED_AT).unwrap_or(0) != 0
    }

    /// Notes that somebody received from the queue, once the table says so: it is missed if it is removed.
    pub(crate) fn note_received(&self) {
        if !self.was_received_from()
            && let Some(word) = self.word(RECEIVED_AT)
        {
            word.store(1, Relaxed);
        }
    }

    /// There is a new segment, or one less.
    pub(crate) fn changed(&self) {
        if let Some(generation) = self.word(GENERATION_AT) {
            generation.fetch_add(1, SeqCst);
        }
        self.ring();
    }

    /// Wakes whoever waits. After a change; one fence and one load when nobody does.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the fence of `raise`: either this sees the flag, or the waiter sees the change.
        fence(SeqCst);
        if let Some(flag) = self.word(FLAG_AT)
            && flag.load(Relaxed) != 0
        {
            self.ring_out(flag);
        }
    }

    #[cold]
    fn ring_out(&self, flag: &AtomicU64) {
        flag.store(0, Relaxed);
        // A bell that cannot be written wakes nobody; they look again by themselves.
        let _ = self.bell.write_at(&[1], RING_AT as u64);
    }

    /// Asks to be woken by the next change, where that is allowed. Look once more after it.
    pub(crate) fn raise(&self) {
        if let Some(flag) = self.word(FLAG_AT) {
            flag.store(1, Relaxed);
            fence(SeqCst);
        }
    }

    /// As [`raise`](Self::raise), and asks to be woken when all messages of a lane are settled, too.
    pub(crate) fn raise_for_room(&self) {
        if let Some(room) = self.word(ROOM_AT) {
            room.store(1, Relaxed);
        }
        self.raise();
    }

    /// Whether a sender waits for room. After the table was written.
    pub(crate) fn is_room_wanted(&self) -> bool {
        // Pairs with the fence of `raise`: either this sees the word, or the sender sees the table.
        fence(SeqCst);
        self.page.load_u64(ROOM_AT).unwrap_or(0) != 0
    }

    /// Wakes the senders that wait for room. Who finds none asks again.
    pub(crate) fn tell_of_room(&self) {
        if let Some(room) = self.word(ROOM_AT) {
            room.store(0, Relaxed);
        }
        self.ring();
    }
}
