//! `Queue<T>`: each message goes to one receiver.
//!
//! What a receiver acknowledged is done. Where the transport redelivers, a message whose receiver
//! died before that is given to another, marked; see the table of transports.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use crate::address::Address;
use crate::error::{CloseError, Error, RecvError, SendError};
use crate::message::{Bytes, Message};
use crate::options::Options;
use crate::transport::{Raw, Receipt, ReceiverFlavor, SenderFlavor, Setup};

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
        Setup { address: self.address.clone(), options: self.options.clone(), schema: T::schema() }
    }

    /// The sending end. Returns without waiting for a receiver.
    ///
    /// # Errors
    /// What can never work (a missing folder, no permission), a limit, or with
    /// [`wait`](Options#structfield.wait) off, `NotFound`.
    pub fn sender(&self) -> Result<Sender<T>, Error> {
        let setup = self.setup();
        let flavor = (self.address.transport().open_sender)(&setup)?;
        Ok(Sender { flavor, setup, sent: 0, closed: false, message: PhantomData })
    }

    /// The receiving end. Returns without waiting for a sender.
    ///
    /// # Errors
    /// `AddressInUse` names the holder; otherwise as [`sender`](Self::sender).
    pub fn receiver(&self) -> Result<Receiver<T>, Error> {
        let setup = self.setup();
        let flavor = (self.address.transport().open_receiver)(&setup)?;
        Ok(Receiver { flavor, address: self.address.clone(), message: PhantomData })
    }
}

/// The sending end of a queue.
///
/// It runs no thread: acknowledgements are read, and messages of a dead receiver given out again,
/// while one of its methods runs. Dropping it closes it, which waits for the receiver; see
/// [`close`](Self::close).
#[derive(Debug)]
pub struct Sender<T> {
    flavor: SenderFlavor,
    setup: Setup,
    sent: u64,
    closed: bool,
    message: PhantomData<fn(T)>,
}

impl<T: Message> Sender<T> {
    /// Sends a message, waiting for a receiver and for room as long as it takes.
    ///
    /// When it returns, the message is with the kernel; it is acknowledged later. See
    /// [`unacknowledged`](Self::unacknowledged) and [`close`](Self::close).
    ///
    /// # Errors
    /// `TooLarge`, `Unframable`, `Encoding`: the message cannot be sent so. `Interrupted`.
    /// `PeerDied` where the transport or the options rule out another receiver. The message is the
    /// caller's in each case.
    pub fn send(&mut self, message: &T) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, 0, Deadline::NEVER))
            .map_err(SendError::Encoding)?
    }

    /// As [`send`](Self::send), with a priority: 0 to 32767, the highest first, where the transport has
    /// priorities.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with_priority(&mut self, message: &T, priority: u32) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, priority, Deadline::NEVER))
            .map_err(SendError::Encoding)?
    }

    /// As [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// `Full` when the time is over; otherwise as [`send`](Self::send).
    pub fn send_timeout(&mut self, message: &T, timeout: Duration) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, 0, Deadline::after(timeout)))
            .map_err(SendError::Encoding)?
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// `Full` when it would have to wait; otherwise as [`send`](Self::send). Where a part of an
    /// accepted message is still to be written, the sender has to be called again when its
    /// [descriptor](Self::as_fd) is readable or writable.
    pub fn try_send(&mut self, message: &T) -> Result<(), SendError> {
        message.encode(|bytes| self.try_send_bytes(bytes)).map_err(SendError::Encoding)?
    }

    fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.flavor.try_send(bytes, 0, false)?;
        self.sent += 1;
        Ok(())
    }

    fn send_bytes_until(
        &mut self,
        bytes: &[u8],
        priority: u32,
        deadline: Deadline,
    ) -> Result<(), SendError> {
        self.accept_until(deadline, |flavor| flavor.try_send(bytes, priority, false))?;
        self.write_out(deadline)
    }

    /// Repeats an attempt until it is accepted.
    fn accept_until(
        &mut self,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut SenderFlavor) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        loop {
            match attempt(&mut self.flavor) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err(SendError::Full) if !deadline.passed() => self.flavor.wait(deadline)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until what was accepted is with the kernel. A deadline that passes is no error: the
    /// message is accepted, and goes on with the next call.
    fn write_out(&mut self, deadline: Deadline) -> Result<(), SendError> {
        while !self.flavor.drive()? {
            if deadline.passed() {
                break;
            }
            self.flavor.wait(deadline)?;
        }
        Ok(())
    }

    /// Moves on what can move without waiting: reads acknowledgements, writes what waits. For callers
    /// with an event loop of their own, when the descriptor is ready.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn drive(&mut self) -> Result<(), SendError> {
        self.flavor.drive()?;
        match self.flavor.wait(Deadline::after(Duration::ZERO)) {
            Ok(()) => self.flavor.look(),
            Err(error) => Err(error),
        }
    }

    /// Whether everything accepted is with the kernel, after moving on what can move.
    #[cfg(feature = "tokio")]
    pub(crate) fn written_out(&mut self) -> Result<bool, SendError> {
        self.flavor.drive()
    }

    /// One step of [`finish`](Self::finish), without waiting. Whether it is done.
    #[cfg(feature = "tokio")]
    pub(crate) fn finish_step(&mut self) -> Result<bool, SendError> {
        let done = self.flavor.finish()?;
        self.closed |= done;
        Ok(done)
    }

    /// The address it sends to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.setup.address
    }

    /// Waits until everything sent so far is acknowledged.
    ///
    /// # Errors
    /// `Full` when the time is over; otherwise as [`send`](Self::send).
    pub fn flush(&mut self, timeout: Option<Duration>) -> Result<(), SendError> {
        let deadline = Deadline::from_timeout(timeout);
        self.write_out(deadline)?;
        while self.flavor.unacknowledged() > 0 {
            self.flavor.look()?;
            if self.flavor.unacknowledged() == 0 {
                break;
            }
            if deadline.passed() {
                return Err(SendError::Full);
            }
            self.flavor.wait(deadline)?;
        }
        Ok(())
    }

    /// Messages accepted by this sender.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that receivers acknowledged; on transports without acknowledgements, that the kernel
    /// took.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.flavor.acknowledged()
    }

    /// Messages accepted and not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.flavor.unacknowledged()
    }

    /// Messages that receivers rejected as often as the options allow.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.flavor.rejected()
    }

    /// Receivers connected now; 1 on transports that cannot know.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.flavor.peers()
    }

    /// The address this end is bound to, with the port that was chosen; `None` if it is not bound.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.local_address()
    }

    /// Waits until every message is acknowledged, says the end, and closes.
    ///
    /// Waits for a receiver if none ever came, and for another one if the last one died; at most for
    /// the [`linger`](Options#structfield.linger) of the options. A receiver that dies after it has
    /// acknowledged everything is no error.
    ///
    /// # Errors
    /// How many messages were not acknowledged, and why.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.finish()
    }

    /// [`close`](Self::close) without giving the sender up, so that a caller can look at it after.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn finish(&mut self) -> Result<(), CloseError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let deadline = Deadline::from_timeout(self.setup.options.linger);
        let reason = loop {
            match self.flavor.finish() {
                Ok(true) if self.rejected() == 0 => return Ok(()),
                Ok(true) => break SendError::Full,
                Ok(false) if deadline.passed() => break SendError::Full,
                Ok(false) => {}
                Err(reason) => break reason,
            }
            if let Err(reason) = self.flavor.wait(deadline) {
                break reason;
            }
        };
        let (unacknowledged, rejected) = (self.unacknowledged(), self.rejected());
        Err(CloseError { unacknowledged, rejected, reason })
    }
}

impl Sender<Bytes> {
    /// Sends bytes without copying them into a [`Bytes`] first.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send_bytes_until(bytes, 0, Deadline::NEVER)
    }

    /// As [`send_bytes`](Self::send_bytes), with a priority.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes_with_priority(
        &mut self,
        bytes: &[u8],
        priority: u32,
    ) -> Result<(), SendError> {
        self.send_bytes_until(bytes, priority, Deadline::NEVER)
    }

    /// Accepts a message and lets it wait for others, so that many small ones go out in one write.
    /// [`push`](Self::push) sends off what waits; so does any other send.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.accept_until(Deadline::NEVER, |flavor| flavor.try_send(bytes, 0, true))
    }

    /// Waits until everything accepted is with the kernel.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn push(&mut self) -> Result<(), SendError> {
        self.write_out(Deadline::NEVER)
    }

    /// Sends a message of up to `len` bytes that `fill` writes in place; `fill` says how many bytes it
    /// wrote, or an error of its own. `Ok(Ok(0))` sends nothing.
    ///
    /// # Errors
    /// As [`send`](Self::send); nothing was sent and `fill` was not called.
    pub fn send_filled<E>(
        &mut self,
        len: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Result<usize, E>, SendError> {
        let filled = loop {
            match self.flavor.reserve(len) {
                Ok(Some(room)) => break fill(room),
                Ok(None) => {
                    let mut room = vec![0; len];
                    let filled = fill(&mut room);
                    if let Ok(n) = filled
                        && n > 0
                    {
                        self.send_bytes(&room[..n])?;
                    }
                    return Ok(filled);
                }
                Err(SendError::Full) => self.flavor.wait(Deadline::NEVER)?,
                Err(error) => return Err(error),
            }
        };
        if let Ok(n) = filled
            && n > 0
        {
            self.flavor.commit(n, false)?;
            self.sent += 1;
            self.write_out(Deadline::NEVER)?;
        }
        Ok(filled)
    }
}

impl<T> AsFd for Sender<T> {
    /// The wake-up descriptor: when it is ready, call [`drive`](Sender::drive) or send again. Watch for
    /// reading and writing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.flavor.fd()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.closed || std::thread::panicking() {
            return;
        }
        let deadline = Deadline::from_timeout(self.setup.options.linger);
        // Nobody is left to tell: `close` is for those who want to know.
        while let Ok(false) = self.flavor.finish() {
            if deadline.passed() || self.flavor.wait(deadline).is_err() {
                break;
            }
        }
    }
}

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

/// The receiving end of a queue.
///
/// It runs no thread: connections are accepted and acknowledgements written while one of its methods
/// runs. Dropping it writes what acknowledgements wait and closes.
#[derive(Debug)]
pub struct Receiver<T> {
    flavor: ReceiverFlavor,
    address: Address,
    message: PhantomData<fn() -> T>,
}

impl<T: Message> Receiver<T> {
    /// Receives a message, waiting as long as it takes.
    ///
    /// # Errors
    /// `Ended` when every sender that joined has said its end, or died. `PeerDied`,
    /// `PeerMisbehaved` and `PeerRefused` report one peer, once; receiving again goes on with the
    /// others. `Encoding`: the message is not a `T`. `Interrupted`.
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
        let mut delivery = None;
        if self.flavor.take(&mut |raw| delivery = Some(deliver(&raw)))? {
            return delivery.unwrap_or(Err(RecvError::Empty));
        }
        Err(RecvError::Empty)
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

    /// Gives a message back, for another delivery. `false` where the transport cannot: then the
    /// message is in the caller's hands alone.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn reject(&mut self, delivery: Delivery<T>) -> Result<bool, RecvError> {
        self.flavor.reject(delivery.receipt)
    }

    /// Writes acknowledgements that wait (see
    /// [`acknowledge_every`](Options#structfield.acknowledge_every)).
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
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
    /// them. `with` says whether to acknowledge it now; if not, its [`Ticket`] can do so later.
    ///
    /// At most `most` messages. Returns how many there were.
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
        let mut count = 0;
        while count < most {
            let mut done = None;
            let mut each = |raw: Raw<'_>| {
                let incoming = Incoming {
                    bytes: raw.payload,
                    redelivered: raw.redelivered,
                    deliveries: raw.deliveries,
                    lost_before: raw.lost_before,
                    priority: raw.priority,
                };
                done = with(incoming, Ticket(raw.receipt)).then_some(raw.receipt);
            };
            let taken = if count == 0 {
                self.flavor.take(&mut each)?
            } else {
                self.flavor.take_buffered(&mut each)?
            };
            if taken {
                count += 1;
                if let Some(receipt) = done {
                    self.flavor.acknowledge(receipt)?;
                }
            } else if count > 0 {
                break;
            } else if deadline.passed() {
                return Err(RecvError::Empty);
            } else {
                self.flavor.wait(deadline)?;
            }
        }
        Ok(count)
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
    pub fn reject_ticket(&mut self, ticket: Ticket) -> Result<bool, RecvError> {
        self.flavor.reject(ticket.0)
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
    })
}
