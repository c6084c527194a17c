//! Order, and messages of every length up to the largest; one byte more is an error that names the
//! limit.

use super::contents::{contents, digest, mixed_len};
use super::{Meeting, each_row};

/// Lengths around which buffers, packets and blocks of the implementation end.
const EDGES: &[usize] =
    &[0, 1, 2, 7, 8, 9, 63, 64, 65, 1000, 4094, 4095, 4096, 8191, 8192, 65_519, 65_520, 65_536];

#[test]
fn messages_arrive_in_order() {
    each_row(|meeting| {
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        sender.tell("stream 1 0 200 100");
        let haul = receiver.recv(200);
        sender.expect("streamed");
        assert!(haul.errors.is_empty(), "{:?}", haul.errors);
        let mut numbers = haul.of(1);
        if !meeting.row.capabilities.ordered {
            numbers.sort_unstable();
        }
        assert!(numbers.into_iter().eq(0..200), "{haul:?}");
        assert!(haul.got.iter().all(|got| !got.redelivered && got.lost_before == 0));
        meeting.finish(&mut sender, &mut receiver);
    });
}

#[test]
fn every_length_arrives_to_the_byte() {
    each_row(|meeting| {
        let largest = meeting.largest();
        let mut lengths: Vec<usize> = EDGES.iter().copied().filter(|len| *len < largest).collect();
        lengths.extend([largest - 1, largest]);
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        for (n, len) in (0_u64..).zip(lengths) {
            sender.tell(&format!("send 1 {n} {len}"));
            let haul = receiver.recv(1);
            sender.expect("sent");
            let [got] = haul.got.as_slice() else { panic!("{len} bytes: {haul:?}") };
            assert_eq!(got.len, len);
            assert_eq!(got.digest, digest(&contents(1, n, len, meeting.lines())), "{len} bytes");
        }
        meeting.finish(&mut sender, &mut receiver);
    });
}

#[test]
fn one_byte_more_is_an_error_that_names_the_limit() {
    each_row(|meeting| {
        let largest = meeting.largest();
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        receiver.tell("recv 2 15000");
        sender.must("send 1 0 100", "sent");
        let error = sender.ask(&format!("send 1 1 {}", largest + 1));
        assert!(error.starts_with("error TooLarge"), "{error}");
        assert!(error.contains(&format!("limit_bytes: {largest},")), "{error}");
        assert!(
            error.contains(&format!("{} bytes; at most {largest} fit", largest + 1)),
            "{error}"
        );
        if meeting.row.scheme == "fifo" {
            assert!(error.contains("PIPE_BUF"), "{error}");
        }
        // What the address could say helps only where a queue is made with it.
        let by_address = matches!(meeting.row.scheme, "mq" | "shm");
        assert_eq!(by_address, error.contains("?max-message="), "{error}");
        sender.must("send 1 2 100", "sent");
        let haul = receiver.haul();
        assert_eq!(haul.of(1), [0, 2], "{haul:?}");
        meeting.finish(&mut sender, &mut receiver);
    });
}

#[test]
fn the_address_can_allow_less() {
    for scheme in ["unix", "fifo", "udp"] {
        let mut meeting = Meeting::of(scheme);
        let _receiver = meeting.receiver("");
        let mut sender = meeting.sender_at("?max-message=1000", "");
        let error = sender.must("send 1 0 1001", "error TooLarge");
        assert!(error.contains("1000 fit: what this address takes (?max-message=)"), "{error}");
    }
}

#[test]
fn the_receiver_can_allow_less() {
    for scheme in ["unix", "unix-seqpacket", "tcp", "shm"] {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver_at("?max-message=1000", "");
        let mut sender = meeting.sender("");
        receiver.tell("recv 2 15000");
        sender.must("send 1 0 1000", "sent");
        let error = sender.ask("send 1 1 1001");
        assert!(error.starts_with("error TooLarge"), "{error}");
        assert!(error.contains("at most 1000 fit: what the receiver takes"), "{error}");
        sender.must("send 1 2 10", "sent");
        assert_eq!(receiver.haul().of(1), [0, 2]);
        meeting.finish(&mut sender, &mut receiver);
    }
}

#[test]
fn lengths_change_back_to_back() {
    each_row(|meeting| lengths_change(meeting, "mixed"));
}

#[test]
fn lengths_change_in_gathered_writes() {
    each_row(|meeting| lengths_change(meeting, "fed"));
}

#[test]
fn lengths_change_in_one_call() {
    each_row(|meeting| lengths_change(meeting, "each"));
}

fn lengths_change(meeting: &mut Meeting, how: &str) {
    // On datagrams without acknowledgements, too much at once would be dropped.
    let (count, largest) = if meeting.row.capabilities.reliable {
        (150, meeting.largest().min(700_000))
    } else {
        (60, 1500)
    };
    let mut receiver = meeting.receiver("");
    let mut sender = meeting.sender("");
    sender.tell(&format!("{how} 1 0 {count} {largest}"));
    let haul = receiver.recv(count);
    sender.expect("streamed");
    let lengths: Vec<usize> = haul.got.iter().map(|got| got.len).collect();
    let sent: Vec<usize> = (0..count).map(|n| mixed_len(n, largest)).collect();
    assert_eq!(lengths, sent, "{:?}", haul.errors);
    for (n, got) in (0..).zip(&haul.got) {
        assert_eq!(got.digest, digest(&contents(1, n, got.len, meeting.lines())), "{n}");
    }
    meeting.finish(&mut sender, &mut receiver);
}

#[test]
fn what_a_framing_cannot_hold_is_an_error() {
    for (query, text, problem) in
        [("?framing=lines", "two\\nlines", "line feed"), ("?framing=raw", "", "empty message")]
    {
        for scheme in ["unix", "tcp", "fifo"] {
            let mut meeting = Meeting::of(scheme);
            let mut receiver = meeting.receiver_at(query, "");
            let mut sender = meeting.sender_at(query, "");
            let error = sender.must(&format!("text {text}"), "error Unframable");
            assert!(error.contains(problem), "{error}");
            sender.must("text whole", "sent");
            assert_eq!(receiver.ask("text 15000"), "text whole", "{scheme}{query}");
            meeting.finish(&mut sender, &mut receiver);
        }
    }
}

#[test]
fn foreign_framings_hold_every_length() {
    for (scheme, query) in [
        ("unix", "?framing=length"),
        ("tcp", "?framing=length"),
        ("unix-seqpacket", "?framing=raw"),
        ("unix-seqpacket", "?framing=length"),
        ("udp", "?framing=raw"),
        ("fifo", "?framing=length"),
    ] {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver_at(query, "");
        let mut sender = meeting.sender_at(query, "");
        for (n, len) in [1, 100, 4000, 60_000, 131_072, 131_073, 200_000].into_iter().enumerate() {
            sender.tell(&format!("send 1 {n} {len}"));
            let answer = sender.line();
            if answer.starts_with("error TooLarge") {
                let most = match scheme {
                    "fifo" => 4095,
                    "udp" => 65_483,
                    _ => 131_072,
                };
                assert!(len > most, "{scheme}{query}: {answer}");
                continue;
            }
            assert_eq!(answer, "sent", "{scheme}{query}: {len} bytes");
            assert!(len <= 131_072 || ["unix", "tcp"].contains(&scheme), "{scheme}: {len} bytes");
            let haul = receiver.recv(1);
            assert_eq!(haul.got.len(), 1, "{scheme}{query}: {len} bytes: {haul:?}");
            assert_eq!(haul.got[0].len, len, "{scheme}{query}");
        }
        sender.tell("close");
        if scheme != "udp" {
            receiver.must("timeout 15000", "error Ended");
        }
        sender.expect("closed");
    }
}

/// A link is one writer's; the frames of several would be mixed in a FIFO.
#[test]
fn a_fifo_carries_no_link() {
    for role in ["sender", "receiver"] {
        let mut meeting = Meeting::of("fifo");
        let answer = meeting.start(role, "?framing=link", "").line();
        assert!(answer.contains("kind: BadAddress"), "{role}: {answer}");
        assert!(answer.contains("would be mixed"), "{role}: {answer}");
        assert!(!meeting.path().expect("a path").exists(), "nothing was made");
    }
}
