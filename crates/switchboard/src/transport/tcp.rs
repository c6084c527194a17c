//! `tcp:HOST:PORT`: TCP connections.
//!
//! Source: `tcp(7)`. Nothing is encrypted: anything but a loopback address needs `?plaintext`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::tcp;

use super::connection::Channel;
use super::hub::{Dial, Hub, Meet, Met};
use super::setup::{check_for_links, starts_over_links};
use super::{
    ClientFlavor, ListenerFlavor, LiveReader, LiveWriter, NotifierFlavor, ReceiverFlavor,
    SenderFlavor, ServerFlavor, Setup, StreamClient, StreamPublisher, StreamReceiver, StreamSender,
    StreamServer, holder,
};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::link::{Pattern, Role};
use crate::pattern::topic::Start;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let hub =
        Hub::meet(setup.again(), Pattern::Queue, Role::Sender, Box::new(TcpMeet::new(setup)?))?;
    Ok(SenderFlavor::Stream(Box::new(StreamSender::new(hub))))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let hub =
        Hub::meet(setup.again(), Pattern::Queue, Role::Receiver, Box::new(TcpMeet::new(setup)?))?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

pub(crate) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    let hub = meet(setup, Pattern::Topic, Role::Sender)?;
    Ok(SenderFlavor::Publisher(Box::new(StreamPublisher::new(hub))))
}

pub(crate) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    starts_over_links(setup, start)?;
    let hub = meet(setup, Pattern::Topic, Role::Receiver)?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

pub(crate) fn open_client(setup: &Setup) -> Result<ClientFlavor, Error> {
    let hub = meet(setup, Pattern::Service, Role::Sender)?;
    Ok(ClientFlavor::Stream(Box::new(StreamClient::new(hub))))
}

pub(crate) fn open_server(setup: &Setup) -> Result<ServerFlavor, Error> {
    let hub = meet(setup, Pattern::Service, Role::Receiver)?;
    Ok(ServerFlavor::Stream(Box::new(StreamServer::new(hub))))
}

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    Ok(NotifierFlavor::over_links(meet(setup, Pattern::Event, Role::Sender)?))
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    Ok(ListenerFlavor::over_links(meet(setup, Pattern::Event, Role::Receiver)?))
}

pub(crate) fn open_state_writer(setup: &Setup) -> Result<LiveWriter, Error> {
    Ok(LiveWriter::over_links(meet(setup, Pattern::State, Role::Sender)?))
}

pub(crate) fn open_state_reader(setup: &Setup) -> Result<LiveReader, Error> {
    LiveReader::over_links(meet(setup, Pattern::State, Role::Receiver)?)
}

/// An end of a pattern that goes over links alone.
fn meet(setup: &Setup, pattern: Pattern, role: Role) -> Result<Hub, Error> {
    check_for_links(setup, pattern)?;
    Hub::meet(setup.again(), pattern, role, Box::new(TcpMeet::new(setup)?))
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

/// The error of a port that could not be bound.
pub(super) fn cannot_bind(address: &Address, addr: SocketAddr, error: kernel::Error) -> Error {
    let failed = Error::system(address, "cannot bind", error);
    if error.kind() != kernel::ErrorKind::PermissionDenied || addr.port() == 0 {
        return failed;
    }
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let start = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let start: u16 = start.unwrap_or(1024);
    failed.hint(format!(
        "ports below {start} take the capability CAP_NET_BIND_SERVICE: choose a higher one, or let \
         everybody have it with sysctl net.ipv4.ip_unprivileged_port_start={}",
        addr.port()
    ))
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
        let holder = holder::of_port("tcp", "0A", self.addr);
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
                cannot_bind(&self.address, self.addr, error)
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
