//! `shm:NAME`: shared memory in which each page has one writer. `docs/design/shm.md` is its design.

mod around;
mod base;
mod blocks;
mod both;
mod calling;
mod client;
mod control;
mod counting;
mod datagram;
mod endpoint;
mod ends;
mod feeding;
mod folder;
mod following;
mod geometry;
mod greeting;
mod hand;
mod hello;
mod io_thread;
mod key_locks;
mod large;
mod lending;
mod listener;
mod looking;
mod meeting;
mod memory;
mod name;
mod notifier;
mod offer;
mod park;
mod peer;
mod publisher;
mod reading;
mod receiver;
mod sender;
mod server;
mod state_reader;
mod state_writer;
mod subscriber;
#[cfg(test)]
mod tests;
mod waking;
mod writing;

use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::pattern::topic::Start;
use crate::transport::{
    ClientFlavor, ListenerFlavor, LiveReader, LiveWriter, NotifierFlavor, ReceiverFlavor,
    SenderFlavor, ServerFlavor, Setup,
};

use base::Surroundings;
use folder::{Dialled, Folder};
use name::ChannelName;

#[cfg(test)]
pub(crate) use tests::ROLES;

pub(crate) use around::look_around;
pub(crate) use client::ShmClient;
pub(crate) use ends::{ShmPublisher, ShmReceiver, ShmSender, ShmSubscriber};
pub(crate) use listener::ShmListener;
pub(crate) use looking::look;
pub(crate) use notifier::ShmNotifier;
pub(crate) use server::ShmServer;
pub(crate) use state_reader::ShmStateReader;
pub(crate) use state_writer::ShmStateWriter;

/// The largest message, in bytes.
pub(crate) const LARGEST_MESSAGE_BYTES: u32 = switchboard_shm::arena::LARGEST_BYTES as u32;

pub(super) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    ShmPublisher::open(setup).map(Box::new).map(SenderFlavor::ShmPublisher)
}

pub(super) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    crate::transport::setup::starts_over_links(setup, start)?;
    ShmSubscriber::open(setup).map(Box::new).map(ReceiverFlavor::ShmSubscriber)
}

pub(super) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    ShmSender::open(setup).map(Box::new).map(SenderFlavor::ShmSender)
}

pub(super) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    ShmReceiver::open(setup).map(Box::new).map(ReceiverFlavor::ShmReceiver)
}

pub(super) fn open_client(setup: &Setup) -> Result<ClientFlavor, Error> {
    ShmClient::open(setup).map(Box::new).map(ClientFlavor::Shm)
}

pub(super) fn open_server(setup: &Setup) -> Result<ServerFlavor, Error> {
    ShmServer::open(setup).map(Box::new).map(ServerFlavor::Shm)
}

/// Room in what an end keeps of each peer: most ends have one, and else there would be room for four.
fn room_for_one<T>(all: &mut Vec<T>) {
    if all.capacity() == 0 {
        all.reserve_exact(1);
    }
}

/// The name of a channel.
fn name_of(address: &Address) -> Result<ChannelName, Error> {
    let Target::Name(name) = &address.target else {
        return Err(Error::new(ErrorKind::BadAddress, address, "an address without a name"));
    };
    ChannelName::new(name).map_err(|problem| Error::new(ErrorKind::BadAddress, address, problem))
}

pub(super) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    ShmNotifier::open(setup).map(Box::new).map(NotifierFlavor::Shm)
}

pub(super) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    ShmListener::open(setup).map(Box::new).map(ListenerFlavor::Shm)
}

pub(super) fn open_state_writer(setup: &Setup) -> Result<LiveWriter, Error> {
    ShmStateWriter::open(setup).map(Box::new).map(LiveWriter::Shm)
}

pub(super) fn open_state_reader(setup: &Setup) -> Result<LiveReader, Error> {
    ShmStateReader::open(setup)?.begin().map(Box::new).map(LiveReader::Shm)
}

/// The folder in which the ends of a channel meet.
fn folder_of(address: &Address) -> Result<Folder, Error> {
    let name = name_of(address)?;
    Folder::open(address, address.query.scope.as_deref(), &Surroundings::here(), &name)
}

/// Removes what dead ends left: their names, and the folder. Not needed: the next end does so.
pub(super) fn unlink(address: &Address) -> Result<(), Error> {
    let folder = folder_of(address)?;
    for entry in folder.scan()? {
        if let Dialled::Connected(_) = folder.dial(entry) {
            let problem = "somebody has it open";
            return Err(Error::new(ErrorKind::AddressInUse, address, problem)
                .hint("it goes away with its last end; stop those that use it first"));
        }
    }
    folder.remove_if_empty();
    Ok(())
}
