//! Links of a topic: numbers that may leap, and a subscriber that says nothing.

use super::super::frame::{Header, Kind};
use super::super::publication::Publication;
use super::super::{Hello, Link, LinkError, Pattern, Role};
use super::{Pair, Seen, events, feed, hello, message, take_bytes};

fn of_topic(role: Role) -> Hello {
    Hello { pattern: Pattern::Topic, window_messages: 0, ..hello(role) }
}

fn open_pair() -> Pair {
    Pair::of(of_topic(Role::Sender), of_topic(Role::Receiver)).open()
}

fn frame(kind: Kind, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Header::new(kind, body.len(), sequence).to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_subscriber_is_told_exactly_what_is_missing() {
    let mut pair = open_pair();
    pair.sender.begin(5);
    let mut bytes = take_bytes(&mut pair.sender, usize::MAX);
    for number in [7, 8, 11] {
        bytes.extend(frame(Kind::Message, number, b"x"));
    }
    bytes.extend(frame(Kind::End, 12, b""));
    let mut seen = Vec::new();
    for byte in bytes {
        feed(&mut pair.receiver, &[byte]);
        seen.extend(events(&mut pair.receiver).expect("an honest publisher"));
    }
    let expected = [
        Seen::Gap(2),
        message(7, b"x"),
        message(8, b"x"),
        Seen::Gap(2),
        message(11, b"x"),
        Seen::Gap(1),
        Seen::End,
    ];
    assert_eq!(seen, expected);
    pair.receiver.tell();
    assert_eq!(pair.receiver.unwritten_bytes(), 0, "it has nothing to say");
}

#[test]
fn the_same_bytes_go_to_every_subscriber() {
    let mut publication = Publication::new(1 << 20, 2);
    publication.push(b"one");
    publication.push(b"two");
    publication.push(b"three");
    for _ in 0..3 {
        let mut pair = open_pair();
        let (mut place, first) = publication.join(pair.sender.largest_message_bytes());
        pair.sender.begin(first);
        let begin = take_bytes(&mut pair.sender, usize::MAX);
        feed(&mut pair.receiver, &begin);
        let mut slices = [&[][..]; 4];
        let count = publication.unwritten(&mut place, &mut slices);
        feed(&mut pair.receiver, &slices[..count].concat());
        pair.sender.end_after(publication.last());
        let end = take_bytes(&mut pair.sender, usize::MAX);
        feed(&mut pair.receiver, &end);
        let seen = events(&mut pair.receiver).expect("no error");
        assert_eq!(seen, [message(2, b"two"), message(3, b"three"), Seen::End]);
    }
}

#[test]
fn who_did_not_join_is_told_the_end_all_the_same() {
    let mut publisher = Link::new(of_topic(Role::Sender));
    let mut subscriber = Link::new(of_topic(Role::Receiver));
    publisher.end_after(1000);
    let bytes = take_bytes(&mut publisher, usize::MAX);
    feed(&mut subscriber, &bytes);
    assert_eq!(events(&mut subscriber), Ok(vec![Seen::Established, Seen::End]));
}

#[test]
fn a_queue_that_meets_a_topic_names_both() {
    let cases = [
        (hello(Role::Sender), of_topic(Role::Receiver), "it is a subscriber of a topic"),
        (hello(Role::Sender), of_topic(Role::Receiver), "this side is a sender of a queue"),
        (of_topic(Role::Sender), hello(Role::Receiver), "it is a receiver of a queue"),
        (of_topic(Role::Receiver), hello(Role::Receiver), "this side is a subscriber of a topic"),
        (of_topic(Role::Sender), of_topic(Role::Sender), "both sides are a publisher"),
    ];
    for (one, other, part) in cases {
        let mut pair = Pair::of(one, other);
        let bytes = take_bytes(&mut pair.receiver, usize::MAX);
        feed(&mut pair.sender, &bytes);
        let error = events(&mut pair.sender).expect_err(part);
        assert!(matches!(&error, LinkError::Mismatch(p) if p.contains(part)), "{error:?}");
    }
}

#[test]
fn lies_of_a_publisher_and_of_a_subscriber_are_misbehaviour() {
    let begun =
        |more: &[Vec<u8>]| [vec![frame(Kind::Begin, 5, b"")], more.to_vec()].concat().concat();
    let to_subscriber = [
        (frame(Kind::Message, 1, b""), "a message where none may come"),
        (frame(Kind::Begin, 0, b""), "it begins with message 0"),
        (begun(&[frame(Kind::Begin, 6, b"")]), "Begin where none may come"),
        (begun(&[frame(Kind::Message, 4, b"")]), "message 4 where 5 is next"),
        (begun(&[frame(Kind::Message, 0, b"")]), "message 0 where 5 is next"),
        (begun(&[frame(Kind::End, 3, b"")]), "its end counts 3 messages, 4 arrived"),
        (begun(&[frame(Kind::AckThrough, 5, b"")]), "AckThrough where none may come"),
        (
            begun(&[frame(Kind::Message, u64::MAX, b""), frame(Kind::Message, u64::MAX, b"")]),
            "where 18446744073709551615 is next",
        ),
        (
            begun(&[frame(Kind::End, 4, b""), frame(Kind::Message, 5, b"")]),
            "a message where none may come",
        ),
    ];
    for (bytes, part) in to_subscriber {
        let mut pair = open_pair();
        feed(&mut pair.receiver, &bytes);
        let mut error = events(&mut pair.receiver);
        // What came before the lie is told first.
        while let Ok(seen) = &error {
            assert!(!seen.is_empty(), "{part}");
            error = events(&mut pair.receiver);
        }
        let error = error.expect_err(part);
        assert!(matches!(&error, LinkError::Misbehaved(p) if p.contains(part)), "{error:?}");
    }
    let to_publisher = [
        frame(Kind::AckThrough, 1, b""),
        frame(Kind::AckOne, 1, b""),
        frame(Kind::Reject, 1, b""),
        frame(Kind::EndSeen, 0, b""),
        frame(Kind::Message, 1, b"x"),
        frame(Kind::Begin, 1, b""),
        frame(Kind::End, 0, b""),
        frame(Kind::Hello, 0, b""),
    ];
    for bytes in to_publisher {
        let mut pair = open_pair();
        pair.sender.begin(1);
        pair.sender.end_after(0);
        feed(&mut pair.sender, &bytes);
        let error = events(&mut pair.sender).expect_err("a lie");
        assert!(matches!(&error, LinkError::Misbehaved(p) if p.contains("may come")), "{error:?}");
    }
}
