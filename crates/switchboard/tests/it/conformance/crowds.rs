//! Crowds of connections at one endpoint.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use switchboard_kernel::unix_socket::{self as unix, Address};
use switchboard_testkit::child::{Child, instruction, report};

use super::Meeting;
use super::hostile::{SCHEMES, good_still_served};
use super::liar::{PREFACE, kind_of};

/// Role: opens so many connections, says something on each, and holds them.
pub(crate) fn crowd(arguments: &[String]) {
    let count: usize = arguments[2].parse().expect("a number");
    let (_, most) = switchboard_kernel::process::file_limit();
    switchboard_kernel::process::set_file_limit(most.min(65_536)).expect("a limit");
    let connect = || -> Option<OwnedFd> {
        match arguments[0].as_str() {
            "tcp" => TcpStream::connect(&arguments[1]).ok().map(OwnedFd::from),
            scheme => {
                let address = Address::Path((&arguments[1]).into());
                unix::connect_to(kind_of(scheme), &address, false).ok()
            }
        }
    };
    let mut held = Vec::new();
    while held.len() < count {
        if let Some(fd) = connect() {
            if arguments[3] == "talking" {
                let _ = unix::send(&fd, PREFACE);
            }
            held.push(fd);
        }
    }
    report(format!("holding {}", held.len()));
    let _ = instruction();
}

fn start_crowd(meeting: &Meeting, count: usize, how: &str) -> Child {
    let target = meeting.address().split_once(':').expect("a scheme").1;
    Child::role("crowd", &[meeting.row.scheme, target, &count.to_string(), how])
}

#[test]
fn a_thousand_connections_at_once_hold_nobody_up() {
    for (scheme, how) in [
        ("unix", "silent"),
        ("unix", "talking"),
        ("unix-seqpacket", "talking"),
        ("tcp", "silent"),
        ("tcp", "talking"),
    ] {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("files=4096");
        let mut sender = meeting.sender("");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        let before = receiver.resident_kib();
        receiver.tell("recv 2000 15000");
        let mut crowd = start_crowd(&meeting, 1000, how);
        sender.tell("stream 1 1 2001 100");
        crowd.expect("holding 1000");
        let haul = receiver.haul();
        assert!(haul.of(1).into_iter().eq(1..2001), "{:?}", haul.errors);
        assert!(haul.errors.is_empty(), "{:?}", haul.errors);
        sender.expect("streamed");
        receiver.must("timeout 100", "empty");
        let grown = receiver.resident_kib().saturating_sub(before);
        assert!(grown < 16 * 1024, "{scheme}, {how}: {grown} KiB more for 1000 connections");
        crowd.kill();
        meeting.finish(&mut sender, &mut receiver);
    }
}

#[test]
fn connections_beyond_the_limit_on_descriptors_wait() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("files=64");
        let mut sender = meeting.sender("");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        receiver.tell("recv 3000 15000");
        let mut crowd = start_crowd(&meeting, 200, "silent");
        sender.tell("stream 1 1 3001 100");
        let haul = receiver.haul();
        assert!(haul.of(1).into_iter().eq(1..3001), "{scheme}: {:?}", haul.errors);
        sender.expect("streamed");
        crowd.expect("holding 200");
        crowd.kill();
        // Those who come later are let in again.
        let mut late = meeting.sender("");
        late.tell("send 2 0 100");
        let haul = receiver.recv(1);
        assert_eq!(haul.of(2), [0], "{scheme}: {:?}", haul.errors);
        late.expect("sent");
    }
}
