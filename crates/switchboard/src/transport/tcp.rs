//! `tcp:HOST:PORT`: TCP connections.
//!
//! Source: `tcp(7)`. Nothing is encrypted: anything but a loopback address needs `?plaintext`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::tcp;

use super::connection::Channel;
use super::hub::{Dial, Hub, Meet, Met};
use super::{ReceiverFlavor, SenderFlavor, Setup, StreamReceiver, StreamSender};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::link::Role;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let hub = Hub::meet(setup.again(), Role::Sender, Box::new(TcpMeet::new(setup)?))?;
    Ok(SenderFlavor::Stream(Box::new(StreamSender::new(hub))))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let hub = Hub::meet(setup.again(), Role::Receiver, Box::new(TcpMeet::new(setup)?))?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

/// The socket address of `HOST:PORT`, if it may be used unencrypted.
pub(super) fn resolve(address: &Address) -> Result<SocketAddr, Error> {
    let Target::Host { host, port } = &address.target else {
        return Err(Error::new(ErrorKind::BadAddress, address, "no host"));
    };
    let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
        let problem = format!("cannot find the host {host:?}: {error}");
        Error::new(ErrorKind::NotFound, address, problem)
    })?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(|addr| !addr.is_ipv4());
    let Some(first) = found.first().copied() else {
        let problem = format!("the host {host:?} has no address");
        return Err(Error::new(ErrorKind::NotFound, address, problem));
    };
    if !first.ip().is_loopback() && !address.query.plaintext {
        let problem = format!("{} is not this machine, and nothing here is encrypted", first.ip());
        return Err(Error::new(ErrorKind::PermissionDenied, address, problem)
            .hint("if everybody on the network may read and change it, add ?plaintext"));
    }
    Ok(first)
}

#[derive(Debug)]
struct TcpMeet {
    address: Address,
    addr: SocketAddr,
}

/// Connections that wait to be accepted, at most (and at most net.core.somaxconn).
const BACKLOG: u32 = 1024;

/// What is asked for of each buffer of a connection within this machine; the kernel doubles it.
const LOOPBACK_BYTES: usize = 128 * 1024;

impl TcpMeet {
    fn new(setup: &Setup) -> Result<Self, Error> {
        Ok(Self { address: setup.address.clone(), addr: resolve(&setup.address)? })
    }

    fn met(fd: OwnedFd) -> Met {
        // Small messages go out at once; a peer that vanished without a word is noticed in a minute.
        let _ = tcp::set_nodelay(&fd, true);
        let _ = tcp::set_keepalive(&fd, Duration::from_secs(30), Duration::from_secs(10), 3);
        let peer = tcp::peer_address(&fd).ok();
        if peer.is_some_and(|addr| addr.ip().is_loopback()) {
            // Without a way to bridge, what the kernel would let grow to megabytes under way only
            // falls out of the processor's cache: a large file takes half as long again.
            let _ = tcp::set_send_buffer(&fd, LOOPBACK_BYTES);
            let _ = tcp::set_recv_buffer(&fd, LOOPBACK_BYTES);
        }
        let peer = peer.map_or("a peer".into(), |addr| format!("tcp:{addr}"));
        Met { fd, channel: Channel::Stream, peer }
    }

    fn in_use(&self) -> Error {
        let holder = holder_of("tcp", "0A", self.addr);
        let problem = format!("address in use: {holder} has bound it");
        Error::new(ErrorKind::AddressInUse, &self.address, problem)
            .hint("choose another port, or port 0 for any free one")
    }
}

impl Meet for TcpMeet {
    fn listen(&self) -> Result<OwnedFd, Error> {
        tcp::listen_at(self.addr, BACKLOG, true).map_err(|error| {
            if error.kind() == kernel::ErrorKind::AddressInUse {
                self.in_use()
            } else {
                Error::system(&self.address, "cannot bind", error)
            }
        })
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> kernel::Result<Met> {
        tcp::accept(listener, true).map(|(fd, _)| Self::met(fd))
    }

    fn dial(&self) -> Result<Dial, Error> {
        tcp::connect_start(self.addr)
            .map(Dial::Connecting)
            .map_err(|error| Error::system(&self.address, "cannot connect", error))
    }

    fn dialled(&self, fd: OwnedFd) -> Result<Dial, Error> {
        use kernel::ErrorKind as K;
        match tcp::connect_finish(&fd) {
            // On loopback a port that nobody listens on can connect to itself.
            Ok(()) if tcp::local_address(&fd).ok() == tcp::peer_address(&fd).ok() => {
                Ok(Dial::NotYet)
            }
            Ok(()) => Ok(Dial::Connected(Self::met(fd))),
            Err(error) => match error.kind() {
                K::PermissionDenied | K::InvalidInput => {
                    Err(Error::system(&self.address, "cannot connect", error))
                }
                _ => Ok(Dial::NotYet),
            },
        }
    }

    fn local_address(&self, listener: BorrowedFd<'_>) -> Option<String> {
        tcp::local_address(listener.as_fd()).ok().map(|addr| format!("tcp:{addr}"))
    }
}

/// The process that has bound an address of this machine, as far as this user may see: from the
/// tables of `proc_pid_net(5)` of a protocol, where a bound socket is in this state.
pub(super) fn holder_of(protocol: &str, state: &str, addr: SocketAddr) -> String {
    let hex = |four: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*four));
    let wanted = match addr.ip() {
        IpAddr::V4(ip) => hex(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks::<4>().0.iter().map(hex).collect(),
    };
    let is_any = |ip: &str| ip.bytes().all(|digit| digit == b'0');
    let inode = ["", "6"].iter().find_map(|version| {
        let table = std::fs::read_to_string(format!("/proc/net/{protocol}{version}")).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (ip, port) = fields.get(1)?.split_once(':')?;
            let same_port = u16::from_str_radix(port, 16).ok()? == addr.port();
            let same_ip = ip == wanted || is_any(ip) || is_any(&wanted);
            (same_port && same_ip && *fields.get(3)? == state)
                .then(|| fields.get(9).map(|i| (*i).to_owned()))?
        })
    });
    let holder = inode.and_then(|inode| {
        let wanted = std::path::PathBuf::from(format!("socket:[{inode}]"));
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let mut fds = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
            fds.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == wanted))
                .then_some(pid)
        })
    });
    holder.map_or("another process".to_owned(), super::unix::name_of)
}
