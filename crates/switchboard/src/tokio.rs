//! The ends of a queue, a topic or a service for tasks of the tokio runtime: the same endpoints, waited for with
//! [`AsyncFd`] on their descriptor. A publisher is an [`AsyncSender`].
//!
//! Dropping a future loses nothing: a message is taken or sent in one step, at its end.

mod service;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use switchboard_kernel::io;

use crate::error::{Error, ErrorKind, RecvError, SendError};
use crate::message::Message;
use crate::pattern::queue::{Delivery, Receiver, Sender};
use crate::pattern::topic::{Sample, Subscriber};

pub use service::{AsyncClient, AsyncReplies, AsyncServer};

fn failed(address: &crate::Address, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::System, address, format!("cannot watch the descriptor: {error}"))
}

/// The endpoint's descriptor may change while it waits for a peer, so it is watched anew each time.
fn watch(fd: impl AsFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    let fd = io::duplicate(fd)?;
    // Deprecated because of descriptors that close while they are registered; an `OwnedFd` does not.
    #[allow(deprecated)]
    AsyncFd::with_interest(fd, interest)
}

/// How long a wait lasts at most before the endpoint is looked at again: for what no descriptor shows.
const BACKSTOP: Duration = Duration::from_millis(100);

/// Waits until an endpoint may have something.
async fn readable(end: impl AsFd, address: &crate::Address) -> Result<(), RecvError> {
    let watched = watch(end, Interest::READABLE).map_err(|error| failed(address, &error))?;
    let _ = ::tokio::time::timeout(BACKSTOP, watched.readable()).await;
    Ok(())
}

/// A receiver in a task.
#[derive(Debug)]
pub struct AsyncReceiver<T>(Receiver<T>);

impl<T: Message> AsyncReceiver<T> {
    /// Wraps a receiver. Inside a runtime with I/O and time enabled.
    #[must_use]
    pub fn new(receiver: Receiver<T>) -> Self {
        Self(receiver)
    }

    /// Receives a message.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Delivery<T>, RecvError> {
        loop {
            match self.0.try_recv() {
                Err(RecvError::Empty) => readable(&self.0, self.0.address()).await?,
                result => return result,
            }
        }
    }

    /// As [`Receiver::acknowledge`].
    ///
    /// # Errors
    /// As [`Receiver::acknowledge`].
    pub fn acknowledge(&mut self, delivery: Delivery<T>) -> Result<T, RecvError> {
        self.0.acknowledge(delivery)
    }

    /// The receiver itself.
    #[must_use]
    pub fn into_inner(self) -> Receiver<T> {
        self.0
    }
}

/// A subscriber in a task.
#[derive(Debug)]
pub struct AsyncSubscriber<T>(Subscriber<T>);

impl<T: Message> AsyncSubscriber<T> {
    /// Wraps a subscriber. Inside a runtime with I/O and time enabled.
    #[must_use]
    pub fn new(subscriber: Subscriber<T>) -> Self {
        Self(subscriber)
    }

    /// Receives a message.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub async fn recv(&mut self) -> Result<Sample<T>, RecvError> {
        loop {
            match self.0.try_recv() {
                Err(RecvError::Empty) => readable(&self.0, self.0.address()).await?,
                result => return result,
            }
        }
    }

    /// The subscriber itself.
    #[must_use]
    pub fn into_inner(self) -> Subscriber<T> {
        self.0
    }
}

/// A sender in a task.
///
/// Call [`close().await`](Self::close) when the last message is sent. Dropping it never waits: it looks
/// once at what arrived, says the end if everything is acknowledged by then, and closes. What is not
/// acknowledged by then is lost for other receivers, and a receiver that is there reports a sender that
/// died.
#[derive(Debug)]
pub struct AsyncSender<T>(Sender<T>);

impl<T: Message> AsyncSender<T> {
    /// Wraps a sender, or a publisher. Inside a runtime with I/O and time enabled.
    #[must_use]
    pub fn new(sender: impl Into<Sender<T>>) -> Self {
        let mut sender = sender.into();
        sender.set_hasty(true);
        Self(sender)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&mut self, message: &T) -> Result<(), SendError> {
        loop {
            match self.0.try_send(message) {
                Err(SendError::Full | SendError::Slow { .. }) if self.0.waits() => {
                    self.ready().await?;
                }
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        while !self.0.written_out()? {
            self.ready().await?;
        }
        Ok(())
    }

    /// Waits until the sender can move, or for as long as it wants to wait at most.
    async fn ready(&mut self) -> Result<(), SendError> {
        let most = self.0.patience().unwrap_or(BACKSTOP);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let address = self.0.address().clone();
        let watched = watch(&self.0, interest).map_err(|error| failed(&address, &error))?;
        let _ = ::tokio::time::timeout(most, watched.ready(interest)).await;
        Ok(())
    }

    /// Waits until everything is acknowledged, says the end and closes.
    ///
    /// # Errors
    /// As [`Sender::close`]; the wait is not bounded by the linger option: use the runtime's timeout.
    pub async fn close(mut self) -> Result<(), SendError> {
        while !self.0.finish_step()? {
            self.ready().await?;
        }
        Ok(())
    }

    /// The sender itself; dropping that waits as a sender's does.
    #[must_use]
    pub fn into_inner(mut self) -> Sender<T> {
        self.0.set_hasty(false);
        self.0
    }
}
