//! The process-shared condition variable.
//!
//! Source: `pthread_cond_init(3p)`, `pthread_cond_timedwait(3p)`, `pthread_cond_broadcast(3p)`,
//! `pthread_condattr_setclock(3p)`.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use libc::{c_int, pthread_cond_t, pthread_condattr_t, pthread_mutex_t};

use super::mutex::{Guard, Locked};
use crate::error::{Error, Result};
use crate::futex;
use crate::io::Deadline;
use crate::shared_words::{Kind, Slot, create_in, open_in};

/// A `pthread_cond_t` that is process-shared, for waits by the monotonic clock.
///
/// Waiting lets go of the mutex and takes it again before it returns. It may also return for no
/// reason: wait in a loop that looks whether what one waits for has come. All who wait at a time
/// use the same mutex, as those who signal should.
///
/// *Death.* A condition variable is not robust, whatever the mutex is. The C library counts who
/// waits, and nobody takes a dead process off the count. Measured with the GNU C library 2.36: after
/// a waiter was killed, one [`Condition::signal`] goes to the dead, and the next one that finds
/// somebody waiting waits for ever for the dead to leave; if it holds the mutex, so do all others.
/// (From 2.41 on that code is written anew.) With any version, a signal can be lost to a dead
/// waiter, and a process that is killed in the middle of one of these calls can leave the condition
/// variable blocked. So use it among processes that live and die together. Where they do not, wait
/// with a deadline, take a signaller that hangs for dead, and make the condition variable anew; or
/// take [`crate::futex`] with a word that says what happened, which has no such weakness.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::pthread::{Condition, Mutex, MutexOptions, OBJECT_BYTES};
/// use switchboard_kernel::shared_words::SharedWords;
///
/// let memory = SharedWords::create(4096)?;
/// let mutex = Mutex::create(memory.slot(0, OBJECT_BYTES)?, MutexOptions::new())?;
/// let changed = Condition::create(memory.slot(64, OBJECT_BYTES)?)?;
///
/// let guard = mutex.lock()?.or_repair(|| ())?;
/// let (locked, timed_out) = changed.wait_until(guard, Deadline::after(Duration::from_millis(1)))?;
/// assert!(timed_out && !locked.owner_died());
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Condition {
    slot: Slot,
}

impl Condition {
    /// `pthread_cond_init()`: makes a condition variable in shared memory, exactly once.
    ///
    /// # Errors
    /// As [`super::Mutex::create`].
    pub fn create(slot: Slot) -> Result<Self> {
        create_in(&slot, KIND, 0, |address| initialise(address.cast()))?;
        Ok(Self { slot })
    }

    /// A condition variable that was made in shared memory by another process, or earlier. No
    /// system call.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EAGAIN` while it is being made; `EINVAL` when other bytes are
    /// there, or those of a program with another word size.
    pub fn open(slot: Slot) -> Result<Self> {
        open_in(&slot, KIND)?;
        Ok(Self { slot })
    }

    /// `pthread_cond_wait()`: lets go of the mutex and blocks until woken, then takes the mutex
    /// again, which may block too.
    ///
    /// # Errors
    /// `ENOTRECOVERABLE` when the mutex became unusable meanwhile: it is not held then. Other
    /// errors (`EINVAL` when other bytes are there by now) let go of the mutex.
    pub fn wait<'m>(&self, guard: Guard<'m>) -> Result<Locked<'m>> {
        self.wait_by(guard, "pthread_cond_wait", |condition, mutex| {
            // SAFETY: both are initialised and stay mapped, and this thread holds the mutex.
            unsafe { libc::pthread_cond_wait(condition, mutex) }
        })
        .map(|(locked, _)| locked)
    }

    /// `pthread_cond_clockwait(CLOCK_MONOTONIC)`: as [`Condition::wait`], until a deadline. Says
    /// also whether that passed. Taking the mutex again has no deadline.
    ///
    /// # Errors
    /// As [`Condition::wait`].
    pub fn wait_until<'m>(
        &self,
        guard: Guard<'m>,
        deadline: Deadline,
    ) -> Result<(Locked<'m>, bool)> {
        let Some(until) = futex::monotonic(deadline) else {
            return Ok((self.wait(guard)?, false));
        };
        let until = futex::c_timespec(Some(until));
        self.wait_by(guard, "pthread_cond_clockwait", |condition, mutex| {
            timed_wait(condition, mutex, &until)
        })
    }

    fn wait_by<'m>(
        &self,
        guard: Guard<'m>,
        call: &'static str,
        wait: impl FnOnce(*mut pthread_cond_t, *mut pthread_mutex_t) -> c_int,
    ) -> Result<(Locked<'m>, bool)> {
        let mutex = guard.into_mutex();
        let found = wait(self.raw(), mutex.raw());
        match found {
            libc::ENOTRECOVERABLE => {
                mutex.given_up();
                Err(Error::from_raw(call, found))
            }
            0 | libc::EOWNERDEAD => Ok((mutex.taken(call, found)?, false)),
            libc::ETIMEDOUT => Ok((mutex.taken(call, 0)?, true)),
            _ => {
                drop(mutex.taken(call, 0));
                Err(Error::from_raw(call, found))
            }
        }
    }

    /// `pthread_cond_signal()`: wakes one who waits; does nothing when nobody does. Call it with the
    /// mutex held, or after. Blocks only where a waiter died (see above).
    ///
    /// # Errors
    /// None with the C libraries known.
    #[inline]
    pub fn signal(&self) -> Result<()> {
        // SAFETY: an initialised condition variable that stays mapped.
        done("pthread_cond_signal", unsafe { libc::pthread_cond_signal(self.raw()) })
    }

    /// `pthread_cond_broadcast()`: wakes all who wait; else as [`Condition::signal`].
    ///
    /// # Errors
    /// As [`Condition::signal`].
    #[inline]
    pub fn broadcast(&self) -> Result<()> {
        // SAFETY: an initialised condition variable that stays mapped.
        done("pthread_cond_broadcast", unsafe { libc::pthread_cond_broadcast(self.raw()) })
    }

    #[inline]
    fn raw(&self) -> *mut pthread_cond_t {
        self.slot.address().cast()
    }
}

const KIND: Kind =
    Kind { magic: *b"SBCV", object_bytes: size_of::<pthread_cond_t>(), call: "pthread_cond_init" };

fn initialise(condition: *mut pthread_cond_t) -> Result<()> {
    let mut attributes = MaybeUninit::<pthread_condattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: there is room for one attributes object.
    done(KIND.call, unsafe { libc::pthread_condattr_init(attributes) })?;
    // SAFETY: the attributes are initialised.
    let mut result =
        unsafe { libc::pthread_condattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
    if result == 0 {
        // SAFETY: the attributes are initialised.
        result = unsafe { libc::pthread_condattr_setclock(attributes, libc::CLOCK_MONOTONIC) };
    }
    if result == 0 {
        // SAFETY: `create_in` checked that a condition variable fits there; slots are aligned to 8
        // bytes, as it is, and nobody else uses these bytes while they are being made an object.
        result = unsafe { libc::pthread_cond_init(condition, attributes) };
    }
    // SAFETY: the attributes are initialised and not used after.
    unsafe { libc::pthread_condattr_destroy(attributes) };
    done(KIND.call, result)
}

#[inline]
fn done(call: &'static str, result: c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(Error::from_raw(call, result)) }
}

/// Both objects are initialised and stay mapped, and this thread holds the mutex. Counts by the
/// monotonic clock also where a C program made the condition variable with another one.
#[cfg(target_env = "gnu")]
fn timed_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: &libc::timespec,
) -> c_int {
    unsafe extern "C" {
        // glibc 2.30.
        fn pthread_cond_clockwait(
            condition: *mut pthread_cond_t,
            mutex: *mut pthread_mutex_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> c_int;
    }
    // SAFETY: as the caller says; `until` outlives the call.
    unsafe { pthread_cond_clockwait(condition, mutex, libc::CLOCK_MONOTONIC, until) }
}

#[cfg(not(target_env = "gnu"))]
fn timed_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: &libc::timespec,
) -> c_int {
    // SAFETY: as the caller says; `until` outlives the call.
    unsafe { libc::pthread_cond_timedwait(condition, mutex, until) }
}
