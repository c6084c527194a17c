//! TCP: a reliable stream of bytes between machines, over IPv4 and IPv6.
//!
//! Source: `tcp(7)`, `ip(7)`, `ipv6(7)`, `connect(2)`, `accept(2)`; RFC 9293, RFC 5482 (user
//! timeout).
//!
//! *Who died:* a peer whose process is killed is closed by its kernel: end of file or `ECONNRESET`.
//! A peer whose machine or network is gone says nothing: only [`set_keepalive`] (while idle) and
//! [`set_user_timeout`] (while sending) find out.

mod unacknowledged;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::error::{Error, OfCall, Result};
use crate::io::{Deadline, Interest, retry, wait_for};
use crate::socket;

pub use unacknowledged::unacknowledged_bytes;

pub use crate::socket::{
    recv, recv_buffer, send, send_buffer, send_vectored, set_recv_buffer, set_send_buffer,
    shutdown_write,
};

/// `socket`, `bind`, `listen`: accepts connections at an address. Port 0 picks a free one, which
/// [`local_address`] tells.
///
/// Sets `SO_REUSEADDR`, so that a restart need not wait for old connections to time out; two
/// listeners on one port still exclude each other. Sets `IPV6_V6ONLY` on IPv6, so that `[::]` and
/// `0.0.0.0` are two addresses whatever `/proc/sys/net/ipv6/bindv6only` says.
///
/// # Errors
/// `EADDRINUSE`: somebody listens there; `EADDRNOTAVAIL`: not an address of this machine; `EACCES`:
/// a port below `/proc/sys/net/ipv4/ip_unprivileged_port_start`; `EAFNOSUPPORT`: no IPv6 here;
/// `EMFILE`, `ENFILE`.
///
/// # Limits
/// The backlog is cut to `/proc/sys/net/core/somaxconn`.
pub fn listen_at(addr: SocketAddr, backlog: u32, nonblocking: bool) -> Result<OwnedFd> {
    let fd = new_socket(addr, nonblocking)?;
    sockopt::set_socket_reuseaddr(&fd, true).of("setsockopt SO_REUSEADDR")?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).of("setsockopt IPV6_V6ONLY")?;
    }
    rustix::net::bind(&fd, &addr).of("bind")?;
    socket::listen(&fd, backlog)?;
    Ok(fd)
}

/// `connect(2)` on a new non-blocking socket: starts, and returns at once.
///
/// When the socket is writable, [`connect_finish`] says how it went. The socket stays non-blocking.
///
/// # Errors
/// `ENETUNREACH`: no route; `EADDRNOTAVAIL`: out of local ports; `EAFNOSUPPORT`; `EMFILE`,
/// `ENFILE`. `ECONNREFUSED` may come here already, when the address is this machine's.
pub fn connect_start(addr: SocketAddr) -> Result<OwnedFd> {
    let fd = new_socket(addr, true)?;
    match rustix::net::connect(&fd, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(Error::new("connect", errno)),
    }
}

/// `getsockopt(SO_ERROR)`: how a started connection ended. Call it once the socket is writable.
///
/// # Errors
/// `ECONNREFUSED`: nobody listens there; `ETIMEDOUT`: no answer; `EHOSTUNREACH`, `ENETUNREACH`:
/// no way there; `ECONNRESET`.
pub fn connect_finish(fd: impl AsFd) -> Result<()> {
    sockopt::socket_error(fd).of("getsockopt SO_ERROR")?.of("connect")
}

/// `connect(2)` on a new blocking socket: waits until the connection stands.
///
/// A signal does not restart the attempt: the kernel carries on with it, and so does the wait.
///
/// # Errors
/// As [`connect_start`] and [`connect_finish`].
///
/// # Limits
/// Gives up (`ETIMEDOUT`) after `/proc/sys/net/ipv4/tcp_syn_retries`, two minutes unless changed.
pub fn connect(addr: SocketAddr) -> Result<OwnedFd> {
    let fd = new_socket(addr, false)?;
    match rustix::net::connect(&fd, &addr) {
        Ok(()) => {}
        Err(Errno::INTR) => {
            wait_for(&fd, Interest::Writable, Deadline::NEVER)?;
            connect_finish(&fd)?;
        }
        Err(errno) => return Err(Error::new("connect", errno)),
    }
    Ok(fd)
}

/// `accept4(fd, SOCK_CLOEXEC)`: the next connection, and who made it. `nonblocking` is the new
/// socket's.
///
/// Blocks while there is none, unless the listener is non-blocking.
///
/// # Errors
/// `EAGAIN`: none there; `ECONNABORTED`: one came and went again, go on; `EMFILE`, `ENFILE`: it
/// stays in the queue. Network errors of the new connection come here as well (`accept(2)`).
pub fn accept(fd: impl AsFd, nonblocking: bool) -> Result<(OwnedFd, SocketAddr)> {
    let fd = fd.as_fd();
    let flags = socket::flags(nonblocking);
    let (fd, peer) = retry("accept4", || rustix::net::acceptfrom_with(fd, flags))?;
    let peer = peer.ok_or(Errno::CONNABORTED).and_then(SocketAddr::try_from).of("accept4")?;
    Ok((fd, peer))
}

/// `TCP_NODELAY`: sends small pieces at once, instead of gathering them until the peer has
/// acknowledged the last one.
///
/// # Errors
/// `EOPNOTSUPP`, `ENOTSOCK`: not TCP.
pub fn set_nodelay(fd: impl AsFd, nodelay: bool) -> Result<()> {
    sockopt::set_tcp_nodelay(fd, nodelay).of("setsockopt TCP_NODELAY")
}

/// `SO_KEEPALIVE`: asks a silent peer after `idle`, then every `interval`; after `probes` questions
/// without an answer the connection is dead, and receiving gives `ETIMEDOUT`.
///
/// Times count in seconds, rounded up.
///
/// # Errors
/// `EINVAL`: a time of zero or over 32767 seconds, or `probes` not within 1 to 127.
pub fn set_keepalive(fd: impl AsFd, idle: Duration, interval: Duration, probes: u32) -> Result<()> {
    let fd = fd.as_fd();
    sockopt::set_tcp_keepidle(fd, idle).of("setsockopt TCP_KEEPIDLE")?;
    sockopt::set_tcp_keepintvl(fd, interval).of("setsockopt TCP_KEEPINTVL")?;
    sockopt::set_tcp_keepcnt(fd, probes).of("setsockopt TCP_KEEPCNT")?;
    sockopt::set_socket_keepalive(fd, true).of("setsockopt SO_KEEPALIVE")
}

/// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged before the connection is dead
/// (`ETIMEDOUT`). Counts in milliseconds, rounded up; zero restores the system's default.
///
/// # Errors
/// `ENOTSOCK`, `EOPNOTSUPP`: not TCP; `EINVAL`: over 24 days.
pub fn set_user_timeout(fd: impl AsFd, timeout: Duration) -> Result<()> {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    let milliseconds = u32::try_from(milliseconds).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(fd, milliseconds).of("setsockopt TCP_USER_TIMEOUT")
}

/// `getsockname(fd)`: this end's address.
///
/// # Errors
/// `ENOTSOCK`; `EAFNOSUPPORT`: not IPv4 or IPv6.
pub fn local_address(fd: impl AsFd) -> Result<SocketAddr> {
    rustix::net::getsockname(fd).and_then(SocketAddr::try_from).of("getsockname")
}

/// `getpeername(fd)`: the other end's address.
///
/// # Errors
/// `ENOTCONN`: not connected, or no longer; `ENOTSOCK`; `EAFNOSUPPORT`: not IPv4 or IPv6.
pub fn peer_address(fd: impl AsFd) -> Result<SocketAddr> {
    rustix::net::getpeername(fd)
        .and_then(|peer| peer.ok_or(Errno::NOTCONN))
        .and_then(SocketAddr::try_from)
        .of("getpeername")
}

fn new_socket(addr: SocketAddr, nonblocking: bool) -> Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = socket::flags(nonblocking);
    rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).of("socket")
}
