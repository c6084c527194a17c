//! A file for oneself: the kernel says whether anybody else has it open, and holds up whoever wants to.
//!
//! Source: `fcntl(2)` (`F_SETLEASE`, `F_GETLEASE`, `F_SETSIG`), `proc_sys_fs(5)` (`lease-break-time`); POSIX queues are regular files of
//! their file system and have leases, too, as measured on Linux 6.18.
//!
//! A write lease is granted only if no other open file description leads to the file: none that a process holds, inherited or has
//! mapped, in whatever namespace, and none that is in flight in a socket. While it is held, every `open` of the file waits, or
//! gets `EWOULDBLOCK` if it may not wait, until the lease is given back or 45 seconds are over. Descriptors that were opened with
//! `O_PATH` do not count: nothing can be done with them before they are opened again.
//!
//! *Who died:* a lease ends with the description it was taken on.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

use crate::error::{OfCall, Result, checked};

/// `fcntl(F_SETSIG, SIGURG)`, `fcntl(F_SETLEASE, F_WRLCK)`: a lease on a regular file or a POSIX queue.
///
/// When somebody wants to open the file, the kernel sends `SIGURG`, which does nothing unless the program handles it;
/// [`is_wanted`] tells.
///
/// # Errors
/// `EAGAIN`: somebody else has it open or mapped; `EACCES`: it is another user's, and no `CAP_LEASE`; `EINVAL`: no regular
/// file, or a file system without leases.
pub fn take(file: impl AsFd) -> Result<()> {
    let signal = libc::SIGURG;
    control(&file, F_SETSIG, signal, "fcntl F_SETSIG")?;
    control(&file, libc::F_SETLEASE, libc::F_WRLCK, "fcntl F_SETLEASE").map(drop)
}

/// `fcntl(F_GETLEASE)`: whether somebody waits for the lease, or it is not held any more. Never blocks.
///
/// # Errors
/// `EBADF` only.
pub fn is_wanted(file: impl AsFd) -> Result<bool> {
    control(&file, libc::F_GETLEASE, 0, "fcntl F_GETLEASE").map(|held| held != libc::F_WRLCK)
}

/// `fcntl(F_SETLEASE, F_UNLCK)`: gives it back; who waits goes on.
///
/// # Errors
/// `EAGAIN`: none was held.
pub fn give_back(file: impl AsFd) -> Result<()> {
    control(&file, libc::F_SETLEASE, libc::F_UNLCK, "fcntl F_SETLEASE").map(drop)
}

/// From `asm-generic/fcntl.h`: the signal that says that somebody waits.
const F_SETSIG: c_int = 10;

fn control(file: &impl AsFd, command: c_int, argument: c_int, call: &'static str) -> Result<c_int> {
    // SAFETY: these commands take an integer.
    checked(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) }).of(call)
}
