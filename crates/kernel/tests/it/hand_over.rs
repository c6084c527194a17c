//! Starts a child that gets some of this process's descriptors, over a Unix socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_kernel::{Permissions, pipe};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

/// Starts a role and gives it copies of descriptors; the role's arguments follow the one that
/// [`take`] reads.
pub(crate) fn start(role: &str, arguments: &[&str], fds: &[BorrowedFd<'_>]) -> Child {
    let (child, connection) = meet(|path| Child::role(role, &[&[path], arguments].concat()));
    unix::send_with_fds(&connection, b"descriptors", fds).expect("descriptors sent");
    ready(&connection);
    child
}

/// Starts a child that gets the path of a socket, and the connection that it makes to there.
pub(crate) fn meet(start: impl FnOnce(&str) -> Child) -> (Child, OwnedFd) {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let address = Address::Path(path.clone());
    let listener = unix::listen_at(Kind::Seqpacket, &address, Permissions::new(), 1, false)
        .expect("a listener");
    let child = start(path.to_str().expect("a path"));
    ready(&listener);
    (child, unix::accept(&listener, false).expect("the child's connection"))
}

/// The descriptor that the other end of a connection sends.
pub(crate) fn given(connection: &OwnedFd) -> OwnedFd {
    ready(connection);
    let (_, mut fds) = unix::recv_with_fds(connection, &mut [0; 32], 1).expect("a message");
    fds.pop().expect("a descriptor")
}

/// In the child: the descriptors, and the role's own arguments.
pub(crate) fn take(arguments: &[String]) -> (Vec<OwnedFd>, &[String]) {
    let (path, rest) = arguments.split_first().expect("a path");
    let address = Address::Path(Path::new(path).to_owned());
    let connection = unix::connect_to(Kind::Seqpacket, &address, false).expect("a connection");
    let mut buffer = [0; 32];
    let (_, fds) = unix::recv_with_fds(&connection, &mut buffer, 16).expect("descriptors");
    (fds, rest)
}

/// Waits until there is something to read, a connection or an end of file.
pub(crate) fn ready(fd: impl AsFd) {
    let deadline = Deadline::after(DEADLINE);
    assert!(wait_for(fd, Interest::Readable, deadline).expect("a poll"), "nothing came in time");
}

/// Role: holds the descriptors it was given, until told to let go.
pub(crate) fn holder(arguments: &[String]) {
    let (_fds, _) = take(arguments);
    report("holding");
    let _ = instruction();
}

/// Role: writes to a pipe it was given, and sends the reading end of one of its own.
pub(crate) fn writer(arguments: &[String]) {
    let (fds, _) = take(arguments);
    io::write_all(&fds[0], b"from there").expect("written");
    let (reader, writer) = pipe::pipe().expect("a pipe");
    unix::send_with_fds(&fds[1], b"r", &[reader.as_fd()]).expect("sent");
    io::write_all(&writer, b"child").expect("written");
}
