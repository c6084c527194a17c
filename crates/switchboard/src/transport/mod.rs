//! Transports: what carries messages for a scheme. One table, a row each.
//!
//! The address parser, `switchboard transports`, the conformance tests and the README's table all
//! follow [`TABLE`]. A new transport is one file and one row.

mod connection;
mod fd;
mod fifo;
mod flavor;
mod hub;
pub(crate) mod mq;
mod packet;
mod stream_receiver;
mod stream_sender;
pub(crate) mod sysv;
mod tcp;
mod udp;
pub(crate) mod unix;
mod unix_dgram;
mod unix_seqpacket;

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use switchboard_kernel::io::{self, Deadline, Interest};

use crate::address::{Address, TargetForm};
use crate::error::Error;
use crate::framing::Framing;
use crate::message::Schema;
use crate::options::Options;

pub(crate) use flavor::{ReceiverFlavor, SenderFlavor};
pub(crate) use stream_receiver::StreamReceiver;
pub(crate) use stream_sender::StreamSender;

/// What a transport can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The largest message in bytes, unless the address or the system says less.
    pub largest_message_bytes: u32,
    /// Messages of one sender arrive in the order they were sent.
    pub ordered: bool,
    /// What was accepted arrives while both sides live.
    pub reliable: bool,
    /// A message whose receiver dies unacknowledged is given to another, marked.
    pub redelivers: bool,
    /// Urgent messages overtake others.
    pub priorities: bool,
    /// Payload is built and read in place.
    pub zero_copy: bool,
    /// One connection carries messages both ways.
    pub bidirectional: bool,
    /// The kernel says who the peer is.
    pub peer_identity: bool,
    /// Nobody on the way can read it.
    pub encrypted: bool,
    /// Messages outlive the processes.
    pub outlives_processes: bool,
    /// Messages outlive a reboot.
    pub outlives_reboot: bool,
    /// Works between machines.
    pub crosses_hosts: bool,
    /// A server has to run.
    pub needs_server: bool,
    /// A queue may have several senders at a time.
    pub many_senders: bool,
}

/// A row of the table.
#[derive(Debug)]
pub struct Transport {
    /// The word before the colon.
    pub scheme: &'static str,
    /// The file in this folder that carries it.
    pub file: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// An address to copy.
    pub example: &'static str,
    /// How the part after the scheme is read.
    pub target: TargetForm,
    /// Patterns carried.
    pub patterns: &'static [&'static str],
    /// Options that an address may have.
    pub options: &'static [&'static str],
    /// What it can do.
    pub capabilities: Capabilities,
    /// How often a message that was acknowledged, or sent, can arrive.
    pub delivery: &'static str,
    /// The framing where the address does not say.
    pub framing: Option<Framing>,
    pub(crate) open_sender: fn(&Setup) -> Result<SenderFlavor, Error>,
    pub(crate) open_receiver: fn(&Setup) -> Result<ReceiverFlavor, Error>,
}

/// What an endpoint is opened with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) options: Options,
    pub(crate) schema: Schema,
}

impl Setup {
    /// The largest message this side takes: the least of the row, the address and the options.
    pub(crate) fn largest_message_bytes(&self) -> u32 {
        let row = match self.address.transport().framing {
            // A stream of bytes has no messages that could be too long.
            Some(_) if self.framing() == Framing::Raw => LINK_MESSAGE_BYTES,
            _ => self.address.transport().capabilities.largest_message_bytes,
        };
        [self.address.query.max_message_bytes, self.options.max_message_bytes]
            .into_iter()
            .flatten()
            .fold(row, u32::min)
    }

    /// The framing: the address's, else the row's.
    pub(crate) fn framing(&self) -> Framing {
        let row = self.address.transport().framing.unwrap_or(Framing::Raw);
        self.address.query.framing.unwrap_or(row)
    }

    /// A copy, for the endpoint to keep.
    pub(crate) fn again(&self) -> Self {
        Self {
            address: self.address.clone(),
            options: self.options.clone(),
            schema: self.schema.clone(),
        }
    }

    /// An error of a system call made for this address.
    pub(crate) fn system(&self, doing: &str, error: switchboard_kernel::Error) -> Error {
        Error::system(&self.address, doing, error)
    }
}

const NOTHING: Capabilities = Capabilities {
    largest_message_bytes: 0,
    ordered: true,
    reliable: true,
    redelivers: false,
    priorities: false,
    zero_copy: false,
    bidirectional: false,
    peer_identity: false,
    encrypted: false,
    outlives_processes: false,
    outlives_reboot: false,
    crosses_hosts: false,
    needs_server: false,
    many_senders: true,
};

/// The largest message over a link. A receiver holds one such message per connection.
const LINK_MESSAGE_BYTES: u32 = 16 << 20;

const AT_LEAST_ONCE: &str = "at least once while the sender lives; a message that comes again is \
                             marked redelivered";
const AT_MOST_ONCE: &str = "once; what a receiver took and did not finish is lost with it";

/// Every transport.
pub const TABLE: &[Transport] = &[
    Transport {
        scheme: "fd",
        file: "fd",
        summary: "an inherited descriptor: a pipe or a stream socket",
        example: "fd:3",
        target: TargetForm::Descriptor,
        patterns: &["queue"],
        options: &["framing", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            many_senders: false,
            ..NOTHING
        },
        delivery: "once; the descriptor is the only way, so what is under way is lost with a side",
        framing: Some(Framing::Link),
        open_sender: fd::open_sender,
        open_receiver: fd::open_receiver,
    },
    Transport {
        scheme: "fifo",
        file: "fifo",
        summary: "a named pipe; lines that echo and cat understand",
        example: "fifo:/tmp/jobs",
        target: TargetForm::Path,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "framing", "max-message", "capacity"],
        capabilities: Capabilities {
            // A write of at most PIPE_BUF bytes is never mixed with another's: a line and its end.
            largest_message_bytes: 4095,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: Some(Framing::Lines),
        open_sender: fifo::open_sender,
        open_receiver: fifo::open_receiver,
    },
    Transport {
        scheme: "unix",
        file: "unix",
        summary: "a Unix-domain stream socket",
        example: "unix:/run/engine.sock",
        target: TargetForm::PathOrAbstract,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "framing", "bind", "connect", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            peer_identity: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        open_sender: unix::open_sender,
        open_receiver: unix::open_receiver,
    },
    Transport {
        scheme: "unix-seqpacket",
        file: "unix_seqpacket",
        summary: "a Unix-domain socket that keeps packets apart",
        example: "unix-seqpacket:/run/engine.sock",
        target: TargetForm::PathOrAbstract,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "framing", "bind", "connect", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            peer_identity: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        open_sender: unix_seqpacket::open_sender,
        open_receiver: unix_seqpacket::open_receiver,
    },
    Transport {
        scheme: "unix-dgram",
        file: "unix_dgram",
        summary: "a Unix-domain datagram socket: bare messages, no connection",
        example: "unix-dgram:/run/log.sock",
        target: TargetForm::PathOrAbstract,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "max-message"],
        capabilities: Capabilities { largest_message_bytes: 128 << 10, ..NOTHING },
        delivery: "once; what waits in the socket is lost with its receiver",
        framing: None,
        open_sender: unix_dgram::open_sender,
        open_receiver: unix_dgram::open_receiver,
    },
    Transport {
        scheme: "mq",
        file: "mq",
        summary: "a POSIX message queue: priorities, kept by the kernel",
        example: "mq:/jobs",
        target: TargetForm::QueueName,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "max-message", "max-messages"],
        capabilities: Capabilities {
            largest_message_bytes: 8192,
            priorities: true,
            outlives_processes: true,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: None,
        open_sender: mq::open_sender,
        open_receiver: mq::open_receiver,
    },
    Transport {
        scheme: "sysv",
        file: "sysv",
        summary: "a System V message queue, by key or path",
        example: "sysv:/etc/hostname#7",
        target: TargetForm::SysvKey,
        patterns: &["queue"],
        options: &["mode", "owner", "group", "max-message", "capacity", "type"],
        capabilities: Capabilities {
            largest_message_bytes: 8192,
            outlives_processes: true,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: None,
        open_sender: sysv::open_sender,
        open_receiver: sysv::open_receiver,
    },
    Transport {
        scheme: "tcp",
        file: "tcp",
        summary: "a TCP connection; unencrypted, so on this machine unless ?plaintext",
        example: "tcp:127.0.0.1:7000",
        target: TargetForm::HostPort,
        patterns: &["queue"],
        options: &["framing", "bind", "connect", "plaintext", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            crosses_hosts: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        open_sender: tcp::open_sender,
        open_receiver: tcp::open_receiver,
    },
    Transport {
        scheme: "udp",
        file: "udp",
        summary: "UDP datagrams, numbered so that gaps are seen",
        example: "udp:127.0.0.1:7000",
        target: TargetForm::HostPort,
        patterns: &["queue"],
        options: &["framing", "plaintext", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: udp::LARGEST_MESSAGE_BYTES,
            ordered: false,
            reliable: false,
            crosses_hosts: true,
            ..NOTHING
        },
        delivery: "at most once, perhaps not at all; what is missing is counted and reported",
        framing: None,
        open_sender: udp::open_sender,
        open_receiver: udp::open_receiver,
    },
];

/// A message as it was received; its bytes are borrowed for the length of a call.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) receipt: Receipt,
    pub(crate) redelivered: bool,
    pub(crate) deliveries: u16,
    pub(crate) lost_before: u64,
    pub(crate) priority: u32,
}

/// Where an acknowledgement has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) connection: u64,
    pub(crate) sequence: u64,
}

impl<'a> Raw<'a> {
    /// A message of a transport that neither acknowledges nor redelivers.
    pub(crate) fn bare(payload: &'a [u8]) -> Self {
        Self {
            payload,
            receipt: Receipt::default(),
            redelivered: false,
            deliveries: 0,
            lost_before: 0,
            priority: 0,
        }
    }
}

/// Waits for a descriptor or the cancel descriptor. `false` when cancelled.
pub(crate) fn wait_or_cancel(
    fd: BorrowedFd<'_>,
    interest: Interest,
    cancel: Option<&Arc<OwnedFd>>,
    deadline: Deadline,
) -> switchboard_kernel::Result<bool> {
    use std::os::fd::AsFd;
    let Some(cancel) = cancel else {
        io::wait_for(fd, interest, deadline)?;
        return Ok(true);
    };
    let ready = io::poll([(fd, interest), (cancel.as_fd(), Interest::Readable)], deadline)?;
    Ok(!ready[1].any())
}
