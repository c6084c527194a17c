//! A peer that says and hears datagrams as it likes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self, Address, Kind};
use switchboard_testkit::DEADLINE;

use super::ends::{End, channel};
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::hello::Hello;
use crate::transport::shm::name::Entry;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Raw(pub(super) OwnedFd);

/// What is heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Hello(Box<Hello>),
    Refusal(String),
    End,
    Nothing,
}

impl Raw {
    /// Connects to an endpoint.
    pub(super) fn dial(base: &Path, end: &End) -> Self {
        Self::dial_entry(base, entry_of(end))
    }

    pub(super) fn dial_entry(base: &Path, entry: Entry) -> Self {
        let address = Address::Path(channel(base).join(entry.to_string()));
        Self(unix_socket::connect_to(Kind::Seqpacket, &address, true).expect("connected"))
    }

    /// Says something with so many descriptors.
    pub(super) fn say(&self, bytes: &[u8], descriptors: usize) {
        let made: Vec<EventFd> =
            (0..descriptors).map(|_| EventFd::new(0).expect("a descriptor")).collect();
        let made: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
        unix_socket::send_with_fds(&self.0, bytes, &made).expect("sent");
    }

    pub(super) fn say_hello(&self, hello: &Hello) {
        self.say(&Datagram::Hello(hello.clone()).encode(), hello.descriptors());
    }

    /// What is there now.
    pub(super) fn hear(&self) -> Heard {
        let mut bytes = [0; 2048];
        let mut received = unix_socket::recv_with_fds(&self.0, &mut bytes, 16);
        if received.as_ref().is_err_and(|error| error.name() == "ECONNRESET") {
            received = unix_socket::recv_with_fds(&self.0, &mut bytes, 16);
        }
        match received {
            Err(error) if error.name() == "EAGAIN" => Heard::Nothing,
            Err(error) => panic!("{error}"),
            Ok((received, _)) if received.len == 0 => Heard::End,
            Ok((received, descriptors)) => {
                match Datagram::decode_first(&bytes[..received.len], descriptors.len()) {
                    Ok(Datagram::Hello(hello)) => Heard::Hello(Box::new(hello)),
                    Ok(
                        Datagram::Refuse(reason)
                        | Datagram::Full(reason)
                        | Datagram::Denied(reason),
                    ) => Heard::Refusal(reason),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Waits for what comes next.
    pub(super) fn hear_next(&self) -> Heard {
        let _ = wait_for(&self.0, Interest::Readable, Deadline::after(DEADLINE));
        self.hear()
    }

    /// The connection was refused, and closed.
    #[track_caller]
    pub(super) fn expect_refusal(&self, reason: &str) {
        match self.hear_next() {
            Heard::Refusal(heard) => assert!(heard.contains(reason), "{heard} without {reason}"),
            other => panic!("{other:?} where {reason:?} was expected"),
        }
        assert_eq!(self.hear_next(), Heard::End);
    }
}

impl Drop for Raw {
    /// Another test may just be starting a process, which has copies of all descriptors for a moment.
    fn drop(&mut self) {
        let _ = unix_socket::shutdown_write(&self.0);
    }
}

pub(super) fn entry_of(end: &End) -> Entry {
    let hello = end.meeting.hello();
    Entry { pattern: hello.pattern, role: hello.role, id: hello.id }
}

/// A listening socket that nobody but the test answers for.
#[derive(Debug)]
pub(super) struct Listener(pub(super) OwnedFd);

impl Listener {
    /// With a name in a channel that is there.
    pub(super) fn at(base: &Path, entry: Entry) -> Self {
        let address = Address::Path(channel(base).join(entry.to_string()));
        let permissions = switchboard_kernel::Permissions::new();
        let made = unix_socket::listen_at(Kind::Seqpacket, &address, permissions, 16, true);
        Self(made.expect("a listener"))
    }

    /// A connection that waits.
    pub(super) fn accept(&self) -> Option<Raw> {
        unix_socket::accept(&self.0, true).ok().map(Raw)
    }

    pub(super) fn accept_within(&self, timeout: Duration) -> Option<Raw> {
        let _ = wait_for(&self.0, Interest::Readable, Deadline::after(timeout));
        self.accept()
    }
}

/// Waits until no process has the socket of this name: one that is just being started has copies of
/// all descriptors for a moment.
pub(super) fn wait_dead(path: &Path) {
    let address = Address::Path(path.to_owned());
    let deadline = Deadline::after(DEADLINE);
    let refused = || {
        let probed = unix_socket::connect_to(Kind::Datagram, &address, true);
        probed.is_err_and(|error| error.name() == "ECONNREFUSED")
    };
    while !refused() {
        assert!(!deadline.passed(), "somebody has {}", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}
