//! A simulated pair of peers: bytes go from one link to the other in pieces of any size.

mod topics;

use std::collections::VecDeque;

use proptest::prelude::*;

use super::frame::{HEADER_BYTES, Header, Kind, PREFACE};
use super::{Event, Hello, Link, LinkError, Pattern, Role};

fn hello(role: Role) -> Hello {
    Hello {
        pattern: Pattern::Queue,
        role,
        schema: 0,
        schema_name: String::new(),
        max_message_bytes: 1 << 20,
        window_messages: 16,
        window_bytes: 4096,
        instance: 1,
        name: "test".into(),
    }
}

fn new_pair() -> Pair {
    Pair::of(hello(Role::Sender), hello(Role::Receiver))
}

/// What came out of a link, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Established,
    Message { sequence: u64, payload: Vec<u8>, redelivered: bool, deliveries: u16 },
    Acknowledged(u64),
    Rejected { payload: Vec<u8>, deliveries: u16 },
    Gap(u64),
    End,
    Finished,
}

fn own(event: &Event<'_>) -> Seen {
    match event {
        Event::Established => Seen::Established,
        Event::Message { sequence, payload, redelivered, deliveries } => Seen::Message {
            sequence: *sequence,
            payload: payload.to_vec(),
            redelivered: *redelivered,
            deliveries: *deliveries,
        },
        Event::Acknowledged(count) => Seen::Acknowledged(*count),
        Event::Rejected(message) => {
            Seen::Rejected { payload: message.payload.clone(), deliveries: message.deliveries }
        }
        Event::Gap(missing) => Seen::Gap(*missing),
        Event::End => Seen::End,
        Event::EndSeen => Seen::Finished,
        event => panic!("{event:?} is of a service"),
    }
}

fn feed(link: &mut Link, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = link.room();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        link.filled(n);
        bytes = &bytes[n..];
    }
}

fn events(link: &mut Link) -> Result<Vec<Seen>, LinkError> {
    let mut seen = Vec::new();
    while let Some(event) = link.next_event()? {
        seen.push(own(&event));
    }
    Ok(seen)
}

/// Takes up to `most` bytes of what a link has to write.
fn take_bytes(link: &mut Link, most: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = link.unwritten().flatten().copied().take(most).collect();
    bytes.truncate(most);
    link.wrote(bytes.len());
    bytes
}

struct Pair {
    sender: Link,
    receiver: Link,
}

impl Pair {
    fn of(sender: Hello, receiver: Hello) -> Self {
        Self { sender: Link::new(sender), receiver: Link::new(receiver) }
    }

    /// Moves everything both ways, in pieces of `piece` bytes.
    fn exchange(&mut self, piece: usize) -> Result<(Vec<Seen>, Vec<Seen>), LinkError> {
        let (mut at_sender, mut at_receiver) = (Vec::new(), Vec::new());
        while self.sender.unwritten_bytes() + self.receiver.unwritten_bytes() > 0 {
            let bytes = take_bytes(&mut self.sender, piece);
            feed(&mut self.receiver, &bytes);
            at_receiver.extend(events(&mut self.receiver)?);
            let bytes = take_bytes(&mut self.receiver, piece);
            feed(&mut self.sender, &bytes);
            at_sender.extend(events(&mut self.sender)?);
        }
        Ok((at_sender, at_receiver))
    }

    fn open(mut self) -> Self {
        let (at_sender, at_receiver) = self.exchange(7).expect("two hellos that fit");
        assert_eq!(at_sender, [Seen::Established]);
        assert_eq!(at_receiver, [Seen::Established]);
        self
    }
}

fn message(sequence: u64, payload: &[u8]) -> Seen {
    Seen::Message { sequence, payload: payload.to_vec(), redelivered: false, deliveries: 0 }
}

#[test]
fn messages_flow_and_are_acknowledged_in_any_order() {
    let mut pair = new_pair().open();
    for payload in [&b"one"[..], b"", b"three"] {
        pair.sender.send(payload, false, 0);
    }
    let (_, at_receiver) = pair.exchange(5).expect("no error");
    assert_eq!(at_receiver, [message(1, b"one"), message(2, b""), message(3, b"three")]);
    assert_eq!(pair.sender.outstanding(), 3);

    assert!(pair.receiver.acknowledge(3));
    pair.receiver.tell();
    let (at_sender, _) = pair.exchange(64).expect("no error");
    assert_eq!((at_sender, pair.sender.outstanding()), (vec![Seen::Acknowledged(1)], 2));

    assert!(pair.receiver.acknowledge(1));
    assert!(!pair.receiver.acknowledge(1), "twice is once");
    assert!(pair.receiver.acknowledge(2));
    pair.receiver.tell();
    let (at_sender, _) = pair.exchange(64).expect("no error");
    assert_eq!((at_sender, pair.sender.outstanding()), (vec![Seen::Acknowledged(2)], 0));
}

#[test]
fn an_end_is_answered_once_everything_is_settled() {
    let mut pair = new_pair().open();
    pair.sender.send(b"last", false, 0);
    pair.sender.end();
    let (_, at_receiver) = pair.exchange(64).expect("no error");
    assert_eq!(at_receiver, [message(1, b"last"), Seen::End]);
    pair.receiver.tell();
    assert_eq!(pair.exchange(64).expect("no error").0, []);
    pair.receiver.acknowledge(1);
    pair.receiver.tell();
    assert_eq!(pair.exchange(64).expect("no error").0, [Seen::Acknowledged(1), Seen::Finished]);
}

#[test]
fn a_rejected_message_comes_back_with_its_count() {
    let mut pair = new_pair().open();
    pair.sender.send(b"job", true, 2);
    pair.exchange(64).expect("no error");
    assert!(pair.receiver.reject(1));
    pair.receiver.tell();
    let (at_sender, _) = pair.exchange(64).expect("no error");
    assert_eq!(at_sender, [Seen::Rejected { payload: b"job".to_vec(), deliveries: 3 }]);
    assert_eq!(pair.sender.outstanding(), 0);
}

#[test]
fn what_a_dead_receiver_leaves_is_marked_if_it_was_written() {
    let mut pair = new_pair().open();
    for payload in [&b"acknowledged"[..], b"written", b"half", b"unwritten"] {
        pair.sender.send(payload, false, 0);
    }
    let bytes = take_bytes(&mut pair.sender, 3 * HEADER_BYTES + 12 + 7 + 2);
    feed(&mut pair.receiver, &bytes);
    assert_eq!(events(&mut pair.receiver).expect("no error").len(), 2);
    pair.receiver.acknowledge(1);
    pair.receiver.tell();
    let bytes = take_bytes(&mut pair.receiver, usize::MAX);
    feed(&mut pair.sender, &bytes);
    events(&mut pair.sender).expect("no error");
    let unsettled = pair.sender.take_unsettled();
    let summary: Vec<(&[u8], bool, u16)> =
        unsettled.iter().map(|m| (m.payload.as_slice(), m.redelivered, m.deliveries)).collect();
    assert_eq!(summary, [(&b"written"[..], true, 1), (b"half", true, 1), (b"unwritten", false, 0)]);
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let mut pair = new_pair().open();
    let mut sent = 0;
    while pair.sender.has_room_for(8) {
        pair.sender.send(&[0; 8], false, 0);
        sent += 1;
    }
    assert_eq!(sent, 16, "messages");
    let mut pair = new_pair().open();
    assert!(pair.sender.has_room_for(10_000), "a larger one may go alone");
    pair.sender.send(&[0; 4000], false, 0);
    assert!(pair.sender.has_room_for(96) && !pair.sender.has_room_for(97), "bytes");
}

#[test]
fn a_message_held_back_does_not_let_the_window_slide_for_ever() {
    let mut pair = new_pair().open();
    let mut sent = 0_u64;
    loop {
        while pair.sender.has_room_for(1) {
            pair.sender.send(b"x", false, 0);
            sent += 1;
        }
        let (_, arrived) = pair.exchange(4096).expect("the sender keeps the window");
        if arrived.is_empty() {
            break;
        }
        // Everything but the first is acknowledged.
        for sequence in 2..=sent {
            pair.receiver.acknowledge(sequence);
        }
        pair.receiver.tell();
        pair.exchange(4096).expect("no error");
    }
    assert_eq!(sent, 32, "twice the window");
}

#[test]
fn hellos_that_do_not_fit_are_refused_on_both_sides() {
    let schema =
        |schema, name: &str, role| Hello { schema, schema_name: name.into(), ..hello(role) };
    let cases = [
        (hello(Role::Sender), hello(Role::Sender), "both sides are a sender"),
        (
            schema(7, "Reading", Role::Sender),
            schema(8, "Order", Role::Receiver),
            "a receiver uses Order",
        ),
        (schema(7, "Reading", Role::Sender), hello(Role::Receiver), "a receiver uses bytes"),
        (
            hello(Role::Sender),
            Hello { window_messages: 0, ..hello(Role::Receiver) },
            "its window is 0",
        ),
    ];
    for (one, other, part) in cases {
        let mut pair = Pair::of(one, other);
        let bytes = take_bytes(&mut pair.receiver, usize::MAX);
        feed(&mut pair.sender, &bytes);
        let error = events(&mut pair.sender).expect_err(part);
        assert!(matches!(&error, LinkError::Mismatch(p) if p.contains(part)), "{error:?}");
        // The other side is told why.
        let bytes = take_bytes(&mut pair.sender, usize::MAX);
        feed(&mut pair.receiver, &bytes);
        let error = events(&mut pair.receiver).expect_err(part);
        assert!(matches!(error, LinkError::Mismatch(_) | LinkError::Refused(_)), "{error:?}");
        assert_eq!(events(&mut pair.receiver), Ok(vec![]), "and says nothing further");
    }
}

/// Bytes that a lying peer sends after an honest hello, and what the link says of them.
#[test]
fn lies_are_misbehaviour() {
    let frame = |kind, sequence, body: &[u8]| {
        let mut bytes = Header::new(kind, body.len(), sequence).to_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    };
    let at_receiver = [
        (frame(Kind::Message, 2, b"x"), "message 2 where 1 is next"),
        (frame(Kind::End, 3, b""), "its end counts 3 messages, 0 arrived"),
        (frame(Kind::AckThrough, 1, b""), "AckThrough where none may come"),
        (frame(Kind::Hello, 0, b""), "Hello where none may come"),
        (vec![0xff; 64], "unknown kind"),
        ([0, 0, 0, 0x7f, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].to_vec(), "where 1048576 are allowed"),
        ([0, 0, 0, 0, 2, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].to_vec(), "unknown flags"),
        ([0, 8, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(), "where 1024 are allowed"),
    ];
    for (bytes, part) in at_receiver {
        let mut pair = new_pair().open();
        feed(&mut pair.receiver, &bytes);
        let error = events(&mut pair.receiver).expect_err(part);
        assert!(matches!(&error, LinkError::Misbehaved(p) if p.contains(part)), "{error:?}");
    }
    let at_sender = [
        (frame(Kind::AckThrough, 1, b""), "it answers message 1, of 0 that were sent"),
        (frame(Kind::AckOne, u64::MAX, b""), "of 0 that were sent"),
        (frame(Kind::Reject, 0, b""), "it answers message 0"),
        (frame(Kind::EndSeen, 0, b""), "EndSeen where none may come"),
        (frame(Kind::Message, 1, b""), "a message where none may come"),
    ];
    for (bytes, part) in at_sender {
        let mut pair = new_pair().open();
        feed(&mut pair.sender, &bytes);
        let error = events(&mut pair.sender).expect_err(part);
        assert!(matches!(&error, LinkError::Misbehaved(p) if p.contains(part)), "{error:?}");
    }
    let mut link = Link::new(hello(Role::Receiver));
    feed(&mut link, b"GET / HTTP/1.1\r\n");
    let error = events(&mut link).expect_err("no preface");
    assert!(matches!(&error, LinkError::Mismatch(p) if p.contains("GET / HTTP")), "{error:?}");
}

#[test]
fn a_flood_beyond_the_window_is_misbehaviour() {
    let mut pair = new_pair().open();
    let mut bytes = Vec::new();
    for sequence in 1..=33 {
        bytes.extend_from_slice(&Header::new(Kind::Message, 0, sequence).to_bytes());
    }
    feed(&mut pair.receiver, &bytes);
    let error = events(&mut pair.receiver).expect_err("a flood");
    assert!(
        matches!(&error, LinkError::Misbehaved(p) if p.contains("unacknowledged")),
        "{error:?}"
    );
}

#[test]
fn a_pipe_needs_no_answers() {
    let mut sender = Link::one_way(hello(Role::Sender));
    let mut receiver = Link::one_way(hello(Role::Receiver));
    for n in 0..100_u8 {
        assert!(sender.has_room_for(1000));
        sender.send(&[n; 1000], false, 0);
    }
    sender.end();
    assert_eq!(sender.outstanding(), 0);
    let bytes = take_bytes(&mut sender, usize::MAX);
    feed(&mut receiver, &bytes);
    let seen = events(&mut receiver).expect("no error");
    assert_eq!(seen.len(), 102);
    assert_eq!(seen.last(), Some(&Seen::End));
    receiver.tell();
    assert_eq!(receiver.unwritten_bytes(), 0);
}

#[test]
fn memory_of_a_large_message_is_given_back() {
    let large = |role| Hello { max_message_bytes: 4 << 20, ..hello(role) };
    let mut pair = Pair::of(large(Role::Sender), large(Role::Receiver)).open();
    for round in 0..3 {
        let payload = vec![round; 3 << 20];
        pair.sender.send(&payload, false, 0);
        let (_, at_receiver) = pair.exchange(100_000).expect("no error");
        assert_eq!(at_receiver, [message(u64::from(round) + 1, &payload)]);
        pair.receiver.shrink();
        assert_eq!(events(&mut pair.receiver), Ok(vec![]));
        pair.receiver.acknowledge(u64::from(round) + 1);
        pair.receiver.tell();
        pair.exchange(100).expect("no error");
    }
}

/// What happens next in a random history.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    ToReceiver(usize),
    ToSender(usize),
    /// Acknowledge the n-th message that is held.
    Acknowledge(usize),
    Reject(usize),
    Tell,
    /// The receiver dies and another one comes.
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Step::Send),
        6 => (1..3000_usize).prop_map(Step::ToReceiver),
        6 => (1..200_usize).prop_map(Step::ToSender),
        5 => any::<usize>().prop_map(Step::Acknowledge),
        1 => any::<usize>().prop_map(Step::Reject),
        3 => Just(Step::Tell),
        1 => Just(Step::Die),
    ]
}

proptest! {
    /// Whatever happens in whatever order: what the sender counts as acknowledged was acknowledged
    /// by a receiver, nothing is lost, and nothing comes twice unmarked.
    #[test]
    fn no_history_loses_a_message(steps in proptest::collection::vec(step(), 1..400)) {
        let mut pair = new_pair().open();
        let mut next = 0_u64;
        let mut sent = 0_u64;
        let mut backlog: VecDeque<super::Unsettled> = VecDeque::new();
        let mut held: Vec<(u64, u64)> = Vec::new();
        let mut handed_out = std::collections::HashSet::new();
        let mut settled_by_receiver = std::collections::HashSet::new();
        let mut acknowledged = 0;
        for step in steps {
            match step {
                Step::Send(mut payload) => {
                    while let Some(message) = backlog.front() {
                        if !pair.sender.has_room_for(message.payload.len()) { break }
                        let message = backlog.pop_front().expect("a front");
                        pair.sender.send(&message.payload, message.redelivered, message.deliveries);
                    }
                    payload.splice(0..0, next.to_le_bytes());
                    if backlog.is_empty() && pair.sender.has_room_for(payload.len()) {
                        pair.sender.send(&payload, false, 0);
                        next += 1;
                        sent += 1;
                    }
                }
                Step::ToReceiver(n) => {
                    let bytes = take_bytes(&mut pair.sender, n);
                    feed(&mut pair.receiver, &bytes);
                    for seen in events(&mut pair.receiver).expect("an honest sender") {
                        let Seen::Message { sequence, payload, redelivered, .. } = seen else {
                            continue;
                        };
                        let id = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
                        prop_assert!(handed_out.insert(id) || redelivered, "{id} twice, unmarked");
                        held.push((id, sequence));
                    }
                }
                Step::ToSender(n) => {
                    let bytes = take_bytes(&mut pair.receiver, n);
                    feed(&mut pair.sender, &bytes);
                    for seen in events(&mut pair.sender).expect("an honest receiver") {
                        match seen {
                            Seen::Acknowledged(count) => acknowledged += count,
                            Seen::Rejected { payload, deliveries } => {
                                backlog.push_back(super::Unsettled {
                                    payload, redelivered: true, deliveries,
                                });
                            }
                            _ => {}
                        }
                    }
                }
                Step::Acknowledge(n) if !held.is_empty() => {
                    let (id, sequence) = held.swap_remove(n % held.len());
                    prop_assert!(pair.receiver.acknowledge(sequence));
                    settled_by_receiver.insert(id);
                }
                Step::Reject(n) if !held.is_empty() => {
                    let (_, sequence) = held.swap_remove(n % held.len());
                    prop_assert!(pair.receiver.reject(sequence));
                }
                Step::Tell => pair.receiver.tell(),
                Step::Die => {
                    for message in pair.sender.take_unsettled().into_iter().rev() {
                        backlog.push_front(message);
                    }
                    held.clear();
                    pair = new_pair().open();
                }
                _ => {}
            }
            let under_way = pair.sender.outstanding() + backlog.len() as u64;
            prop_assert_eq!(sent, acknowledged + under_way, "every message is somewhere");
            prop_assert!(acknowledged <= settled_by_receiver.len() as u64);
        }
    }

    /// No bytes make a link panic, or grow without bound.
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        honest in 0..3_usize,
        sender in any::<bool>(),
        topic in any::<bool>(),
        piece in 1..500_usize,
    ) {
        let pattern = if topic { Pattern::Topic } else { Pattern::Queue };
        let hello = |role| Hello { pattern, ..hello(role) };
        let role = if sender { Role::Sender } else { Role::Receiver };
        let other = if sender { Role::Receiver } else { Role::Sender };
        let mut link = Link::new(hello(role));
        if honest > 0 {
            feed(&mut link, &PREFACE);
        }
        if honest > 1 {
            let mut peer = Link::new(hello(other));
            let hello = take_bytes(&mut peer, usize::MAX);
            feed(&mut link, &hello[PREFACE.len()..]);
        }
        for piece in bytes.chunks(piece) {
            feed(&mut link, piece);
            if events(&mut link).is_err() {
                prop_assert_eq!(events(&mut link), Ok(vec![]));
                break;
            }
        }
    }
}
