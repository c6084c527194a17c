//! The first datagram of each side of a connection: saying it, and taking it.

use std::os::fd::{BorrowedFd, OwnedFd};

use switchboard_kernel as kernel;
use switchboard_kernel::ErrorKind as K;
use switchboard_kernel::unix_socket;

use super::counting::LOOK;
use super::datagram::{Datagram, Fault, LONGEST_BYTES, MOST_DESCRIPTORS};
use super::hello::Hello;

/// What a connection brought first.
#[derive(Debug)]
pub(super) enum First {
    /// Nothing yet.
    Nothing,
    Hello(Hello, Vec<OwnedFd>),
    /// It only wants to see the counters.
    Look,
    /// The peer does not want this connection, and says why.
    Refused(String),
    /// The peer's rules do not allow what this end does, and it says so.
    Denied(String),
    /// The peer has as many links as may be.
    Full(String),
    /// The peer closed it, or is dead.
    HungUp,
    /// What no peer may say.
    Wrong(Fault),
    /// There were no descriptors for those that came; the datagram is lost.
    Short(kernel::Error),
}

/// Takes the first datagram, without blocking.
pub(super) fn take(socket: BorrowedFd<'_>) -> First {
    let mut bytes = [0; LONGEST_BYTES + 1];
    let mut received = unix_socket::recv_with_fds(socket, &mut bytes, MOST_DESCRIPTORS);
    if received.as_ref().is_err_and(|error| error.kind() == K::ConnectionReset) {
        // A peer that closed with something unread: the kernel says that first, and once. What the
        // peer said before is still there.
        received = unix_socket::recv_with_fds(socket, &mut bytes, MOST_DESCRIPTORS);
    }
    let (received, descriptors) = match received {
        Ok(taken) => taken,
        Err(error) => {
            return match error.kind() {
                K::WouldBlock => First::Nothing,
                K::MessageTooLarge => First::Wrong(Fault::Misbehaved(format!(
                    "a datagram with more than {MOST_DESCRIPTORS} descriptors"
                ))),
                K::TooManyFiles | K::TooManyFilesInSystem | K::OutOfMemory => First::Short(error),
                _ => First::HungUp,
            };
        }
    };
    if received.len == 0 && descriptors.is_empty() {
        return First::HungUp;
    }
    // A longer one is cut to one byte more than is allowed.
    let taken = &bytes[..received.len.min(bytes.len())];
    if taken == LOOK && descriptors.is_empty() {
        return First::Look;
    }
    match Datagram::decode_first(taken, descriptors.len()) {
        Ok(Datagram::Hello(hello)) => First::Hello(hello, descriptors),
        Ok(Datagram::Refuse(reason)) => First::Refused(reason),
        Ok(Datagram::Full(reason)) => First::Full(reason),
        Ok(Datagram::Denied(reason)) => First::Denied(reason),
        Ok(_) => First::HungUp,
        Err(fault) => First::Wrong(fault),
    }
}

/// Says hello. A new connection has room for it.
///
/// # Errors
/// `EPIPE`, `ECONNRESET`: the peer is gone; `ETOOMANYREFS`: this user has too many descriptors on their
/// way; `ENOBUFS`, `ENOMEM`.
pub(super) fn say(
    socket: BorrowedFd<'_>,
    hello: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> kernel::Result<()> {
    unix_socket::send_with_fds(socket, hello, descriptors).map(|_| ())
}

/// Says why a connection is closed, if the peer still listens.
pub(super) fn refuse(socket: BorrowedFd<'_>, reason: &str) {
    let _ = unix_socket::send(socket, &Datagram::Refuse(reason.to_owned()).encode());
}

/// Says why a peer may not do what it does.
pub(super) fn deny(socket: BorrowedFd<'_>, reason: &str) {
    let _ = unix_socket::send(socket, &Datagram::Denied(reason.to_owned()).encode());
}

/// Says that a connection is closed because there is no place for one link more.
pub(super) fn say_full(socket: BorrowedFd<'_>, reason: &str) {
    let _ = unix_socket::send(socket, &Datagram::Full(reason.to_owned()).encode());
}
