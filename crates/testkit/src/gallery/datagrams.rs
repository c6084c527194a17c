//! Datagrams: over UDP, and over Unix sockets by address.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixDatagram;

use super::stage::{idle, read_some};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "udp-empty",
        "a process waits for datagrams from the one it is connected to",
        |stage| connected(stage, false),
        &[("here", &["to read from udp:", "(empty, 0)", "its only other end @there"])],
    ),
    one(
        "udp-both-wait",
        "two connected processes wait for each other's datagram, of which one was lost",
        |stage| connected(stage, true),
        &[("here", &["to read from udp:", "its only other end @there is stuck itself"])],
    )
    .deadlock(Sure::Probable, true, &["here", "there"]),
    one(
        "udp-server",
        "a client waits for the answer of a server that takes datagrams from anybody",
        udp_server,
        &[
            ("client", &["to read from udp:", "its only other end @server"]),
            ("server", &["to read from udp:", "anybody who sends to it can end that"]),
        ],
    ),
    one(
        "datagram-to-an-address",
        "a sender of datagrams waits for whoever has the address to read",
        |stage| to_an_address(stage, false),
        &[("sender", &["to send to unix:", "/socket (full)", "its only receiver @receiver"])],
    )
    .stuck(&["sender"]),
    one(
        "datagram-message-to-an-address",
        "the same with a message that has a header",
        |stage| to_an_address(stage, true),
        &[("sender", &["to send to unix:", "/socket (full)", "its only receiver @receiver"])],
    )
    .stuck(&["sender"]),
    one(
        "datagrams-to-each-other",
        "two processes send datagrams to each other's address, and neither reads",
        to_each_other,
        &[("left", &["to send to unix:", "its only receiver @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
];

fn connected(stage: &mut Stage, both: bool) {
    let bind = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (here, there) = (bind(), bind());
    here.connect(there.local_addr().expect("an address")).expect("connected");
    there.connect(here.local_addr().expect("an address")).expect("connected");
    let (here, there) = (stage.own(here.into_raw_fd()), stage.own(there.into_raw_fd()));
    stage.actor("here", &[here], |_| {
        read_some(here);
    });
    stage.actor("there", &[there], |_| {
        if both {
            read_some(there);
        }
        idle();
    });
}

fn udp_server(stage: &mut Stage) {
    let server = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let port = server.local_addr().expect("an address").port();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(("127.0.0.1", port)).expect("connected");
    let (server, client) = (stage.own(server.into_raw_fd()), stage.own(client.into_raw_fd()));
    stage.actor("server", &[server], |_| {
        read_some(server);
    });
    stage.actor("client", &[client], |_| {
        read_some(client);
    });
}

/// Sends to a path for as long as that works.
fn send_on(fd: i32, path: &std::ffi::CStr, with_header: bool) {
    // SAFETY: integers only.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, &from) in address.sun_path.iter_mut().zip(path.to_bytes()) {
        *to = from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    let byte = b'x';
    let mut part = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    // SAFETY: integers and pointers; all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_name, header.msg_namelen) = ((&raw mut address).cast(), size);
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    let send = || {
        // SAFETY: the address, the byte and the header are whole, and live as long as the call.
        unsafe {
            if with_header {
                libc::sendmsg(fd, &raw const header, 0)
            } else {
                let to = (&raw const address).cast();
                libc::sendto(fd, (&raw const byte).cast(), 1, 0, to, size)
            }
        }
    };
    while send() > 0 {}
}

fn to_an_address(stage: &mut Stage, with_header: bool) {
    let path = stage.path("socket");
    let receiver = UnixDatagram::bind(path.to_str().expect("a path")).expect("a socket");
    let fd = stage.own(receiver.into_raw_fd());
    stage.actor("receiver", &[fd], |_| idle());
    stage.actor("sender", &[], |_| {
        let socket = UnixDatagram::unbound().expect("a socket");
        send_on(socket.as_raw_fd(), &path, with_header);
    });
}

fn to_each_other(stage: &mut Stage) {
    let paths = [stage.path("a"), stage.path("b")];
    let ends = [&paths[0], &paths[1]].map(|path| {
        let socket = UnixDatagram::bind(path.to_str().expect("a path")).expect("a socket");
        stage.own(socket.into_raw_fd())
    });
    for (name, own, to) in [("left", 0, 1), ("right", 1, 0)] {
        stage.actor(name, &[ends[own]], |_| send_on(ends[own], &paths[to], false));
    }
}
