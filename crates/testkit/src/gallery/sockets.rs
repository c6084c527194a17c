//! Connections over Unix-domain sockets and TCP.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stage::{idle, read_some, write_on};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "unix-empty",
        "a reader of a Unix stream waits for its peer",
        |stage| pair(stage, libc::SOCK_STREAM, false),
        &[("here", &["to read from unix:", "(empty, 0)", "its only other end @there"])],
    ),
    one(
        "unix-full",
        "a writer to a Unix stream waits for its peer to read",
        |stage| pair(stage, libc::SOCK_STREAM, true),
        &[("here", &["to write to unix:", "(full, ", "its only other end @there"])],
    )
    .stuck(&["here"]),
    one(
        "unix-datagrams-full",
        "a sender of datagrams waits for its peer to read",
        |stage| pair(stage, libc::SOCK_DGRAM, true),
        &[("here", &["to write to unix:", "(full, ", "its only other end @there"])],
    )
    .stuck(&["here"]),
    one(
        "unix-packets-empty",
        "a receiver of packets waits for its peer",
        |stage| pair(stage, libc::SOCK_SEQPACKET, false),
        &[("here", &["to read from unix:", "its only other end @there"])],
    ),
    one(
        "unix-packets-full",
        "a sender of packets waits for its peer to read",
        |stage| pair(stage, libc::SOCK_SEQPACKET, true),
        &[("here", &["to write to unix:", "(full, ", "its only other end @there"])],
    )
    .stuck(&["here"]),
    one(
        "unix-both-wait",
        "two processes wait for each other's answer",
        both_wait,
        &[("left", &["to read from unix:", "its only other end @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "unix-both-full",
        "two processes send to each other, and neither receives",
        both_full,
        &[("right", &["to write to unix:", "(full, ", "its only other end @left is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "unix-epoll-both",
        "two event loops wait for each other alone",
        |stage| epolls(stage, 1),
        &[(
            "left",
            &[
                "to read from unix:",
                "its only other end @right is stuck itself: it waits in epoll_wait",
            ],
        )],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "unix-epoll-within-epoll",
        "two event loops wait for each other alone, by an epoll instance in an epoll instance",
        |stage| epolls(stage, 2),
        &[("left", &["to read from unix:", "its only other end @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "unix-backlog-full",
        "a client connects to a listener that accepts nobody",
        |stage| backlog(stage, false),
        &[(
            "client",
            &["to be accepted at unix:", "/listener (backlog full, ", "its listener @listener"],
        )],
    )
    .stuck(&["client"]),
    one(
        "unix-backlog-full-from-its-folder",
        "the same, and the client calls it by another path",
        |stage| backlog(stage, true),
        &[(
            "client",
            &["to be accepted at unix:", "/listener (backlog full, ", "its listener @listener"],
        )],
    )
    .stuck(&["client"]),
    one(
        "tcp-both-wait",
        "two processes wait for each other's answer over TCP",
        tcp_both_wait,
        &[("here", &["to read from tcp:", "its only other end @there is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["here", "there"]),
    one(
        "unix-not-accepted",
        "a client waits for the answer of a server that has not accepted it",
        not_accepted,
        &[("client", &["to read from unix:", "its listener @listener"])],
    ),
    one(
        "tcp-empty",
        "a reader of a TCP connection waits for its peer",
        |stage| tcp(stage, false),
        &[("here", &["to read from tcp:", "(empty, 0)", "its only other end @there"])],
    ),
    one(
        "tcp-full",
        "a writer to a TCP connection waits for its peer to read",
        |stage| tcp(stage, true),
        &[("here", &["to write to tcp:", "(full", "its only other end @there"])],
    )
    .stuck(&["here"]),
    one(
        "tcp-backlog-full",
        "a client connects to a TCP listener that accepts nobody",
        tcp_backlog,
        &[("client", &["to be accepted at tcp:", "its listener @listener"])],
    )
    .stuck(&["client"]),
    one(
        "tcp-not-accepted",
        "a client waits for the answer of a server that has not accepted it",
        tcp_not_accepted,
        &[("client", &["to read from tcp:", "its listener @listener"])],
    ),
];

pub(super) fn two(stage: &mut Stage, kind: i32) -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
    assert_eq!(made, 0, "socketpair");
    (stage.own(ends[0]), stage.own(ends[1]))
}

fn pair(stage: &mut Stage, kind: i32, full: bool) {
    let (here, there) = two(stage, kind);
    stage.actor("here", &[here], |_| {
        if full {
            write_on(here, 4096);
        } else {
            read_some(here);
        }
    });
    stage.actor("there", &[there], |_| idle());
}

fn both_wait(stage: &mut Stage) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| {
            read_some(end);
        });
    }
}

fn both_full(stage: &mut Stage) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| write_on(end, 4096));
    }
}

/// Waits in an epoll instance; with a depth above 1, one that watches another one that watches the descriptors.
pub(super) fn wait_in_epolls(fds: &[i32], depth: u32) {
    // SAFETY: makes a descriptor.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for &fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: both descriptors are open, the event is whole.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    }
    if depth > 1 {
        return wait_in_epolls(&[epoll], depth - 1);
    }
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    unsafe { libc::epoll_wait(epoll, &raw mut event, 1, -1) };
}

fn epolls(stage: &mut Stage, depth: u32) {
    let (a, b) = two(stage, libc::SOCK_SEQPACKET);
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| wait_in_epolls(&[end], depth));
    }
}

fn path(stage: &Stage) -> std::path::PathBuf {
    let path = stage.path("listener");
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).to_owned()
}

fn listener(stage: &mut Stage, backlog: i32) -> (i32, std::path::PathBuf) {
    let path = path(stage);
    let fd = std::os::unix::net::UnixListener::bind(&path).expect("a listener").into_raw_fd();
    // SAFETY: the socket is open; this sets how many may wait.
    unsafe { libc::listen(fd, backlog) };
    (stage.own(fd), path)
}

fn backlog(stage: &mut Stage, from_its_folder: bool) {
    let (fd, mut path) = listener(stage, 0);
    stage.actor("listener", &[fd], |_| idle());
    stage.actor("client", &[], |_| {
        if from_its_folder {
            std::env::set_current_dir(path.parent().expect("a folder")).expect("gone there");
            path = "./listener".into();
        }
        // One more than may wait is taken, and the next one blocks.
        let connect = || std::os::unix::net::UnixStream::connect(&path).map(IntoRawFd::into_raw_fd);
        while connect().is_ok() {}
    });
}

fn not_accepted(stage: &mut Stage) {
    let (fd, path) = listener(stage, 8);
    stage.actor("listener", &[fd], |_| idle());
    stage.actor("client", &[], |_| {
        read_some(std::os::unix::net::UnixStream::connect(&path).expect("a client").into_raw_fd());
    });
}

fn tcp_pair(stage: &mut Stage) -> (i32, i32) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let client = std::net::TcpStream::connect(place).expect("a client").into_raw_fd();
    let (server, _) = listener.accept().expect("a connection");
    (stage.own(client), stage.own(server.into_raw_fd()))
}

fn tcp_both_wait(stage: &mut Stage) {
    let (here, there) = tcp_pair(stage);
    for (name, end) in [("here", here), ("there", there)] {
        stage.actor(name, &[end], |_| {
            read_some(end);
        });
    }
}

fn tcp(stage: &mut Stage, full: bool) {
    let (here, there) = tcp_pair(stage);
    stage.actor("here", &[here], |_| {
        if full {
            write_on(here, 64 << 10);
        } else {
            read_some(here);
        }
    });
    stage.actor("there", &[there], |_| idle());
}

fn tcp_backlog(stage: &mut Stage) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let fd = stage.own(listener.into_raw_fd());
    // SAFETY: the socket is open; this sets how many may wait.
    unsafe { libc::listen(fd, 0) };
    stage.actor("listener", &[fd], |_| idle());
    stage.actor("client", &[], |_| {
        // One more than may wait is taken; of the next one the listener's side hears nothing, and it asks again for minutes.
        let connect = || std::net::TcpStream::connect(place).map(IntoRawFd::into_raw_fd);
        while connect().is_ok() {}
    });
}

fn tcp_not_accepted(stage: &mut Stage) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let fd = stage.own(listener.into_raw_fd());
    stage.actor("listener", &[fd], |_| idle());
    stage.actor("client", &[], |_| {
        read_some(std::net::TcpStream::connect(place).expect("a client").into_raw_fd());
    });
}
