//! One connection: a descriptor, and what is spoken over it.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use switchboard_kernel::ErrorKind;
use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::io::{self, Interest};
use switchboard_kernel::unix_socket::{self, Received};

use crate::framing::{Foreign, Framing};
use crate::link::publication::Place;
use crate::link::{Hello, Link, Role};

/// What kind of descriptor carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A stream socket.
    Stream,
    /// A socket that keeps packets apart.
    Packets,
    /// A pipe or FIFO, one way.
    Pipe,
}

/// What is spoken over it.
#[derive(Debug)]
pub(crate) enum Wire {
    Link(Box<Link>),
    Foreign(Foreign),
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Some,
    Nothing,
    Closed,
}

/// One connection of an endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Never used twice in an endpoint.
    pub(crate) id: u64,
    pub(crate) fd: OwnedFd,
    channel: Channel,
    /// The writing end of a pipe: nothing comes back over it.
    writes_only: bool,
    pub(crate) wire: Wire,
    /// Where a subscriber is in what this endpoint publishes, once it has joined.
    pub(crate) place: Option<Place>,
    /// What is known of the peer.
    pub(crate) peer: String,
    pub(crate) since: Instant,
    /// Messages received over it.
    pub(crate) received: u64,
    /// Messages of a topic that are missing before the next one, once they were reported.
    pub(crate) missing: u64,
    /// The other side closed, or the connection broke.
    pub(crate) closed: bool,
    /// It broke: what the peer said last may not have come.
    pub(crate) broken: bool,
    /// Our own end is said and everything about it settled.
    pub(crate) done: bool,
    watched: Option<Interest>,
    /// Bytes have come over it. Before the first writer, a FIFO reads like one whose writers left.
    heard: bool,
    /// Bytes that waited when a write last found too little room; 0 once there was enough.
    stuck_bytes: usize,
}

/// A packet of a link is at most this long, so that it fits any socket's default buffer.
const PACKET_BYTES: usize = 64 * 1024;
/// Blocks per vectored write.
pub(crate) const SLICES: usize = 16;

impl Connection {
    pub(crate) fn new(
        id: u64,
        fd: OwnedFd,
        channel: Channel,
        peer: String,
        framing: Framing,
        hello: &Hello,
    ) -> Self {
        let packets = channel == Channel::Packets;
        let wire = match (framing, channel) {
            (Framing::Link, Channel::Pipe) => Wire::Link(Box::new(Link::one_way(hello.clone()))),
            (Framing::Link, _) => Wire::Link(Box::new(Link::new(hello.clone()))),
            (framing, _) => {
                Wire::Foreign(Foreign::new(framing, packets, hello.max_message_bytes as usize))
            }
        };
        Self {
            id,
            fd,
            channel,
            writes_only: channel == Channel::Pipe && hello.role == Role::Sender,
            wire,
            place: None,
            peer,
            since: Instant::now(),
            received: 0,
            missing: 0,
            closed: false,
            broken: false,
            done: false,
            watched: None,
            heard: false,
            stuck_bytes: 0,
        }
    }

    /// Whether messages may flow.
    pub(crate) fn is_open(&self) -> bool {
        match &self.wire {
            Wire::Link(link) => link.is_open(),
            Wire::Foreign(_) => !self.closed,
        }
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        match &self.wire {
            Wire::Link(link) => link.unwritten_bytes(),
            Wire::Foreign(foreign) => foreign.unwritten_bytes(),
        }
    }

    /// Watches for what this connection waits for: bytes to read, and room where bytes wait.
    ///
    /// # Errors
    /// Of `epoll_ctl`.
    pub(crate) fn watch(&mut self, epoll: &Epoll, writes: bool) -> switchboard_kernel::Result<()> {
        let stuck = self.place.as_ref().is_some_and(|place| place.stuck);
        let wanted = match (self.closed, self.unwritten_bytes() > 0 || stuck) {
            (false, false) if writes && self.channel == Channel::Pipe => None,
            (false, false) => Some(Interest::Readable),
            (false, true) if self.channel == Channel::Pipe => Some(Interest::Writable),
            (false, true) => Some(Interest::Both),
            (true, _) => None,
        };
        match (self.watched, wanted) {
            (None, Some(interest)) => epoll.add(&self.fd, self.id, interest)?,
            (Some(_), None) => epoll.delete(&self.fd)?,
            (Some(old), Some(new)) if old != new => epoll.modify(&self.fd, self.id, new)?,
            _ => {}
        }
        self.watched = wanted;
        Ok(())
    }

    /// Whether it can be read without asking first whether there is anything.
    pub(crate) fn can_guess(&self) -> bool {
        self.heard || self.channel != Channel::Pipe
    }

    /// Reads once.
    pub(crate) fn read(&mut self) -> Read {
        if self.closed {
            return Read::Closed;
        }
        if self.writes_only {
            return Read::Nothing;
        }
        let room = match &mut self.wire {
            Wire::Link(link) if self.channel == Channel::Packets => {
                link.room_for_packet(PACKET_BYTES)
            }
            Wire::Link(link) => link.room(),
            Wire::Foreign(foreign) => {
                let whole = foreign.whole();
                foreign.input.room(whole)
            }
        };
        let result = match self.channel {
            Channel::Packets => match recv_packet(&self.fd, room) {
                // A packet that did not fit would be cut: the connection cannot be trusted on.
                Ok(Some(packet)) if packet.truncated => Ok(None),
                Ok(Some(packet)) => Ok(Some(packet.len)),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            },
            _ => io::read(&self.fd, room).map(|n| (n > 0).then_some(n)),
        };
        match result {
            Ok(Some(n)) => {
                self.heard = true;
                match &mut self.wire {
                    Wire::Link(link) => link.filled(n),
                    Wire::Foreign(foreign) if self.channel == Channel::Packets => {
                        foreign.filled_packet(n);
                    }
                    Wire::Foreign(foreign) => foreign.input.filled(n),
                }
                Read::Some
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Read::Nothing,
            result => {
                self.closed = true;
                self.broken = result.is_err();
                if let Wire::Foreign(foreign) = &mut self.wire {
                    foreign.end_of_input();
                }
                Read::Closed
            }
        }
    }

    /// Whether so much was gathered that a write is worth its call. What waits because there was no
    /// room does not count: trying again for every message would be a failing call for each.
    #[inline]
    pub(crate) fn has_gathered(&self, enough_bytes: usize) -> bool {
        self.unwritten_bytes() >= self.stuck_bytes + enough_bytes
    }

    /// Writes what waits until there is no more room. `false` when the other side is gone.
    pub(crate) fn flush(&mut self) -> bool {
        while self.unwritten_bytes() > 0 {
            let (offered, result) = self.write_once();
            match result {
                Ok(n) => {
                    match &mut self.wire {
                        Wire::Link(link) => link.wrote(n),
                        Wire::Foreign(foreign) => foreign.wrote(n),
                    }
                    // A short write filled what room there was: another would only say so.
                    if n < offered {
                        self.stuck_bytes = self.unwritten_bytes();
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stuck_bytes = self.unwritten_bytes();
                    return true;
                }
                Err(_) => return false,
            }
        }
        self.stuck_bytes = 0;
        true
    }

    /// One write of what waits: how many bytes it offered, and how many were taken.
    fn write_once(&self) -> (usize, switchboard_kernel::Result<usize>) {
        match &self.wire {
            Wire::Foreign(foreign) => {
                let bytes = foreign.unwritten().unwrap_or_default();
                (bytes.len(), self.write(&mut [bytes]))
            }
            Wire::Link(link) => {
                let mut slices = [&[][..]; SLICES];
                let mut n = 0;
                for (slice, bytes) in slices.iter_mut().zip(link.unwritten()) {
                    *slice = bytes;
                    n += 1;
                }
                self.write_link(&mut slices[..n])
            }
        }
    }

    /// Writes bytes of a link: how many were offered, of a packet as many as fit it, and how many taken.
    pub(crate) fn write_link(
        &self,
        slices: &mut [&[u8]],
    ) -> (usize, switchboard_kernel::Result<usize>) {
        let mut room = if self.channel == Channel::Packets { PACKET_BYTES } else { usize::MAX };
        for slice in slices.iter_mut() {
            *slice = &slice[..slice.len().min(room)];
            room -= slice.len();
        }
        (slices.iter().map(|slice| slice.len()).sum(), self.write(slices))
    }

    /// One system call.
    fn write(&self, slices: &mut [&[u8]]) -> switchboard_kernel::Result<usize> {
        let bytes = slices.first().copied().unwrap_or_default();
        match (self.channel, slices.len()) {
            (Channel::Pipe, 0 | 1) => io::write(&self.fd, bytes),
            (_, 0 | 1) => unix_socket::send(&self.fd, bytes),
            (channel, _) => {
                let mut vectors = [IoSlice::new(&[]); SLICES];
                for (vector, slice) in vectors.iter_mut().zip(slices.iter()) {
                    *vector = IoSlice::new(slice);
                }
                let vectors = &vectors[..slices.len().min(SLICES)];
                match channel {
                    Channel::Pipe => io::writev(&self.fd, vectors),
                    _ => unix_socket::send_vectored(&self.fd, vectors),
                }
            }
        }
    }

    /// Tells the other side that nothing follows, where the channel can.
    pub(crate) fn shutdown(&self) {
        if self.channel != Channel::Pipe {
            // The peer may be gone already; then there is nobody to tell.
            let _ = unix_socket::shutdown_write(self.fd.as_fd());
        }
    }
}

/// Receives a packet. A peer that closed with something of ours unread shows as an error, once, before
/// what it had sent until then.
fn recv_packet(fd: &OwnedFd, room: &mut [u8]) -> switchboard_kernel::Result<Option<Received>> {
    match unix_socket::recv_packet(fd, room) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            unix_socket::recv_packet(fd, room)
        }
        result => result,
    }
}
