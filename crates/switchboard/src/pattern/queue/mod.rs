//! `Queue<T>`: each message goes to one receiver.
//!
//! What a receiver acknowledged is done. Where the transport redelivers, a message whose receiver
//! died before that is given to another, marked; see the table of transports.

mod borrowed;
mod loan;
mod receiver;
mod sender;

use std::marker::PhantomData;

use crate::address::Address;
use crate::error::Error;
use crate::message::Message;
use crate::options::Options;
use crate::transport::{QueueEnds, Setup};

pub use borrowed::Borrowed;
pub use loan::Loan;
pub use receiver::{Delivery, Incoming, Receiver, Rejection, Ticket};
pub use sender::Sender;

/// A queue's name and options; its ends are made from it.
///
/// ```
/// use switchboard::{Queue, Text};
///
/// # let folder = tempfile::tempdir()?;
/// # let address = format!("unix:{}/jobs.sock", folder.path().display());
/// let queue = Queue::<Text>::open(&address)?;
/// let mut receiver = queue.receiver()?;
/// let mut sender = queue.sender()?;
/// # let worker = std::thread::spawn(move || -> Result<Text, Box<dyn std::error::Error + Send + Sync>> {
/// let delivery = receiver.recv()?;
/// let job = receiver.acknowledge(delivery)?;
/// # Ok(job) });
/// sender.send(&Text("press".into()))?;
/// sender.close()?;
/// # assert_eq!(worker.join().unwrap().unwrap().0, "press");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Queue<T> {
    address: Address,
    options: Options,
    message: PhantomData<fn() -> T>,
}

impl<T: Message> Queue<T> {
    /// Parses the address. Nothing is made or opened until an end is.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_with(address, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, options))
    }

    /// A queue at an address that is parsed already.
    #[must_use]
    pub fn at(address: Address, options: Options) -> Self {
        Self { address, options, message: PhantomData }
    }

    fn setup(&self) -> Setup {
        Setup::new(self.address.clone(), self.options.clone(), T::schema())
    }

    fn ends(&self) -> Result<&'static QueueEnds, Error> {
        let transport = self.address.transport();
        transport
            .carries
            .queue
            .as_ref()
            .ok_or_else(|| transport.does_not_carry("queue", &self.address))
    }

    /// The sending end. Returns without waiting for a receiver.
    ///
    /// # Errors
    /// What can never work (a missing folder, no permission), a limit, or with
    /// [`wait`](Options#structfield.wait) off, `NotFound`.
    pub fn sender(&self) -> Result<Sender<T>, Error> {
        let setup = self.setup();
        let flavor = (self.ends()?.sender)(&setup)?;
        Ok(Sender::new(flavor, setup))
    }

    /// The receiving end. Returns without waiting for a sender.
    ///
    /// # Errors
    /// `AddressInUse` names the holder; otherwise as [`sender`](Self::sender).
    pub fn receiver(&self) -> Result<Receiver<T>, Error> {
        let setup = self.setup();
        let flavor = (self.ends()?.receiver)(&setup)?;
        Ok(Receiver::new(flavor, self.address.clone()))
    }
}
