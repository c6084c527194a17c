//! The publishing end of a topic.

use std::ops::{Deref, DerefMut};

use crate::pattern::queue::Sender;

/// The publishing end of a topic.
///
/// It sends as a [`Sender`] does, and has all its methods: `send`, `try_send`, `send_timeout`, `flush`,
/// `close` ([`finish`](Sender::finish) here). Nobody has to subscribe: what is published then goes into a
/// log, or into the [history](crate::Options#structfield.history_messages), or to nobody;
/// [`wait_for_peers`](Sender::wait_for_peers) waits for the first.
///
/// "Acknowledged" means of a log that it keeps the message as durably as the address asks
/// (`?durability=`); over connections, that the kernel has it for every subscriber, or that it was
/// dropped for those that were too slow. A subscriber that is too slow holds it up, misses messages, or
/// makes it fail, as [`Overflow`](crate::Overflow) says; one that dies does neither.
///
/// It runs no thread: subscribers are let in, and what waits for slow ones is written, while one of its
/// methods runs. Whoever connected to a socket of this machine before a message was sent gets it.
///
/// [`finish`](Sender::finish), or dropping it, says the end once everybody has everything; with
/// [`DropOldest`](crate::Overflow::DropOldest) and [`Fail`](crate::Overflow::Fail) it leaves behind who
/// takes nothing for a second.
#[derive(Debug)]
pub struct Publisher<T>(Sender<T>);

impl<T> Publisher<T> {
    pub(super) fn new(sender: Sender<T>) -> Self {
        Self(sender)
    }
}

impl<T> Deref for Publisher<T> {
    type Target = Sender<T>;

    fn deref(&self) -> &Sender<T> {
        &self.0
    }
}

impl<T> DerefMut for Publisher<T> {
    fn deref_mut(&mut self) -> &mut Sender<T> {
        &mut self.0
    }
}

impl<T> From<Publisher<T>> for Sender<T> {
    /// The sender that it is.
    fn from(publisher: Publisher<T>) -> Self {
        publisher.0
    }
}
