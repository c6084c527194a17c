//! Datagrams that get lost on the way: the receiver knows how many.

use std::net::UdpSocket;
use std::time::Duration;

use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE};

use super::{Meeting, own_host};

/// Role: passes datagrams on, and drops every tenth: where it listens, where they go.
pub(crate) fn lossy_proxy(arguments: &[String]) {
    let socket = UdpSocket::bind(arguments[0].as_str()).expect("a socket");
    report("open");
    let mut buffer = vec![0; 65_536];
    let mut count = 0_u64;
    while let Ok(len) = socket.recv(&mut buffer) {
        count += 1;
        if !count.is_multiple_of(10) {
            let _ = socket.send_to(&buffer[..len], arguments[1].as_str());
        }
    }
}

#[test]
fn dropped_datagrams_are_counted() {
    let mut behind = Meeting::of("udp");
    let mut receiver = behind.receiver("");
    let front = format!("{}:7000", own_host());
    let target = behind.address().strip_prefix("udp:").expect("udp").to_owned();
    let mut proxy = Child::role("lossy-proxy", &[front.as_str(), target.as_str()]);
    proxy.expect("open");
    let address = format!("udp:{front}");
    let mut sender = Child::role("sender", &[address.as_str(), "", "bytes"]);
    sender.expect("open");
    let mut haul = super::Haul::default();
    for part in 0..11 {
        let (from, to) = (part * 9, part * 9 + 9);
        sender.tell(&format!("stream 1 {from} {to} 500"));
        sender.expect("streamed");
        let taken = receiver.recv_all(Duration::from_millis(40));
        haul.got.extend(taken.got);
    }
    sender.tell("close");
    sender.expect("closed");
    // What the proxy has passed on late, to the end.
    let mut last = receiver.recv_all(DEADLINE / 2);
    haul.got.append(&mut last.got);
    assert!(
        matches!(&last.errors[..], [error] if error.starts_with("error Ended")),
        "{:?}",
        last.errors
    );
    // Of 99 messages, the 10th, 20th, … and 90th are gone.
    assert_eq!(haul.got.len(), 90, "{haul:?}");
    assert_eq!(haul.lost(), 9);
    for got in &haul.got {
        let n = got.checked(false).1;
        assert_ne!(n % 10, 9, "message {n} was dropped");
        assert_eq!(got.lost_before, u64::from(n % 10 == 0 && n > 0), "before message {n}");
    }
}

#[test]
fn datagrams_lost_at_the_end_are_reported() {
    let mut behind = Meeting::of("udp");
    let mut receiver = behind.receiver("");
    let front = format!("{}:7000", own_host());
    let target = behind.address().strip_prefix("udp:").expect("udp").to_owned();
    let mut proxy = Child::role("lossy-proxy", &[front.as_str(), target.as_str()]);
    proxy.expect("open");
    let address = format!("udp:{front}");
    let mut sender = Child::role("sender", &[address.as_str(), "", "bytes"]);
    sender.expect("open");
    sender.tell("stream 1 0 10 500");
    sender.expect("streamed");
    assert!(receiver.recv(9).of(1).into_iter().eq(0..9));
    sender.tell("close");
    sender.expect("closed");
    let report = receiver.ask("timeout 10000");
    assert!(report.contains("the last 1 messages of a sender are lost"), "{report}");
    receiver.must("timeout 10000", "error Ended");
}

#[test]
fn a_datagram_that_is_not_ours_is_refused_and_the_rest_goes_on() {
    let mut meeting = Meeting::of("udp");
    let mut receiver = meeting.receiver("");
    let target = meeting.address().strip_prefix("udp:").expect("udp").to_owned();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for lie in [&b"hello"[..], b"", &[0xff; 24], b"SWU\x01\x07\0\0\0aaaaaaaabbbbbbbb"] {
        stranger.send_to(lie, &target).expect("sent");
        receiver.must("timeout 10000", "error PeerMisbehaved");
    }
    let mut sender = meeting.sender("");
    sender.tell("stream 1 0 5 100");
    assert!(receiver.recv(5).of(1).into_iter().eq(0..5));
    sender.expect("streamed");
    meeting.finish(&mut sender, &mut receiver);
}

/// A numbered datagram of anybody's.
fn forged(kind: u32, sender: u64, sequence: u64) -> Vec<u8> {
    let mut datagram = b"SWU\x01".to_vec();
    datagram.extend(kind.to_le_bytes());
    datagram.extend(sender.to_le_bytes());
    datagram.extend(sequence.to_le_bytes());
    datagram
}

#[test]
fn forged_numbers_neither_overflow_nor_are_believed_without_bound() {
    let mut meeting = Meeting::of("udp");
    let mut receiver = meeting.receiver("");
    let target = meeting.address().strip_prefix("udp:").expect("udp").to_owned();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut say = |sender, sequence| {
        stranger.send_to(&forged(0, sender, sequence), &target).expect("sent");
        receiver.ask("timeout 10000")
    };
    for sender in [1, 2] {
        // Far on from the beginning: nobody knows what came before.
        let answer = say(sender, u64::MAX - 1);
        assert!(answer.starts_with("got ") && answer.ends_with(" 0 0"), "{answer}");
    }
    assert!(say(3, 1).starts_with("got "));
    let answer = say(3, u64::MAX - 1);
    assert!(answer.starts_with("error PeerMisbehaved"), "{answer}");
    assert!(answer.contains("not believed"), "{answer}");
    let answer = say(3, 3);
    assert!(answer.starts_with("got ") && answer.ends_with(" 1 0"), "the count goes on: {answer}");
}

#[test]
fn a_crowd_of_forged_senders_does_not_make_honest_messages_missing() {
    let mut meeting = Meeting::of("udp");
    let mut receiver = meeting.receiver("");
    let mut sender = meeting.sender("");
    let target = meeting.address().strip_prefix("udp:").expect("udp").to_owned();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    sender.must("send 1 0 100", "sent");
    assert_eq!(receiver.recv(1).of(1), [0]);
    for batch in 0..50 {
        for n in 0..100 {
            let datagram = forged(0, 1 + batch * 100 + n, 1);
            stranger.send_to(&datagram, &target).expect("sent");
        }
        assert_eq!(receiver.recv(100).lost(), 0);
    }
    sender.must("send 1 1 100", "sent");
    let haul = receiver.recv(1);
    assert_eq!((haul.of(1), haul.lost()), (vec![1], 0), "{haul:?}");
}
