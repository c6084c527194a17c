//! Looking at sockets of others so that they do not notice: whether one is bound to a file, and which descriptors wait in one.
//!
//! Source: `unix(7)` (`SCM_RIGHTS`, `SO_PEEK_OFF`), `connect(2)` (`ECONNREFUSED`, `EPROTOTYPE`), `recv(2)` (`MSG_PEEK`).

#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{Kind, address, socket};
use crate::error::{Error, OfCall, Result};
use crate::hidden_name::descriptor_path;
use crate::io::retry;

/// `connect()` of a datagram socket: whether any socket, of whatever kind and network namespace, is bound to the file that this
/// descriptor (`O_PATH`) leads to.
///
/// Nobody is told: a stream or seqpacket socket is of the wrong kind, and a datagram socket does not notice who has it as a peer. Only the
/// file's time of last use is set if it is that of a datagram socket. What is not bound now never will be: `bind` makes a new file.
///
/// # Errors
/// `EACCES`: no right to write to the file, which connecting needs; `ENOENT`: `/proc` is not mounted; `EMFILE`, `ENFILE`.
pub fn is_bound(file: impl AsFd) -> Result<bool> {
    let name = address::of_path(&descriptor_path(file.as_fd()))?;
    let probe = socket(Kind::Datagram, true)?;
    match retry("connect", || rustix::net::connect(&probe, &name)) {
        Ok(()) => Ok(true),
        Err(error) => match error.errno() {
            libc::ECONNREFUSED => Ok(false),
            // It is of another kind; it has its peer already; its queue is full.
            libc::EPROTOTYPE | libc::EPERM | libc::EAGAIN => Ok(true),
            _ => Err(error),
        },
    }
}

/// What a message can have at most: the kernel's `SCM_MAX_FD`.
const MOST_DESCRIPTORS: usize = 253;
/// The most bytes that are looked through for descriptors: what fits into a socket by default.
const MOST_BYTES: usize = 256 << 10;

/// `recvmsg(MSG_PEEK)`: copies of the descriptors of the first message that has any; the message stays.
///
/// Does not block. Those of later messages cannot be seen: `scm_fds` in `proc_pid_fdinfo(5)` says how many there are in all. Who receives
/// does not notice; of a pipe or socket that is closed meanwhile, the other end notices that when the copies are dropped.
///
/// # Errors
/// `EBUSY`: the socket's own readers peek from an offset (`SO_PEEK_OFF`), which looking would move; `EINVAL`: it listens; `ENOTCONN`;
/// `ENOTSOCK`; `EMFILE`.
pub fn peek_descriptors(socket: impl AsFd) -> Result<Vec<OwnedFd>> {
    if peek_offset(&socket)? >= 0 {
        return Err(Error::new("recvmsg", Errno::BUSY));
    }
    let mut bytes = vec![0_u8; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = retry("recvmsg", || {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    });
    match received {
        Err(error) if error.errno() == libc::EAGAIN => return Ok(Vec::new()),
        result => result.map(drop)?,
    }
    let mut found = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found.extend(fds);
        }
    }
    Ok(found)
}

/// `getsockopt(SO_PEEK_OFF)`: -1 unless somebody has set it.
fn peek_offset(socket: &impl AsFd) -> Result<i32> {
    let mut offset: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes into `offset`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw mut offset).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        return Ok(offset);
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno)).of("getsockopt")
}
