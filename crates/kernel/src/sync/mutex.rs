//! The mutex: the C library's, robust, with a place and an order.
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `pthread_mutex_consistent(3)`, `pthread_mutex_lock(3p)`.

use std::panic::Location;
use std::sync::atomic::Ordering;

use super::locked::{Locked, Orphaned, Repairable, sealed};
use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared};
use super::order::{LockOrder, Note};
use super::seats::Seat;
use super::{Patience, lock};
use crate::error::Result;
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// A robust mutex between processes. It protects whatever they agree on, and holds no data itself;
/// [`Monitor`](super::Monitor) does.
///
/// Without contention neither locking nor unlocking makes a system call. A C program shares it: a
/// `pthread_mutex_t` lies at offset 64 of the object (see [`pthread::Mutex`]).
///
/// ```
/// use switchboard_kernel::sync::{Locked, Mutex, MutexOptions, Shared};
///
/// let mutex = Mutex::anonymous(MutexOptions::new())?;
/// let guard = match mutex.lock()? {
///     Locked::Consistent(guard) => guard,
///     // Its holder was killed: put right what it may have left half done.
///     Locked::OwnerDied(orphaned) => orphaned.mark_consistent()?,
/// };
/// drop(guard);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// The kernel passes on up to 2048 mutexes of a thread that dies (`ROBUST_LIST_LIMIT`), those of all
/// objects here together.
#[derive(Debug)]
pub struct Mutex {
    inner: pthread::Mutex,
    order: Option<LockOrder>,
    placed: Placed,
}

/// Own word: how often a holder was found to have died. Whoever waits for a condition with the mutex looks
/// whether it changed.
const DEATHS: usize = 0;

const FOR_EVER: Patience = Some(Deadline::NEVER);

impl Mutex {
    pub(super) const BYTES: usize = HEADER_BYTES + OBJECT_BYTES;

    /// Gives the mutex a rank: see [`LockOrder`]. Of this handle; each process says so for itself.
    #[must_use]
    pub fn ordered(mut self, order: LockOrder) -> Self {
        self.order = Some(order);
        self
    }

    /// `pthread_mutex_lock()`: blocks until the mutex is this thread's.
    ///
    /// When its holder died, or its thread ended without unlocking, the mutex is handed on with
    /// [`Locked::OwnerDied`].
    ///
    /// # Errors
    /// `EDEADLK` when this thread holds it already, or for a violation of the [`LockOrder`];
    /// `ENOTRECOVERABLE` when somebody let go of it after its holder died, without marking it
    /// consistent: then it stays unusable; `EINVAL` when other bytes are there by now.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> Result<Locked<MutexGuard<'_>>> {
        let note = self.note(Location::caller())?;
        Ok(self.locked(lock(&self.inner, FOR_EVER)?, note, None))
    }

    /// `pthread_mutex_trylock()`: as [`Mutex::lock`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY` when another thread holds it, and also (or `EDEADLK`) when this one does; else as
    /// [`Mutex::lock`].
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Result<Locked<MutexGuard<'_>>> {
        let note = self.note(Location::caller())?;
        Ok(self.locked(lock(&self.inner, None)?, note, None))
    }

    /// `pthread_mutex_clocklock(CLOCK_MONOTONIC)`: as [`Mutex::lock`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT` when another thread kept it; else as [`Mutex::lock`].
    #[track_caller]
    pub fn lock_until(&self, deadline: Deadline) -> Result<Locked<MutexGuard<'_>>> {
        let note = self.note(Location::caller())?;
        Ok(self.locked(lock(&self.inner, Some(deadline))?, note, None))
    }

    /// Whether the last holder died and nobody has taken it since. No system call.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.inner.is_orphaned()
    }

    #[inline(always)]
    fn note(&self, place: &'static Location<'static>) -> Result<Note> {
        Note::take(std::ptr::from_ref(self).addr(), self.order, false, place)
    }

    /// How often a holder was found to have died.
    pub(super) fn deaths(&self) -> u32 {
        self.placed.word(DEATHS).load(Ordering::Relaxed)
    }

    /// Takes it again for who has waited for a condition.
    pub(super) fn lock_again<'a>(
        &'a self,
        note: Note,
        seat: Option<Seat<'a>>,
    ) -> Result<Locked<MutexGuard<'a>>> {
        Ok(self.locked(lock(&self.inner, FOR_EVER)?, note, seat))
    }

    #[inline(always)]
    fn locked<'a>(
        &'a self,
        locked: pthread::Locked<'a>,
        note: Note,
        seat: Option<Seat<'a>>,
    ) -> Locked<MutexGuard<'a>> {
        match locked {
            pthread::Locked::Consistent(inner) => {
                Locked::Consistent(MutexGuard { inner, seat, mutex: self, note })
            }
            pthread::Locked::OwnerDied(orphaned) => {
                self.count_death();
                let inner = orphaned.into_guard();
                Locked::OwnerDied(Orphaned::new(MutexGuard { inner, seat, mutex: self, note }))
            }
        }
    }

    /// Whoever dies before this leaves the mutex to the next, who comes here too.
    #[cold]
    #[inline(never)]
    fn count_death(&self) {
        self.placed.word(DEATHS).fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared for Mutex {
    type Options = MutexOptions;

    fn bytes(_: &MutexOptions) -> usize {
        Self::BYTES
    }

    fn create_in(slot: Slot, options: MutexOptions) -> Result<Self> {
        let number = u32::from(options.priority_inheritance);
        let shape = Shape { kind: Kind::Mutex, number, bytes: Self::BYTES, fingerprint: 0 };
        let (placed, inner) = Placed::create(slot, shape, |placed| {
            placed.word(DEATHS).store(0, Ordering::Relaxed);
            pthread::Mutex::create(placed.part(HEADER_BYTES, OBJECT_BYTES)?, options)
        })?;
        Ok(Self { inner, order: None, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Mutex, 0)?;
        let inner = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        Ok(Self { inner, order: None, placed })
    }

    fn was_made_with(&self, options: &MutexOptions) -> bool {
        self.placed.number() == u32::from(options.priority_inheritance)
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}

/// A locked mutex. Dropping it unlocks (`pthread_mutex_unlock()`) and wakes one who waits.
///
/// It stays with the thread that locked.
#[derive(Debug)]
#[must_use = "dropping it unlocks the mutex"]
pub struct MutexGuard<'a> {
    // Dropped in this order: unlocked first, so that whoever dies with the mutex still has its seat.
    inner: pthread::Guard<'a>,
    seat: Option<Seat<'a>>,
    mutex: &'a Mutex,
    note: Note,
}

impl<'a> MutexGuard<'a> {
    /// The mutex.
    #[must_use]
    pub fn mutex(&self) -> &'a Mutex {
        self.mutex
    }

    /// Whether this thread holds it, which a child made by `fork(2)` does not.
    pub(super) fn is_of_this_thread(&self) -> bool {
        self.inner.is_of_this_thread()
    }

    /// Lets go of the mutex, but not of what is kept while waiting for a condition.
    pub(super) fn unlock(self) -> (&'a Mutex, Note, Option<Seat<'a>>) {
        drop(self.inner);
        (self.mutex, self.note, self.seat)
    }

    /// Checks that it may be taken again after a wait, with all that this thread holds.
    pub(super) fn check_order(&self) -> Result<()> {
        self.note.check_again()
    }

    /// What is kept while waiting for a condition, which may have been one of another condition.
    pub(super) fn take_seat(&mut self) -> Option<Seat<'a>> {
        self.seat.take()
    }

    pub(super) fn has_seat(&self) -> bool {
        self.seat.is_some()
    }

    pub(super) fn give_seat(&mut self, seat: Option<Seat<'a>>) {
        self.seat = seat;
    }
}

impl sealed::Sealed for MutexGuard<'_> {}

impl Repairable for MutexGuard<'_> {
    fn mark_consistent(&self) -> Result<()> {
        self.inner.make_consistent()
    }

    // The C library does the rest when it is unlocked.
    fn give_up(&self) {}
}
