//! `shm:NAME`: shared memory in which each page has one writer. `docs/design/shm.md` is its design.

mod base;
mod blocks;
mod control;
mod datagram;
mod ends;
mod endpoint;
mod folder;
mod geometry;
mod greeting;
mod hello;
mod io_thread;
mod large;
mod meeting;
mod memory;
mod name;
mod park;
mod peer;
mod publisher;
mod receiver;
mod sender;
mod subscriber;
#[cfg(test)]
mod tests;
mod waking;

use crate::error::Error;
use crate::pattern::topic::Start;
use crate::transport::{ReceiverFlavor, SenderFlavor, Setup};

pub(crate) use ends::{ShmPublisher, ShmReceiver, ShmSender, ShmSubscriber};

/// The largest message, in bytes.
pub(crate) const LARGEST_MESSAGE_BYTES: u32 = switchboard_shm::arena::LARGEST_BYTES as u32;

pub(super) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    ShmPublisher::open(setup).map(Box::new).map(SenderFlavor::ShmPublisher)
}

pub(super) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    let _ = start;
    ShmSubscriber::open(setup).map(Box::new).map(ReceiverFlavor::ShmSubscriber)
}

pub(super) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    ShmSender::open(setup).map(Box::new).map(SenderFlavor::ShmSender)
}

pub(super) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    ShmReceiver::open(setup).map(Box::new).map(ReceiverFlavor::ShmReceiver)
}
