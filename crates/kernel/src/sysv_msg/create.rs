//! Finding a queue, and what it is like when it is made.
//!
//! Source: `msgget(2)`, `msgctl(2)` (`IPC_SET`).

#![allow(unsafe_code)]

use libc::{c_int, msqid_ds};
use rustix::io::Errno;

use super::{MessageQueue, limits};
use crate::error::{Error, OfCall, Result, checked};
use crate::io::retry;
use crate::permissions::Permissions;
use crate::sysv_key::Key;

/// What a new queue is like. Defaults: mode `0600`, `msgmnb` bytes, and a queue that exists already
/// is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Owner, group and mode; mode `0600`.
    pub permissions: Permissions,
    /// Whether it is an error that the queue exists; no.
    pub exclusive: bool,
    /// Bytes of text the queue holds before a sender blocks; `msgmnb` if none.
    pub max_bytes: Option<u32>,
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

    /// Sets whether it is an error that the queue exists.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Sets how many bytes of text the queue holds. Above `msgmnb` this needs `CAP_SYS_RESOURCE`.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: u32) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }
}

impl MessageQueue {
    /// `msgget(key, IPC_CREAT | IPC_EXCL)`, then `msgctl(IPC_SET)` for another owner, group or
    /// size: makes a queue, or finds the one of that key unless the options say exclusive.
    ///
    /// The umask does not apply. Where owner or group is to change, the queue starts with a mode
    /// that lets in nobody the final one keeps out; until it is set, others get `EACCES`. An
    /// existing queue stays as it is, whatever the options say.
    ///
    /// System V remembers the creator besides the owner: the creating user keeps the owner's
    /// rights and the creating process's group keeps the group's, also after both are given away.
    ///
    /// # Errors
    /// `EEXIST` when exclusive; `EPERM` when owner, group or size may not be set, and `EINVAL` for
    /// a size of 0 (the queue is removed again); `ENOSPC` at `msgmni`; `EINVAL` for key 0; `ENOENT`,
    /// `EACCES`, `ENOTDIR` of a [`Key::Path`] that cannot be looked at; `ENOMEM`.
    pub fn create(key: &Key, options: &CreateOptions) -> Result<Self> {
        let key = key.number("msgget")?;
        let mut result = create_new(key, options);
        // Between the two calls somebody may remove it: then it is ours to create after all.
        for _ in 0..CREATE_ATTEMPTS {
            match result {
                Err(error) if error.errno() == libc::EEXIST && !options.exclusive => {
                    result = get(key, 0);
                }
                Err(error) if error.errno() == libc::ENOENT => result = create_new(key, options),
                done => return done,
            }
        }
        result
    }

    /// `msgget(key)`: finds an existing queue. Permission is checked on use, not here.
    ///
    /// # Errors
    /// `ENOENT` when there is none, or the path of a [`Key::Path`] does not exist; `EINVAL` for
    /// [`Key::Private`], which finds nothing, and key 0; `EACCES`, `ENOTDIR` of a [`Key::Path`].
    pub fn open(key: &Key) -> Result<Self> {
        if *key == Key::Private {
            return Err(Error::new("msgget", Errno::INVAL));
        }
        get(key.number("msgget")?, 0)
    }

    /// `msgctl(IPC_SET)`: owner, group, mode and size, from now on. The time of the last change becomes now. Who is blocked in a
    /// call stays so, whatever the mode.
    ///
    /// # Errors
    /// `EPERM`: unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`, and for a size above `msgmnb` without
    /// `CAP_SYS_RESOURCE`; `EINVAL`: a size of 0, or there is no such queue (any more).
    pub fn set_permissions(&self, owner: u32, group: u32, mode: u32, max_bytes: u64) -> Result<()> {
        // SAFETY: msqid_ds is integers only; all zeroes is a valid value.
        let mut wanted: msqid_ds = unsafe { std::mem::zeroed() };
        wanted.msg_perm.uid = owner;
        wanted.msg_perm.gid = group;
        wanted.msg_perm.mode = (mode & 0o777) as _;
        wanted.msg_qbytes = max_bytes;
        // SAFETY: IPC_SET reads one msqid_ds, and `wanted` is one.
        checked(unsafe { libc::msgctl(self.id, libc::IPC_SET, &raw mut wanted) })
            .of("msgctl")
            .map(drop)
    }
}

/// How often creating and finding may miss each other before the error is given back.
const CREATE_ATTEMPTS: usize = 16;

fn create_new(key: i32, options: &CreateOptions) -> Result<MessageQueue> {
    let permissions = options.permissions;
    let mode = c_int::try_from(permissions.initial_mode() & 0o777).unwrap_or(0);
    let queue = get(key, libc::IPC_CREAT | libc::IPC_EXCL | mode)?;
    set(queue, options).inspect_err(|_| {
        let _ = queue.remove();
    })?;
    Ok(queue)
}

fn set(queue: MessageQueue, options: &CreateOptions) -> Result<()> {
    let permissions = options.permissions;
    if permissions.owner.is_none() && permissions.group.is_none() && options.max_bytes.is_none() {
        return Ok(());
    }
    // IPC_SET sets all four, so those not asked for are given as msgget(2) left them.
    let owner = permissions.owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let group = permissions.group.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let max_bytes = u64::from(options.max_bytes.unwrap_or(limits().default_queue_bytes));
    queue.set_permissions(owner, group, permissions.mode, max_bytes)
}

fn get(key: i32, flags: c_int) -> Result<MessageQueue> {
    // SAFETY: msgget takes two integers.
    retry("msgget", || checked(unsafe { libc::msgget(key, flags) })).map(MessageQueue::from_id)
}
