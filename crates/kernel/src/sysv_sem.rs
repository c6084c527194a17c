//! System V semaphore sets: counts found by a number, several of which are changed at once or not at
//! all, and which the kernel can put back for a process that dies.
//!
//! Source: `sysvipc(7)`, `semget(2)`, `semop(2)`, `semctl(2)`, `ftok(3)`; error numbers as measured
//! on Linux 6.18.
//!
//! A set outlives the processes that use it, until [`SemaphoreSet::remove`] or a reboot. It is no
//! descriptor: it cannot be polled.
//!
//! *Death.* What a process did with [`Operation::undo`] is put back when it ends, however it ends:
//! the kernel keeps the sum per process and semaphore (of all its threads together; a child made by
//! `fork` starts without, and `execve` keeps it). What was done without stays done. Putting back
//! never waits: a count that would go below 0 becomes 0, and one over [`VALUE_MAX`] that.
//!
//! *A set that is not ready yet.* A set appears the moment its key is taken, with all counts 0, and
//! gets its counts by a second call. [`SemaphoreSet::create`] closes this gap: nobody but the
//! creating user may use the set before it has its counts, and then its time of last operation
//! leaves 0. [`SemaphoreSet::open_ready`] waits for that. Programs that open a set of ours without
//! looking at that time meet it half made only if they run as the same user.

#![allow(unsafe_code)]

mod create;
mod operation;
mod status;

use libc::{c_int, c_ushort};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked};
use crate::io::{Deadline, retry};

pub use crate::sysv_msg::{Key, key_from_path};
pub use create::CreateOptions;
pub use operation::Operation;
pub use status::{Limits, SemaphoreStatus, Status, limits};

/// `SEMVMX`: the highest count of a semaphore; the kernel's own, and fixed.
pub const VALUE_MAX: u16 = 32_767;

/// A set's identifier. It is a number and no more: copying and dropping it does nothing, and after
/// [`SemaphoreSet::remove`] the number stands for nothing, until reused after many others.
///
/// ```
/// use switchboard_kernel::sysv_sem::{CreateOptions, Key, Operation, SemaphoreSet};
///
/// let options = CreateOptions::new().values([1, 0]);
/// let set = SemaphoreSet::create(&Key::Private, &options)?;
/// set.operate(&[Operation::take_one(0).undo(), Operation::wait_for_zero(1)])?;
/// assert_eq!(set.try_operate(&[Operation::take_one(0)]).unwrap_err().name(), "EAGAIN");
/// set.operate(&[Operation::add_one(0).undo()])?;
/// assert_eq!(set.values()?, [1, 0]);
/// set.remove()?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// The four numbers of `/proc/sys/kernel/sem` ([`limits`]) and `SEMVMX`. An error that comes of one
/// of them names it in its text.
///
/// | what | limit | beyond it |
/// |---|---|---|
/// | semaphores per set | `SEMMSL`, the first | `EINVAL` |
/// | semaphores on the system | `SEMMNS`, the second | `ENOSPC` |
/// | operations per call | `SEMOPM`, the third | `E2BIG` |
/// | sets on the system | `SEMMNI`, the fourth | `ENOSPC` |
/// | a count, and the sum to undo | `SEMVMX`, [`VALUE_MAX`] | `ERANGE` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SemaphoreSet {
    id: i32,
}

impl SemaphoreSet {
    /// The set of this identifier, as `semget(2)` returned it here or in another process. Whether
    /// there is one shows on first use (`EINVAL`).
    #[must_use]
    pub const fn from_id(id: i32) -> Self {
        Self { id }
    }

    /// The identifier, the same in every process of this IPC namespace.
    #[must_use]
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// `semop(operations)`: blocks until all of them can be done, and does them all at once.
    ///
    /// While it waits none of them is done: nobody sees one without the others. Who waits for less
    /// may go before who waits for more, and longer.
    ///
    /// # Errors
    /// `EINVAL` for no operations, and when there is no such set (any more); `E2BIG` over `SEMOPM`;
    /// `EFBIG` for an index beyond the set; `ERANGE` when a count would pass [`VALUE_MAX`];
    /// `EAGAIN` when one that may not wait ([`Operation::no_wait`]) would have to; `EIDRM` when the
    /// set is removed meanwhile; `EACCES` without the right to write, or to read when only waiting
    /// for zero; `ENOMEM`.
    #[inline]
    pub fn operate(&self, operations: &[Operation]) -> Result<()> {
        self.repeated("semop", || self.call(operations))
    }

    /// `semop(IPC_NOWAIT)`: as [`SemaphoreSet::operate`], but never blocks.
    ///
    /// # Errors
    /// `EAGAIN` when not all of them can be done now; else as [`SemaphoreSet::operate`].
    pub fn try_operate(&self, operations: &[Operation]) -> Result<()> {
        if operations.len() > TRY_ON_STACK {
            let all: Vec<Operation> = operations.iter().map(|one| one.no_wait()).collect();
            return self.operate(&all);
        }
        let mut all = [Operation::wait_for_zero(0); TRY_ON_STACK];
        for (to, from) in all.iter_mut().zip(operations) {
            *to = from.no_wait();
        }
        self.operate(&all[..operations.len()])
    }

    /// `semtimedop(operations, time left)`: as [`SemaphoreSet::operate`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the deadline passed; else as [`SemaphoreSet::operate`].
    pub fn operate_until(&self, operations: &[Operation], deadline: Deadline) -> Result<()> {
        self.repeated("semtimedop", || match deadline.remaining() {
            None => self.call(operations),
            Some(left) => operation::timed(self.id, operations, left).map_err(|errno| {
                // The kernel has one error for both.
                let may_not_wait = operations.iter().any(|one| one.is_no_wait());
                let timed_out = errno == Errno::AGAIN && (!may_not_wait || deadline.passed());
                if timed_out { Errno::TIMEDOUT } else { errno }
            }),
        })
    }

    /// As [`SemaphoreSet::operate`], but a signal handler that runs meanwhile ends the wait. Nothing
    /// was done then.
    ///
    /// # Errors
    /// `EINTR`; else as [`SemaphoreSet::operate`].
    pub fn operate_interruptible(&self, operations: &[Operation]) -> Result<()> {
        self.call(operations).of("semop").map_err(|error| named(error, "semop"))
    }

    /// `semctl(GETVAL)`: the count of one semaphore.
    ///
    /// # Errors
    /// `EINVAL` for an index beyond the set, and when there is no such set (any more); `EACCES`
    /// without read permission.
    pub fn value(&self, index: u16) -> Result<u16> {
        self.number(index, libc::GETVAL).map(|value| u16::try_from(value).unwrap_or(0))
    }

    /// `semctl(GETPID)`: the process that last operated on one semaphore, or set its count; `None` when nobody
    /// did, or its process is of another PID namespace.
    ///
    /// # Errors
    /// As [`SemaphoreSet::value`].
    pub fn last_process(&self, index: u16) -> Result<Option<u32>> {
        let pid = self.number(index, libc::GETPID)?;
        Ok(u32::try_from(pid).ok().filter(|&pid| pid != 0))
    }

    /// `semctl(GETNCNT)` and `semctl(GETZCNT)`: how many wait until the count of one semaphore grows, and how
    /// many until it is zero.
    ///
    /// # Errors
    /// As [`SemaphoreSet::value`].
    pub fn waiting(&self, index: u16) -> Result<(u32, u32)> {
        let more = self.number(index, libc::GETNCNT)?;
        let zero = self.number(index, libc::GETZCNT)?;
        Ok((u32::try_from(more).unwrap_or(0), u32::try_from(zero).unwrap_or(0)))
    }

    /// `semctl(SETVAL)`: sets the count of one semaphore, and wakes who can go on with it. What
    /// processes would have put back there at their end is forgotten.
    ///
    /// # Errors
    /// `ERANGE` over [`VALUE_MAX`]; `EACCES` without write permission; else as
    /// [`SemaphoreSet::value`].
    pub fn set_value(&self, index: u16, value: u16) -> Result<()> {
        let argument = Argument { value: c_int::from(value) };
        // SAFETY: SETVAL takes a number.
        unsafe { self.control(c_int::from(index), libc::SETVAL, argument) }
            .map_err(|error| named(error, "semctl"))
            .map(drop)
    }

    /// `semctl(GETALL)`: all counts, as they are at one moment.
    ///
    /// # Errors
    /// `EINVAL` when there is no such set (any more); `EACCES` without read permission.
    pub fn values(&self) -> Result<Vec<u16>> {
        let count = self.status()?.count;
        let mut values: Vec<c_ushort> = vec![0; count];
        let argument = Argument { values: values.as_mut_ptr() };
        // SAFETY: GETALL writes a number for each semaphore of the set, and `values` has room for
        // all: a set never changes its size, and its id is not used for another for a long time.
        unsafe { self.control(0, libc::GETALL, argument) }?;
        Ok(values)
    }

    /// `semctl(SETALL)`: sets all counts at once, and wakes who can go on with them. What processes
    /// would have put back at their end is forgotten.
    ///
    /// # Errors
    /// `EINVAL` unless there is one value per semaphore, and when there is no such set (any more);
    /// `ERANGE` over [`VALUE_MAX`]; `EACCES` without read and write permission.
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        if self.status()?.count != values.len() {
            return Err(Error::new("semctl", Errno::INVAL));
        }
        self.set_all(values)
    }

    /// `values` has one for each semaphore.
    fn set_all(&self, values: &[u16]) -> Result<()> {
        let argument = Argument { values: values.as_ptr().cast_mut() };
        // SAFETY: SETALL reads a number for each semaphore of the set, and there are as many.
        unsafe { self.control(0, libc::SETALL, argument) }
            .map_err(|error| named(error, "semctl"))
            .map(drop)
    }

    /// `semctl(IPC_RMID)`: removes the set at once, for everybody. Who waits gets `EIDRM`, later
    /// calls `EINVAL`.
    ///
    /// # Errors
    /// `EPERM` unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`; `EINVAL` when
    /// there is no such set (any more).
    pub fn remove(&self) -> Result<()> {
        // SAFETY: IPC_RMID uses no argument.
        unsafe { self.control(0, libc::IPC_RMID, Argument { value: 0 }) }.map(drop)
    }

    #[inline]
    fn call(&self, operations: &[Operation]) -> core::result::Result<(), Errno> {
        operation::untimed(self.id, operations)
    }

    #[inline]
    fn repeated(
        &self,
        call: &'static str,
        operate: impl FnMut() -> core::result::Result<(), Errno>,
    ) -> Result<()> {
        retry(call, operate).map_err(|error| named(error, call))
    }

    /// A command that takes an index and gives back a number.
    fn number(&self, index: u16, command: c_int) -> Result<c_int> {
        // SAFETY: GETVAL, GETPID, GETNCNT and GETZCNT use no argument.
        unsafe { self.control(c_int::from(index), command, Argument { value: 0 }) }
    }

    /// `semctl(2)`.
    ///
    /// # Safety
    /// The argument is what the command takes; a pointer leads to memory for all that it reads or
    /// writes.
    unsafe fn control(&self, index: c_int, command: c_int, argument: Argument) -> Result<c_int> {
        // SAFETY: as the caller says.
        checked(unsafe { libc::semctl(self.id, index, command, argument) }).of("semctl")
    }
}

/// How many operations are tried without an allocation.
const TRY_ON_STACK: usize = 8;

/// `union semun`, which programs have to define themselves.
#[repr(C)]
#[derive(Clone, Copy)]
union Argument {
    value: c_int,
    set: *mut libc::semid_ds,
    values: *mut c_ushort,
    info: *mut libc::seminfo,
}

/// The limit that an error comes of, in its text.
#[cold]
fn named(error: Error, call: &'static str) -> Error {
    let text = match (error.errno(), call) {
        (libc::E2BIG, "semop") => "semop beyond SEMOPM, the third number of /proc/sys/kernel/sem",
        (libc::E2BIG, _) => "semtimedop beyond SEMOPM, the third number of /proc/sys/kernel/sem",
        (libc::ERANGE, "semop") => "semop beyond SEMVMX, 32767",
        (libc::ERANGE, "semtimedop") => "semtimedop beyond SEMVMX, 32767",
        (libc::ERANGE, _) => "semctl beyond SEMVMX, 32767",
        _ => return error,
    };
    Error::from_raw(text, error.errno())
}
