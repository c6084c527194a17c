//! `Topic<T>`: each message to every subscriber.
//!
//! Order is kept for each publisher. What a subscriber missed is told with its number, never left out
//! silently. Which messages a late subscriber can still have depends on the transport: a log
//! (`file:`) has all of them, as long as its retention keeps them; elsewhere a publisher has a
//! [history](Options#structfield.history_messages), which ends with it.

mod publisher;
mod subscriber;

use std::marker::PhantomData;
use std::time::SystemTime;

use crate::address::Address;
use crate::error::Error;
use crate::message::Message;
use crate::options::Options;
use crate::pattern::queue::{Receiver, Sender};
use crate::transport::{Setup, TopicEnds};

pub use publisher::Publisher;
pub use subscriber::{BorrowedSample, Sample, Subscriber};

/// A topic's name and options; its ends are made from it.
///
/// ```
/// use switchboard::{Start, Text, Topic};
///
/// # let folder = tempfile::tempdir()?;
/// # let address = format!("file:{}/readings", folder.path().display());
/// let topic = Topic::<Text>::open(&address)?;
/// let mut publisher = topic.publisher()?;
/// publisher.send(&Text("21.5".into()))?;
///
/// // Later, in another process, perhaps after a reboot:
/// let mut subscriber = topic.subscriber(Start::Oldest)?;
/// let sample = subscriber.recv()?;
/// assert_eq!((sample.message.0.as_str(), sample.number), ("21.5", 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Topic<T> {
    address: Address,
    options: Options,
    message: PhantomData<fn() -> T>,
}

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on; where a publisher keeps a
    /// [history](crate::Options#structfield.history_messages), with that first.
    #[default]
    New,
    /// With the oldest message there is: in a log, or in a publisher's history.
    Oldest,
    /// With the message of this number of each publisher's lane; they count from 1. Logs only.
    Number(u64),
    /// With the first message published at or after this time, by the publisher's clock. Logs only.
    Time(SystemTime),
}

impl<T: Message> Topic<T> {
    /// Parses the address. Nothing is made or opened until an end is.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open(address: &str) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, Options::default()))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, options))
    }

    /// A topic at an address that is parsed already.
    #[must_use]
    pub fn at(address: Address, options: Options) -> Self {
        Self { address, options, message: PhantomData }
    }

    /// What an end is opened with; transports find in the options what the address says of them.
    fn setup(&self) -> Setup {
        let (address, mut options) = (self.address.clone(), self.options.clone());
        let query = &address.query;
        options.overflow = query.overflow.unwrap_or(options.overflow);
        options.history_messages = query.history_messages.unwrap_or(options.history_messages);
        options.capacity_bytes = query.capacity_bytes.or(options.capacity_bytes);
        Setup::new(address, options, T::schema())
    }

    fn ends(&self) -> Result<&'static TopicEnds, Error> {
        let transport = self.address.transport();
        transport
            .carries
            .topic
            .as_ref()
            .ok_or_else(|| transport.does_not_carry("topic", &self.address))
    }

    /// The publishing end. Subscribers may come before or after it.
    ///
    /// # Errors
    /// `NotSupported` where the transport carries no topic; `Mismatch` when what is there carries
    /// something else; what can never work, and limits, by name.
    pub fn publisher(&self) -> Result<Publisher<T>, Error> {
        let setup = self.setup();
        let flavor = (self.ends()?.publisher)(&setup)?;
        Ok(Publisher::new(Sender::new(flavor, setup)))
    }

    /// The subscribing end.
    ///
    /// # Errors
    /// As [`publisher`](Self::publisher); `AddressInUse` when another subscriber uses the same
    /// `?reader=` name.
    pub fn subscriber(&self, start: Start) -> Result<Subscriber<T>, Error> {
        let flavor = (self.ends()?.subscriber)(&self.setup(), start)?;
        Ok(Subscriber::new(Receiver::new(flavor, self.address.clone())))
    }
}
