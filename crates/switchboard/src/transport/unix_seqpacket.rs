//! `unix-seqpacket:PATH`: Unix-domain sockets that keep packets apart.
//!
//! Source: `unix(7)`. The link speaks the same bytes as on a stream, in packets of at most 64 KiB. With
//! `?framing=raw` each packet is one message.

use switchboard_kernel::unix_socket::Kind;

use super::{
    ClientFlavor, ListenerFlavor, LiveReader, LiveWriter, NotifierFlavor, ReceiverFlavor,
    SenderFlavor, ServerFlavor, Setup, unix,
};
use crate::address::Address;
use crate::error::Error;
use crate::pattern::topic::Start;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    unix::sender(setup, Kind::Seqpacket)
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    unix::receiver(setup, Kind::Seqpacket)
}

pub(crate) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    unix::publisher(setup, Kind::Seqpacket)
}

pub(crate) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    unix::subscriber(setup, start, Kind::Seqpacket)
}

pub(crate) fn open_client(setup: &Setup) -> Result<ClientFlavor, Error> {
    unix::client(setup, Kind::Seqpacket)
}

pub(crate) fn open_server(setup: &Setup) -> Result<ServerFlavor, Error> {
    unix::server(setup, Kind::Seqpacket)
}

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    unix::notifier(setup, Kind::Seqpacket)
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    unix::listener(setup, Kind::Seqpacket)
}

pub(crate) fn open_state_writer(setup: &Setup) -> Result<LiveWriter, Error> {
    unix::state_writer(setup, Kind::Seqpacket)
}

pub(crate) fn open_state_reader(setup: &Setup) -> Result<LiveReader, Error> {
    unix::state_reader(setup, Kind::Seqpacket)
}

/// Removes a socket that a dead process left.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    unix::remove_stale(address, Kind::Seqpacket)
}
