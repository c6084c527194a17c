//! How an endpoint's caller sleeps: docs/design/shm.md, "Sleeping and waking".
//!
//! Two can end a sleep: a peer, by the word that it commits to or the cursor that it stores; and this
//! process's I/O thread, when the control path brought something, or when the sleep has lasted too long. The
//! thread cannot change a peer's word, so it wakes until the sleeper has noticed.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use switchboard_kernel::futex;
use switchboard_kernel::io::Deadline;
use switchboard_shm::Words;
use switchboard_shm::bell::FutexWord;

use super::memory::{Bell, Theirs, futex_of};

/// A sleep ends by itself after this, and everything is looked at anew: for a peer that lies about
/// who sleeps. The I/O thread looks so often; so a sleep on a word may last twice as long.
pub(super) const BACKSTOP: Duration = Duration::from_secs(1);

/// A word that somebody sleeps on, with the memory that it lies in.
#[derive(Debug)]
pub(crate) enum Place {
    /// A word of a writer's doorbell.
    Doorbell(Bell, FutexWord),
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
            Self::Doorbell(bell, word) => Some(word.word(bell)),
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
    /// The caller's sleep, by its number; 0: it is awake.
    parked: AtomicU64,
    /// Where it sleeps: the word's address, 0 for `news`. The thread never looks at what is there.
    address: AtomicUsize,
    /// The caller's alone: its sleeps so far.
    sleeps: AtomicU64,
    /// The thread's alone: the sleep that it is ending, and the one that it found when it looked last.
    ending: AtomicU64,
    found: AtomicU64,
    /// The last sleep that the thread ended because it had lasted too long.
    overslept: AtomicU64,
}

impl Parking {
    /// What [`sleep`](Self::sleep) compares with; to be read before the last look around.
    pub(super) fn news(&self) -> u32 {
        self.news.load(SeqCst)
    }

    /// Sleeps while the word is `expected` and there are no news since `seen`; at most until the deadline,
    /// or until the thread finds that it has lasted too long. Whether it did.
    ///
    /// There is no timer for the latter: starting and stopping one takes as long as all else here.
    pub(super) fn sleep(
        &self,
        place: &Place,
        expected: u32,
        seen: u32,
        deadline: Deadline,
    ) -> switchboard_kernel::Result<bool> {
        let word = place.word().map(futex_of);
        let number = self.sleeps.load(Relaxed) + 1;
        self.sleeps.store(number, Relaxed);
        self.address.store(word.map_or(0, |word| std::ptr::from_ref(word).addr()), Relaxed);
        // Partner: `notify`. Either it sees `parked`, or this sees its news.
        self.parked.store(number, SeqCst);
        let waited = if self.news.load(SeqCst) == seen {
            match word {
                Some(word) => futex::wait(word, expected, deadline),
                None => futex::wait(&self.news, seen, deadline),
            }
        } else {
            Ok(futex::Waited::ValueChanged)
        };
        self.parked.store(0, Release);
        waited?;
        Ok(self.overslept.load(Relaxed) == number)
    }

    /// Says that something may change, before it does: nobody goes on by what was known before.
    pub(super) fn stir(&self) {
        self.news.fetch_add(1, SeqCst);
    }

    /// Says that there are news. Whether somebody still has to be woken: see [`wake`](Self::wake).
    pub(super) fn notify(&self) -> bool {
        self.news.fetch_add(1, SeqCst);
        // A later sleep begins with a look at the news.
        self.ending.store(self.parked.load(SeqCst), Relaxed);
        self.wake()
    }

    /// Ends a sleep that was found before. As [`wake`](Self::wake).
    pub(super) fn look(&self) -> bool {
        let parked = self.parked.load(Acquire);
        if parked == 0 || self.found.load(Relaxed) != parked {
            self.found.store(parked, Relaxed);
            return false;
        }
        self.overslept.store(parked, Relaxed);
        self.ending.store(parked, Relaxed);
        self.wake()
    }

    /// Wakes the sleeper. Whether it may not have noticed yet: it may be on its way to sleep, on a word that
    /// nobody here can change. Then wake it again a little later.
    pub(super) fn wake(&self) -> bool {
        let parked = self.parked.load(Acquire);
        if parked == 0 || parked != self.ending.load(Relaxed) {
            return false;
        }
        match self.address.load(Relaxed) {
            0 => drop(futex::wake(&self.news, 1)),
            // Of a later sleep, perhaps, or memory that is gone: then somebody wakes for nothing, or nobody.
            address => drop(futex::wake_at(address, 1)),
        }
        self.parked.load(Acquire) == parked
    }
}

/// Polling before sleeping. It pays where the peer runs on another processor and answers soon: whether that is
/// so, only trying tells. (Both ends may be bound to one processor each, or both to the same.)
#[derive(Debug)]
pub(super) struct Spin {
    /// How long, in nanoseconds; adapts. 0: it was in vain lately.
    patience_ns: u32,
    /// Waits without polling, since then, and how many of them there are to be.
    skipped: u32,
    try_after: u32,
}

const LONGEST_NS: u32 = 20_000;
const SHORTEST_NS: u32 = 1_000;
/// Looks without a pause in between, at first.
const AT_ONCE: u32 = 128;
/// After so many waits without polling, it is tried again: at first, and after many tries in vain.
const TRY_AFTER: u32 = 64;
const TRY_AFTER_AT_MOST: u32 = 1024;

impl Spin {
    pub(super) fn new() -> Self {
        // Where only one processor is to be had, the peer hardly runs while this side polls.
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        let patience_ns = if alone { 0 } else { LONGEST_NS };
        Self { patience_ns, skipped: 0, try_after: TRY_AFTER }
    }

    /// Polls until `ready`, or for as long as that is worth it. Whether it was ready.
    #[inline]
    pub(super) fn poll(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if self.patience_ns == 0 {
            self.skipped += 1;
            if self.skipped < self.try_after {
                return false;
            }
            (self.patience_ns, self.skipped) = (SHORTEST_NS, 0);
            self.try_after = (self.try_after * 2).min(TRY_AFTER_AT_MOST);
        }
        // An answer that comes soon is not to be late by a pause, which may take as long as half of its way.
        for _ in 0..AT_ONCE {
            if ready() {
                self.was_worth_it();
                return true;
            }
        }
        let mut begun = None;
        loop {
            // Reading the clock takes about as long as some of these; the answer often comes before.
            for _ in 0..64 {
                if ready() {
                    self.was_worth_it();
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

    fn was_worth_it(&mut self) {
        self.patience_ns = (self.patience_ns * 2).min(LONGEST_NS);
        self.try_after = TRY_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Runs `beside` again and again while another thread sleeps; what the sleep said.
    fn asleep(parking: &Parking, seen: u32, mut beside: impl FnMut()) -> bool {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                parking.sleep(&Place::Own, 0, seen, Deadline::after(DEADLINE)).expect("a sleep")
            });
            while !sleeper.is_finished() {
                beside();
                std::thread::yield_now();
            }
            sleeper.join().expect("no panic")
        })
    }

    #[test]
    fn a_sleep_that_is_found_twice_is_ended() {
        let parking = Parking::default();
        for _ in 0..3 {
            let since = Instant::now();
            assert!(asleep(&parking, 0, || _ = parking.look()), "it lasted too long");
            assert!(since.elapsed() < DEADLINE);
        }
        assert!(!parking.look() && !parking.wake(), "nobody sleeps");
    }

    #[test]
    fn news_end_a_sleep_and_it_is_not_late() {
        let parking = Parking::default();
        let mut told = false;
        let late = asleep(&parking, 0, || {
            if !std::mem::replace(&mut told, true) {
                parking.notify();
            }
            parking.wake();
        });
        assert!(!late);
        // They are news for the next one too, which has not looked.
        let late = parking.sleep(&Place::Own, 0, 0, Deadline::after(DEADLINE)).expect("no sleep");
        assert!(!late && parking.news() == 1);
    }

    #[test]
    fn a_later_sleep_is_not_woken_for_an_earlier_one() {
        let parking = Parking::default();
        assert!(asleep(&parking, 0, || _ = parking.look()));
        // Found once only.
        let short = Deadline::after(Duration::from_millis(20));
        let mut looked = false;
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| parking.sleep(&Place::Own, 0, 0, short).expect("a sleep"));
            while !sleeper.is_finished() {
                let parked = parking.parked.load(SeqCst) != 0;
                if parked && !std::mem::replace(&mut looked, true) {
                    assert!(!parking.look(), "it is new");
                }
                assert!(!parking.wake(), "it is another one");
            }
            assert!(!sleeper.join().expect("no panic"), "its own deadline ended it");
        });
        assert!(short.passed());
    }
}
