//! Transports: what carries messages for a scheme. One table, a row each.
//!
//! The address parser, `switchboard transports`, the conformance tests and the README's table all
//! follow [`TABLE`]. A new transport is one file and one row.

mod connection;
mod counts;
mod event_flavor;
mod fd;
mod fifo;
mod file;
mod flavor;
mod holder;
mod hub;
mod known;
mod mmap;
mod mq;
mod packet;
mod posix_shm;
mod rhythm;
mod row;
mod sem;
mod service_flavor;
mod setup;
mod shm;
mod signal;
mod state_flavor;
mod state_memory;
mod stream_client;
mod stream_follower;
mod stream_listener;
mod stream_notifier;
mod stream_peers;
mod stream_publisher;
mod stream_receiver;
mod stream_sender;
mod stream_server;
mod stream_state_reader;
mod stream_state_writer;
mod sysv;
mod sysv_sem;
mod sysv_shm;
mod tcp;
mod udp;
mod unix;
mod unix_dgram;
mod unix_seqpacket;

use crate::address::TargetForm;
use crate::framing::Framing;

pub(crate) use event_flavor::{ListenerFlavor, NotifierFlavor};
pub(crate) use flavor::{ReceiverFlavor, SenderFlavor};
pub(crate) use rhythm::Rhythm;
pub use row::{Capabilities, Transport};
pub(crate) use row::{
    Carries, EventEnds, MemoryEnds, Object, QueueEnds, ServiceEnds, StateEnds, TopicEnds,
};
pub(crate) use service_flavor::{ClientFlavor, Ending, Heard, Now, ServerFlavor};
use setup::LINK_MESSAGE_BYTES;
pub(crate) use setup::{Raw, Receipt, Setup, wait_or_cancel};
#[cfg(test)]
pub(crate) use shm::ROLES;
pub(crate) use shm::{look as look_at_channel, look_around};
pub(crate) use state_flavor::{LiveReader, LiveWriter};
pub(crate) use state_memory::{StateMemory, WriterLock};
pub(crate) use stream_client::StreamClient;
pub(crate) use stream_publisher::StreamPublisher;
pub(crate) use stream_receiver::StreamReceiver;
pub(crate) use stream_sender::StreamSender;
pub(crate) use stream_server::StreamServer;

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

/// What shm: takes.
const SHM_OPTIONS: &[&str] = &[
    "audit",
    "call",
    "capacity",
    "group",
    "history",
    "keys",
    "max-message",
    "mode",
    "overflow",
    "owner",
    "publish",
    "receive",
    "scope",
    "send",
    "serve",
    "subscribe",
];

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
        carries: Carries::queue(fd::open_sender, fd::open_receiver),
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
        carries: Carries::queue(fifo::open_sender, fifo::open_receiver),
        object: Some(Object { create: Some(fifo::create), unlink: fifo::unlink }),
    },
    Transport {
        scheme: "shm",
        file: "shm",
        summary: "shared memory with one writer for each page",
        example: "shm:engine/temperature",
        target: TargetForm::Name,
        options: SHM_OPTIONS,
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
        carries: Carries::queue(shm::open_sender, shm::open_receiver)
            .and_topic(shm::open_publisher, shm::open_subscriber)
            .and_service(shm::open_client, shm::open_server)
            .and_event(shm::open_notifier, shm::open_listener)
            .and_state(shm::open_state_writer, shm::open_state_reader),
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
        carries: Carries::queue(unix::open_sender, unix::open_receiver)
            .and_topic(unix::open_publisher, unix::open_subscriber)
            .and_service(unix::open_client, unix::open_server)
            .and_event(unix::open_notifier, unix::open_listener)
            .and_state(unix::open_state_writer, unix::open_state_reader),
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
        carries: Carries::queue(unix_seqpacket::open_sender, unix_seqpacket::open_receiver)
            .and_topic(unix_seqpacket::open_publisher, unix_seqpacket::open_subscriber)
            .and_service(unix_seqpacket::open_client, unix_seqpacket::open_server)
            .and_event(unix_seqpacket::open_notifier, unix_seqpacket::open_listener)
            .and_state(unix_seqpacket::open_state_writer, unix_seqpacket::open_state_reader),
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
        carries: Carries::queue(unix_dgram::open_sender, unix_dgram::open_receiver),
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
        carries: Carries::queue(mq::open_sender, mq::open_receiver),
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
        carries: Carries::queue(sysv::open_sender, sysv::open_receiver),
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
        carries: Carries::queue(file::open_sender, file::open_receiver)
            .and_topic(file::open_publisher, file::open_subscriber),
        object: Some(Object { create: Some(file::create), unlink: file::unlink }),
    },
    Transport {
        scheme: "tcp",
        file: "tcp",
        summary: "a TCP connection; unencrypted, so on this machine unless ?plaintext",
        example: "tcp:127.0.0.1:7000",
        target: TargetForm::HostPort,
        options: &[
            "framing",
            "bind",
            "connect",
            "plaintext",
            "max-message",
            "overflow",
            "history",
            "capacity",
        ],
        capabilities: Capabilities {
            largest_message_bytes: LINK_MESSAGE_BYTES,
            redelivers: true,
            bidirectional: true,
            crosses_hosts: true,
            ..NOTHING
        },
        delivery: AT_LEAST_ONCE,
        framing: Some(Framing::Link),
        carries: Carries::queue(tcp::open_sender, tcp::open_receiver)
            .and_topic(tcp::open_publisher, tcp::open_subscriber)
            .and_service(tcp::open_client, tcp::open_server)
            .and_event(tcp::open_notifier, tcp::open_listener)
            .and_state(tcp::open_state_writer, tcp::open_state_reader),
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
        carries: Carries::queue(udp::open_sender, udp::open_receiver),
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
        carries: Carries::event(signal::open_notifier, signal::open_listener),
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
        carries: Carries::event(sem::open_notifier, sem::open_listener),
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
        carries: Carries::event(sysv_sem::open_notifier, sysv_sem::open_listener),
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
        carries: Carries::state(posix_shm::open_writer, posix_shm::open_reader),
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
        carries: Carries::state(sysv_shm::open_writer, sysv_shm::open_reader),
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
        carries: Carries::state(mmap::open_writer, mmap::open_reader),
        object: Some(Object { create: Some(mmap::create), unlink: mmap::unlink }),
    },
];
