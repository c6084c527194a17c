//! What of a stream the other side's kernel does not have yet.
//!
//! Source: `tcp(7)`, `SIOCOUTQ`.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

use crate::error::{OfCall, Result};

const SIOCOUTQ: Opcode = 0x5411;

/// `ioctl(SIOCOUTQ)`: bytes that were sent and that the other side's kernel has not acknowledged, the end of the
/// stream counted as one. A socket that is closed while there are some, and while bytes of the other side are unread
/// or on their way, loses them: its kernel answers those with a reset.
///
/// # Errors
/// `EINVAL`: it listens; `ENOTTY`: no socket.
pub fn unacknowledged_bytes(fd: impl AsFd) -> Result<usize> {
    // SAFETY: this number stores an int, and nothing else.
    let getter = unsafe { Getter::<SIOCOUTQ, c_int>::new() };
    // SAFETY: the same.
    let count = unsafe { ioctl(fd, getter) }.of("ioctl SIOCOUTQ")?;
    Ok(usize::try_from(count).unwrap_or(0))
}
