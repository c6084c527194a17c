//! UDP: single datagrams between machines, to one or to many (multicast), over IPv4 and IPv6.
//!
//! Source: `udp(7)`, `ip(7)`, `ipv6(7)`; RFC 768, RFC 1112 (IPv4 multicast), RFC 4291 (IPv6
//! multicast).
//!
//! A datagram arrives whole or not at all; it may be lost, doubled or overtaken, and a full receive
//! buffer drops it silently. *Who died:* a connected socket learns by `ECONNREFUSED` on a later
//! call that nobody has the port, if the peer's machine says so; else nobody tells.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};

use crate::error::{OfCall, Result};
use crate::io::retry;
use crate::socket;

pub use crate::socket::{
    Received, recv_buffer, recv_whole, send, send_buffer, send_vectored, set_recv_buffer,
    set_send_buffer,
};
pub use crate::tcp::{local_address, peer_address};

/// The largest payload of one datagram over IPv4, in bytes: 65,535 less the IP and UDP headers.
pub const LARGEST_PAYLOAD: usize = 65_507;

/// `socket`, `bind`: receives at an address. Port 0 picks a free one, which [`local_address`] tells.
///
/// Sets `IPV6_V6ONLY` on IPv6.
///
/// # Errors
/// `EADDRINUSE`: another socket has it; `EADDRNOTAVAIL`: not an address of this machine; `EACCES`:
/// a port below `/proc/sys/net/ipv4/ip_unprivileged_port_start`; `EAFNOSUPPORT`: no IPv6 here;
/// `EMFILE`, `ENFILE`.
pub fn bind(addr: SocketAddr, nonblocking: bool) -> Result<OwnedFd> {
    let fd = new_socket(addr, nonblocking)?;
    bind_to(&fd, addr)?;
    Ok(fd)
}

/// As [`bind`], with `SO_REUSEADDR`: every socket bound this way to one port gets a copy of each
/// multicast datagram. A unicast datagram goes to one of them, any of them.
///
/// # Errors
/// As [`bind`]; `EADDRINUSE`: another socket has it and does not share.
pub fn bind_shared(addr: SocketAddr, nonblocking: bool) -> Result<OwnedFd> {
    let fd = new_socket(addr, nonblocking)?;
    sockopt::set_socket_reuseaddr(&fd, true).of("setsockopt SO_REUSEADDR")?;
    bind_to(&fd, addr)?;
    Ok(fd)
}

/// `socket`, `connect`: sends to one address, and receives from that one only. The local port is any
/// free one. Nothing is sent, so nobody need be there.
///
/// # Errors
/// `ENETUNREACH`: no route; `EACCES`: a broadcast address; `EAFNOSUPPORT`: no IPv6 here; `EMFILE`,
/// `ENFILE`.
pub fn connect(addr: SocketAddr, nonblocking: bool) -> Result<OwnedFd> {
    let fd = new_socket(addr, nonblocking)?;
    rustix::net::connect(&fd, &addr).of("connect")?;
    Ok(fd)
}

/// `sendto(fd, bytes, MSG_NOSIGNAL, to)`: sends one datagram, whole.
///
/// Blocks while the send buffer is full, unless the socket is non-blocking.
///
/// # Errors
/// `EMSGSIZE`: over [`LARGEST_PAYLOAD`]; `EAGAIN`: full; `ENETUNREACH`: no route; `EAFNOSUPPORT`,
/// `EINVAL`: the address is not of the socket's family; `ECONNREFUSED`: an earlier one, on a
/// connected socket.
///
/// # Limits
/// `SO_SNDBUF` must hold the datagram: `/proc/sys/net/core/wmem_default`.
#[inline]
pub fn send_to(fd: impl AsFd, bytes: &[u8], to: SocketAddr) -> Result<usize> {
    let fd = fd.as_fd();
    retry("sendto", || rustix::net::sendto(fd, bytes, SendFlags::NOSIGNAL, &to))
}

/// `recvfrom(fd, buffer, MSG_TRUNC)`: takes one datagram, and says how long it was and whose.
///
/// Blocks while nothing is there, unless the socket is non-blocking. The sender's address is what
/// the datagram claims: no proof.
///
/// # Errors
/// `EAGAIN`: nothing there; `ECONNREFUSED`: an earlier datagram found nobody; `EAFNOSUPPORT`: not
/// an IPv4 or IPv6 socket.
#[inline]
pub fn recv_from(fd: impl AsFd, buffer: &mut [u8]) -> Result<(Received, SocketAddr)> {
    let fd = fd.as_fd();
    let (_, len, from) =
        retry("recvfrom", || rustix::net::recvfrom(fd, &mut *buffer, RecvFlags::TRUNC))?;
    let from = from.ok_or(Errno::AFNOSUPPORT).and_then(SocketAddr::try_from).of("recvfrom")?;
    Ok((Received { len, truncated: len > buffer.len() }, from))
}

/// `IP_ADD_MEMBERSHIP`: receives what is sent to a group, on the interface that has this address
/// (`0.0.0.0`: the one the routing table picks).
///
/// A socket bound to `0.0.0.0` also gets the datagrams of groups that *other* sockets of this
/// machine joined on its port; bind to the group's own address to get only that.
///
/// # Errors
/// `EINVAL`: not a multicast address; `ENODEV`: no such interface; `EADDRINUSE`: already a member;
/// `ENOBUFS`.
///
/// # Limits
/// `/proc/sys/net/ipv4/igmp_max_memberships` groups per socket, 20 unless changed.
pub fn join_multicast_v4(fd: impl AsFd, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
    sockopt::set_ip_add_membership(fd, &group, &interface).of("setsockopt IP_ADD_MEMBERSHIP")
}

/// `IP_DROP_MEMBERSHIP`: leaves a group joined with [`join_multicast_v4`]. Closing the socket does
/// too.
///
/// # Errors
/// `EADDRNOTAVAIL`: not a member; `ENODEV`: no such interface.
pub fn leave_multicast_v4(fd: impl AsFd, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
    sockopt::set_ip_drop_membership(fd, &group, &interface).of("setsockopt IP_DROP_MEMBERSHIP")
}

/// `IPV6_ADD_MEMBERSHIP`: receives what is sent to a group, on the interface with this number
/// (0: the one the routing table picks; `/sys/class/net/NAME/ifindex` lists them).
///
/// # Errors
/// `EINVAL`: not a multicast address; `ENODEV`: no such interface; `EADDRINUSE`: already a member.
///
/// # Limits
/// `/proc/sys/net/core/optmem_max` bytes for all of a socket's memberships.
pub fn join_multicast_v6(fd: impl AsFd, group: Ipv6Addr, interface: u32) -> Result<()> {
    sockopt::set_ipv6_add_membership(fd, &group, interface).of("setsockopt IPV6_ADD_MEMBERSHIP")
}

/// `IPV6_DROP_MEMBERSHIP`: leaves a group joined with [`join_multicast_v6`].
///
/// # Errors
/// `EADDRNOTAVAIL`: not a member; `ENODEV`: no such interface.
pub fn leave_multicast_v6(fd: impl AsFd, group: Ipv6Addr, interface: u32) -> Result<()> {
    sockopt::set_ipv6_drop_membership(fd, &group, interface).of("setsockopt IPV6_DROP_MEMBERSHIP")
}

/// `IP_MULTICAST_IF`: sends multicast through the interface that has this address (`0.0.0.0`: the
/// one the routing table picks).
///
/// # Errors
/// `EADDRNOTAVAIL`: no interface has it.
pub fn set_multicast_interface_v4(fd: impl AsFd, interface: Ipv4Addr) -> Result<()> {
    sockopt::set_ip_multicast_if(fd, &interface).of("setsockopt IP_MULTICAST_IF")
}

/// `IPV6_MULTICAST_IF`: sends multicast through the interface with this number (0: the one the
/// routing table picks).
///
/// # Errors
/// `ENODEV`: no such interface.
pub fn set_multicast_interface_v6(fd: impl AsFd, interface: u32) -> Result<()> {
    sockopt::set_ipv6_multicast_if(fd, interface).of("setsockopt IPV6_MULTICAST_IF")
}

/// `IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`: how many networks a multicast datagram may cross.
/// 1, the default, keeps it on the local one; 0 on this machine.
///
/// # Errors
/// `EINVAL`: over 255; `EAFNOSUPPORT`: not an IPv4 or IPv6 socket.
pub fn set_multicast_ttl(fd: impl AsFd, hops: u32) -> Result<()> {
    let fd = fd.as_fd();
    match sockopt::socket_domain(fd).of("getsockopt SO_DOMAIN")? {
        AddressFamily::INET => sockopt::set_ip_multicast_ttl(fd, hops),
        AddressFamily::INET6 => sockopt::set_ipv6_multicast_hops(fd, hops),
        _ => Err(Errno::AFNOSUPPORT),
    }
    .of("setsockopt IP_MULTICAST_TTL")
}

/// `IP_MULTICAST_LOOP`, `IPV6_MULTICAST_LOOP`: whether this machine's own members of a group get
/// what this socket sends. They do, unless switched off. IPv4 datagrams that leave through the
/// loopback interface itself come back anyhow.
///
/// # Errors
/// `EAFNOSUPPORT`: not an IPv4 or IPv6 socket.
pub fn set_multicast_loop(fd: impl AsFd, on: bool) -> Result<()> {
    let fd = fd.as_fd();
    match sockopt::socket_domain(fd).of("getsockopt SO_DOMAIN")? {
        AddressFamily::INET => sockopt::set_ip_multicast_loop(fd, on),
        AddressFamily::INET6 => sockopt::set_ipv6_multicast_loop(fd, on),
        _ => Err(Errno::AFNOSUPPORT),
    }
    .of("setsockopt IP_MULTICAST_LOOP")
}

fn new_socket(addr: SocketAddr, nonblocking: bool) -> Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = socket::flags(nonblocking);
    rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP)).of("socket")
}

fn bind_to(fd: &OwnedFd, addr: SocketAddr) -> Result<()> {
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(fd, true).of("setsockopt IPV6_V6ONLY")?;
    }
    rustix::net::bind(fd, &addr).of("bind")
}
