//! Transports: what carries messages for a scheme. One table, a row each.
//!
//! The address parser, `switchboard transports`, the conformance tests and the README's table all
//! follow [`TABLE`]. A new transport is one file and one row.

mod connection;
mod event_flavor;
mod fd;
mod fifo;
mod file;
mod flavor;
mod holder;
mod hub;
mod mmap;
mod mq;
mod packet;
mod posix_shm;
mod rhythm;
mod sem;
mod setup;
mod shm;
mod signal;
mod state_memory;
mod stream_peers;
mod stream_publisher;
mod stream_receiver;
mod stream_sender;
mod sysv;
mod sysv_sem;
mod sysv_shm;
mod tcp;
mod udp;
mod unix;
mod unix_dgram;
mod unix_seqpacket;

use crate::address::{Address, TargetForm};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::pattern::topic::Start;

pub(crate) use event_flavor::{ListenerFlavor, NotifierFlavor};
pub(crate) use flavor::{ReceiverFlavor, SenderFlavor};
pub(crate) use rhythm::Rhythm;
use setup::LINK_MESSAGE_BYTES;
pub(crate) use setup::{Raw, Receipt, Setup, wait_or_cancel};
#[cfg(test)]
pub(crate) use shm::ROLES;
pub(crate) use state_memory::{StateMemory, WriterLock};
pub(crate) use stream_publisher::StreamPublisher;
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
    /// A receiver knows when every sender has ended: each says its end, or its connection does.
    pub says_end: bool,
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
    /// Options that an address may have.
    pub options: &'static [&'static str],
    /// What it can do.
    pub capabilities: Capabilities,
    /// How often a message that was acknowledged, or sent, can arrive.
    pub delivery: &'static str,
    /// The framing where the address does not say.
    pub framing: Option<Framing>,
    /// How to open the ends of each pattern that it carries.
    pub(crate) carries: Carries,
    /// The object that has a life of its own, where there is one.
    pub(crate) object: Option<Object>,
}

/// The patterns that a transport carries.
#[derive(Debug)]
pub(crate) struct Carries {
    pub(crate) queue: Option<QueueEnds>,
    pub(crate) topic: Option<TopicEnds>,
    pub(crate) event: Option<EventEnds>,
    pub(crate) state: Option<StateEnds>,
}

/// What carries nothing.
const NO_PATTERN: Carries = Carries { queue: None, topic: None, event: None, state: None };

/// How to open the ends of a queue.
#[derive(Debug)]
pub(crate) struct QueueEnds {
    pub(crate) sender: fn(&Setup) -> Result<SenderFlavor, Error>,
    pub(crate) receiver: fn(&Setup) -> Result<ReceiverFlavor, Error>,
}

/// How to open the ends of a topic.
#[derive(Debug)]
pub(crate) struct TopicEnds {
    pub(crate) publisher: fn(&Setup) -> Result<SenderFlavor, Error>,
    pub(crate) subscriber: fn(&Setup, Start) -> Result<ReceiverFlavor, Error>,
}

/// How to open the ends of an event.
#[derive(Debug)]
pub(crate) struct EventEnds {
    pub(crate) notifier: fn(&Setup) -> Result<NotifierFlavor, Error>,
    pub(crate) listener: fn(&Setup) -> Result<ListenerFlavor, Error>,
}

/// How to reach the memory of a state.
#[derive(Debug)]
pub(crate) struct StateEnds {
    /// For writing, with the lock that one writer has; it is made if it is not there.
    pub(crate) writer: fn(&Setup) -> Result<(StateMemory, WriterLock), Error>,
    /// For reading; it has to be there.
    pub(crate) reader: fn(&Setup) -> Result<StateMemory, Error>,
}

/// How to make and remove an object apart from its use.
#[derive(Debug)]
pub(crate) struct Object {
    /// Makes it with the owner, mode and sizes of the address; an error when it exists.
    pub(crate) create: Option<OfAddress>,
    /// Removes its name.
    pub(crate) unlink: OfAddress,
}

/// What is done with the object of an address.
pub(crate) type OfAddress = fn(&Address) -> Result<(), Error>;

impl Transport {
    /// The patterns it carries, by name.
    #[must_use]
    pub fn patterns(&self) -> Vec<&'static str> {
        let carried = [
            ("queue", self.carries.queue.is_some()),
            ("topic", self.carries.topic.is_some()),
            ("event", self.carries.event.is_some()),
            ("state", self.carries.state.is_some()),
        ];
        carried.into_iter().filter_map(|(name, carried)| carried.then_some(name)).collect()
    }

    /// Whether it has an object that can be made apart from its use.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.object.as_ref().is_some_and(|object| object.create.is_some())
    }

    /// The error of a pattern that it does not carry.
    pub(crate) fn does_not_carry(&self, pattern: &str, address: &Address) -> Error {
        let (scheme, carried) = (self.scheme, self.patterns().join(", "));
        let problem = format!("{scheme}: carries no {pattern}; it carries {carried}");
        let others = TABLE.iter().filter(|row| row.patterns().contains(&pattern));
        let others: Vec<&str> = others.map(|row| row.scheme).collect();
        let article = if pattern.starts_with('e') { "an" } else { "a" };
        Error::new(ErrorKind::NotSupported, address, problem)
            .hint(format!("{article} {pattern} is carried by {}", others.join(", ")))
    }
}

const NOTHING: Capabilities = Capabilities {
    largest_message_bytes: 0,
    ordered: true,
    reliable: true,
    redelivers: false,
    says_end: true,
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

/// What memory with a value in it can do.
const STATE: Capabilities = Capabilities {
    largest_message_bytes: state_memory::LARGEST_VALUE_BYTES,
    outlives_processes: true,
    many_senders: false,
    ..NOTHING
};

const COUNTED: &str = "each notification to one listener; what a listener took and did not finish is \
                       lost with it";
const NEWEST: &str = "the newest value, whole, for as long as its memory exists; a reader may miss \
                      values in between";
const AT_LEAST_ONCE: &str = "at least once while the sender lives; a message that comes again is \
                             marked redelivered";
const AT_MOST_ONCE: &str = "once; what a receiver took and did not finish is lost with it";

/// Options of connected Unix sockets.
const UNIX_OPTIONS: &[&str] = &[
    "mode",
    "owner",
    "group",
    "framing",
    "bind",
    "connect",
    "max-message",
    "overflow",
    "history",
    "capacity",
];

/// Every transport.
pub const TABLE: &[Transport] = &[
    Transport {
        scheme: "fd",
        file: "fd",
        summary: "an inherited descriptor: a pipe or a stream socket",
        example: "fd:3",
        target: TargetForm::Descriptor,
        options: &["framing", "max-message"],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            many_senders: false,
            ..NOTHING
        },
        delivery: "once; the descriptor is the only way, so what is under way is lost with a side",
        framing: Some(Framing::Link),
        carries: Carries {
            queue: Some(QueueEnds { sender: fd::open_sender, receiver: fd::open_receiver }),
            ..NO_PATTERN
        },
        object: None,
    },
    Transport {
        scheme: "fifo",
        file: "fifo",
        summary: "a named pipe; lines that echo and cat understand",
        example: "fifo:/tmp/jobs",
        target: TargetForm::Path,
        options: &["mode", "owner", "group", "framing", "max-message", "capacity"],
        capabilities: Capabilities {
            // A write of at most PIPE_BUF bytes is never mixed with another's: a line and its end.
            largest_message_bytes: 4095,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: Some(Framing::Lines),
        carries: Carries {
            queue: Some(QueueEnds { sender: fifo::open_sender, receiver: fifo::open_receiver }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(fifo::create), unlink: fifo::unlink }),
    },
    Transport {
        scheme: "shm",
        file: "shm",
        summary: "shared memory with one writer for each page",
        example: "shm:engine/temperature",
        target: TargetForm::Name,
        options: &["capacity", "history", "max-message", "overflow", "scope"],
        capabilities: Capabilities {
            largest_message_bytes: shm::LARGEST_MESSAGE_BYTES,
            redelivers: true,
            priorities: true,
            zero_copy: true,
            peer_identity: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: None,
        carries: Carries {
            queue: Some(QueueEnds { sender: shm::open_sender, receiver: shm::open_receiver }),
            topic: Some(TopicEnds {
                publisher: shm::open_publisher,
                subscriber: shm::open_subscriber,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: None, unlink: shm::unlink }),
    },
    Transport {
        scheme: "unix",
        file: "unix",
        summary: "a Unix-domain stream socket",
        example: "unix:/run/engine.sock",
        target: TargetForm::PathOrAbstract,
        options: UNIX_OPTIONS,
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            peer_identity: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        carries: Carries {
            queue: Some(QueueEnds { sender: unix::open_sender, receiver: unix::open_receiver }),
            topic: Some(TopicEnds {
                publisher: unix::open_publisher,
                subscriber: unix::open_subscriber,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: None, unlink: unix::unlink }),
    },
    Transport {
        scheme: "unix-seqpacket",
        file: "unix_seqpacket",
        summary: "a Unix-domain socket that keeps packets apart",
        example: "unix-seqpacket:/run/engine.sock",
        target: TargetForm::PathOrAbstract,
        options: UNIX_OPTIONS,
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            peer_identity: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        carries: Carries {
            queue: Some(QueueEnds {
                sender: unix_seqpacket::open_sender,
                receiver: unix_seqpacket::open_receiver,
            }),
            topic: Some(TopicEnds {
                publisher: unix_seqpacket::open_publisher,
                subscriber: unix_seqpacket::open_subscriber,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: None, unlink: unix_seqpacket::unlink }),
    },
    Transport {
        scheme: "unix-dgram",
        file: "unix_dgram",
        summary: "a Unix-domain datagram socket: bare messages, no connection",
        example: "unix-dgram:/run/log.sock",
        target: TargetForm::PathOrAbstract,
        options: &["mode", "owner", "group", "max-message"],
        capabilities: Capabilities { largest_message_bytes: 128 << 10, says_end: false, ..NOTHING },
        delivery: "once; what waits in the socket is lost with its receiver",
        framing: None,
        carries: Carries {
            queue: Some(QueueEnds {
                sender: unix_dgram::open_sender,
                receiver: unix_dgram::open_receiver,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: None, unlink: unix_dgram::unlink }),
    },
    Transport {
        scheme: "mq",
        file: "mq",
        summary: "a POSIX message queue: priorities, kept by the kernel",
        example: "mq:/jobs",
        target: TargetForm::QueueName,
        options: &["mode", "owner", "group", "max-message", "max-messages"],
        capabilities: Capabilities {
            largest_message_bytes: 8192,
            says_end: false,
            priorities: true,
            outlives_processes: true,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: None,
        carries: Carries {
            queue: Some(QueueEnds { sender: mq::open_sender, receiver: mq::open_receiver }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(mq::create), unlink: mq::unlink }),
    },
    Transport {
        scheme: "sysv",
        file: "sysv",
        summary: "a System V message queue, by key or path",
        example: "sysv:/etc/hostname#7",
        target: TargetForm::SysvKey,
        options: &["mode", "owner", "group", "max-message", "capacity", "type"],
        capabilities: Capabilities {
            largest_message_bytes: 8192,
            says_end: false,
            outlives_processes: true,
            ..NOTHING
        },
        delivery: AT_MOST_ONCE,
        framing: None,
        carries: Carries {
            queue: Some(QueueEnds { sender: sysv::open_sender, receiver: sysv::open_receiver }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(sysv::create), unlink: sysv::unlink }),
    },
    Transport {
        scheme: "file",
        file: "file",
        summary: "a log on disk: outlives processes and reboots, replayable",
        example: "file:/var/tmp/jobs",
        target: TargetForm::Path,
        options: &[
            "mode",
            "owner",
            "group",
            "max-message",
            "segment",
            "capacity",
            "durability",
            "retain",
            "retain-bytes",
            "reader",
        ],
        capabilities: Capabilities {
            largest_message_bytes: file::LARGEST_MESSAGE_BYTES,
            says_end: false,
            redelivers: true,
            outlives_processes: true,
            outlives_reboot: true,
            ..NOTHING
        },
        delivery: "at least once, whoever lives; a message that comes again is marked redelivered",
        framing: None,
        carries: Carries {
            queue: Some(QueueEnds { sender: file::open_sender, receiver: file::open_receiver }),
            topic: Some(TopicEnds {
                publisher: file::open_publisher,
                subscriber: file::open_subscriber,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(file::create), unlink: file::unlink }),
    },
    Transport {
        scheme: "tcp",
        file: "tcp",
        summary: "a TCP connection; unencrypted, so on this machine unless ?plaintext",
        example: "tcp:127.0.0.1:7000",
        target: TargetForm::HostPort,
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
        carries: Carries {
            queue: Some(QueueEnds { sender: tcp::open_sender, receiver: tcp::open_receiver }),
            ..NO_PATTERN
        },
        object: None,
    },
    Transport {
        scheme: "udp",
        file: "udp",
        summary: "UDP datagrams, numbered so that gaps are seen",
        example: "udp:127.0.0.1:7000",
        target: TargetForm::HostPort,
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
        carries: Carries {
            queue: Some(QueueEnds { sender: udp::open_sender, receiver: udp::open_receiver }),
            ..NO_PATTERN
        },
        object: None,
    },
    Transport {
        scheme: "signal",
        file: "signal",
        summary: "a signal to a process, with a number",
        example: "signal:4711/SIGRTMIN+1",
        target: TargetForm::Signal,
        options: &[],
        capabilities: Capabilities { reliable: false, peer_identity: true, ..NOTHING },
        delivery: "SIGRTMIN and above: each one, with its number; the others: merged with one that \
                   is pending already",
        framing: None,
        carries: Carries {
            event: Some(EventEnds {
                notifier: signal::open_notifier,
                listener: signal::open_listener,
            }),
            ..NO_PATTERN
        },
        object: None,
    },
    Transport {
        scheme: "sem",
        file: "sem",
        summary: "a POSIX semaphore: events are counted, and kept until somebody takes them",
        example: "sem:/ready",
        target: TargetForm::QueueName,
        options: &["mode", "owner", "group", "value"],
        capabilities: Capabilities { outlives_processes: true, ..NOTHING },
        delivery: COUNTED,
        framing: None,
        carries: Carries {
            event: Some(EventEnds { notifier: sem::open_notifier, listener: sem::open_listener }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(sem::create), unlink: sem::unlink }),
    },
    Transport {
        scheme: "sysv-sem",
        file: "sysv_sem",
        summary: "a System V semaphore: events are counted, and kept until somebody takes them",
        example: "sysv-sem:/etc/hostname#7",
        target: TargetForm::SysvKey,
        options: &["mode", "owner", "group", "value", "index"],
        capabilities: Capabilities { outlives_processes: true, ..NOTHING },
        delivery: COUNTED,
        framing: None,
        carries: Carries {
            event: Some(EventEnds {
                notifier: sysv_sem::open_notifier,
                listener: sysv_sem::open_listener,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(sysv_sem::create), unlink: sysv_sem::unlink }),
    },
    Transport {
        scheme: "posix-shm",
        file: "posix_shm",
        summary: "POSIX shared memory: a value under a name, kept in memory",
        example: "posix-shm:/engine",
        target: TargetForm::QueueName,
        options: &["mode", "owner", "group", "size", "layout"],
        capabilities: STATE,
        delivery: NEWEST,
        framing: None,
        carries: Carries {
            state: Some(StateEnds {
                writer: posix_shm::open_writer,
                reader: posix_shm::open_reader,
            }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(posix_shm::create), unlink: posix_shm::unlink }),
    },
    Transport {
        scheme: "sysv-shm",
        file: "sysv_shm",
        summary: "System V shared memory: a value under a key, kept in memory",
        example: "sysv-shm:/etc/hostname#7",
        target: TargetForm::SysvKey,
        options: &["mode", "owner", "group", "size", "layout"],
        capabilities: STATE,
        delivery: NEWEST,
        framing: None,
        carries: Carries {
            state: Some(StateEnds { writer: sysv_shm::open_writer, reader: sysv_shm::open_reader }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(sysv_shm::create), unlink: sysv_shm::unlink }),
    },
    Transport {
        scheme: "mmap",
        file: "mmap",
        summary: "a mapped file: a value on disk that readers see at once",
        example: "mmap:/var/lib/engine/settings",
        target: TargetForm::Path,
        options: &["mode", "owner", "group", "size", "layout"],
        capabilities: Capabilities { outlives_reboot: true, ..STATE },
        delivery: NEWEST,
        framing: None,
        carries: Carries {
            state: Some(StateEnds { writer: mmap::open_writer, reader: mmap::open_reader }),
            ..NO_PATTERN
        },
        object: Some(Object { create: Some(mmap::create), unlink: mmap::unlink }),
    },
];
