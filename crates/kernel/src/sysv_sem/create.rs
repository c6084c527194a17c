//! Finding a set: its key, what it is like when it is made, and when it is ready.
//!
//! Source: `semget(2)`, `semctl(2)` (`SETALL`, `IPC_SET`), `semop(2)`; the time of last operation as
//! the sign that a set is ready is W. R. Stevens' (UNIX Network Programming, volume 2, 11.2).

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

use libc::{c_int, semid_ds};
use rustix::io::Errno;

use super::status::sets_in_use;
use super::{Argument, Key, Operation, SemaphoreSet, VALUE_MAX, key_from_path, limits};
use crate::error::{Error, Result, checked};
use crate::io::{Deadline, retry};
use crate::permissions::Permissions;

/// What a new set is like. Defaults: one semaphore with a count of 0, mode `0600`, and a set that
/// exists already is opened once it is ready, for which it has 5 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// The counts that its semaphores start with, and so how many there are; one, of 0.
    pub values: Vec<u16>,
    /// Owner, group and mode; mode `0600`.
    pub permissions: Permissions,
    /// Whether it is an error that the set exists; no.
    pub exclusive: bool,
    /// How long another process may take to make the set that was found; 5 s.
    pub ready_within: Duration,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            values: vec![0],
            permissions: Permissions::default(),
            exclusive: false,
            ready_within: Duration::from_secs(5),
        }
    }
}

impl CreateOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many semaphores there are, and the count that each starts with.
    #[must_use]
    pub fn values(mut self, values: impl Into<Vec<u16>>) -> Self {
        self.values = values.into();
        self
    }

    /// Sets owner, group and mode.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// Sets whether it is an error that the set exists.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Sets how long another process may take to make the set that was found.
    #[must_use]
    pub fn ready_within(mut self, timeout: Duration) -> Self {
        self.ready_within = timeout;
        self
    }
}

impl SemaphoreSet {
    /// `semget(key, IPC_CREAT | IPC_EXCL)`, `semctl(SETALL)`, `semop()`, `semctl(IPC_SET)`: makes a
    /// set, or finds the one of that key unless the options say exclusive.
    ///
    /// Until the last of these calls only the creating user may use the set; the umask does not
    /// apply. The `semop` changes no count: it sets the time that says that the set is ready. An
    /// existing set keeps its counts, owner and mode, whatever the options say; it is waited for
    /// as by [`SemaphoreSet::open_ready`].
    ///
    /// System V remembers the creator besides the owner: the creating user keeps the owner's
    /// rights and the creating process's group keeps the group's, also after both are given away.
    ///
    /// # Errors
    /// `EINVAL` for no values, for more than `SEMMSL`, when the existing set has fewer, and for key
    /// 0; `ERANGE` for one over [`VALUE_MAX`]; `ENOSPC` at `SEMMNI` or `SEMMNS`; `EEXIST` when
    /// exclusive; `ETIMEDOUT` when the existing set did not become ready; `EPERM` when owner or group may not be set
    /// (the set is removed again); `ENOENT`, `EACCES`, `ENOTDIR` of a [`Key::Path`] that cannot be
    /// looked at; `ENOMEM`.
    pub fn create(key: &Key, options: &CreateOptions) -> Result<Self> {
        let key = number(key)?;
        let deadline = Deadline::after(options.ready_within);
        let count = c_int::try_from(options.values.len()).unwrap_or(c_int::MAX);
        if options.values.iter().any(|value| *value > VALUE_MAX) {
            return Err(Error::new("semctl beyond SEMVMX, 32767", Errno::RANGE));
        }
        let mut result = create_new(key, count, options);
        // Between the two calls somebody may remove it: then it is ours to create after all.
        for _ in 0..CREATE_ATTEMPTS {
            match result {
                Err(error) if error.errno() == libc::EEXIST && !options.exclusive => {
                    result = get(key, count, 0).and_then(|set| set.ready(deadline));
                }
                Err(error) if is_gone(error) => result = create_new(key, count, options),
                done => return done,
            }
        }
        result
    }

    /// `semget(key)`: finds an existing set, ready or not. Permission is checked on use, not here.
    ///
    /// # Errors
    /// `ENOENT` when there is none, or the path of a [`Key::Path`] does not exist; `EINVAL` for
    /// [`Key::Private`], which finds nothing, and key 0; `EACCES`, `ENOTDIR` of a [`Key::Path`].
    pub fn open(key: &Key) -> Result<Self> {
        if *key == Key::Private {
            return Err(Error::new("semget", Errno::INVAL));
        }
        get(number(key)?, 0, 0)
    }

    /// As [`SemaphoreSet::open`], and then looks at the set every millisecond until it is ready:
    /// until its time of last operation is not 0 any more, or the caller may not read it.
    ///
    /// A set that was made by a program of another kind is ready in this sense only after the first
    /// operation on it. One whose creator was killed half way never is: remove it.
    ///
    /// # Errors
    /// `ETIMEDOUT` when it was not ready in time; `EIDRM` when it was removed meanwhile; else as
    /// [`SemaphoreSet::open`].
    pub fn open_ready(key: &Key, deadline: Deadline) -> Result<Self> {
        Self::open(key)?.ready(deadline)
    }

    /// `semctl(IPC_SET)`: owner, group and mode, from now on. The time of the last change becomes now. Who is blocked in a call
    /// stays so, whatever the mode.
    ///
    /// # Errors
    /// `EPERM` unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`; `EINVAL` when there is no such set
    /// (any more).
    pub fn set_permissions(&self, owner: u32, group: u32, mode: u32) -> Result<()> {
        let mut wanted = MaybeUninit::<semid_ds>::zeroed();
        // SAFETY: integers only, initialised as zeroes.
        let fields = unsafe { wanted.assume_init_mut() };
        fields.sem_perm.uid = owner;
        fields.sem_perm.gid = group;
        fields.sem_perm.mode = (mode & 0o777) as _;
        // SAFETY: IPC_SET reads one semid_ds, and this is one.
        unsafe { self.control(0, libc::IPC_SET, Argument { set: wanted.as_mut_ptr() }) }.map(drop)
    }

    fn ready(self, deadline: Deadline) -> Result<Self> {
        const LOOK_AGAIN: Duration = Duration::from_millis(1);
        loop {
            match self.stat() {
                Ok(found) if found.sem_otime != 0 => return Ok(self),
                Ok(_) => {}
                // Others than the creating user are let in to a set that is ready.
                Err(error) if error.errno() == libc::EACCES => return Ok(self),
                Err(error) if error.errno() == libc::EINVAL => {
                    return Err(Error::new("semctl", Errno::IDRM));
                }
                Err(error) => return Err(error),
            }
            if deadline.passed() {
                return Err(Error::new("semctl", Errno::TIMEDOUT));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// How often creating and finding may miss each other before the error is given back.
const CREATE_ATTEMPTS: usize = 16;

fn is_gone(error: Error) -> bool {
    matches!(error.errno(), libc::ENOENT | libc::EIDRM)
}

/// The key for `semget(2)`; never 0 (`IPC_PRIVATE`) unless that was asked for by name.
fn number(key: &Key) -> Result<i32> {
    let number = match key {
        Key::Private => return Ok(libc::IPC_PRIVATE),
        Key::Value(number) => *number,
        Key::Path { path, id } => key_from_path(path, *id)?,
    };
    if number == libc::IPC_PRIVATE {
        return Err(Error::new("semget", Errno::INVAL));
    }
    Ok(number)
}

fn create_new(key: i32, count: c_int, options: &CreateOptions) -> Result<SemaphoreSet> {
    let set = get(key, count, libc::IPC_CREAT | libc::IPC_EXCL | PRIVATE_MODE)
        .map_err(|error| limit_of(error, count))?;
    make_ready(set, options).inspect_err(|_| {
        let _ = set.remove();
    })?;
    Ok(set)
}

/// Read and write for the creating user, who needs both to make the set ready.
const PRIVATE_MODE: c_int = 0o600;

fn make_ready(set: SemaphoreSet, options: &CreateOptions) -> Result<()> {
    set.set_all(&options.values)?;
    let no_change: &[Operation] = match options.values.first() {
        None | Some(0) => &[Operation::wait_for_zero(0)],
        Some(_) => &[Operation::take_one(0), Operation::add_one(0)],
    };
    match set.try_operate(no_change) {
        // Somebody else operated on it, which set the time as well.
        Err(error) if error.errno() == libc::EAGAIN => {}
        result => result?,
    }
    let permissions = options.permissions;
    let owner = permissions.owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let group = permissions.group.unwrap_or_else(|| rustix::process::getegid().as_raw());
    set.set_permissions(owner, group, permissions.mode)
}

fn get(key: i32, count: c_int, flags: c_int) -> Result<SemaphoreSet> {
    // SAFETY: semget takes three integers.
    retry("semget", || checked(unsafe { libc::semget(key, count, flags) }))
        .map(SemaphoreSet::from_id)
}

/// The limit that making a set of so many semaphores ran into, in the error's text.
fn limit_of(error: Error, count: c_int) -> Error {
    let limits = limits();
    let text = match error.errno() {
        libc::EINVAL if i64::from(count) > i64::from(limits.max_set_size) => {
            "semget beyond SEMMSL, the first number of /proc/sys/kernel/sem"
        }
        libc::ENOSPC if sets_in_use() >= limits.max_sets => {
            "semget beyond SEMMNI, the fourth number of /proc/sys/kernel/sem"
        }
        libc::ENOSPC => "semget beyond SEMMNS, the second number of /proc/sys/kernel/sem",
        _ => return error,
    };
    Error::from_raw(text, error.errno())
}
