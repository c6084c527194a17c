//! Making and finding a segment, and the limits that stand in the way.
//!
//! Source: `shmget(2)`, `shmctl(2)` (`IPC_SET`), `proc_sys_kernel(5)`.

#![allow(unsafe_code)]

use libc::{c_int, shmid_ds};
use rustix::io::Errno;

use super::Segment;
use crate::error::{Error, OfCall, Result, checked};
use crate::io::retry;
use crate::permissions::Permissions;
use crate::sysv_key::Key;

/// What a new segment is like. Defaults: mode `0600`, and a segment that exists already is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Owner, group and mode; mode `0600`.
    pub permissions: Permissions,
    /// Whether it is an error that the segment exists; no.
    pub exclusive: bool,
}

impl CreateOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets owner, group and mode.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// Sets whether it is an error that the segment exists.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }
}

impl Segment {
    /// `shmget(key, len, IPC_CREAT | IPC_EXCL)`, then `shmctl(IPC_SET)` for another owner or group:
    /// makes a segment of zeroes, or finds the one of that key unless the options say exclusive.
    ///
    /// The umask does not apply. Where owner or group is to change, the segment starts with a mode
    /// that lets in nobody the final one keeps out; until it is set, others get `EACCES`. An
    /// existing segment stays as it is, whatever the options say; it may be longer than asked for.
    ///
    /// System V remembers the creator besides the owner: the creating user keeps the owner's
    /// rights and the creating process's group keeps the group's, also after both are given away.
    ///
    /// # Errors
    /// `EEXIST`: when exclusive; `EINVAL`: a length of 0 or over `shmmax`, one that is shorter, or
    /// key 0; `ENOSPC`: over `shmmni` or `shmall`, which [`Error::call`] names, as it does `shmmax`;
    /// `EPERM`: owner or group may not be set (it is removed again); `ENOENT`, `EACCES`, `ENOTDIR`:
    /// of a [`Key::Path`] that cannot be looked at; `ENOMEM`.
    pub fn create(key: &Key, len_bytes: usize, options: &CreateOptions) -> Result<Self> {
        let key = key.number("shmget")?;
        let mut result = create_new(key, len_bytes, options);
        // Between the two calls somebody may remove it: then it is ours to create after all.
        for _ in 0..CREATE_ATTEMPTS {
            match result {
                Err(error) if error.errno() == libc::EEXIST && !options.exclusive => {
                    result = get(key, len_bytes, 0);
                }
                Err(error) if error.errno() == libc::ENOENT => {
                    result = create_new(key, len_bytes, options);
                }
                done => return done,
            }
        }
        result
    }

    /// `shmget(key)`: finds an existing segment. Permission is checked on use, not here.
    ///
    /// # Errors
    /// `ENOENT`: there is none, or the path of a [`Key::Path`] does not exist; `EINVAL`:
    /// [`Key::Private`], which finds nothing, and key 0; `EACCES`, `ENOTDIR`: of a [`Key::Path`].
    pub fn open(key: &Key) -> Result<Self> {
        if *key == Key::Private {
            return Err(Error::new("shmget", Errno::INVAL));
        }
        get(key.number("shmget")?, 0, 0)
    }

    /// `shmctl(IPC_SET)`: owner, group and mode, from now on; who has it attached keeps it. The time of the last change becomes now.
    ///
    /// # Errors
    /// `EPERM`: unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`; `EINVAL`: there is no such segment
    /// (any more).
    pub fn set_permissions(&self, owner: u32, group: u32, mode: u32) -> Result<()> {
        // SAFETY: shmid_ds is integers only; all zeroes is a valid value.
        let mut wanted: shmid_ds = unsafe { std::mem::zeroed() };
        wanted.shm_perm.uid = owner;
        wanted.shm_perm.gid = group;
        wanted.shm_perm.mode = (mode & 0o777) as _;
        // SAFETY: IPC_SET reads one shmid_ds, and `wanted` is one.
        checked(unsafe { libc::shmctl(self.id, libc::IPC_SET, &raw mut wanted) })
            .of("shmctl")
            .map(drop)
    }
}

/// The limits on System V segments in this IPC namespace; [`Segment`] says what happens beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the largest segment: `shmmax`.
    pub max_segment_bytes: u64,
    /// Pages of all segments together: `shmall`.
    pub max_total_pages: u64,
    /// Segments at a time: `shmmni`.
    pub max_segments: u64,
}

/// The limits from `/proc/sys/kernel`.
///
/// What cannot be read, because `/proc` is not mounted, has the kernel's initial value.
#[must_use]
pub fn limits() -> Limits {
    let read = |file: &str, initial: u64| {
        std::fs::read_to_string(format!("/proc/sys/kernel/{file}"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(initial)
    };
    Limits {
        max_segment_bytes: read("shmmax", UNLIMITED),
        max_total_pages: read("shmall", UNLIMITED),
        max_segments: read("shmmni", 4096),
    }
}

/// The kernel's initial `shmmax` and `shmall`.
const UNLIMITED: u64 = u64::MAX - (1 << 24);

/// How often creating and finding may miss each other before the error is given back.
const CREATE_ATTEMPTS: usize = 16;

fn create_new(key: i32, len_bytes: usize, options: &CreateOptions) -> Result<Segment> {
    let permissions = options.permissions;
    let mode = c_int::try_from(permissions.initial_mode() & 0o777).unwrap_or(0);
    let segment = get(key, len_bytes, libc::IPC_CREAT | libc::IPC_EXCL | mode)
        .map_err(|error| name_the_limit(error, len_bytes))?;
    set(segment, permissions).inspect_err(|_| {
        let _ = segment.remove();
    })?;
    Ok(segment)
}

fn set(segment: Segment, permissions: Permissions) -> Result<()> {
    if permissions.owner.is_none() && permissions.group.is_none() {
        return Ok(());
    }
    // IPC_SET sets all three, so those not asked for are given as shmget(2) left them.
    let owner = permissions.owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let group = permissions.group.unwrap_or_else(|| rustix::process::getegid().as_raw());
    segment.set_permissions(owner, group, permissions.mode)
}

fn get(key: i32, len_bytes: usize, flags: c_int) -> Result<Segment> {
    // SAFETY: shmget takes three integers.
    retry("shmget", || checked(unsafe { libc::shmget(key, len_bytes, flags) }))
        .map(Segment::from_id)
}

/// The kernel has one error number for several limits: says which of them it was.
fn name_the_limit(error: Error, len_bytes: usize) -> Error {
    let limits = limits();
    let call = match error.errno() {
        libc::EINVAL if len_bytes as u64 > limits.max_segment_bytes => "shmget over shmmax",
        libc::ENOSPC if segments() >= limits.max_segments => "shmget over shmmni",
        libc::ENOSPC => "shmget over shmall",
        _ => return error,
    };
    Error::from_raw(call, error.errno())
}

/// How many segments there are, from `/proc/sysvipc/shm`, whose first line is a heading.
fn segments() -> u64 {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table.lines().skip(1).count() as u64
}
