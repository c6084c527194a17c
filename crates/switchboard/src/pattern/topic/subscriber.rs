//! The subscribing end of a topic.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use crate::address::Address;
use crate::error::RecvError;
use crate::message::{Bytes, InPlace, Message};
use crate::pattern::queue::{Borrowed, Delivery, Incoming, Receiver};

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<T> {
    /// The message.
    pub message: T,
    /// Its number among those of its publisher, or in that one's lane of a log; from 1.
    pub number: u64,
    /// When it was published, by the publisher's clock, where the transport says so.
    pub published: Option<SystemTime>,
    /// How many messages are missing before it.
    pub lost_before: u64,
}

/// The subscribing end of a topic.
///
/// It runs no thread: it moves while one of its methods runs. Nothing is acknowledged. In a log a slow
/// subscriber holds nobody up; elsewhere its publisher says what happens then
/// ([`Overflow`](crate::Overflow)).
#[derive(Debug)]
pub struct Subscriber<T>(Receiver<T>);

impl<T: Message> Subscriber<T> {
    pub(super) fn new(receiver: Receiver<T>) -> Self {
        Self(receiver)
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Errors
    /// `Gap` and `Damaged` report what is missing or cannot be read, once; receiving again goes on
    /// after it, with a message whose `lost_before` says the number too. `PeerDied`, `PeerMisbehaved`
    /// and `PeerRefused` report one publisher, once. `Ended` when every publisher that joined has said
    /// its end, or died; a log has no end. `Encoding`: the message is not a `T`. `Interrupted`.
    pub fn recv(&mut self) -> Result<Sample<T>, RecvError> {
        self.0.recv().map(sample)
    }

    /// As [`recv`](Self::recv), for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Sample<T>, RecvError> {
        self.0.recv_timeout(timeout).map(sample)
    }

    /// Receives without waiting.
    ///
    /// # Errors
    /// `Empty` when there is nothing now; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Sample<T>, RecvError> {
        self.0.try_recv().map(sample)
    }

    /// Keeps the place under its name (`?reader=`), after every message received so far.
    ///
    /// Otherwise a message counts as taken when the next one is asked for, and the place is kept when
    /// nothing more is there, after 256 messages, after a second while messages come, and when this is
    /// dropped. If this process dies before, at most 256 messages come again.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&mut self) -> Result<(), RecvError> {
        self.0.flush()
    }

    /// The address it subscribes to.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.0.address()
    }
}

/// A message of a topic where it lies, until the next one is taken: see [`Borrowed`].
pub struct BorrowedSample<'a, T: InPlace>(Borrowed<'a, T>);

impl<T: InPlace> BorrowedSample<'_, T> {
    /// Its number among those of its publisher, or in that one's lane of a log; from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number()
    }

    /// How many messages are missing before it.
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.0.lost_before()
    }
}

impl<T: InPlace> Deref for BorrowedSample<'_, T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        &self.0
    }
}

impl<T: InPlace> fmt::Debug for BorrowedSample<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BorrowedSample").field(&self.0).finish()
    }
}

impl<T: InPlace> Subscriber<T> {
    /// Receives a message and leaves it where it lies, waiting as long as it takes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn borrow(&mut self) -> Result<BorrowedSample<'_, T>, RecvError> {
        self.0.borrow().map(BorrowedSample)
    }

    /// As [`borrow`](Self::borrow), for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv`](Self::recv).
    pub fn borrow_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<BorrowedSample<'_, T>, RecvError> {
        self.0.borrow_timeout(timeout).map(BorrowedSample)
    }

    /// Receives without waiting, and leaves the message where it lies.
    ///
    /// # Errors
    /// `Empty` when there is nothing now; otherwise as [`recv`](Self::recv).
    pub fn try_borrow(&mut self) -> Result<BorrowedSample<'_, T>, RecvError> {
        self.0.try_borrow().map(BorrowedSample)
    }
}

impl Subscriber<Bytes> {
    /// Waits for messages and gives the bytes of each one that is there to `with`, without copying
    /// them; at most `most`. Returns how many there were. Over `shm:` a message that does not lie in the ring, of a publisher of the
    /// same user that overwrites nothing, is looked at where it lies, as one that is [borrowed](Self::borrow): until `with` returns, and not in a child of `fork(2)`.
    ///
    /// # Errors
    /// `Empty` when the time is over before the first one; otherwise as [`recv`](Self::recv).
    pub fn recv_each(
        &mut self,
        most: usize,
        timeout: Option<Duration>,
        mut with: impl FnMut(Incoming<'_>),
    ) -> Result<usize, RecvError> {
        self.0.recv_each(most, timeout, |incoming, _| {
            with(incoming);
            false
        })
    }
}

impl<T> From<Subscriber<T>> for Receiver<T> {
    /// The receiver that it is. A place that is kept (`?reader=`) stays there before the first message
    /// that is not acknowledged; a rejected one counts as acknowledged, since nobody else has it, unless
    /// the [`cancel`](crate::Options#structfield.cancel) descriptor is readable. Without a name
    /// acknowledging does nothing. What is missing is told by `Gap` and `Damaged` alone.
    fn from(subscriber: Subscriber<T>) -> Self {
        subscriber.0.counting_acknowledged()
    }
}

impl<T> AsFd for Subscriber<T> {
    /// The wake-up descriptor: when it is readable, receive until `Empty`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn sample<T: Message>(delivery: Delivery<T>) -> Sample<T> {
    let (number, published) = (delivery.number(), delivery.published());
    Sample { number, published, lost_before: delivery.lost_before, message: delivery.message }
}
