//! The condition variable, which outlives those who wait for it.
//!
//! Source: `futex(2)`; `pthread_cond_wait(3p)` for what is promised. The algorithm and its deaths:
//! `docs/design/sync.md`.

use std::sync::atomic::{AtomicU32, Ordering};

use super::locked::Locked;
use super::mutex::MutexGuard;
use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared};
use super::seats::{Found, Seat, Seats};
use super::{bell, next_look};
use crate::error::Result;
use crate::futex::Waited;
use crate::io::Deadline;
use crate::shared_words::{SharedWords, Slot};

/// A condition variable for a [`Mutex`](super::Mutex): lets go of the mutex, waits until somebody says
/// that something has changed, and takes the mutex again.
///
/// It may return for no reason: wait in a loop that looks whether what one waits for has come, or by
/// [`Condvar::wait_while`]. All who wait at a time use the same mutex.
///
/// *Death.* When a thread dies that waits here, or that was woken here and has not unlocked the mutex
/// since, all others who wait are woken within [`LOOK`](super::LOOK), for what it was told may have been
/// meant for them. The same when somebody dies with the mutex, and when a notifier dies in the middle.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::sync::{Condvar, Mutex, MutexOptions, Shared};
///
/// let mutex = Mutex::anonymous(MutexOptions::new())?;
/// let changed = Condvar::anonymous(())?;
/// let guard = mutex.lock()?.or_repair(|| ())?;
/// let (locked, timed_out) = changed.wait_until(guard, Deadline::after(Duration::from_millis(1)))?;
/// assert!(timed_out && !locked.owner_died());
/// changed.notify_all()?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// Any number of threads wait at a time. While more than 64 do, all of them are woken every
/// [`LOOK`](super::LOOK), to look for themselves: the death of one beyond that number cannot be seen.
#[derive(Debug)]
pub struct Condvar {
    placed: Placed,
    seats: Seats,
}

/// Own words: the bell, how many seats are in use, and whether somebody waits without one.
const BELL: usize = 0;
const USED: usize = 1;
const CROWDED: usize = 2;

const SEATS: u32 = 64;

impl Condvar {
    pub(super) const BYTES: usize = HEADER_BYTES + Seats::bytes(SEATS);

    /// Lets go of the mutex and blocks until woken, then takes the mutex again, which may block too.
    ///
    /// # Errors
    /// `EDEADLK` for a violation of the [`LockOrder`](super::LockOrder): taking the mutex again comes after
    /// all else that this thread holds. `ENOTRECOVERABLE` when the mutex became unusable meanwhile: it is
    /// not held then. Other errors
    /// (`EINVAL` when other bytes are there by now) let go of the mutex, too.
    pub fn wait<'g>(&'g self, guard: MutexGuard<'g>) -> Result<Locked<MutexGuard<'g>>> {
        self.wait_until(guard, Deadline::NEVER).map(|(locked, _)| locked)
    }

    /// As [`Condvar::wait`], until a deadline. Says also whether that passed. Taking the mutex again has
    /// no deadline.
    ///
    /// # Errors
    /// As [`Condvar::wait`].
    pub fn wait_until<'g>(
        &'g self,
        mut guard: MutexGuard<'g>,
        deadline: Deadline,
    ) -> Result<(Locked<MutexGuard<'g>>, bool)> {
        guard.check_order()?;
        let deaths = guard.mutex().deaths();
        let seat = self.sit(guard.take_seat())?;
        guard.give_seat(seat);
        let bell = self.placed.word(BELL);
        // With the mutex held: whoever changes something after this rings for this wait.
        let seen = bell::listen(bell);
        if !guard.has_seat() {
            // After listening: whoever takes this back rings then. Partner: the exchange in `is_crowded`.
            self.placed.word(CROWDED).store(1, Ordering::Release);
        }
        let (mutex, note, seat) = guard.unlock();
        let died = || mutex.is_orphaned() || mutex.deaths() != deaths;
        let timed_out = self.sleep(died, bell, seen, seat.is_some(), deadline);
        let locked = mutex.lock_again(note, seat)?;
        Ok((locked, timed_out?))
    }

    /// As [`Condvar::wait`], for as long as `condition` says so; looks first, and waits only then.
    ///
    /// If somebody died with the mutex, it returns at once, with [`Locked::OwnerDied`], whatever the
    /// condition says: repair first.
    ///
    /// # Errors
    /// As [`Condvar::wait`].
    pub fn wait_while<'g>(
        &'g self,
        mut guard: MutexGuard<'g>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Locked<MutexGuard<'g>>> {
        while condition() {
            match self.wait(guard)? {
                Locked::Consistent(again) => guard = again,
                orphaned => return Ok(orphaned),
            }
        }
        Ok(Locked::Consistent(guard))
    }

    /// Wakes at least one who waits; does nothing, and makes no system call, when nobody does. Never
    /// blocks. Call it with the mutex held, or after.
    ///
    /// # Errors
    /// None that a correct program meets.
    #[inline]
    pub fn notify_one(&self) -> Result<()> {
        bell::ring_one(self.placed.word(BELL))
    }

    /// Wakes all who wait; else as [`Condvar::notify_one`].
    ///
    /// # Errors
    /// As [`Condvar::notify_one`].
    #[inline]
    pub fn notify_all(&self) -> Result<()> {
        bell::ring_all(self.placed.word(BELL))
    }

    /// A seat here, if one is free; the one that the guard has, if it is one of these.
    fn sit<'g>(&'g self, had: Option<Seat<'g>>) -> Result<Option<Seat<'g>>> {
        if let Some(seat) = had.filter(|seat| self.seats.owns(seat)) {
            return Ok(Some(seat));
        }
        match self.seats.sit(self.used())? {
            Found::Seat(seat) => Ok(Some(seat)),
            Found::OfTheDead(seat) => {
                // It may have been told something that was meant for others.
                self.notify_all()?;
                Ok(Some(seat))
            }
            Found::None => Ok(None),
        }
    }

    /// Until the bell rings, somebody died, or the deadline passed; whether it did.
    fn sleep(
        &self,
        has_died: impl Fn() -> bool,
        bell: &AtomicU32,
        seen: u32,
        seated: bool,
        deadline: Deadline,
    ) -> Result<bool> {
        loop {
            match bell::wait(bell, seen, next_look(deadline))? {
                Waited::Woken | Waited::ValueChanged => return Ok(false),
                Waited::TimedOut if deadline.passed() => return Ok(true),
                Waited::TimedOut => {}
            }
            if !seated || has_died() {
                return Ok(false);
            }
            if self.seats.clear_the_dead(self.used())? > 0 {
                self.notify_all()?;
                return Ok(false);
            }
            if self.is_crowded()? {
                return Ok(false);
            }
        }
    }

    /// Whether one may have died of whom nobody would know, so that all look for themselves.
    fn is_crowded(&self) -> Result<bool> {
        let crowded = self.placed.word(CROWDED);
        if crowded.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        if !self.seats.are_all_taken(self.used()) {
            // Whoever waits without a seat is woken for the last time, and finds one then. If this one dies
            // before it rings, its seat is of the dead. Acquire: it listened before it said so.
            crowded.swap(0, Ordering::Acquire);
            self.notify_all()?;
        }
        Ok(true)
    }

    fn used(&self) -> &AtomicU32 {
        self.placed.word(USED)
    }
}

impl Shared for Condvar {
    type Options = ();

    fn bytes((): &()) -> usize {
        Self::BYTES
    }

    fn create_in(slot: Slot, (): ()) -> Result<Self> {
        let shape =
            Shape { kind: Kind::Condvar, number: SEATS, bytes: Self::BYTES, fingerprint: 0 };
        let (placed, seats) = Placed::create(slot, shape, |placed| {
            placed.word(BELL).store(0, Ordering::Relaxed);
            placed.word(USED).store(0, Ordering::Relaxed);
            placed.word(CROWDED).store(0, Ordering::Relaxed);
            Seats::make(placed, HEADER_BYTES, SEATS)
        })?;
        Ok(Self { placed, seats })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Condvar, 0)?;
        let seats = Seats::open(&placed, HEADER_BYTES, SEATS)?;
        Ok(Self { placed, seats })
    }

    fn was_made_with(&self, (): &()) -> bool {
        true
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
