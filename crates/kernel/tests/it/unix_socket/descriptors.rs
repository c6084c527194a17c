//! Descriptors on their way from one process to another.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::FdFlags;
use switchboard_kernel::unix_socket::{self as unix, Kind, MAX_DESCRIPTORS};
use switchboard_kernel::{ErrorKind, Result, io, pipe};
use switchboard_testkit::child::report;

use super::{KINDS, nonblocking_pair};
use crate::hand_over::{self, ready};
use crate::pipe::limit_descriptors;

/// Sends this many copies of a pipe's writing end, of which none is left but those on their way.
/// The reading end finds its end of file when those are closed.
fn send_writers(socket: &OwnedFd, count: usize) -> OwnedFd {
    let (reader, writer) = pipe::pipe_nonblocking().unwrap();
    let copies = vec![writer.as_fd(); count];
    unix::send_with_fds(socket, b"take these", &copies).unwrap();
    assert_eq!(io::read(&reader, &mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(writer);
    reader
}

fn assert_all_closed(reader: &OwnedFd) {
    ready(reader);
    assert_eq!(io::read(reader, &mut [0; 1]), Ok(0));
}

#[test]
fn descriptors_reach_another_process() {
    let (reader, writer) = pipe::pipe().unwrap();
    let (back, end) = unix::pair(Kind::Stream).unwrap();
    let _child = hand_over::start("hand-over-writer", &[], &[writer.as_fd(), end.as_fd()]);
    drop((writer, end));
    let mut buffer = [0; 64];
    assert_eq!(io::read_full(&reader, &mut buffer), Ok(10));
    assert_eq!(&buffer[..10], b"from there");
    // And one comes back, of a pipe that only the child had.
    ready(&back);
    let (received, fds) = unix::recv_with_fds(&back, &mut buffer, 4).unwrap();
    assert_eq!((received.len, fds.len()), (1, 1));
    assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(FdFlags::CLOEXEC));
    assert_eq!(io::read_full(&fds[0], &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"child");
}

#[test]
fn as_many_as_are_allowed_arrive() {
    for kind in KINDS {
        let (a, b) = nonblocking_pair(kind);
        let reader = send_writers(&a, MAX_DESCRIPTORS);
        let (received, fds) = unix::recv_with_fds(&b, &mut [0; 64], MAX_DESCRIPTORS).unwrap();
        assert_eq!((received.len, fds.len()), (10, MAX_DESCRIPTORS));
        drop(fds);
        assert_all_closed(&reader);
    }
}

#[test]
fn too_many_descriptors_are_an_error_and_all_are_closed() {
    for (sent, allowed) in [(1, 0), (3, 2), (9, 2), (16, 15), (16, 0)] {
        for packet_ends in [false, true] {
            let (a, b) = nonblocking_pair(Kind::Seqpacket);
            if packet_ends {
                unix::enable_packet_ends(&b).unwrap();
            }
            let reader = send_writers(&a, sent);
            let error = unix::recv_with_fds(&b, &mut [0; 64], allowed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MessageTooLarge, "{sent} sent, {allowed} allowed");
            assert_all_closed(&reader);
        }
    }
}

#[test]
fn more_than_the_most_are_not_sent() {
    let (a, b) = nonblocking_pair(Kind::Stream);
    let (_reader, writer) = pipe::pipe().unwrap();
    let send = |bytes: &[u8], count: usize| -> Result<usize> {
        let copies: Vec<BorrowedFd<'_>> = vec![writer.as_fd(); count];
        unix::send_with_fds(&a, bytes, &copies)
    };
    assert_eq!(send(b"x", MAX_DESCRIPTORS + 1).unwrap_err().name(), "EINVAL");
    assert_eq!(send(b"", 1).unwrap_err().name(), "EINVAL");
    assert_eq!(send(b"plain", 0), Ok(5));
    let (received, fds) = unix::recv_with_fds(&b, &mut [0; 8], 4).unwrap();
    assert_eq!((received.len, fds.len()), (5, 0));
}

#[test]
fn descriptors_nobody_asked_for_are_closed() {
    let (a, b) = nonblocking_pair(Kind::Seqpacket);
    unix::enable_packet_ends(&b).unwrap();
    let reader = send_writers(&a, MAX_DESCRIPTORS);
    let received = unix::recv_packet(&b, &mut [0; 64]).unwrap().unwrap();
    assert_eq!(received.len, 10);
    assert_all_closed(&reader);

    let (a, b) = nonblocking_pair(Kind::Stream);
    let reader = send_writers(&a, MAX_DESCRIPTORS);
    assert_eq!(unix::recv(&b, &mut [0; 64]), Ok(10));
    assert_all_closed(&reader);
}

#[test]
fn descriptors_that_do_not_fit_are_an_error_and_none_leaks() {
    let (a, b) = unix::pair(Kind::Seqpacket).unwrap();
    let mut child = hand_over::start("unix-out-of-descriptors", &[], &[b.as_fd()]);
    child.expect("full");
    let reader = send_writers(&a, 4);
    child.expect("TooManyFiles");
    child.expect("none leaked");
    assert_all_closed(&reader);
}

/// Role: has room for one descriptor when several come.
pub(crate) fn out_of_descriptors(arguments: &[String]) {
    let (fds, _) = hand_over::take(arguments);
    limit_descriptors(32);
    let mut files = Vec::new();
    let mut fill = || {
        let before = files.len();
        while let Ok(fd) = io::duplicate(&fds[0]) {
            files.push(fd);
        }
        let opened = files.len() - before;
        files.pop();
        opened
    };
    assert!(fill() > 4);
    report("full");
    let error = unix::recv_with_fds(&fds[0], &mut [0; 64], 4).unwrap_err();
    report(format_args!("{:?}", error.kind()));
    assert_eq!(fill(), 1);
    report("none leaked");
}

#[test]
fn a_peek_leaves_bytes_and_descriptors() {
    for kind in KINDS {
        let (a, b) = unix::pair(kind).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(unix::peek_with_fds(&b, &mut buffer).unwrap_err().name(), "EAGAIN");
        let reader = send_writers(&a, 2);
        for _ in 0..2 {
            let (received, fds, more) = unix::peek_with_fds(&b, &mut buffer).unwrap();
            assert_eq!((received.len, fds.len(), more), (10, 2, false));
        }
        assert_eq!(unix::peek_offset(&b), Ok(None));
        let (received, fds) = unix::recv_with_fds(&b, &mut buffer, 4).unwrap();
        assert_eq!((received.len, fds.len()), (10, 2));
        drop(fds);
        assert_all_closed(&reader);
    }
}
