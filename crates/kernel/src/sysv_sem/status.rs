//! What a set and its semaphores are like now, and what limits them.
//!
//! Source: `semctl(2)` (`IPC_STAT`, `GETPID`, `GETNCNT`, `GETZCNT`, `IPC_INFO`, `SEM_INFO`).

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{c_int, semid_ds, seminfo};

use super::{Argument, SemaphoreSet};
use crate::error::Result;

/// A set's state and permissions, from `semctl(IPC_STAT)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Semaphores in the set.
    pub count: usize,
    /// When [`SemaphoreSet::operate`] last succeeded, to the second; none if nobody did yet, or
    /// while the set is being made.
    pub last_operation: Option<SystemTime>,
    /// When it was made, or its counts or permissions were last set, to the second.
    pub last_change: SystemTime,
    /// The owner's user id.
    pub owner: u32,
    /// The owning group's id.
    pub group: u32,
    /// The creator's user id, which has the owner's rights for good.
    pub creator: u32,
    /// The creator's group id, which has the group's rights for good.
    pub creator_group: u32,
    /// Permission bits.
    pub mode: u32,
    /// The key it was created with; 0 for a private set.
    pub key: i32,
}

/// One semaphore's state. The numbers are read one after another, so they may be of different
/// moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStatus {
    /// The count.
    pub value: u16,
    /// The process that last operated on it, set it, or had something put back there at its end;
    /// another process may have this id by now. 0 if nobody did, or one of a PID namespace that is
    /// not visible here.
    pub last_pid: u32,
    /// Callers that wait for it to be higher.
    pub waiting_for_more: u32,
    /// Callers that wait for it to be zero.
    pub waiting_for_zero: u32,
}

impl SemaphoreSet {
    /// `semctl(IPC_STAT)`: how many semaphores the set has, and whose it is.
    ///
    /// # Errors
    /// `EINVAL` when there is no such set (any more); `EACCES` without read permission.
    pub fn status(&self) -> Result<Status> {
        let found = self.stat()?;
        let permissions = found.sem_perm;
        Ok(Status {
            count: usize::try_from(found.sem_nsems).unwrap_or(0),
            last_operation: (found.sem_otime != 0).then(|| time(found.sem_otime)),
            last_change: time(found.sem_ctime),
            owner: permissions.uid,
            group: permissions.gid,
            creator: permissions.cuid,
            creator_group: permissions.cgid,
            // Twice as wide on aarch64 as on x86-64.
            #[allow(clippy::useless_conversion)]
            mode: u32::from(permissions.mode) & 0o777,
            key: permissions.__key,
        })
    }

    /// `semctl(GETVAL)`, `GETPID`, `GETNCNT`, `GETZCNT`: one semaphore's count, who was last, and
    /// how many wait.
    ///
    /// # Errors
    /// `EINVAL` for an index beyond the set, and when there is no such set (any more); `EACCES`
    /// without read permission.
    pub fn semaphore(&self, index: u16) -> Result<SemaphoreStatus> {
        let number = |command| {
            self.number(index, command).map(|number: c_int| u32::try_from(number).unwrap_or(0))
        };
        Ok(SemaphoreStatus {
            value: self.value(index)?,
            last_pid: number(libc::GETPID)?,
            waiting_for_more: number(libc::GETNCNT)?,
            waiting_for_zero: number(libc::GETZCNT)?,
        })
    }

    pub(super) fn stat(&self) -> Result<semid_ds> {
        let mut found = MaybeUninit::<semid_ds>::zeroed();
        let argument = Argument { set: found.as_mut_ptr() };
        // SAFETY: IPC_STAT writes one semid_ds, for which there is room.
        unsafe { self.control(0, libc::IPC_STAT, argument) }?;
        // SAFETY: integers only, initialised as zeroes at least.
        Ok(unsafe { found.assume_init() })
    }
}

/// The limits on System V semaphores in this IPC namespace, from `/proc/sys/kernel/sem`;
/// [`SemaphoreSet`] says what happens beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Semaphores per set: `SEMMSL`.
    pub max_set_size: u32,
    /// Semaphores of all sets: `SEMMNS`.
    pub max_semaphores: u32,
    /// Operations per call: `SEMOPM`.
    pub max_operations: u32,
    /// Sets at a time: `SEMMNI`.
    pub max_sets: u32,
}

/// `semctl(IPC_INFO)`: the limits.
#[must_use]
pub fn limits() -> Limits {
    let found = info(libc::IPC_INFO);
    Limits {
        max_set_size: found.semmsl.cast_unsigned(),
        max_semaphores: found.semmns.cast_unsigned(),
        max_operations: found.semopm.cast_unsigned(),
        max_sets: found.semmni.cast_unsigned(),
    }
}

/// How many sets there are now.
pub(super) fn sets_in_use() -> u32 {
    info(libc::SEM_INFO).semusz.cast_unsigned()
}

fn info(command: c_int) -> seminfo {
    let mut found = MaybeUninit::<seminfo>::zeroed();
    let argument = Argument { info: found.as_mut_ptr() };
    // SAFETY: IPC_INFO and SEM_INFO write one seminfo, for which there is room, whatever the id.
    // They cannot fail with a pointer that is valid.
    let _ = unsafe { SemaphoreSet::from_id(0).control(0, command, argument) };
    // SAFETY: integers only, initialised as zeroes at least.
    unsafe { found.assume_init() }
}

fn time(seconds: libc::time_t) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
