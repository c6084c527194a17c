//! `fd:N`: a descriptor that this process inherited: a pipe's end or a stream socket.
//!
//! Source: `pipe(7)`, `socketpair(2)`. On a socket the link is whole. A pipe goes one way: the sender
//! says hello, messages and end; nothing is acknowledged. A pipe is opened anew through
//! `/proc/self/fd` where that is possible, so that other holders of it are not made non-blocking.

use std::os::fd::{AsFd, OwnedFd};

use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_kernel::{io, pipe, process};

use super::connection::Channel;
use super::hub::{Hub, Met};
use super::{ReceiverFlavor, SenderFlavor, Setup, StreamReceiver, StreamSender};
use crate::address::Target;
use crate::error::{Error, ErrorKind};
use crate::link::Role;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let met = take(setup, Role::Sender)?;
    let hub = Hub::given(setup.again(), Role::Sender, met)?;
    Ok(SenderFlavor::Stream(Box::new(StreamSender::new(hub))))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let met = take(setup, Role::Receiver)?;
    let hub = Hub::given(setup.again(), Role::Receiver, met)?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

fn take(setup: &Setup, role: Role) -> Result<Met, Error> {
    let Target::Descriptor(number) = setup.address.target else {
        return Err(Error::new(ErrorKind::BadAddress, &setup.address, "no descriptor"));
    };
    let failed = |error| setup.system("cannot use this descriptor", error);
    let fd = process::inherited_descriptor(number).map_err(|error| {
        let error = failed(error);
        error.hint("pass it when the program is started, as in 3<&0 or 3>&1 in a shell")
    })?;
    let peer = format!("the other end of descriptor {number}");
    if pipe::is_pipe(&fd) {
        let fd = reopened(&fd, role).unwrap_or(fd);
        io::set_nonblocking(&fd, true).map_err(failed)?;
        return Ok(Met { fd, channel: Channel::Pipe, peer });
    }
    let channel = match unix_socket::kind_of(&fd) {
        Ok(Some(Kind::Stream)) => Channel::Stream,
        Ok(Some(Kind::Seqpacket)) => {
            // Without this an empty packet would look like the end of the stream.
            unix_socket::enable_packet_ends(&fd).map_err(failed)?;
            Channel::Packets
        }
        _ => {
            let problem = "this descriptor is neither a pipe nor a connected stream socket";
            return Err(Error::new(ErrorKind::NotSupported, &setup.address, problem));
        }
    };
    io::set_nonblocking(&fd, true).map_err(failed)?;
    let credentials = super::unix::peer_of(fd.as_fd());
    let peer = if credentials == "a peer" { peer } else { format!("{peer}, {credentials}") };
    Ok(Met { fd, channel, peer })
}

/// The same pipe with a file description of its own.
fn reopened(fd: &OwnedFd, role: Role) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut options = std::fs::OpenOptions::new();
    // Without it, opening a pipe whose other end is closed would wait for ever.
    options.custom_flags(io::NONBLOCK);
    match role {
        Role::Sender => options.write(true),
        Role::Receiver => options.read(true),
    };
    options.open(path).ok().map(OwnedFd::from)
}
