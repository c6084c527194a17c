//! `unix-dgram:PATH`: Unix-domain datagram sockets.
//!
//! Source: `unix(7)`. Each datagram is a bare message, kept in order and never lost while the receiver
//! lives; there is no connection, no acknowledgement and no end. The receiver binds. A sender waits when
//! the receiver's socket is full (net.unix.max_dgram_qlen messages).

use std::os::fd::OwnedFd;

use switchboard_kernel as kernel;
use switchboard_kernel::unix_socket::{self, Kind};

use super::packet::{PacketReceiver, PacketSender};
use super::unix::{
    clear_path, folder_exists, identity, in_use, is_no_socket, missing_folder, no_socket,
    socket_address,
};
use super::{ReceiverFlavor, SenderFlavor, Setup, unix};
use crate::address::{Address, Target};
use crate::error::Error;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    Ok(SenderFlavor::Packet(PacketSender::new(setup.again(), dial, false)?))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let address = &setup.address;
    clear_path(address, Kind::Datagram)?;
    let permissions = address.query.permissions();
    let fd = unix_socket::bind_at(Kind::Datagram, &socket_address(address), permissions, true)
        .map_err(|error| {
            if error.kind() == kernel::ErrorKind::AddressInUse {
                in_use(address, Kind::Datagram)
            } else {
                missing_folder(address, "cannot bind", error)
            }
        })?;
    let made = match &address.target {
        Target::Path(path) => identity(path).map(|identity| (path.clone(), identity)),
        _ => None,
    };
    let local = Some(address.as_str().to_owned());
    Ok(ReceiverFlavor::Packet(PacketReceiver::new(setup.again(), fd, local, false, made)))
}

fn dial(setup: &Setup) -> Result<Option<OwnedFd>, Error> {
    use kernel::ErrorKind as K;
    let address = &setup.address;
    match unix_socket::connect_to(Kind::Datagram, &socket_address(address), true) {
        Ok(fd) => Ok(Some(fd)),
        Err(error)
            if matches!(error.kind(), K::ConnectionRefused | K::PermissionDenied)
                && is_no_socket(address) =>
        {
            Err(no_socket(address))
        }
        Err(error) if error.kind() == K::ConnectionRefused => Ok(None),
        Err(error) if error.kind() == K::NotFound && folder_exists(address) => Ok(None),
        Err(error) => Err(missing_folder(address, "cannot connect", error)),
    }
}

/// Removes a socket that a dead process left.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    unix::remove_stale(address, Kind::Datagram)
}
