//! Sockets by their names in a folder that is held open: whatever becomes of the folder's own name, and
//! however long its path is.
//!
//! Source: `unix(7)`, `openat(2)`, `renameat2(2)`, `proc_pid_fd(5)`.
//!
//! A name is one part of a path, of up to 255 bytes. All of it needs `/proc`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Kind, address, bind_at_place, socket};
use crate::error::{Error, OfCall, Result};
use crate::hidden_name::{Place, descriptor_path};
use crate::io::retry;
use crate::permissions::Permissions;
use crate::private_folder::check_name;

/// `socket`, `bind`, `listen`: as [`super::listen_at`], of a name in a folder. It has the name as soon as it
/// listens, and not before.
///
/// Until then it has a hidden name, `.NAME.RANDOM` (of NAME the first 32 bytes), which refuses
/// connections. Whoever removes hidden names that refuse, as those of the dead do, must expect to hit
/// one that is being made; then this fails with `ENOENT` and may be called again.
///
/// # Errors
/// `EADDRINUSE`: the name is taken, if only by a dead socket's; `ENOENT`: the folder was removed, the
/// hidden name was, or `/proc` is not mounted; `EINVAL`: not one name; `ENAMETOOLONG`: over 255 bytes;
/// `EOPNOTSUPP`: datagram sockets do not listen; `EACCES`, `EROFS`, `ENOSPC`; `EMFILE`, `ENFILE`.
///
/// # Limits
/// The backlog is cut to `/proc/sys/net/core/somaxconn`.
pub fn listen_in(
    kind: Kind,
    folder: impl AsFd,
    name: &OsStr,
    permissions: Permissions,
    backlog: u32,
    nonblocking: bool,
) -> Result<OwnedFd> {
    check_name("bind", name)?;
    let fd = socket(kind, nonblocking)?;
    let place = Place::within(folder.as_fd(), name)?;
    bind_at_place(fd.as_fd(), &place, permissions, |fd| socket::listen(fd, backlog))?;
    Ok(fd)
}

/// `openat(folder, name, O_PATH | O_NOFOLLOW)`, `socket`, `connect`: a new socket, connected to the one
/// that has this name in a folder. A symbolic link is not followed.
///
/// Blocks while the listener's backlog is full, unless the new socket is non-blocking. It does not wait
/// for the listener to accept.
///
/// # Errors
/// `ENOENT`: no such name; `ECONNREFUSED`: it is a dead socket's, or of one that does not listen;
/// `ENOTSOCK`: not a socket, but a link, say; `EAGAIN`: the backlog is full; `EPROTOTYPE`: another kind
/// of socket; `EACCES`: its mode forbids it; `EINVAL`: not one name; `EMFILE`, `ENFILE`.
pub fn connect_in(
    kind: Kind,
    folder: impl AsFd,
    name: &OsStr,
    nonblocking: bool,
) -> Result<OwnedFd> {
    check_name("connect", name)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let object = rustix::fs::openat(folder, name, flags, Mode::empty()).of("openat")?;
    let stat = rustix::fs::fstat(&object).of("fstat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::new("connect", Errno::NOTSOCK));
    }
    let target = address::of_path(&descriptor_path(object.as_fd()))?;
    let fd = socket(kind, nonblocking)?;
    retry("connect", || rustix::net::connect(&fd, &target))?;
    Ok(fd)
}

/// `unlinkat(folder, name)`, refused for what is not a socket; as [`super::unlink`].
///
/// # Errors
/// `ENOENT`; `ENOTSOCK`: not a socket; `EINVAL`: not one name; `EACCES`, `EPERM`, `EROFS`: no right to
/// remove it.
pub fn unlink_in(folder: impl AsFd, name: &OsStr) -> Result<()> {
    check_name("unlink", name)?;
    let folder = folder.as_fd();
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).of("fstatat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::new("unlink", Errno::NOTSOCK));
    }
    rustix::fs::unlinkat(folder, name, AtFlags::empty()).of("unlink")
}
