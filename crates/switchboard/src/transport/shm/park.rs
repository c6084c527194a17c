//! How an endpoint's caller sleeps: docs/design/shm.md, "Sleeping and waking".
//!
//! Two can end a sleep: a peer, by the word that it commits to or the cursor that it stores; and this
//! process's I/O thread, when the control path brought something. The thread cannot change a peer's
//! word, so it wakes until the sleeper has noticed.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use switchboard_kernel::futex;
use switchboard_kernel::io::Deadline;
use switchboard_shm::Words;

use super::memory::{Theirs, futex_of, wake_all};

/// A sleep ends by itself after this, and everything is looked at anew: for a peer that lies about
/// who sleeps.
pub(super) const BACKSTOP: Duration = Duration::from_secs(1);

/// A word that somebody sleeps on, with the memory that it lies in.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The header that a reader polls.
    Header(Theirs, usize),
    /// The cursor of the slowest reader.
    Cursor(Theirs, usize),
    /// None of a peer: this side's own, which its I/O thread changes.
    Own,
}

impl Place {
    fn word(&self) -> Option<&AtomicU64> {
        match self {
            Self::Header(memory, index) | Self::Cursor(memory, index) => memory.words().get(*index),
            Self::Own => None,
        }
    }
}

/// What an endpoint's caller and the I/O thread tell each other.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// Counted up whenever the control path brought something.
    news: AtomicU32,
    parked: AtomicBool,
    place: Mutex<Option<Place>>,
}

impl Parking {
    /// What [`sleep`](Self::sleep) compares with; to be read before the last look around.
    pub(super) fn news(&self) -> u32 {
        self.news.load(SeqCst)
    }

    /// Sleeps while the word is `expected` and there are no news since `seen`; at most until the deadline
    /// or the backstop. Whether the backstop ended it.
    pub(super) fn sleep(
        &self,
        place: Place,
        expected: u32,
        seen: u32,
        deadline: Deadline,
    ) -> switchboard_kernel::Result<bool> {
        let until = deadline.min(Deadline::after(BACKSTOP));
        *self.place() = Some(place.clone());
        self.parked.store(true, SeqCst);
        // Partner: the fence in `notify`. Either it sees `parked`, or this sees its news.
        fence(SeqCst);
        let waited = if self.news.load(Relaxed) == seen {
            match place.word() {
                Some(word) => futex::wait(futex_of(word), expected, until),
                None => futex::wait(&self.news, seen, until),
            }
        } else {
            Ok(futex::Waited::ValueChanged)
        };
        self.parked.store(false, SeqCst);
        *self.place() = None;
        Ok(waited? == futex::Waited::TimedOut && !deadline.passed())
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there are news. Whether somebody still has to be woken: see [`wake`](Self::wake).
    pub(super) fn notify(&self) -> bool {
        self.news.fetch_add(1, SeqCst);
        fence(SeqCst);
        self.wake()
    }

    /// Wakes the sleeper. Whether it may not have noticed yet: it may be on its way to sleep, on a word that
    /// nobody here can change. Then wake it again a little later.
    pub(super) fn wake(&self) -> bool {
        if !self.parked.load(SeqCst) {
            return false;
        }
        let place = self.place().clone();
        match place.as_ref().and_then(Place::word) {
            // An error: the memory is gone, and so nobody sleeps there.
            Some(word) => drop(wake_all(word)),
            None => drop(futex::wake(&self.news, 1)),
        }
        self.parked.load(SeqCst) && place.is_some_and(|place| place.word().is_some())
    }
}

/// Polling before sleeping. It pays where the peer runs on another processor and answers soon: whether that is
/// so, only trying tells. (Both ends may be bound to one processor each, or both to the same.)
#[derive(Debug)]
pub(super) struct Spin {
    /// How long, in nanoseconds; adapts. 0: it was in vain lately.
    patience_ns: u32,
    /// Waits without polling, since then.
    skipped: u32,
}

const LONGEST_NS: u32 = 20_000;
const SHORTEST_NS: u32 = 1_000;
/// Looks without a pause in between, at first.
const AT_ONCE: u32 = 128;
/// After so many waits without polling, it is tried again.
const TRY_AFTER: u32 = 64;

impl Spin {
    pub(super) fn new() -> Self {
        // Where only one processor is to be had, the peer hardly runs while this side polls.
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        Self { patience_ns: if alone { 0 } else { LONGEST_NS }, skipped: 0 }
    }

    /// Polls until `ready`, or for as long as that is worth it. Whether it was ready.
    #[inline]
    pub(super) fn poll(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if self.patience_ns == 0 {
            self.skipped += 1;
            if self.skipped < TRY_AFTER {
                return false;
            }
            (self.patience_ns, self.skipped) = (SHORTEST_NS, 0);
        }
        // An answer that comes soon is not to be late by a pause, which may take as long as half of its way.
        for _ in 0..AT_ONCE {
            if ready() {
                self.patience_ns = (self.patience_ns * 2).min(LONGEST_NS);
                return true;
            }
        }
        let mut begun = None;
        loop {
            // Reading the clock takes about as long as some of these; the answer often comes before.
            for _ in 0..64 {
                if ready() {
                    self.patience_ns = (self.patience_ns * 2).min(LONGEST_NS);
                    return true;
                }
                std::hint::spin_loop();
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            if begun.elapsed() >= Duration::from_nanos(u64::from(self.patience_ns)) {
                break;
            }
        }
        let less_ns = self.patience_ns - self.patience_ns / 4;
        self.patience_ns = if less_ns < SHORTEST_NS { 0 } else { less_ns };
        false
    }
}
