//! The receiving end of a queue.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use switchboard_kernel::io::Deadline;

use crate::address::Address;
use crate::error::RecvError;
use crate::message::{Bytes, Message};
use crate::transport::{Raw, Receipt, ReceiverFlavor};

/// A message that was received and is not acknowledged yet.
///
/// Give it to [`Receiver::acknowledge`] when its work is done, or to [`Receiver::reject`]. If the
/// receiver dies or closes before, a transport that redelivers gives it to another receiver.
#[must_use = "a message that is not acknowledged comes again, where the transport redelivers"]
#[derive(Debug)]
pub struct Delivery<T> {
    /// The message.
    pub message: T,
    /// Whether a receiver may have seen it before.
    pub redelivered: bool,
    /// How often it was given to a receiver before.
    pub deliveries: u16,
    /// How many messages of the same sender are missing right before it (UDP).
    pub lost_before: u64,
    /// Its priority, where the transport has priorities.
    pub priority: u32,
    receipt: Receipt,
    published_ns: u64,
}

impl<T> Delivery<T> {
    /// Its number on the connection, or in the lane of a log, that it came over; 0 where messages are
    /// not numbered.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.receipt.sequence
    }

    /// When it was sent, by the sender's clock, where the transport says so (a log).
    #[must_use]
    pub fn published(&self) -> Option<SystemTime> {
        let since = Some(self.published_ns).filter(|ns| *ns > 0)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(since))
    }
}

/// A message whose bytes are borrowed while a function looks at them.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether a receiver may have seen it before.
    pub redelivered: bool,
    /// How often it was given to a receiver before.
    pub deliveries: u16,
    /// How many messages of the same sender are missing right before it (UDP).
    pub lost_before: u64,
    /// Its priority, where the transport has priorities.
    pub priority: u32,
}

/// Stands for a message in a later [`Receiver::acknowledge_ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(Receipt);

/// What became of a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It was given back: to a log, which hands it out again, or to its sender, which does so as often
    /// as its [`max_deliveries`](crate::Options#structfield.max_deliveries) says.
    GivenBack,
    /// That was the last delivery of this receiver's
    /// [`max_deliveries`](crate::Options#structfield.max_deliveries): the log hands it out no more.
    ForGood,
    /// The transport takes nothing back, or the message is settled already: whoever has it has it alone.
    NotTaken,
}

impl Rejection {
    /// Over a link, where the sender counts.
    pub(crate) fn by_sender(taken: bool) -> Self {
        if taken { Self::GivenBack } else { Self::NotTaken }
    }
}

/// The receiving end of a queue.
///
/// It runs no thread: connections are accepted and acknowledgements written while one of its methods
/// runs. Dropping it writes what acknowledgements wait and closes.
#[derive(Debug)]
pub struct Receiver<T> {
    pub(super) flavor: ReceiverFlavor,
    address: Address,
    /// Acknowledged in the batch under way; kept for its memory.
    done: Vec<Receipt>,
    message: PhantomData<fn() -> T>,
}

impl<T: Message> Receiver<T> {
    pub(crate) fn new(flavor: ReceiverFlavor, address: Address) -> Self {
        Self { flavor, address, done: Vec::new(), message: PhantomData }
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Errors
    /// `Ended` when every sender that joined has said its end, or died. `PeerDied`,
    /// `PeerMisbehaved` and `PeerRefused` report one peer, once; receiving again goes on with the
    /// others. `Encoding`: the message is not a `T`; it is given back already. `Interrupted`.
    pub fn recv(&mut self) -> Result<Delivery<T>, RecvError> {
        self.recv_until(Deadline::NEVER)
    }

    /// As [`recv`](Self::recv), for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Delivery<T>, RecvError> {
        self.recv_until(Deadline::after(timeout))
    }

    /// Receives without waiting.
    ///
    /// # Errors
    /// `Empty` when there is nothing now; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Delivery<T>, RecvError> {
        let mut taken = None;
        let took = self.flavor.take(&mut |raw| taken = Some((deliver(&raw), raw.receipt)))?;
        match taken {
            Some((Err(error), receipt)) => {
                // Nobody holds it, so nobody else could settle it, and the window would stay taken.
                self.flavor.give_back(receipt)?;
                Err(error)
            }
            Some((Ok(delivery), _)) if took => Ok(delivery),
            _ => Err(RecvError::Empty),
        }
    }

    fn recv_until(&mut self, deadline: Deadline) -> Result<Delivery<T>, RecvError> {
        loop {
            match self.try_recv() {
                Err(RecvError::Empty) if !deadline.passed() => self.flavor.wait(deadline)?,
                result => return result,
            }
        }
    }

    /// Acknowledges a message and gives it to the caller: its work is done.
    ///
    /// # Errors
    /// Never for a connection that is gone: then the sender gives the message out again, marked.
    pub fn acknowledge(&mut self, delivery: Delivery<T>) -> Result<T, RecvError> {
        self.flavor.acknowledge(delivery.receipt)?;
        Ok(delivery.message)
    }

    /// Gives a message back that was worked on in vain: that counts as a delivery.
    ///
    /// A link's sender hands it to the receiver that has least to do. A log offers it to other
    /// receivers at once, and to this one after 0.5 s, twice as long after each further delivery.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn reject(&mut self, delivery: Delivery<T>) -> Result<Rejection, RecvError> {
        self.flavor.reject(delivery.receipt)
    }

    /// Gives a message back that this receiver can do nothing with, or did not begin.
    ///
    /// From a log, that is no delivery: it is offered to others, and never again to this receiver.
    /// Over a link it is the same as [`reject`](Self::reject), since its sender cannot tell.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn give_back(&mut self, delivery: Delivery<T>) -> Result<Rejection, RecvError> {
        self.flavor.give_back(delivery.receipt)
    }

    /// Writes acknowledgements that wait (see
    /// [`acknowledge_every`](crate::Options#structfield.acknowledge_every)).
    ///
    /// # Errors
    /// `Damaged`: a log's table was found damaged, and repaired; else as
    /// [`acknowledge`](Self::acknowledge).
    pub fn flush(&mut self) -> Result<(), RecvError> {
        self.flavor.flush()
    }

    /// Senders connected now; 1 on transports that cannot know.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.flavor.peers()
    }

    /// The address it receives from.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address this end is bound to, with the port that was chosen; `None` if it is not bound.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.local_address()
    }
}

impl Receiver<Bytes> {
    /// Waits for messages and gives the bytes of each one that is there to `with`, without copying
    /// them. `with` says whether to acknowledge it, after the last one; if not, its [`Ticket`] can do so later.
    ///
    /// At most `most` messages. Returns how many there were. Over `shm:` a message that does not lie in the ring, of a sender of
    /// the same user, is looked at where it lies, as one that is [borrowed](Self::borrow): until `with` returns, and not in a child of `fork(2)`.
    ///
    /// # Errors
    /// `Empty` when the time is over before the first one; otherwise as [`recv`](Self::recv). What
    /// was handed to `with` before an error stays handed out.
    pub fn recv_each(
        &mut self,
        most: usize,
        timeout: Option<Duration>,
        mut with: impl FnMut(Incoming<'_>, Ticket) -> bool,
    ) -> Result<usize, RecvError> {
        let deadline = Deadline::from_timeout(timeout);
        let mut done = std::mem::take(&mut self.done);
        done.clear();
        let mut each = |raw: Raw<'_>| {
            let incoming = Incoming {
                bytes: raw.payload,
                redelivered: raw.redelivered,
                deliveries: raw.deliveries,
                lost_before: raw.lost_before,
                priority: raw.priority,
            };
            if with(incoming, Ticket(raw.receipt)) {
                done.push(raw.receipt);
            }
        };
        if most == 0 {
            return Ok(0);
        }
        while !self.flavor.take_first(&mut each)? {
            if deadline.passed() {
                return Err(RecvError::Empty);
            }
            self.flavor.wait(deadline)?;
        }
        let count = 1 + self.flavor.take_more(most - 1, &mut each);
        let result = self.flavor.acknowledge_all(&done);
        self.done = done;
        result.map(|()| count)
    }

    /// Acknowledges many messages by their tickets; in order, that costs no more than one.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn acknowledge_tickets(&mut self, tickets: &[Ticket]) -> Result<(), RecvError> {
        self.done.clear();
        self.done.extend(tickets.iter().map(|ticket| ticket.0));
        self.flavor.acknowledge_all(&self.done)
    }

    /// Acknowledges a message by its ticket.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn acknowledge_ticket(&mut self, ticket: Ticket) -> Result<(), RecvError> {
        self.flavor.acknowledge(ticket.0).map(drop)
    }

    /// Rejects a message by its ticket; see [`reject`](Self::reject).
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn reject_ticket(&mut self, ticket: Ticket) -> Result<Rejection, RecvError> {
        self.flavor.reject(ticket.0)
    }

    /// Gives a message back by its ticket; see [`give_back`](Self::give_back).
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn give_back_ticket(&mut self, ticket: Ticket) -> Result<Rejection, RecvError> {
        self.flavor.give_back(ticket.0)
    }
}

impl<T> Receiver<T> {
    /// A subscriber's messages count as taken when they are acknowledged from now on.
    pub(crate) fn counting_acknowledged(mut self) -> Self {
        self.flavor.count_acknowledged();
        self
    }
}

impl<T> AsFd for Receiver<T> {
    /// The wake-up descriptor: when it is readable, receive until `Empty`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.flavor.fd()
    }
}

fn deliver<T: Message>(raw: &Raw<'_>) -> Result<Delivery<T>, RecvError> {
    let message = T::decode(raw.payload)
        .map_err(|problem| RecvError::Encoding { problem, bytes: raw.payload.to_vec() })?;
    Ok(Delivery {
        message,
        redelivered: raw.redelivered,
        deliveries: raw.deliveries,
        lost_before: raw.lost_before,
        priority: raw.priority,
        receipt: raw.receipt,
        published_ns: raw.published_ns,
    })
}
