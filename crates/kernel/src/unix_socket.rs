//! Unix-domain sockets: two-way connections between processes of one machine, which can carry
//! descriptors and whose ends the kernel identifies.
//!
//! Source: `unix(7)`, `socketpair(2)`, `bind(2)`, `connect(2)`, `accept(2)`, `socket(7)`.
//!
//! *Who died:* on streams and seqpackets the other end reads end of file (or `ECONNRESET`, when the
//! dead process left data unread) and gets `EPIPE` when it sends, because the kernel closes the
//! descriptors of a killed process. A copy of the descriptor in a forked child keeps the connection
//! up: [`peer_pidfd`] cannot be fooled. A socket's name stays behind when its process dies:
//! [`remove_stale`].
//!
//! *Names.* A socket with a path is bound under a random hidden name in the same folder, gets its
//! owner and mode there, listens, and only then gets its real name. The kernel goes on reporting the
//! name it was bound under (`.NAME.RANDOM`) in [`local_address`] and in `ss`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::{Hidden, Place};
use crate::io::retry;
use crate::permissions::Permissions;
use crate::socket;

mod address;
mod look;
mod message;
mod peer;
mod stale;
mod within;

pub use address::{Address, local_address};
pub use look::{is_bound, peek_descriptors};
pub use message::{
    MAX_DESCRIPTORS, enable_packet_ends, peek_offset, peek_with_fds, recv_packet, recv_with_fds,
    send_with_fds, set_peek_offset, unsent_bytes,
};
pub use peer::{
    Credentials, peer_credentials, peer_groups, peer_pidfd, peer_process, peer_process_by_id,
};
pub use stale::remove_stale;
pub use within::{connect_in, listen_in, unlink_in};

pub use crate::socket::{
    Received, recv, recv_buffer, recv_whole, send, send_buffer, send_vectored, set_recv_buffer,
    set_send_buffer, shutdown, shutdown_write,
};

/// What a Unix socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SOCK_STREAM`: a connection, and bytes without boundaries.
    Stream,
    /// `SOCK_DGRAM`: no connection; whole messages, in order, none lost.
    Datagram,
    /// `SOCK_SEQPACKET`: a connection, and whole messages in order.
    Seqpacket,
}

impl Kind {
    fn socket_type(self) -> SocketType {
        match self {
            Self::Stream => SocketType::STREAM,
            Self::Datagram => SocketType::DGRAM,
            Self::Seqpacket => SocketType::SEQPACKET,
        }
    }
}

/// What kind of socket a descriptor is (`getsockopt SO_TYPE`); `None` for other kinds, such as raw.
///
/// # Errors
/// `ENOTSOCK`, `EBADF`.
pub fn kind_of(fd: impl AsFd) -> Result<Option<Kind>> {
    let found = rustix::net::sockopt::socket_type(fd).of("getsockopt SO_TYPE")?;
    let kinds = [Kind::Stream, Kind::Datagram, Kind::Seqpacket];
    Ok(kinds.into_iter().find(|kind| kind.socket_type() == found))
}

/// `socketpair(AF_UNIX, kind, SOCK_CLOEXEC)`: two sockets connected to each other, without a name.
/// Both block.
///
/// # Errors
/// `EMFILE`, `ENFILE`: out of descriptors.
///
/// ```
/// use switchboard_kernel::unix_socket::{self, Kind};
///
/// let (a, b) = unix_socket::pair(Kind::Seqpacket)?;
/// unix_socket::send(&a, b"one whole message")?;
/// let mut buffer = [0; 8];
/// let received = unix_socket::recv_whole(&b, &mut buffer)?;
/// assert!(received.truncated && received.len == 17);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
pub fn pair(kind: Kind) -> Result<(OwnedFd, OwnedFd)> {
    let flags = socket::flags(false);
    rustix::net::socketpair(AddressFamily::UNIX, kind.socket_type(), flags, None).of("socketpair")
}

/// `socket(AF_UNIX, kind, SOCK_CLOEXEC)`: a socket, not bound and not connected.
///
/// # Errors
/// `EMFILE`, `ENFILE`: out of descriptors.
pub fn socket(kind: Kind, nonblocking: bool) -> Result<OwnedFd> {
    let flags = socket::flags(nonblocking);
    rustix::net::socket_with(AddressFamily::UNIX, kind.socket_type(), flags, None).of("socket")
}

/// `bind(fd, address)`, with owner and mode as given before anybody can see the name.
///
/// A stream or seqpacket that does not listen yet refuses connections and looks dead to
/// [`remove_stale`]: use [`listen_at`]. An abstract name has no owner and no mode: any process in
/// the network namespace may connect.
///
/// # Errors
/// `EADDRINUSE`: the name is taken, if only by a dead socket's; `ENOENT`: no such folder; `EACCES`,
/// `EROFS`: the folder cannot be written; `EPERM`: no right to give it that owner or group;
/// `EINVAL`: already bound, or the file system cannot rename without replacing (NFS);
/// `ENAMETOOLONG`: an abstract name over 107 bytes.
///
/// # Limits
/// A path may be of any length that `PATH_MAX` (4096) allows, its last part up to 255 bytes. Setting
/// the mode, and folders with long paths, need `/proc`.
pub fn bind(fd: impl AsFd, address: &Address, permissions: Permissions) -> Result<()> {
    bind_then(fd.as_fd(), address, permissions, |_| Ok(()))
}

/// `socket`, `bind`, `listen`: accepts connections at an address, which becomes visible only once it
/// listens.
///
/// # Errors
/// As [`bind`] and [`socket()`]; `EOPNOTSUPP`: datagram sockets do not listen.
///
/// # Limits
/// The backlog is cut to `/proc/sys/net/core/somaxconn`.
pub fn listen_at(
    kind: Kind,
    address: &Address,
    permissions: Permissions,
    backlog: u32,
    nonblocking: bool,
) -> Result<OwnedFd> {
    let fd = socket(kind, nonblocking)?;
    bind_then(fd.as_fd(), address, permissions, |fd| socket::listen(fd, backlog))?;
    Ok(fd)
}

/// `socket`, `bind`: for [`Kind::Datagram`], receives at an address.
///
/// A receiver that answers to the address a datagram came from needs a sender bound to an abstract
/// name: the kernel reports a path as the hidden one it was bound under.
///
/// # Errors
/// As [`bind`] and [`socket()`].
///
/// # Limits
/// `/proc/sys/net/unix/max_dgram_qlen` datagrams wait at most; then senders block.
pub fn bind_at(
    kind: Kind,
    address: &Address,
    permissions: Permissions,
    nonblocking: bool,
) -> Result<OwnedFd> {
    let fd = socket(kind, nonblocking)?;
    bind(&fd, address, permissions)?;
    Ok(fd)
}

/// `connect(fd, address)`.
///
/// Blocks while the listener's backlog is full, unless the socket is non-blocking. It does not wait
/// for the listener to accept.
///
/// # Errors
/// `EAGAIN`: the backlog is full; `ECONNREFUSED`: nobody listens, the name is a dead socket's;
/// `ENOENT`: no such name; `EACCES`: its mode forbids it; `EPROTOTYPE`: another kind of socket;
/// `ENAMETOOLONG`: an abstract name over 107 bytes.
///
/// # Limits
/// A path may be of any length that `PATH_MAX` (4096) allows; over 107 bytes it needs `/proc`.
pub fn connect(fd: impl AsFd, address: &Address) -> Result<()> {
    let fd = fd.as_fd();
    let target = address.encode()?;
    retry("connect", || rustix::net::connect(fd, &target.name))
}

/// `socket`, `connect`: a new socket, connected.
///
/// # Errors
/// As [`connect`] and [`socket()`].
pub fn connect_to(kind: Kind, address: &Address, nonblocking: bool) -> Result<OwnedFd> {
    let fd = socket(kind, nonblocking)?;
    connect(&fd, address)?;
    Ok(fd)
}

/// `accept4(fd, SOCK_CLOEXEC)`: the next connection. `nonblocking` is the new socket's.
///
/// Blocks while there is none, unless the listener is non-blocking.
///
/// # Errors
/// `EAGAIN`: none there; `EMFILE`, `ENFILE`: out of descriptors, and the connection stays in the
/// queue; `EINVAL`: not listening.
pub fn accept(fd: impl AsFd, nonblocking: bool) -> Result<OwnedFd> {
    let fd = fd.as_fd();
    let flags = socket::flags(nonblocking);
    retry("accept4", || rustix::net::accept_with(fd, flags))
}

/// `unlink(path)`, refused for what is not a socket. Connections stay up; nobody new finds it.
///
/// The check comes first, so it guards against a wrong path, not against somebody else who may
/// write in the folder and swaps the name in between.
///
/// # Errors
/// `ENOTSOCK`: not a socket; `ENOENT`; `EACCES`, `EPERM`: no right to remove it.
pub fn unlink(path: &Path) -> Result<()> {
    let place = Place::of(path, OFlags::PATH)?;
    if place.file_type()? != FileType::Socket {
        return Err(Error::new("unlink", Errno::NOTSOCK));
    }
    place.unlink()
}

/// Binds, prepares, and makes the name visible, in this order.
fn bind_then(
    fd: BorrowedFd<'_>,
    address: &Address,
    permissions: Permissions,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    match address {
        Address::Abstract(_) => {
            rustix::net::bind(fd, &address.encode()?.name).of("bind")?;
            prepare(fd)
        }
        Address::Path(path) => {
            bind_at_place(fd, &Place::of(path, OFlags::PATH)?, permissions, prepare)
        }
    }
}

fn bind_at_place(
    fd: BorrowedFd<'_>,
    place: &Place,
    permissions: Permissions,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let hidden = bind_hidden(fd, place, permissions)?;
    prepare(fd)?;
    hidden.show().map_err(|error| match error.errno() {
        libc::EEXIST => Error::new("bind", Errno::ADDRINUSE),
        _ => error,
    })
}

fn bind_hidden<'a>(
    fd: BorrowedFd<'_>,
    place: &'a Place,
    permissions: Permissions,
) -> Result<Hidden<'a>> {
    let mut hidden = place.hidden()?;
    // The new inode takes its mode from the socket's own, less the umask: nobody else can send to
    // it before its permissions are set.
    rustix::fs::fchmod(fd, Mode::RUSR | Mode::WUSR).of("fchmod")?;
    let name =
        address::of_path(&hidden.path()).or_else(|_| address::of_path(&hidden.short_path()))?;
    rustix::net::bind(fd, &name).of("bind")?;
    hidden.made();
    hidden.set_permissions(FileType::Socket, permissions)?;
    Ok(hidden)
}
