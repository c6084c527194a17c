//! Making a queue: its name, its geometry, its permissions, and what limits them.
//!
//! Source: `mq_open(3)`, `mq_overview(7)`.

#![allow(unsafe_code)]

use std::ffi::CString;

use libc::{c_long, mq_attr};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::Resource;

use super::{Access, MessageQueue, flags, open_call, unlink_call};
use crate::error::{Error, OfCall, Result};
use crate::permissions::Permissions;

/// What a new queue is like. Defaults: 10 messages of up to 8192 bytes, mode `0600`, and a queue
/// that exists already is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Messages the queue holds before a sender blocks; 10.
    pub max_messages: u32,
    /// The largest message, in bytes; 8192. Receivers need a buffer of this size.
    pub message_size_bytes: u32,
    /// Owner, group and mode; mode `0600`.
    pub permissions: Permissions,
    /// Whether it is an error that the queue exists; no.
    pub exclusive: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            max_messages: 10,
            message_size_bytes: 8192,
            permissions: Permissions::default(),
            exclusive: false,
        }
    }
}

impl CreateOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many messages the queue holds.
    #[must_use]
    pub fn max_messages(mut self, max_messages: u32) -> Self {
        self.max_messages = max_messages;
        self
    }

    /// Sets the size of the largest message.
    #[must_use]
    pub fn message_size_bytes(mut self, message_size_bytes: u32) -> Self {
        self.message_size_bytes = message_size_bytes;
        self
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
}

impl MessageQueue {
    /// `mq_open(name, O_CREAT | O_EXCL)`, `fchown(2)`, `fchmod(2)`: makes a queue, or opens the one
    /// of that name unless the options say exclusive.
    ///
    /// Mode and owner are right before anybody else can open it; the umask does not apply. Until
    /// they are set, others get `EACCES`. An existing queue keeps its geometry, owner and mode,
    /// whatever the options say: see [`MessageQueue::attributes`]. The descriptor is close-on-exec
    /// and blocking.
    ///
    /// # Errors
    /// `EINVAL` for a bad name ([`validate_name`]), for zero messages or bytes, or over the first
    /// two limits; `ENAMETOOLONG`; `EEXIST` when exclusive; `EACCES` when it exists and may not be
    /// opened so; `EMFILE` over `RLIMIT_MSGQUEUE` or `RLIMIT_NOFILE`; `ENOSPC` over `queues_max`;
    /// `EPERM` when owner or group may not be set (the queue is removed again); `ENFILE`; `ENOMEM`;
    /// `ENOSYS` on a kernel without message queues.
    pub fn create(name: &str, access: Access, options: &CreateOptions) -> Result<Self> {
        let c_name = c_name(name)?;
        let mut result = Self::create_new(&c_name, access, options);
        // Between the two calls somebody may unlink it: then it is ours to create after all.
        for _ in 0..CREATE_ATTEMPTS {
            match result {
                Err(error) if error.errno() == libc::EEXIST && !options.exclusive => {
                    result = open_call(&c_name, flags(access), 0, None);
                }
                Err(error) if error.errno() == libc::ENOENT => {
                    result = Self::create_new(&c_name, access, options);
                }
                done => return done,
            }
        }
        result
    }

    fn create_new(name: &CString, access: Access, options: &CreateOptions) -> Result<Self> {
        let permissions = options.permissions;
        // SAFETY: mq_attr is integers only; all zeroes is a valid value.
        let mut attributes: mq_attr = unsafe { std::mem::zeroed() };
        attributes.mq_maxmsg = c_long::from(options.max_messages);
        attributes.mq_msgsize = c_long::from(options.message_size_bytes);
        let flags = flags(access) | libc::O_CREAT | libc::O_EXCL;
        let queue = open_call(name, flags, permissions.initial_mode(), Some(&mut attributes))?;
        queue.apply(permissions).inspect_err(|_| {
            let _ = unlink_call(name);
        })?;
        Ok(queue)
    }

    fn apply(&self, permissions: Permissions) -> Result<()> {
        if permissions.owner.is_some() || permissions.group.is_some() {
            let owner = permissions.owner.map(Uid::from_raw);
            let group = permissions.group.map(Gid::from_raw);
            rustix::fs::fchown(&self.0, owner, group).of("fchown")?;
        }
        rustix::fs::fchmod(&self.0, Mode::from_raw_mode(permissions.mode)).of("fchmod")
    }
}

/// Checks a name: a slash, then 1 to 255 bytes without slash or NUL, other than `.` and `..`.
///
/// # Errors
/// `EINVAL` when it is not so; `ENAMETOOLONG` when only its length is wrong.
pub fn validate_name(name: &str) -> Result<()> {
    let invalid = Error::new("mq_open", Errno::INVAL);
    let rest = name.strip_prefix('/').ok_or(invalid)?;
    if matches!(rest, "" | "." | "..") || rest.bytes().any(|byte| byte == b'/' || byte == 0) {
        return Err(invalid);
    }
    if rest.len() > NAME_MAX_BYTES {
        return Err(Error::new("mq_open", Errno::NAMETOOLONG));
    }
    Ok(())
}

/// The limits on message queues here and now; [`MessageQueue`] says what happens beyond each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Queues in this IPC namespace, of all users.
    pub max_queues: u32,
    /// Messages per queue that a creator without `CAP_SYS_RESOURCE` may ask for.
    pub max_messages: u32,
    /// Bytes per message that a creator without `CAP_SYS_RESOURCE` may ask for.
    pub max_message_size_bytes: u32,
    /// Messages per queue, where a C program gives no attributes.
    pub default_max_messages: u32,
    /// Bytes per message, where a C program gives no attributes.
    pub default_message_size_bytes: u32,
    /// Bytes that all queues of this user may take: the soft `RLIMIT_MSGQUEUE`; `u64::MAX` if
    /// there is none.
    pub user_bytes: u64,
}

/// The limits from `/proc/sys/fs/mqueue` and `getrlimit(RLIMIT_MSGQUEUE)`.
///
/// What cannot be read, because `/proc` is not mounted, has the kernel's initial value.
#[must_use]
pub fn limits() -> Limits {
    let read = |file: &str, initial: u32| {
        std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{file}"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(initial)
    };
    Limits {
        max_queues: read("queues_max", 256),
        max_messages: read("msg_max", 10),
        max_message_size_bytes: read("msgsize_max", 8192),
        default_max_messages: read("msg_default", 10),
        default_message_size_bytes: read("msgsize_default", 8192),
        user_bytes: rustix::process::getrlimit(Resource::Msgqueue).current.unwrap_or(u64::MAX),
    }
}

/// `NAME_MAX`: bytes of a name after its slash.
const NAME_MAX_BYTES: usize = 255;

/// How often creating and opening may miss each other before the error is given back.
const CREATE_ATTEMPTS: usize = 16;

pub(super) fn c_name(name: &str) -> Result<CString> {
    validate_name(name)?;
    CString::new(name).map_err(|_| Error::new("mq_open", Errno::INVAL))
}
