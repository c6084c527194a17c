//! What every kind of socket has in common. The public faces are [`crate::unix_socket`],
//! [`crate::tcp`] and [`crate::udp`], which re-export from here.
//!
//! Source: `socket(7)`, `send(2)`, `recv(2)`, `shutdown(2)`, `listen(2)`.

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, sockopt};

use crate::error::{OfCall, Result};
use crate::io::retry;

/// How much was received of one datagram or packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's own length in bytes: more than the buffer's when it was cut off.
    pub len: usize,
    /// The message did not fit in the buffer; the rest of it is lost.
    pub truncated: bool,
}

/// `send(fd, bytes, MSG_NOSIGNAL)`: gives as much as fits now (a datagram or packet: all or
/// nothing) and says how much that was.
///
/// Blocks while there is no room, unless the socket is non-blocking.
///
/// # Errors
/// `EAGAIN`: full; `EPIPE`: the peer closed or died; `ECONNRESET`: it did with data unread;
/// `EMSGSIZE`: larger than one datagram may be; `ECONNREFUSED`: nobody has the datagram's
/// destination; `ENOTCONN`, `EDESTADDRREQ`: not connected; `ENOBUFS`, `ENOMEM`.
///
/// # Limits
/// The send buffer: `SO_SNDBUF`, set by `/proc/sys/net/core/wmem_default`, for TCP by
/// `/proc/sys/net/ipv4/tcp_wmem`.
#[inline]
pub fn send(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("send", || rustix::net::send(fd, bytes, SendFlags::NOSIGNAL))
}

/// `sendmsg(fd, buffers, MSG_NOSIGNAL)`: as [`send`], from several buffers in order, as one message.
///
/// # Errors
/// As [`send`]; `EMSGSIZE` for more than 1024 buffers too.
#[inline]
pub fn send_vectored(fd: impl AsFd, buffers: &[IoSlice<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut control = SendAncillaryBuffer::default();
    retry("sendmsg", || rustix::net::sendmsg(fd, buffers, &mut control, SendFlags::NOSIGNAL))
}

/// `recv(fd, buffer, 0)`: takes what is there, up to the buffer's length.
///
/// Blocks while nothing is there, unless the socket is non-blocking. On a stream, 0 means that the
/// peer closed its end or died.
///
/// # Errors
/// `EAGAIN`: nothing there; `ECONNRESET`: the peer went away with data unread; `ETIMEDOUT`: it
/// stopped answering; `ECONNREFUSED`: an earlier datagram found nobody; `ENOTCONN`.
#[inline]
pub fn recv(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("recv", || rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()))
        .map(|(filled, _)| filled)
}

/// `recv(fd, buffer, MSG_TRUNC)`: takes one datagram or packet, and says how long it really was.
///
/// Blocks while nothing is there, unless the socket is non-blocking. An empty datagram has the
/// length 0. Not for streams, where the flag means something else.
///
/// # Errors
/// As [`recv`].
#[inline]
pub fn recv_whole(fd: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    let fd = fd.as_fd();
    let (_, len) = retry("recv", || rustix::net::recv(fd, &mut *buffer, RecvFlags::TRUNC))?;
    Ok(Received { len, truncated: len > buffer.len() })
}

/// `shutdown(fd, SHUT_WR)`: says that nothing more will be sent. The peer reads what is on its way,
/// then end of file; receiving goes on.
///
/// # Errors
/// `ENOTCONN`: not connected, or the peer is gone.
pub fn shutdown_write(fd: impl AsFd) -> Result<()> {
    rustix::net::shutdown(fd, Shutdown::Write).of("shutdown")
}

/// `shutdown(fd, SHUT_RDWR)`: ends the connection in both directions. What came before can still be
/// received on either side, then end of file; whoever waits for the socket is woken, here too.
///
/// # Errors
/// `ENOTCONN`: not connected, or the peer is gone.
pub fn shutdown(fd: impl AsFd) -> Result<()> {
    rustix::net::shutdown(fd, Shutdown::Both).of("shutdown")
}

/// `getsockopt(SO_SNDBUF)`: the send buffer's size in bytes, the kernel's bookkeeping included
/// (about half).
///
/// # Errors
/// `ENOTSOCK`.
pub fn send_buffer(fd: impl AsFd) -> Result<usize> {
    sockopt::socket_send_buffer_size(fd).of("getsockopt SO_SNDBUF")
}

/// `setsockopt(SO_SNDBUF)`: asks for a send buffer. The kernel doubles it for its bookkeeping, and
/// silently keeps it within its limits: [`send_buffer`] tells.
///
/// # Errors
/// `EINVAL`: over 4 GiB; `ENOTSOCK`.
///
/// # Limits
/// `/proc/sys/net/core/wmem_max`.
pub fn set_send_buffer(fd: impl AsFd, bytes: usize) -> Result<()> {
    sockopt::set_socket_send_buffer_size(fd, bytes).of("setsockopt SO_SNDBUF")
}

/// `getsockopt(SO_RCVBUF)`: the receive buffer's size in bytes, the kernel's bookkeeping included.
///
/// # Errors
/// `ENOTSOCK`.
pub fn recv_buffer(fd: impl AsFd) -> Result<usize> {
    sockopt::socket_recv_buffer_size(fd).of("getsockopt SO_RCVBUF")
}

/// `setsockopt(SO_RCVBUF)`: asks for a receive buffer; as [`set_send_buffer`]. What waits on a Unix
/// socket is counted against its sender's buffer, so this has no effect there.
///
/// # Errors
/// `EINVAL`: over 4 GiB; `ENOTSOCK`.
///
/// # Limits
/// `/proc/sys/net/core/rmem_max`.
pub fn set_recv_buffer(fd: impl AsFd, bytes: usize) -> Result<()> {
    sockopt::set_socket_recv_buffer_size(fd, bytes).of("setsockopt SO_RCVBUF")
}

/// `SOCK_CLOEXEC`, and `SOCK_NONBLOCK` if asked for.
#[inline]
pub(crate) fn flags(nonblocking: bool) -> SocketFlags {
    if nonblocking { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK } else { SocketFlags::CLOEXEC }
}

/// `listen(fd, backlog)`.
pub(crate) fn listen(fd: impl AsFd, backlog: u32) -> Result<()> {
    rustix::net::listen(fd, i32::try_from(backlog).unwrap_or(i32::MAX)).of("listen")
}
