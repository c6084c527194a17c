//! What travels next to the bytes: descriptors, and the mark that tells an empty packet from the
//! end of the connection.
//!
//! Source: `unix(7)` ("Ancillary messages": `SCM_RIGHTS`, `SCM_CREDENTIALS`), `cmsg(3)`,
//! `recvmsg(2)`, `ioctl_tty(2)` (`TIOCOUTQ`, alias `SIOCOUTQ`).
//!
//! `recvmsg` is called directly: a credentials message may carry the process id 0, which the
//! bindings' own type for it cannot hold.

#![allow(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sockopt};

use super::Received;
use crate::error::{Error, OfCall, Result};
use crate::io::retry;

/// The most descriptors that one message carries here. (The kernel's own limit is 253.)
pub const MAX_DESCRIPTORS: usize = 16;

/// `sendmsg(fd, bytes, SCM_RIGHTS)`: as [`super::send`], and copies of descriptors go with the
/// first byte.
///
/// On a stream, `bytes` may be sent in part; the descriptors went with it then, so send the rest
/// without them.
///
/// # Errors
/// As [`super::send`]; `EINVAL`: more than [`MAX_DESCRIPTORS`], or no byte for them to travel with;
/// `ETOOMANYREFS`: the user has too many on their way.
///
/// # Limits
/// `RLIMIT_NOFILE` descriptors on their way per user, without `CAP_SYS_RESOURCE`.
pub fn send_with_fds(fd: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    if fds.len() > MAX_DESCRIPTORS || (bytes.is_empty() && !fds.is_empty()) {
        return Err(Error::new("sendmsg", Errno::INVAL));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new("sendmsg", Errno::INVAL));
    }
    let bytes = [IoSlice::new(bytes)];
    retry("sendmsg", || rustix::net::sendmsg(fd, &bytes, &mut control, SendFlags::NOSIGNAL))
}

/// `recvmsg(fd, buffer, MSG_TRUNC | MSG_CMSG_CLOEXEC)`: as [`super::recv_whole`] (on a stream as
/// [`super::recv`]), with up to `max_fds` descriptors, close-on-exec.
///
/// Descriptors go with the bytes they were sent with: [`super::recv`] on the same bytes drops them.
/// What a descriptor stands for is the peer's choice: check it before use.
///
/// # Errors
/// As [`super::recv`]; `EMSGSIZE`: more than `max_fds` descriptors came; `EMFILE`: they do not fit
/// under `RLIMIT_NOFILE`. In both cases those that arrived are closed and the bytes are lost: close
/// the connection.
///
/// # Limits
/// [`MAX_DESCRIPTORS`], also when `max_fds` is larger.
pub fn recv_with_fds(
    fd: impl AsFd,
    buffer: &mut [u8],
    max_fds: usize,
) -> Result<(Received, Vec<OwnedFd>)> {
    let max_fds = max_fds.min(MAX_DESCRIPTORS);
    let mut control = Control::new();
    let message = control.receive(fd.as_fd(), buffer, CREDENTIALS_SPACE + rights_space(max_fds))?;
    let fds = message.fds;
    if message.control_truncated || fds.len() > max_fds {
        let errno = if fds.len() < max_fds { Errno::MFILE } else { Errno::MSGSIZE };
        return Err(Error::new("recvmsg", errno));
    }
    Ok((message.received, fds))
}

/// `recvmsg(fd, buffer, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC)`: what [`recv_with_fds`] would give now, which stays.
/// Never blocks. The descriptors are new ones of this process: dropping them changes nothing for who receives the message.
///
/// On a socket that has `SO_PEEK_OFF` set this moves that offset: look with [`super::peek_offset`] first. An error that the socket
/// keeps for its owner is taken by this call, as by every other: `poll` says whether there is one.
///
/// # Errors
/// `EAGAIN`: nothing there; else as [`super::recv`].
///
/// # Limits
/// [`MAX_DESCRIPTORS`]; of more, which `true` says, only so many are given.
pub fn peek_with_fds(fd: impl AsFd, buffer: &mut [u8]) -> Result<(Received, Vec<OwnedFd>, bool)> {
    let mut control = Control::new();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let message = control.receive_as(fd.as_fd(), buffer, CONTROL_SPACE, flags)?;
    Ok((message.received, message.fds, message.control_truncated))
}

/// `getsockopt(SO_PEEK_OFF)`: where the next peek begins; none if peeks begin at the head and move nothing, or the socket has no such thing.
///
/// # Errors
/// `ENOTSOCK`, `EBADF`.
pub fn peek_offset(fd: impl AsFd) -> Result<Option<u32>> {
    let mut value: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: SO_PEEK_OFF stores one int at `value`, for which `len` says that there is room.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        return Ok(u32::try_from(value).ok());
    }
    match last_errno() {
        Errno::OPNOTSUPP | Errno::NOPROTOOPT => Ok(None),
        errno => Err(Error::new("getsockopt SO_PEEK_OFF", errno)),
    }
}

/// `setsockopt(SO_PEEK_OFF)`: peeks begin so many bytes behind the head from now on, and each moves that on by what it saw. Unix sockets of all
/// types; TCP and UDP on newer kernels.
///
/// # Errors
/// `EOPNOTSUPP`; `ENOTSOCK`.
pub fn set_peek_offset(fd: impl AsFd, offset_bytes: u32) -> Result<()> {
    let value = libc::c_int::try_from(offset_bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: SO_PEEK_OFF reads one int, which `value` is.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(Error::new("setsockopt SO_PEEK_OFF", last_errno())) }
}

/// `SO_PASSCRED` on the receiver of a seqpacket, so that [`recv_packet`] can tell an empty packet
/// from the end. Call it before the first packet is received.
///
/// A socket that has it on and sends gets an abstract name from the kernel, which nobody can connect
/// to.
///
/// # Errors
/// `EOPNOTSUPP`, `ENOTSOCK`: not a Unix socket.
pub fn enable_packet_ends(fd: impl AsFd) -> Result<()> {
    sockopt::set_socket_passcred(fd, true).of("setsockopt SO_PASSCRED")
}

/// `recvmsg(fd, buffer, MSG_TRUNC)`: takes one packet; none when the peer closed its end or died.
///
/// A packet, also an empty one, comes with the sender's credentials; the end comes without. That
/// needs [`enable_packet_ends`], else an empty packet looks like the end. Descriptors that the peer
/// sent along are not received.
///
/// # Errors
/// As [`super::recv`].
#[inline]
pub fn recv_packet(fd: impl AsFd, buffer: &mut [u8]) -> Result<Option<Received>> {
    let mut control = Control::new();
    let message = control.receive(fd.as_fd(), buffer, CREDENTIALS_SPACE)?;
    let ended = message.received.len == 0 && !message.has_control;
    Ok(if ended { None } else { Some(message.received) })
}

/// `ioctl(SIOCOUTQ)`: how many bytes sent on this socket the peer has not taken yet, the kernel's
/// bookkeeping included: 0 means all of them were.
///
/// # Errors
/// `EINVAL`: a listening socket; `ENOTTY`: not a socket.
pub fn unsent_bytes(fd: impl AsFd) -> Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) stores one int where the pointer says.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(Error::last("ioctl SIOCOUTQ"));
    }
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// The most that one message's control data takes.
const CONTROL_SPACE: usize = CREDENTIALS_SPACE + rights_space(MAX_DESCRIPTORS);

/// `CMSG_SPACE` of one `struct ucred`.
const CREDENTIALS_SPACE: usize = cmsg_space(size_of::<libc::ucred>());

/// `CMSG_SPACE` of this many descriptors.
const fn rights_space(fds: usize) -> usize {
    cmsg_space(fds * size_of::<libc::c_int>())
}

/// `CMSG_SPACE(bytes)`: a header and its payload, each rounded up to whole words.
const fn cmsg_space(bytes: usize) -> usize {
    size_of::<libc::cmsghdr>().next_multiple_of(WORD) + bytes.next_multiple_of(WORD)
}

const WORD: usize = size_of::<usize>();

/// Room for the control messages of one `recvmsg`, aligned as `struct cmsghdr` is.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL_SPACE]);

struct Message {
    received: Received,
    fds: Vec<OwnedFd>,
    has_control: bool,
    control_truncated: bool,
}

impl Control {
    #[inline]
    fn new() -> Self {
        Self([MaybeUninit::uninit(); CONTROL_SPACE])
    }

    /// One `recvmsg` with this much room for control messages. Every descriptor that the kernel
    /// handed over is in the result.
    #[inline]
    fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        buffer: &mut [u8],
        control_len: usize,
    ) -> Result<Message> {
        self.receive_as(fd, buffer, control_len, 0)
    }

    #[inline]
    fn receive_as(
        &mut self,
        fd: BorrowedFd<'_>,
        buffer: &mut [u8],
        control_len: usize,
        flags: libc::c_int,
    ) -> Result<Message> {
        let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let flags = flags | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
        let (len, header) = retry("recvmsg", || {
            // SAFETY: msghdr is plain integers and pointers, for which all zeroes is valid.
            let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
            header.msg_iov = &raw mut parts;
            header.msg_iovlen = 1;
            header.msg_control = self.0.as_mut_ptr().cast();
            // The field's type differs between C libraries.
            header.msg_controllen = control_len.min(self.0.len()) as _;
            // SAFETY: the header points at one iovec that describes `buffer`, and at
            // `msg_controllen` writable bytes of this buffer; all outlive the call.
            let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
            usize::try_from(len).map(|len| (len, header)).map_err(|_| last_errno())
        })?;
        Ok(Message {
            received: Received { len, truncated: len > buffer.len() },
            fds: if header.msg_controllen > 0 { take_fds(&header) } else { Vec::new() },
            has_control: header.msg_controllen > 0,
            control_truncated: header.msg_flags & libc::MSG_CTRUNC != 0,
        })
    }
}

/// Takes ownership of all descriptors in a header that `recvmsg` just filled in. Once per header.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: `recvmsg` filled in the header, so it describes `msg_controllen` bytes of whole
    // control messages.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole, aligned header in the buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the payload of a rights message follows its header.
            let payload = unsafe { libc::CMSG_DATA(message) };
            // The field's type differs between C libraries.
            #[allow(clippy::unnecessary_cast)]
            let payload_len = (message.cmsg_len as usize).saturating_sub(cmsg_space(0));
            // SAFETY: `cmsg_len` counts the header and this many bytes, which the kernel filled in.
            let payload = unsafe { core::slice::from_raw_parts(payload, payload_len) };
            for fd in payload.as_chunks().0 {
                let fd = libc::c_int::from_ne_bytes(*fd);
                // SAFETY: the kernel just opened this descriptor for us, and each is visited once.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `message` is the header it returned before.
        next = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    fds
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Errno::from_raw_os_error(raw)
}
