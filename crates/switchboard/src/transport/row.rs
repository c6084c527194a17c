//! A row of the table of transports: what a transport is, can do and carries.

use super::{
    ClientFlavor, ListenerFlavor, LiveReader, LiveWriter, NotifierFlavor, ReceiverFlavor,
    SenderFlavor, ServerFlavor,
};
use super::{Setup, StateMemory, TABLE, WriterLock};
use crate::address::{Address, TargetForm};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::pattern::topic::Start;

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
    pub(crate) service: Option<ServiceEnds>,
    pub(crate) event: Option<EventEnds>,
    pub(crate) state: Option<StateEnds>,
}

impl Carries {
    const NOTHING: Self =
        Self { queue: None, topic: None, service: None, event: None, state: None };

    /// A queue.
    pub(super) const fn queue(sender: OpenSender, receiver: OpenReceiver) -> Self {
        Self { queue: Some(QueueEnds { sender, receiver }), ..Self::NOTHING }
    }

    /// A topic too.
    pub(super) const fn and_topic(self, publisher: OpenSender, subscriber: OpenSubscriber) -> Self {
        Self { topic: Some(TopicEnds { publisher, subscriber }), ..self }
    }

    /// A service too.
    pub(super) const fn and_service(self, client: OpenClient, server: OpenServer) -> Self {
        Self { service: Some(ServiceEnds { client, server }), ..self }
    }

    /// An event.
    pub(super) const fn event(notifier: OpenNotifier, listener: OpenListener) -> Self {
        Self { event: Some(EventEnds { notifier, listener }), ..Self::NOTHING }
    }

    /// An event too.
    pub(super) const fn and_event(self, notifier: OpenNotifier, listener: OpenListener) -> Self {
        Self { event: Some(EventEnds { notifier, listener }), ..self }
    }

    /// A state in memory that outlives its writer.
    pub(super) const fn state(writer: OpenMemoryWriter, reader: OpenMemory) -> Self {
        let ends = StateEnds::InMemory(MemoryEnds { writer, reader });
        Self { state: Some(ends), ..Self::NOTHING }
    }

    /// A state too, which lives as long as its writer.
    pub(super) const fn and_state(self, writer: OpenLiveWriter, reader: OpenLiveReader) -> Self {
        Self { state: Some(StateEnds::Live(LiveEnds { writer, reader })), ..self }
    }
}

type OpenSender = fn(&Setup) -> Result<SenderFlavor, Error>;
type OpenReceiver = fn(&Setup) -> Result<ReceiverFlavor, Error>;
type OpenSubscriber = fn(&Setup, Start) -> Result<ReceiverFlavor, Error>;
type OpenClient = fn(&Setup) -> Result<ClientFlavor, Error>;
type OpenServer = fn(&Setup) -> Result<ServerFlavor, Error>;
type OpenNotifier = fn(&Setup) -> Result<NotifierFlavor, Error>;
type OpenListener = fn(&Setup) -> Result<ListenerFlavor, Error>;
type OpenMemoryWriter = fn(&Setup) -> Result<(StateMemory, WriterLock), Error>;
type OpenMemory = fn(&Setup) -> Result<StateMemory, Error>;
type OpenLiveWriter = fn(&Setup) -> Result<LiveWriter, Error>;
type OpenLiveReader = fn(&Setup) -> Result<LiveReader, Error>;

/// How to open the ends of a queue.
#[derive(Debug)]
pub(crate) struct QueueEnds {
    pub(crate) sender: OpenSender,
    pub(crate) receiver: OpenReceiver,
}

/// How to open the ends of a topic.
#[derive(Debug)]
pub(crate) struct TopicEnds {
    pub(crate) publisher: OpenSender,
    pub(crate) subscriber: OpenSubscriber,
}

/// How to open the ends of a service.
#[derive(Debug)]
pub(crate) struct ServiceEnds {
    pub(crate) client: OpenClient,
    pub(crate) server: OpenServer,
}

/// How to open the ends of an event.
#[derive(Debug)]
pub(crate) struct EventEnds {
    pub(crate) notifier: OpenNotifier,
    pub(crate) listener: OpenListener,
}

/// How to open the ends of a state.
#[derive(Debug)]
pub(crate) enum StateEnds {
    InMemory(MemoryEnds),
    Live(LiveEnds),
}

/// How to open the ends of a state that lives as long as its writer.
#[derive(Debug)]
pub(crate) struct LiveEnds {
    pub(crate) writer: OpenLiveWriter,
    pub(crate) reader: OpenLiveReader,
}

/// How to reach the memory of a state.
#[derive(Debug)]
pub(crate) struct MemoryEnds {
    /// For writing, with the lock that one writer has; it is made if it is not there.
    pub(crate) writer: OpenMemoryWriter,
    /// For reading; it has to be there.
    pub(crate) reader: OpenMemory,
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
            ("service", self.carries.service.is_some()),
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
