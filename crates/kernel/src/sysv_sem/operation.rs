//! One operation on one semaphore of a set, and the calls that do several.
//!
//! Source: `semop(2)`.

#![allow(unsafe_code)]

use std::time::Duration;

use libc::{c_int, c_short, sembuf, timespec};
use rustix::io::Errno;

use crate::error::checked;

/// A change of one semaphore, or a wait for it to be zero. Laid out as `struct sembuf`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Operation(sembuf);

impl Operation {
    /// Changes a count: by a number above 0 adds, and never waits; by one below 0 waits until there
    /// is so much, and takes it; by 0 is [`Operation::wait_for_zero`].
    #[must_use]
    pub const fn change(index: u16, by: i16) -> Self {
        Self(sembuf { sem_num: index, sem_op: by, sem_flg: 0 })
    }

    /// Adds 1 to a count.
    #[must_use]
    pub const fn add_one(index: u16) -> Self {
        Self::change(index, 1)
    }

    /// Waits until a count is above 0, and takes 1 from it.
    #[must_use]
    pub const fn take_one(index: u16) -> Self {
        Self::change(index, -1)
    }

    /// Waits until a count is 0.
    #[must_use]
    pub const fn wait_for_zero(index: u16) -> Self {
        Self::change(index, 0)
    }

    /// `SEM_UNDO`: the change is put back when this process ends.
    #[must_use]
    pub const fn undo(mut self) -> Self {
        self.0.sem_flg |= SEM_UNDO;
        self
    }

    /// `IPC_NOWAIT`: if this one would have to wait, none is done, and the call says `EAGAIN`.
    #[must_use]
    pub const fn no_wait(mut self) -> Self {
        self.0.sem_flg |= IPC_NOWAIT;
        self
    }

    /// The semaphore's place in the set, from 0.
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.0.sem_num
    }

    /// What is added to the count; 0 waits for zero.
    #[must_use]
    pub const fn by(&self) -> i16 {
        self.0.sem_op
    }

    /// Whether it is put back at the end of the process.
    #[must_use]
    pub const fn is_undo(&self) -> bool {
        self.0.sem_flg & SEM_UNDO != 0
    }

    /// Whether it may not wait.
    #[must_use]
    pub const fn is_no_wait(&self) -> bool {
        self.0.sem_flg & IPC_NOWAIT != 0
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation")
            .field("index", &self.index())
            .field("by", &self.by())
            .field("undo", &self.is_undo())
            .field("no_wait", &self.is_no_wait())
            .finish()
    }
}

#[allow(clippy::cast_possible_truncation)]
const SEM_UNDO: c_short = libc::SEM_UNDO as c_short;
#[allow(clippy::cast_possible_truncation)]
const IPC_NOWAIT: c_short = libc::IPC_NOWAIT as c_short;

/// `semop()`.
#[inline]
pub(super) fn untimed(id: i32, operations: &[Operation]) -> Result<(), Errno> {
    let (first, count) = (operations.as_ptr().cast::<sembuf>().cast_mut(), operations.len());
    // SAFETY: an operation is a sembuf, there are `count`, and the kernel only reads them.
    checked(unsafe { libc::semop(id, first, count) }).map(drop)
}

/// `semtimedop()`; `EAGAIN` when the time is up.
pub(super) fn timed(id: i32, operations: &[Operation], left: Duration) -> Result<(), Errno> {
    unsafe extern "C" {
        fn semtimedop(
            id: c_int,
            operations: *mut sembuf,
            count: libc::size_t,
            left: *const timespec,
        ) -> c_int;
    }
    let left = timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let (first, count) = (operations.as_ptr().cast::<sembuf>().cast_mut(), operations.len());
    // SAFETY: as in `untimed`; the kernel only reads `left`, which outlives the call.
    checked(unsafe { semtimedop(id, first, count, &raw const left) }).map(drop)
}
