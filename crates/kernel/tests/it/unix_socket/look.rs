//! Looking at sockets of others: whether one is bound to a file, and what is in flight in one.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use switchboard_kernel::pipe;
use switchboard_kernel::unix_socket::{self as unix, Kind};
use switchboard_testkit::{DEADLINE, Scratch};

fn file(path: &std::path::Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("a file")
}

fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).expect("a status").st_ino
}

/// Waits until no socket has a file: a child that another test starts at this moment has copies of this process'
/// descriptors until it runs its own program.
#[track_caller]
fn bound_no_more(path: &std::path::Path) {
    let until = Instant::now() + DEADLINE;
    while unix::is_bound(file(path)).expect("an answer") {
        assert!(Instant::now() < until, "nobody has it");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whether_a_socket_is_bound() {
    let scratch = Scratch::new();
    let path = scratch.join("listener");
    let listener = UnixListener::bind(&path).expect("a listener");
    assert!(unix::is_bound(file(&path)).expect("an answer"));
    // Nobody was told.
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err());
    // Its file may be called what it likes.
    let other = scratch.join("moved");
    std::fs::rename(&path, &other).expect("renamed");
    assert!(unix::is_bound(file(&other)).expect("an answer"));
    drop(listener);
    bound_no_more(&other);

    let path = scratch.join("datagrams");
    let datagrams = UnixDatagram::bind(&path).expect("a socket");
    assert!(unix::is_bound(file(&path)).expect("an answer"));
    let peer = UnixDatagram::unbound().expect("a socket");
    datagrams.connect(&other).expect_err("nobody is there");
    peer.send_to(b"x", &path).expect("sent");
    assert_eq!(datagrams.recv(&mut [0; 8]).expect("received"), 1, "as if nobody had looked");
    drop(datagrams);
    bound_no_more(&path);
}

#[test]
fn what_is_in_flight_stays_there() {
    for kind in [Kind::Stream, Kind::Datagram, Kind::Seqpacket] {
        let (here, there) = unix::pair(kind).expect("a pair");
        assert!(unix::peek_descriptors(&there).expect("nothing").is_empty());
        let (read, write) = pipe::pipe().expect("a pipe");
        unix::send_with_fds(&here, b"take", &[read.as_fd(), write.as_fd()]).expect("sent");
        for _ in 0..2 {
            let seen = unix::peek_descriptors(&there).expect("copies");
            assert_eq!(seen.iter().map(inode).collect::<Vec<_>>(), [inode(&read), inode(&write)]);
        }
        let mut bytes = [0; 8];
        let (_, fds) = unix::recv_with_fds(&there, &mut bytes, 2).expect("received");
        assert_eq!((&bytes[..4], fds.len()), (&b"take"[..], 2));
        assert_eq!(inode(&fds[1]), inode(&write));
        assert!(unix::peek_descriptors(&there).expect("nothing").is_empty());
    }
}

#[test]
fn behind_bytes_and_where_nobody_may_look() {
    let (here, there) = UnixStream::pair().expect("a pair");
    let many = vec![7; 50_000];
    unix::send(&here, &many).expect("sent");
    unix::send_with_fds(&here, b"x", &[here.as_fd()]).expect("sent");
    assert_eq!(unix::peek_descriptors(&there).expect("copies").len(), 1);
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.join("s")).expect("a listener");
    assert!(unix::peek_descriptors(&listener).is_err());
    let (read, _write) = pipe::pipe().expect("a pipe");
    assert!(unix::peek_descriptors(&read).is_err());
}
