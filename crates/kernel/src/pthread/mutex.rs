//! The robust, process-shared mutex.
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `pthread_mutex_consistent(3)`, `pthread_mutex_lock(3p)`,
//! `pthread_mutexattr_setprotocol(3p)`, `get_robust_list(2)`.

#![allow(unsafe_code)]

mod making;

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, pthread_mutex_t};
use rustix::time::ClockId;

use crate::error::{Error, Result};
use crate::futex;
use crate::io::Deadline;
use crate::shared_words::{Slot, create_in, open_in};
use making::{KIND, PRIORITY_INHERITANCE, check, initialise};

/// What a new mutex is like. Default: no priority inheritance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MutexOptions {
    /// Whether its holder runs with the highest priority of those who wait for it
    /// (`PTHREAD_PRIO_INHERIT`); no. It costs a system call where somebody waits, and matters where
    /// real-time priorities are used.
    pub priority_inheritance: bool,
}

impl MutexOptions {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the holder inherits the priority of those who wait.
    #[must_use]
    pub fn priority_inheritance(mut self, inherit: bool) -> Self {
        self.priority_inheritance = inherit;
        self
    }
}

/// A `pthread_mutex_t` that is process-shared, robust and error-checking.
///
/// It protects whatever the processes agree on, and holds no data itself. Without contention
/// neither locking nor unlocking makes a system call. Who waits longest is usually, but not
/// always, first.
///
/// ```
/// use switchboard_kernel::pthread::{Locked, Mutex, MutexOptions, OBJECT_BYTES};
/// use switchboard_kernel::shared_words::SharedWords;
///
/// let memory = SharedWords::create(4096)?;
/// let mutex = Mutex::create(memory.slot(0, OBJECT_BYTES)?, MutexOptions::new())?;
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
/// The kernel passes on up to 2048 mutexes of a thread that dies (`ROBUST_LIST_LIMIT`); more than
/// that stay locked.
///
/// One wake-up can be lost: that of a thread which is woken for the mutex and dies before it takes it,
/// if another that did not wait takes it first. Those who still sleep are woken only when somebody waits
/// for the mutex anew. [`sync::Mutex`](crate::sync::Mutex) looks for itself.
#[derive(Debug)]
pub struct Mutex {
    /// Not dropped while a thread of this process holds the mutex: the C library has linked it into
    /// a list of that thread, by its address.
    slot: ManuallyDrop<Slot>,
    /// Whether this handle is locked, by a thread that may have ended since. Stored to with the mutex
    /// held, which orders it, and by nobody else: there is no need to load it first, which would cost.
    held: AtomicBool,
}

impl Mutex {
    /// `pthread_mutex_init()`: makes a mutex in shared memory, exactly once.
    ///
    /// # Errors
    /// `EEXIST` when there is one; `EAGAIN` when another process is making one now, or was killed
    /// doing so ([`Slot::clear`]); `EINVAL` for a slot of less than [`super::OBJECT_BYTES`], and when
    /// other bytes are there; `EOPNOTSUPP` where the C library or the kernel cannot do it.
    pub fn create(slot: Slot, options: MutexOptions) -> Result<Self> {
        let details = if options.priority_inheritance { PRIORITY_INHERITANCE } else { 0 };
        create_in(&slot, KIND, details, |address| initialise(address.cast(), options))?;
        Ok(Self::of(slot))
    }

    /// A mutex that was made in shared memory by another process, or earlier. No system call.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EAGAIN` while it is being made; `EINVAL` when other bytes are
    /// there, those of a program with another word size, or those of a mutex that is not robust,
    /// process-shared and error-checking.
    pub fn open(slot: Slot) -> Result<Self> {
        let details = open_in(&slot, KIND)?;
        check(&slot, details & PRIORITY_INHERITANCE != 0)?;
        Ok(Self::of(slot))
    }

    fn of(slot: Slot) -> Self {
        Self { slot: ManuallyDrop::new(slot), held: AtomicBool::new(false) }
    }

    /// `pthread_mutex_lock()`: blocks until the mutex is this thread's.
    ///
    /// When its holder died, or ended without unlocking, the mutex is handed on with
    /// [`Locked::OwnerDied`].
    ///
    /// # Errors
    /// `EDEADLK` when this thread holds it already; `ENOTRECOVERABLE` when somebody let go of it
    /// after its holder died, without marking it consistent: then it stays unusable;
    /// `EINVAL` when other bytes are there by now.
    #[inline]
    pub fn lock(&self) -> Result<Locked<'_>> {
        // SAFETY: `raw` is an initialised mutex that stays mapped, also when it is held for longer
        // than this handle lives.
        self.taken("pthread_mutex_lock", unsafe { libc::pthread_mutex_lock(self.raw()) })
    }

    /// `pthread_mutex_trylock()`: as [`Mutex::lock`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY` when another thread holds it, and also (or `EDEADLK`) when this one does; else as
    /// [`Mutex::lock`].
    #[inline]
    pub fn try_lock(&self) -> Result<Locked<'_>> {
        // SAFETY: as in `lock`.
        let found = unsafe { libc::pthread_mutex_trylock(self.raw()) };
        if found == libc::ENOTRECOVERABLE {
            self.let_go_of_unrecoverable();
        }
        self.taken("pthread_mutex_trylock", found)
    }

    /// The GNU C library (2.36 for one) forgets to let go when `pthread_mutex_trylock` takes a mutex
    /// only to find that it is not recoverable: later calls of this thread would say `EDEADLK`, and
    /// those of others wait for ever. This does what it meant to do; where it did, nothing.
    #[cold]
    fn let_go_of_unrecoverable(&self) {
        const OWNER_BITS: u32 = 0x3fff_ffff;
        if !cfg!(all(target_env = "gnu", target_pointer_width = "64")) {
            return;
        }
        let word = &self.slot.words()[0];
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        // Relaxed: only this thread stores its own id there.
        if word.load(Ordering::Relaxed) & OWNER_BITS == thread {
            // Partner: the compare-and-exchange of whoever locks next. Release, as any unlocking.
            let before = word.swap(0, Ordering::Release);
            if before != thread {
                // Somebody waits, who will wake the next in turn.
                let _ = futex::wake(word, 1);
            }
        }
    }

    /// `pthread_mutex_clocklock(CLOCK_MONOTONIC)`: as [`Mutex::lock`], until a deadline.
    ///
    /// Where the C library lacks this call, or cannot do it with priority inheritance,
    /// `pthread_mutex_timedlock()` counts the time by the real-time clock: setting that shifts the
    /// end.
    ///
    /// # Errors
    /// `ETIMEDOUT` when another thread kept it; else as [`Mutex::lock`].
    pub fn lock_until(&self, deadline: Deadline) -> Result<Locked<'_>> {
        match deadline.remaining() {
            None => self.lock(),
            Some(left) => self.lock_within(left),
        }
    }

    /// As [`Mutex::lock_until`], from now on; with one look at the clock.
    pub(crate) fn lock_within(&self, time: Duration) -> Result<Locked<'_>> {
        #[cfg(target_env = "gnu")]
        {
            let found = monotonic_lock(self.raw(), time);
            if found != libc::EINVAL {
                return self.taken("pthread_mutex_clocklock", found);
            }
        }
        let until = futex::c_timespec(Some(futex::after(ClockId::Realtime, time)));
        // SAFETY: as in `lock`; `until` outlives the call.
        let found = unsafe { libc::pthread_mutex_timedlock(self.raw(), &raw const until) };
        self.taken("pthread_mutex_timedlock", found)
    }

    /// Whether its last holder died and nobody has taken it since. No system call, and nothing changes.
    ///
    /// The kernel says so in the lock's word.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        /// `FUTEX_OWNER_DIED` of `linux/futex.h`.
        const OWNER_DIED: u32 = 0x4000_0000;
        // Acquire: whoever finds a death here may go on to look at what it left behind.
        self.lock_word().load(Ordering::Acquire) & OWNER_DIED != 0
    }

    /// Whether somebody has it, or died with it. No system call, and nothing changes.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.lock_word().load(Ordering::Relaxed) != 0
    }

    /// The GNU C library has it at offset 0 and musl at 4.
    #[inline]
    fn lock_word(&self) -> &AtomicU32 {
        &self.slot.words()[usize::from(cfg!(target_env = "musl"))]
    }

    /// The memory that it lies in.
    #[must_use]
    pub fn memory(&self) -> &crate::shared_words::SharedWords {
        self.slot.memory()
    }

    /// What a call that takes the mutex returned, as a guard.
    #[inline(always)]
    pub(super) fn taken(&self, call: &'static str, found: c_int) -> Result<Locked<'_>> {
        if found == 0 {
            return Ok(Locked::Consistent(self.guard()));
        }
        self.taken_or_not(call, found)
    }

    #[cold]
    #[inline(never)]
    fn taken_or_not(&self, call: &'static str, found: c_int) -> Result<Locked<'_>> {
        match found {
            libc::EOWNERDEAD => Ok(Locked::OwnerDied(Orphaned { guard: self.guard() })),
            _ => Err(Error::from_raw(call, found)),
        }
    }

    /// Only with the mutex held.
    #[inline]
    fn guard(&self) -> Guard<'_> {
        self.set_held(true);
        Guard { mutex: self, of_this_thread: PhantomData }
    }

    /// Only with the mutex held. Relaxed: see `held`; a drop needs `self` alone and so comes after.
    #[inline]
    fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn raw(&self) -> *mut pthread_mutex_t {
        self.slot.address().cast()
    }
}

impl Drop for Mutex {
    fn drop(&mut self) {
        if !self.held.load(Ordering::Relaxed) {
            // SAFETY: dropped here and nowhere else, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.slot) };
        }
    }
}

/// A mutex that was locked.
#[derive(Debug)]
#[must_use = "dropping it unlocks the mutex"]
pub enum Locked<'a> {
    /// By this thread, after nobody or after a holder that unlocked it.
    Consistent(Guard<'a>),
    /// By this thread, after a holder that died with it.
    OwnerDied(Orphaned<'a>),
}

impl<'a> Locked<'a> {
    /// The guard; if the last holder died, `repair` puts right what it left behind first, and the
    /// mutex is marked consistent.
    ///
    /// # Errors
    /// As [`Orphaned::mark_consistent`].
    #[inline]
    pub fn or_repair(self, repair: impl FnOnce()) -> Result<Guard<'a>> {
        match self {
            Self::Consistent(guard) => Ok(guard),
            Self::OwnerDied(orphaned) => {
                repair();
                orphaned.mark_consistent()
            }
        }
    }

    /// Whether the last holder died.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// A locked mutex. Dropping it unlocks (`pthread_mutex_unlock()`) and wakes one who waits.
///
/// It stays with the thread that locked. A thread that ends without dropping it, having forgotten
/// it, counts as dead for the others.
#[derive(Debug)]
#[must_use = "dropping it unlocks the mutex"]
pub struct Guard<'a> {
    mutex: &'a Mutex,
    of_this_thread: PhantomData<*const ()>,
}

impl<'a> Guard<'a> {
    /// `pthread_mutex_consistent()`, of a mutex whose last holder died.
    pub(crate) fn make_consistent(&self) -> Result<()> {
        // SAFETY: an initialised mutex that is mapped and held by this thread.
        match unsafe { libc::pthread_mutex_consistent(self.mutex.raw()) } {
            0 => Ok(()),
            errno => Err(Error::from_raw("pthread_mutex_consistent", errno)),
        }
    }

    /// Whether this thread has it, which a child made by `fork(2)` has not, although it has a copy of this.
    /// No system call with the GNU C library.
    pub(crate) fn is_of_this_thread(&self) -> bool {
        if self.mutex.is_orphaned() {
            // Of a parent that died; trying would take it.
            return false;
        }
        // SAFETY: as in `Mutex::lock`.
        let found = unsafe { libc::pthread_mutex_trylock(self.mutex.raw()) };
        match found {
            libc::EDEADLK => true,
            // musl does not tell who has it.
            libc::EBUSY if cfg!(target_env = "gnu") => false,
            libc::EBUSY => {
                const OWNER_BITS: u32 = 0x3fff_ffff;
                let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
                self.mutex.lock_word().load(Ordering::Relaxed) & OWNER_BITS == thread
            }
            0 | libc::EOWNERDEAD => {
                // The parent let go of it, or died, just now: it is left as it was found, as well as can be.
                // SAFETY: an initialised mutex that is mapped and held by this thread.
                unsafe { libc::pthread_mutex_consistent(self.mutex.raw()) };
                // SAFETY: the same.
                unsafe { libc::pthread_mutex_unlock(self.mutex.raw()) };
                false
            }
            _ => false,
        }
    }

    /// The mutex, without unlocking it: the caller lets the C library do so.
    pub(super) fn into_mutex(self) -> &'a Mutex {
        let mutex = self.mutex;
        std::mem::forget(self);
        mutex
    }
}

impl Mutex {
    /// The C library gave the mutex up for a guard that was taken apart, and it became unusable: nobody
    /// holds it any more, and nobody will.
    pub(super) fn given_up(&self) {
        self.set_held(false);
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Before it is unlocked: after, another thread may be changing it.
        self.mutex.set_held(false);
        // SAFETY: an initialised mutex that is mapped and held by this thread, with which the
        // guard stayed.
        let result = unsafe { libc::pthread_mutex_unlock(self.mutex.raw()) };
        if result != 0 {
            // In a child after fork, it is still the parent's; see `Mutex::slot`.
            self.mutex.set_held(true);
        }
    }
}

/// A locked mutex whose last holder died. What it protects may be half done.
///
/// Dropping it without [`Orphaned::mark_consistent`] says that nothing can be done: everybody who
/// waits for the mutex or locks it later gets `ENOTRECOVERABLE`, until it is made anew.
#[derive(Debug)]
#[must_use = "dropping it makes the mutex unusable for good"]
pub struct Orphaned<'a> {
    guard: Guard<'a>,
}

impl<'a> Orphaned<'a> {
    /// The guard, for who marks it consistent later, or never.
    pub(crate) fn into_guard(self) -> Guard<'a> {
        self.guard
    }

    /// `pthread_mutex_consistent()`: what the mutex protects is in order again.
    ///
    /// If this process dies before it does so, the next one gets [`Locked::OwnerDied`] again.
    ///
    /// # Errors
    /// `EINVAL` when other bytes are there by now.
    pub fn mark_consistent(self) -> Result<Guard<'a>> {
        self.guard.make_consistent()?;
        Ok(self.guard)
    }
}

#[cfg(target_env = "gnu")]
fn monotonic_lock(mutex: *mut pthread_mutex_t, time: Duration) -> c_int {
    unsafe extern "C" {
        // glibc 2.30.
        fn pthread_mutex_clocklock(
            mutex: *mut pthread_mutex_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> c_int;
    }
    let until = futex::c_timespec(Some(futex::after(ClockId::Monotonic, time)));
    // SAFETY: called with an initialised mutex that stays mapped; `until` outlives the call.
    unsafe { pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, &raw const until) }
}
