//! POSIX semaphores: a count that goes down or waits, and goes up. Named ones are found by a name,
//! unnamed ones are placed in memory that processes share.
//!
//! Source: `sem_overview(7)`, `sem_open(3)`, `sem_init(3)`, `sem_wait(3)`, `sem_post(3)`; layout and
//! place of named semaphores as in the GNU C library.
//!
//! These are the C library's own semaphores: `sem_open(3)` in a C program or `posix_ipc` in Python
//! finds a named one, and `sem_wait(3)` works on a placed one (layout: [`OBJECT_BYTES`]). A named
//! semaphore is the file `/dev/shm/sem.NAME`; it outlives the processes that use it, until
//! [`unlink`] or a reboot.
//!
//! *Death.* A semaphore has no holder. A process that is killed between [`Semaphore::wait`] and
//! [`Semaphore::post`] leaves the count as it is, for good, and nobody is told: others wait until
//! somebody posts in its place. Where that matters, take [`crate::pthread::Mutex`], which tells, or
//! [`crate::sysv_sem`] with undo, which gives back. One more thing can go with a process: if it is
//! killed in the instant after a post woke it and before it took the count, others that sleep are
//! not woken in its place before the next post. The count is right all the same, so who comes
//! later, or waits with a deadline and tries again, gets it.
//!
//! *Trust.* Whoever may open a named semaphore may change its count at will, and may shorten its
//! file, which kills those who use it with `SIGBUS`. Its mode decides who that is.

#![allow(unsafe_code)]

mod named;

use std::fmt;
use std::mem::MaybeUninit;

use libc::{c_int, sem_t};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked};
use crate::futex;
use crate::io::{Deadline, retry};
use crate::shared_words::{Kind, Mapped, Slot, create_in, open_in};

pub use crate::shared_words::OBJECT_BYTES;
pub use named::{CreateOptions, unlink, validate_name};

/// `SEM_VALUE_MAX`: the highest count.
pub const VALUE_MAX: u32 = i32::MAX.cast_unsigned();

/// A semaphore. Dropping it changes nothing in the count, and gives nothing back.
///
/// Waiting that succeeds is an acquire, posting a release: who takes what was posted sees what was
/// written before.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::posix_sem::{OBJECT_BYTES, Semaphore};
/// use switchboard_kernel::shared_words::SharedWords;
///
/// let memory = SharedWords::create(4096)?;
/// let seats = Semaphore::create_in(memory.slot(0, OBJECT_BYTES)?, 1)?;
/// seats.wait()?;
/// assert_eq!(seats.try_wait().unwrap_err().name(), "EAGAIN");
/// let soon = Deadline::after(Duration::from_millis(1));
/// assert_eq!(seats.wait_until(soon).unwrap_err().name(), "ETIMEDOUT");
/// seats.post()?;
/// assert_eq!(seats.value(), 1);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | the count | [`VALUE_MAX`] | `EOVERFLOW` |
/// | bytes of a name after its slash | 251 | `ENAMETOOLONG` |
/// | named semaphores | the size of the file system on `/dev/shm` (a page each), its inodes | `ENOSPC` |
pub struct Semaphore {
    memory: Memory,
}

enum Memory {
    Named(Mapped),
    Placed(Slot),
}

impl Semaphore {
    /// `sem_init(pshared = 1, value)`: makes a semaphore in shared memory, exactly once.
    ///
    /// # Errors
    /// `EEXIST` when there is one; `EAGAIN` when another process is making one now, or was killed
    /// doing so ([`Slot::clear`]); `EINVAL` for a count over [`VALUE_MAX`], for a slot of less than
    /// [`OBJECT_BYTES`], and when other bytes are there.
    pub fn create_in(slot: Slot, value: u32) -> Result<Self> {
        create_in(&slot, KIND, 0, |address| {
            // SAFETY: `create_in` checked that sem_t fits there; slots are aligned to 8 bytes, as
            // sem_t is, and nobody else uses these bytes while they are being made an object.
            checked(unsafe { libc::sem_init(address.cast(), 1, value) }).of("sem_init").map(drop)
        })?;
        Ok(Self { memory: Memory::Placed(slot) })
    }

    /// A semaphore that was made in shared memory by another process, or earlier. No system call.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EAGAIN` while it is being made; `EINVAL` when other bytes are
    /// there, or those of a program with another word size.
    pub fn open_in(slot: Slot) -> Result<Self> {
        open_in(&slot, KIND)?;
        check(&slot.words()[..SEM_WORDS], "sem_init")?;
        Ok(Self { memory: Memory::Placed(slot) })
    }

    /// `sem_wait()`: blocks while the count is 0, then takes 1 from it. No system call if it need
    /// not wait. A signal handler that runs meanwhile does not end the wait.
    ///
    /// # Errors
    /// `EINVAL` when this is no semaphore any more.
    #[inline]
    pub fn wait(&self) -> Result<()> {
        // SAFETY: `raw` is an initialised semaphore, mapped for as long as `self` lives.
        retry("sem_wait", || checked(unsafe { libc::sem_wait(self.raw()) })).map(drop)
    }

    /// `sem_trywait()`: as [`Semaphore::wait`], but never blocks. Makes no system call.
    ///
    /// # Errors
    /// `EAGAIN` when the count is 0; else as [`Semaphore::wait`].
    #[inline]
    pub fn try_wait(&self) -> Result<()> {
        // SAFETY: as in `wait`.
        retry("sem_trywait", || checked(unsafe { libc::sem_trywait(self.raw()) })).map(drop)
    }

    /// `sem_clockwait(CLOCK_MONOTONIC)`: as [`Semaphore::wait`], until a deadline.
    ///
    /// With a C library that lacks the call, `sem_timedwait()` counts the time by the real-time
    /// clock: setting that shifts the end.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the count stayed 0; else as [`Semaphore::wait`].
    pub fn wait_until(&self, deadline: Deadline) -> Result<()> {
        if deadline == Deadline::NEVER {
            return self.wait();
        }
        timed_wait(self.raw(), deadline)
    }

    /// `sem_post()`: adds 1 to the count and wakes one who waits. Never blocks.
    ///
    /// # Errors
    /// `EOVERFLOW` at [`VALUE_MAX`]; `EINVAL` when this is no semaphore any more.
    #[inline]
    pub fn post(&self) -> Result<()> {
        // SAFETY: as in `wait`.
        checked(unsafe { libc::sem_post(self.raw()) }).of("sem_post").map(drop)
    }

    /// `sem_getvalue()`: the count, which may be another by now; 0 while processes wait.
    #[must_use]
    pub fn value(&self) -> u32 {
        let mut value: c_int = 0;
        // SAFETY: as in `wait`; `value` is written before the call returns, which it does not fail.
        unsafe { libc::sem_getvalue(self.raw(), &raw mut value) };
        value.try_into().unwrap_or(0)
    }

    #[inline]
    fn raw(&self) -> *mut sem_t {
        match &self.memory {
            Memory::Named(mapped) => mapped.address().cast(),
            Memory::Placed(slot) => slot.address().cast(),
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("value", &self.value()).finish_non_exhaustive()
    }
}

const KIND: Kind = Kind { magic: *b"SBSM", object_bytes: size_of::<sem_t>(), call: "sem_init" };

const SEM_WORDS: usize = size_of::<sem_t>() / 4;

/// A shared semaphore with this count, as it lies in memory.
fn image(value: u32, call: &'static str) -> Result<[u8; size_of::<sem_t>()]> {
    let mut made = MaybeUninit::<sem_t>::zeroed();
    // SAFETY: `made` has room for one semaphore.
    checked(unsafe { libc::sem_init(made.as_mut_ptr(), 1, value) }).of(call)?;
    // SAFETY: sem_t is integers only, all of them initialised, as zeroes at least.
    Ok(unsafe { std::mem::transmute::<MaybeUninit<sem_t>, [u8; size_of::<sem_t>()]>(made) })
}

/// Refuses what is not a shared semaphore of the GNU C library: after the count and the number of
/// waiters, a word says whether it is shared.
#[cfg(all(target_env = "gnu", target_pointer_width = "64", target_endian = "little"))]
fn check(words: &[std::sync::atomic::AtomicU32], call: &'static str) -> Result<()> {
    use std::sync::atomic::Ordering::Relaxed;
    const FUTEX_SHARED: u32 = 128;
    let is_one = words[0].load(Relaxed) <= VALUE_MAX && words[2].load(Relaxed) == FUTEX_SHARED;
    if is_one { Ok(()) } else { Err(Error::new(call, Errno::INVAL)) }
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64", target_endian = "little")))]
fn check(_words: &[std::sync::atomic::AtomicU32], _call: &'static str) -> Result<()> {
    Ok(())
}

/// `semaphore` is one that is initialised and stays mapped.
#[cfg(target_env = "gnu")]
fn timed_wait(semaphore: *mut sem_t, deadline: Deadline) -> Result<()> {
    unsafe extern "C" {
        // glibc 2.30.
        fn sem_clockwait(
            semaphore: *mut sem_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> c_int;
    }
    let until = futex::c_timespec(futex::monotonic(deadline));
    retry("sem_clockwait", || {
        // SAFETY: the semaphore is as the caller says, and `until` outlives the call.
        checked(unsafe { sem_clockwait(semaphore, libc::CLOCK_MONOTONIC, &raw const until) })
    })
    .map(drop)
}

#[cfg(not(target_env = "gnu"))]
fn timed_wait(semaphore: *mut sem_t, deadline: Deadline) -> Result<()> {
    let until = futex::c_timespec(futex::realtime(deadline));
    retry("sem_timedwait", || {
        // SAFETY: the semaphore is as the caller says, and `until` outlives the call.
        checked(unsafe { libc::sem_timedwait(semaphore, &raw const until) })
    })
    .map(drop)
}
