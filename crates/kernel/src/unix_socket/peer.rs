//! Who is at the other end, as the kernel knows it.
//!
//! Source: `unix(7)` and `socket(7)` (`SO_PEERCRED`, `SO_PEERGROUPS`, `SO_PEERPIDFD`),
//! `credentials(7)`, `pid_namespaces(7)`, `user_namespaces(7)`.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::io::{Deadline, Interest, poll};
use crate::pidfd;

/// Newer than the C library's headers (`asm-generic/socket.h`).
const SO_PEERPIDFD: libc::c_int = 77;
const SO_PEERGROUPS: libc::c_int = 59;

/// The process at the other end, as it was when it connected, or called `listen` or `socketpair`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process id; none if it has none in this process's PID namespace. A number only: the process
    /// may be gone and the number another's, or it may have passed its socket on.
    pub pid: Option<u32>,
    /// Effective user id; 65534 for one that this user namespace does not know.
    pub uid: u32,
    /// Effective group id; 65534 for one that this user namespace does not know.
    pub gid: u32,
}

/// `getsockopt(SO_PEERCRED)`: who connected, or who listens, on a stream, a seqpacket or a pair.
///
/// # Errors
/// `ENOTCONN`: not connected, or a kind of socket that knows no peer; `ENOTSOCK`.
pub fn peer_credentials(fd: impl AsFd) -> Result<Credentials> {
    const CALL: &str = "getsockopt SO_PEERCRED";
    let mut words = [0_u32; 3];
    option(fd.as_fd(), libc::SO_PEERCRED, &mut words).of(CALL)?;
    let [pid, uid, gid] = words;
    if pid == 0 && uid == u32::MAX {
        return Err(Error::new(CALL, Errno::NOTCONN));
    }
    Ok(Credentials { pid: (pid != 0).then_some(pid), uid, gid })
}

/// `getsockopt(SO_PEERPIDFD)`: a pidfd of the process of [`peer_credentials`]. Linux 6.5.
///
/// It is readable once that process is dead, whatever copies of its socket live on, and never means
/// another process.
///
/// # Errors
/// `ENOPROTOOPT`: the kernel is older; `ENODATA`: no peer is known; `ESRCH`: it is dead and reaped
/// already (before Linux 6.16); `EINVAL`: it is not in this PID namespace's view; `EMFILE`.
pub fn peer_pidfd(fd: impl AsFd) -> Result<OwnedFd> {
    let mut words = [0_u32];
    option(fd.as_fd(), SO_PEERPIDFD, &mut words).of("getsockopt SO_PEERPIDFD")?;
    // SAFETY: on success the kernel has just opened this descriptor, close-on-exec, for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(words[0].cast_signed()) })
}

/// [`peer_pidfd`], or on a kernel before 6.5 [`peer_process_by_id`].
///
/// # Errors
/// As these.
pub fn peer_process(fd: impl AsFd) -> Result<OwnedFd> {
    match peer_pidfd(&fd) {
        Err(error) if error.errno() == libc::ENOPROTOOPT => peer_process_by_id(fd),
        result => result,
    }
}

/// `pidfd_open(2)` of the process id of [`peer_credentials`], and a second look: for kernels that have
/// no [`peer_pidfd`].
///
/// The second look: the process is alive, it has the peer's user and group, and the connection is not
/// hung up. A peer that keeps its end to itself is then the process that is meant, for had it died, the
/// connection would be hung up. What is not noticed is a peer that gave its end away and died, if
/// another process of the same user and group has its id since.
///
/// # Errors
/// `ESRCH`: it is dead, or not the same any more: also one that has changed its user or group since it
/// connected, or called `listen` or `socketpair`; `EINVAL`: it has no id in this PID namespace;
/// `ENOENT`: `/proc` is not mounted; else as [`peer_credentials`]; `EMFILE`, `ENFILE`.
pub fn peer_process_by_id(fd: impl AsFd) -> Result<OwnedFd> {
    let fd = fd.as_fd();
    let credentials = peer_credentials(fd)?;
    let pid = credentials.pid.ok_or(Error::new("pidfd_open", Errno::INVAL))?;
    let pidfd = pidfd::open(pid)?;
    let known = ids_of(pid)? == Some((credentials.uid, credentials.gid));
    // In this order: what was read of this id was read of the pidfd's process, which lives.
    let alive = !pidfd::is_dead(&pidfd)?;
    let now = Deadline::after(Duration::ZERO);
    let [found] = poll([(fd, Interest::Readable)], now)?;
    if known && alive && !found.hung_up {
        Ok(pidfd)
    } else {
        Err(Error::new("pidfd_open", Errno::SRCH))
    }
}

/// The effective user and group of a process, from `/proc/PID/status`; none if it is gone.
fn ids_of(pid: u32) -> Result<Option<(u32, u32)>> {
    let text = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(text) => text,
        Err(error) => {
            return match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                Errno::NOENT if std::path::Path::new("/proc/self").exists() => Ok(None),
                Errno::SRCH => Ok(None),
                errno => Err(Error::new("read", errno)),
            };
        }
    };
    // The second of the four is the effective one.
    let id = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Ok(id("Uid:").zip(id("Gid:")))
}

/// `getsockopt(SO_PEERGROUPS)`: the supplementary groups of the process of [`peer_credentials`].
///
/// # Errors
/// `ENODATA`: no peer is known; `ENOTSOCK`.
///
/// # Limits
/// `/proc/sys/kernel/ngroups_max` groups, 65536.
pub fn peer_groups(fd: impl AsFd) -> Result<Vec<u32>> {
    const MOST_GROUPS: usize = 65536;
    let mut groups = vec![0; 64];
    loop {
        match option(fd.as_fd(), SO_PEERGROUPS, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(Errno::RANGE) if groups.len() < MOST_GROUPS => {
                let larger = groups.len() * 4;
                groups.resize(larger, 0);
            }
            Err(errno) => return Err(Error::new("getsockopt SO_PEERGROUPS", errno)),
        }
    }
}

/// `getsockopt(fd, SOL_SOCKET, name)` into words of 32 bits; returns how many were stored.
fn option(
    fd: BorrowedFd<'_>,
    name: libc::c_int,
    words: &mut [u32],
) -> core::result::Result<usize, Errno> {
    let mut len = libc::socklen_t::try_from(size_of_val(words)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel stores at most `len` bytes into `words`, for which any bytes are valid, and
    // the number stored into `len`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(raw));
    }
    Ok(len as usize / size_of::<u32>())
}
