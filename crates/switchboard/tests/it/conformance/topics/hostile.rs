//! Peers of a topic that lie. The test is the liar; others do not notice.

use std::time::{Duration, Instant};

use super::super::liar::{
    ACK_ONE, ACK_THROUGH, BEGIN, END, END_SEEN, HELLO, Liar, MESSAGE, QUEUE, RECEIVER, REJECT,
    SENDER, TOPIC, frame, frame_of, hello_of, opened,
};
use super::super::{End, Meeting};
use super::missing;

/// The rows whose peers say hello over a socket.
const SCHEMES: &[&str] = &["unix", "unix-seqpacket"];

fn hello(pattern: u8, role: u8) -> Vec<u8> {
    frame(HELLO, 0, &hello_of(1, pattern, role, 0))
}

/// The preface, a good hello in this role, and more.
fn met(role: u8, more: &[u8]) -> Vec<u8> {
    opened(&[&hello(TOPIC, role), more].concat())
}

fn lies_to_a_publisher() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("zeroes", vec![0; 1000]),
        ("an endless hello", opened(&frame_of(u32::MAX, HELLO, 0, b""))),
        ("another publisher", met(SENDER, b"")),
        ("a receiver of a queue", opened(&hello(QUEUE, RECEIVER))),
        ("no pattern", opened(&hello(9, RECEIVER))),
        ("no role", opened(&hello(TOPIC, 7))),
        ("a message first", opened(&frame(MESSAGE, 1, b"x"))),
        ("a message", met(RECEIVER, &frame(MESSAGE, 1, b"x"))),
        ("an endless message", met(RECEIVER, &frame_of(u32::MAX, MESSAGE, 1, b"x"))),
        ("an acknowledgement", met(RECEIVER, &frame(ACK_THROUGH, 1, b""))),
        ("another one", met(RECEIVER, &frame(ACK_ONE, 1, b""))),
        ("a rejection", met(RECEIVER, &frame(REJECT, 1, b""))),
        ("end seen", met(RECEIVER, &frame(END_SEEN, 0, b""))),
        ("an end", met(RECEIVER, &frame(END, 0, b""))),
        ("a begin", met(RECEIVER, &frame(BEGIN, 1, b""))),
        ("two hellos", met(RECEIVER, &hello(TOPIC, RECEIVER))),
        ("no kind", met(RECEIVER, &frame(77, 1, b""))),
    ]
}

fn still_served(publisher: &mut End, subscriber: &mut End, n: u64, lie: &str) {
    publisher.must(&format!("send 1 {n} 300"), "sent");
    let haul = subscriber.recv(1);
    assert_eq!(haul.of(1), [n], "after {lie}: {:?}", haul.errors);
    assert!(haul.errors.is_empty(), "{lie}: {:?}", haul.errors);
}

#[test]
fn a_publisher_survives_lying_subscribers() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut publisher = meeting.publisher("?history=2", "");
        let mut subscriber = meeting.subscriber("", "");
        still_served(&mut publisher, &mut subscriber, 0, "nothing");
        let before = publisher.resident_kib();
        for (n, (lie, bytes)) in (1..).zip(lies_to_a_publisher()) {
            let liar = Liar::connect(&meeting);
            liar.say(&bytes);
            still_served(&mut publisher, &mut subscriber, n, lie);
            let since = Instant::now();
            while publisher.count("peers") > 1 {
                assert!(since.elapsed() < switchboard_testkit::DEADLINE, "{scheme}: {lie}");
                publisher.must("drive", "driven");
            }
            liar.hear_the_end();
        }
        let grown = publisher.resident_kib().saturating_sub(before);
        assert!(grown < 4096, "{scheme}: {grown} KiB more");
        meeting.ends(&mut publisher, &mut subscriber);
    }
}

/// A subscriber that joins, never reads, and talks without end.
#[test]
fn a_subscriber_that_never_reads_is_a_slow_one() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut publisher = meeting.publisher("?overflow=drop-oldest&capacity=64KiB", "");
        let mut subscriber = meeting.subscriber("", "");
        let liars: Vec<Liar> = (0..5)
            .map(|_| {
                let liar = Liar::connect(&meeting);
                liar.say(&met(RECEIVER, b""));
                liar
            })
            .collect();
        meeting.meet(&mut publisher, 6);
        subscriber.tell(&format!("recv {} 15000", u64::MAX));
        let before = publisher.resident_kib();
        publisher.must("mixed 1 0 600 200000", "streamed");
        let grown = publisher.resident_kib().saturating_sub(before);
        assert!(grown < 8192, "{scheme}: {grown} KiB more");
        // Each of them is inside a frame: nothing is said to it that it would take for a part of that.
        for liar in &liars {
            liar.say(&frame(MESSAGE, 1, b"x"));
        }
        publisher.close();
        let haul = subscriber.haul();
        assert_eq!(haul.got.len() as u64 + missing(&haul), 600, "{:?}", haul.errors);
        drop(liars);
    }
}

/// They connect and say nothing, or half a hello: others are served meanwhile.
#[test]
fn who_says_nothing_holds_nobody_up() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut publisher = meeting.publisher("", "");
        let mut subscriber = meeting.subscriber("", "");
        let whole = met(RECEIVER, b"");
        let silent: Vec<Liar> = [0, 1, 8, 20, whole.len() - 1]
            .into_iter()
            .map(|cut| {
                let liar = Liar::connect(&meeting);
                liar.say(&whole[..cut]);
                liar
            })
            .collect();
        for n in 0..5 {
            still_served(&mut publisher, &mut subscriber, n, "silence");
        }
        assert_eq!(publisher.count("peers"), 1);
        // Nor at the end.
        meeting.ends(&mut publisher, &mut subscriber);
        drop(silent);
    }
}

fn lies_to_a_subscriber() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let begun = |more: &[u8]| met(SENDER, &[&frame(BEGIN, 5, b""), more].concat());
    let (misbehaved, refused) = ("error PeerMisbehaved", "error PeerRefused");
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), refused),
        ("a sender of a queue", opened(&hello(QUEUE, SENDER)), refused),
        ("another subscriber", met(RECEIVER, b""), refused),
        ("a message before it begins", met(SENDER, &frame(MESSAGE, 1, b"x")), misbehaved),
        ("a beginning at 0", met(SENDER, &frame(BEGIN, 0, b"")), misbehaved),
        ("two beginnings", begun(&frame(BEGIN, 6, b"")), misbehaved),
        ("an old number", begun(&frame(MESSAGE, 4, b"x")), misbehaved),
        ("an end before its beginning", begun(&frame(END, 3, b"")), misbehaved),
        ("an endless message", begun(&frame_of(u32::MAX, MESSAGE, 5, b"x")), misbehaved),
        ("an acknowledgement", begun(&frame(ACK_THROUGH, 5, b"")), misbehaved),
        ("two hellos", begun(&hello(TOPIC, SENDER)), misbehaved),
    ]
}

#[test]
fn a_subscriber_survives_lying_publishers() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut subscriber = meeting.subscriber("?bind", "");
        let mut publisher = meeting.publisher("?connect", "");
        subscriber.tell("recv 1 15000");
        meeting.meet(&mut publisher, 1);
        publisher.must("send 1 0 300", "sent");
        assert_eq!(subscriber.haul().of(1), [0]);
        for (n, (lie, bytes, reported)) in (1..).zip(lies_to_a_subscriber()) {
            let liar = Liar::connect(&meeting);
            liar.say(&bytes);
            let said = subscriber.ask("timeout 15000");
            assert!(said.starts_with(reported), "{scheme}: {lie}: {said}");
            liar.hear_the_end();
            still_served(&mut publisher, &mut subscriber, n, lie);
        }
        // A gap cannot be seen to be a lie, however long it is.
        let liar = Liar::connect(&meeting);
        let more =
            [frame(BEGIN, 1, b""), frame(MESSAGE, u64::MAX, b"9:9;"), frame(MESSAGE, 1, b"")];
        liar.say(&met(SENDER, &more.concat()));
        let said = subscriber.must("timeout 15000", "error Gap");
        assert!(said.contains(&format!("missing: {}", u64::MAX - 1)), "{said}");
        subscriber.must("timeout 15000", "got 9:9");
        subscriber.must("timeout 15000", "error PeerMisbehaved");
        liar.hear_the_end();
        still_served(&mut publisher, &mut subscriber, 90, "a gap");
        meeting.ends(&mut publisher, &mut subscriber);
    }
}

/// Whoever said no hello within 10 s is turned away by a publisher, too, without being told on.
#[test]
fn silence_is_turned_away_in_time() {
    let mut meeting = Meeting::of("unix");
    let mut publisher = meeting.publisher("", "");
    let mut subscriber = meeting.subscriber("", "");
    meeting.meet(&mut publisher, 1);
    let liar = Liar::connect(&meeting);
    let closed = std::thread::spawn(move || liar.hear_the_end());
    let since = Instant::now();
    let mut n = 0;
    while !closed.is_finished() {
        assert!(since.elapsed() < switchboard_testkit::DEADLINE, "never turned away");
        still_served(&mut publisher, &mut subscriber, n, "silence");
        n += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(since.elapsed() > Duration::from_secs(9), "{:?}", since.elapsed());
    let heard = closed.join().expect("what it said");
    assert!(heard.starts_with(super::super::liar::PREFACE));
}
