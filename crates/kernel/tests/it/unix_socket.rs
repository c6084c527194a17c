//! Tests of `unix_socket.rs`.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self as unix, Address, Kind, Received};
use switchboard_kernel::{Error, ErrorKind, Permissions};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch, skip};

use crate::hand_over::{self, ready};
use crate::python::{self, Death};

pub(crate) mod descriptors;
mod look;
pub(crate) mod names;
pub(crate) mod peer;
pub(crate) mod within;

pub(crate) const KINDS: [Kind; 3] = [Kind::Stream, Kind::Datagram, Kind::Seqpacket];

fn nonblocking_pair(kind: Kind) -> (OwnedFd, OwnedFd) {
    let (a, b) = unix::pair(kind).unwrap();
    io::set_nonblocking(&a, true).unwrap();
    io::set_nonblocking(&b, true).unwrap();
    (a, b)
}

/// A child connected to this process, and this process's end.
fn connected_child(kind: Kind, orders: &str) -> (Child, OwnedFd) {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let address = Address::Path(path.clone());
    let listener = unix::listen_at(kind, &address, Permissions::new(), 1, false).unwrap();
    let word = if kind == Kind::Stream { "stream" } else { "seqpacket" };
    let mut child = Child::role("unix-peer", &[word, path.to_str().unwrap(), orders]);
    ready(&listener);
    let connection = unix::accept(&listener, true).unwrap();
    child.expect("connected");
    (child, connection)
}

/// Role: connects, sends what it was given, and stays.
pub(crate) fn peer(arguments: &[String]) {
    let kind = if arguments[0] == "stream" { Kind::Stream } else { Kind::Seqpacket };
    let address = Address::Path(Path::new(&arguments[1]).to_owned());
    let connection = unix::connect_to(kind, &address, false).unwrap();
    for word in arguments[2].split(',').filter(|orders| *orders != "nothing") {
        unix::send(&connection, word.as_bytes()).unwrap();
    }
    report("connected");
    let _ = instruction();
}

#[test]
fn a_killed_peer_is_end_of_file_and_a_broken_pipe() {
    for kind in [Kind::Stream, Kind::Seqpacket] {
        let (mut child, connection) = connected_child(kind, "words");
        let mut buffer = [0; 64];
        assert_eq!(unix::recv(&connection, &mut buffer), Ok(5));
        assert_eq!(unix::recv(&connection, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        child.kill();
        ready(&connection);
        assert_eq!(unix::recv(&connection, &mut buffer), Ok(0));
        let error = unix::send(&connection, b"anybody?").unwrap_err();
        assert_eq!((error.kind(), error.call()), (ErrorKind::BrokenPipe, "send"));
        let error = unix::send_vectored(&connection, &[IoSlice::new(b"more")]).unwrap_err();
        assert_eq!((error.kind(), error.call()), (ErrorKind::BrokenPipe, "sendmsg"));
    }
}

#[test]
fn a_peer_killed_with_data_unread_resets_the_connection() {
    let (mut child, connection) = connected_child(Kind::Stream, "nothing");
    unix::send(&connection, b"never read").unwrap();
    child.kill();
    ready(&connection);
    let error = unix::recv(&connection, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_peer_is_known_and_its_death_seen_through_a_pidfd() {
    let (mut child, connection) = connected_child(Kind::Stream, "nothing");
    let credentials = unix::peer_credentials(&connection).unwrap();
    assert_eq!(credentials.pid, Some(child.id()));
    assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
    assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
    let pidfd = match unix::peer_pidfd(&connection) {
        Err(error) if error.kind() == ErrorKind::NotSupported => {
            return skip::skip("unix_socket::pidfd", "SO_PEERPIDFD needs Linux 6.5");
        }
        result => result.unwrap(),
    };
    assert!(!wait_for(&pidfd, Interest::Readable, Deadline::after(Duration::ZERO)).unwrap());
    let flags = rustix::io::fcntl_getfd(&pidfd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    child.kill();
    ready(&pidfd);
}

#[test]
fn a_pidfd_is_not_fooled_by_a_copy_of_the_socket() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let (mut child, connection) = {
        let address = Address::Path(path.clone());
        let listener = unix::listen_at(Kind::Stream, &address, Permissions::new(), 1, false);
        let listener = listener.unwrap();
        let child = Child::role("unix-copied-peer", &[path.to_str().unwrap()]);
        ready(&listener);
        (child, unix::accept(&listener, true).unwrap())
    };
    // The child hands its own end over, so it lives on in this process.
    ready(&connection);
    let (_, copies) = unix::recv_with_fds(&connection, &mut [0; 8], 1).unwrap();
    assert_eq!(copies.len(), 1);
    let Ok(pidfd) = unix::peer_pidfd(&connection) else {
        return skip::skip("unix_socket::copied", "SO_PEERPIDFD needs Linux 6.5");
    };
    child.kill();
    ready(&pidfd);
    assert_eq!(unix::recv(&connection, &mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Role: connects, and sends a copy of its end over the connection itself.
pub(crate) fn copied_peer(arguments: &[String]) {
    let address = Address::Path(Path::new(&arguments[0]).to_owned());
    let connection = unix::connect_to(Kind::Stream, &address, false).unwrap();
    unix::send_with_fds(&connection, b"me", &[connection.as_fd()]).unwrap();
    let _ = instruction();
}

#[test]
fn peers_groups_and_those_of_nobody() {
    let (a, _b) = unix::pair(Kind::Stream).unwrap();
    let mut groups = unix::peer_groups(&a).unwrap();
    let mut own: Vec<u32> =
        rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    own.sort_unstable();
    assert_eq!(groups, own);

    let alone = unix::socket(Kind::Stream, false).unwrap();
    assert_eq!(unix::peer_credentials(&alone).unwrap_err().name(), "ENOTCONN");
    assert!(unix::peer_groups(&alone).is_err());
    assert!(unix::peer_pidfd(&alone).is_err());
    let (pipe, _) = switchboard_kernel::pipe::pipe().unwrap();
    assert_eq!(unix::peer_credentials(&pipe).unwrap_err().name(), "ENOTSOCK");
}

#[test]
fn whole_messages_tell_their_length_when_cut_off() {
    for kind in [Kind::Datagram, Kind::Seqpacket] {
        let (a, b) = nonblocking_pair(kind);
        unix::send(&a, b"more than eight").unwrap();
        unix::send_vectored(&a, &[IoSlice::new(b"in "), IoSlice::new(b"parts")]).unwrap();
        let mut buffer = [0; 8];
        let cut = unix::recv_whole(&b, &mut buffer).unwrap();
        assert_eq!(cut, Received { len: 15, truncated: true });
        assert_eq!(&buffer, b"more tha");
        let fits = unix::recv_whole(&b, &mut buffer).unwrap();
        assert_eq!(fits, Received { len: 8, truncated: false });
        assert_eq!(&buffer, b"in parts");
        unix::send(&a, b"more than eight").unwrap();
        let (cut, fds) = unix::recv_with_fds(&b, &mut buffer, 1).unwrap();
        assert_eq!((cut, fds.len()), (Received { len: 15, truncated: true }, 0));
        let error = unix::recv_whole(&b, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn an_empty_packet_is_not_the_end() {
    let (a, b) = nonblocking_pair(Kind::Seqpacket);
    unix::enable_packet_ends(&b).unwrap();
    let mut buffer = [0; 4];
    let mut next = || unix::recv_packet(&b, &mut buffer);
    for packet in [&b"one"[..], b"", b"", b"longer"] {
        unix::send(&a, packet).unwrap();
    }
    assert_eq!(next(), Ok(Some(Received { len: 3, truncated: false })));
    assert_eq!(next(), Ok(Some(Received { len: 0, truncated: false })));
    assert_eq!(next(), Ok(Some(Received { len: 0, truncated: false })));
    assert_eq!(next(), Ok(Some(Received { len: 6, truncated: true })));
    assert_eq!(next().map_err(Error::kind), Err(ErrorKind::WouldBlock));
    unix::send(&a, b"").unwrap();
    unix::shutdown_write(&a).unwrap();
    assert_eq!(next(), Ok(Some(Received { len: 0, truncated: false })));
    assert_eq!(next(), Ok(None));
    assert_eq!(next(), Ok(None));
}

#[test]
fn empty_packets_of_a_killed_peer_come_before_the_end() {
    let (mut child, connection) = connected_child(Kind::Seqpacket, "one,,two");
    unix::enable_packet_ends(&connection).unwrap();
    child.kill();
    let deadline = Deadline::after(DEADLINE);
    let mut lengths = Vec::new();
    loop {
        assert!(wait_for(&connection, Interest::Readable, deadline).unwrap());
        match unix::recv_packet(&connection, &mut [0; 8]).unwrap() {
            Some(received) => lengths.push(received.len),
            None => break,
        }
    }
    assert_eq!(lengths, [3, 0, 3]);
}

#[test]
fn a_connection_that_is_shut_down_ends_on_both_sides() {
    let (a, b) = nonblocking_pair(Kind::Seqpacket);
    unix::send(&a, b"from a").unwrap();
    unix::send(&b, b"from b").unwrap();
    unix::shutdown(&a).unwrap();
    for socket in [&a, &b] {
        assert_eq!(wait_for(socket, Interest::Readable, Deadline::after(DEADLINE)), Ok(true));
        assert_eq!(unix::recv(socket, &mut [0; 8]), Ok(6));
        assert_eq!(unix::recv(socket, &mut [0; 8]), Ok(0));
        assert_eq!(unix::send(socket, b"more").map_err(|error| error.name()), Err("EPIPE"));
    }
}

#[test]
fn a_full_socket_would_block_and_counts_what_is_unread() {
    let (a, b) = nonblocking_pair(Kind::Stream);
    unix::set_send_buffer(&a, 32_768).unwrap();
    unix::set_recv_buffer(&b, 32_768).unwrap();
    assert!(unix::send_buffer(&a).unwrap() >= 32_768);
    assert!(unix::recv_buffer(&b).unwrap() >= 32_768);
    assert_eq!(unix::unsent_bytes(&a), Ok(0));
    let error = loop {
        if let Err(error) = unix::send(&a, &[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(unix::unsent_bytes(&a).unwrap() >= io::bytes_waiting(&b).unwrap());
    while unix::recv(&b, &mut [0; 65_536]).is_ok() {}
    assert_eq!(unix::unsent_bytes(&a), Ok(0));
}

#[test]
fn a_full_backlog_would_block() {
    let scratch = Scratch::new();
    let address = Address::Path(scratch.join("s"));
    let listener = unix::listen_at(Kind::Stream, &address, Permissions::new(), 0, true).unwrap();
    let _first = unix::connect_to(Kind::Stream, &address, true).unwrap();
    let second = unix::socket(Kind::Stream, true).unwrap();
    assert_eq!(unix::connect(&second, &address).unwrap_err().kind(), ErrorKind::WouldBlock);
    unix::accept(&listener, false).unwrap();
    unix::connect(&second, &address).unwrap();
    unix::accept(&listener, false).unwrap();
    assert_eq!(unix::accept(&listener, false).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_pair_reaches_into_a_child() {
    for kind in KINDS {
        let (a, b) = unix::pair(kind).unwrap();
        let mut child = hand_over::start("unix-pair-user", &[], &[b.as_fd()]);
        drop(b);
        unix::send(&a, b"question").unwrap();
        let mut buffer = [0; 64];
        ready(&a);
        assert_eq!(unix::recv(&a, &mut buffer), Ok(6));
        assert_eq!(&buffer[..6], b"answer");
        assert!(child.wait().success());
    }
}

/// Role: answers on a socket it was given.
pub(crate) fn pair_user(arguments: &[String]) {
    let (fds, _) = hand_over::take(arguments);
    let mut buffer = [0; 64];
    assert_eq!(unix::recv(&fds[0], &mut buffer), Ok(8));
    assert_eq!(unix::send(&fds[0], b"answer"), Ok(6));
}

#[test]
fn python_at_either_end() {
    for (kind, ends, writing) in [
        (Kind::Stream, true, &["EPIPE"]),
        (Kind::Seqpacket, true, &["EPIPE"]),
        (Kind::Datagram, false, &["ECONNREFUSED"]),
    ] {
        let death = Death { ends, writing };
        python::check("unix_socket::python_at_either_end", &death, || {
            let (ours, theirs) = unix::pair(kind).unwrap();
            (python::both(ours), python::both(theirs))
        });
    }
}

/// Listens, answers once with the credentials of who asks and a descriptor of its own, and stays.
const PYTHON: &str = "
import struct
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen()
say('listening')
connection = listener.accept()[0]
credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
given = socket.recv_fds(connection, 8, 1)[1][0]
os.write(given, b'by descriptor')
reader, writer = os.pipe()
os.write(writer, b'from there')
socket.send_fds(connection, [b'%d' % struct.unpack('3i', credentials)[0]], [reader])
told()
";

#[test]
fn python_listens_and_passes_descriptors() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let test = "unix_socket::python_listens_and_passes_descriptors";
    let module = "socket; socket.send_fds";
    let Some(mut child) = python::start(test, module, PYTHON, &[path.to_str().unwrap()]) else {
        return;
    };
    child.expect("listening");
    let address = Address::Path(path);
    let connection = unix::connect_to(Kind::Stream, &address, false).unwrap();
    assert_eq!(unix::peer_credentials(&connection).unwrap().pid, Some(child.id()));
    let (reader, writer) = switchboard_kernel::pipe::pipe().unwrap();
    unix::send_with_fds(&connection, b"d", &[writer.as_fd()]).unwrap();
    drop(writer);
    let mut buffer = [0; 32];
    let (received, fds) = unix::recv_with_fds(&connection, &mut buffer, 1).unwrap();
    assert_eq!(buffer[..received.len], *std::process::id().to_string().as_bytes());
    assert_eq!(io::read(&fds[0], &mut buffer), Ok(10));
    assert_eq!(&buffer[..10], b"from there");
    assert_eq!(io::read(&reader, &mut buffer), Ok(13));

    child.kill();
    assert_eq!(io::read(&reader, &mut buffer), Ok(0));
    assert_eq!(unix::recv(&connection, &mut buffer), Ok(0));
    let refused = unix::connect_to(Kind::Stream, &address, false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
