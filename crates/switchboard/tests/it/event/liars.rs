//! Peers that lie, over links: to a listener of an event, and to a reader of a state. The test is the liar.

use std::time::Duration;

use switchboard::{ErrorKind, Event, Options, State, WaitError};
use switchboard_testkit::DEADLINE;

use crate::conformance::Meeting;
use crate::conformance::hostile::{SCHEMES, accept, listen};
use crate::conformance::liar::{
    ACK_THROUGH, END, HELLO, Liar, MESSAGE, PREFACE, RECEIVER, SENDER, frame, frame_of, hello_of,
    opened,
};

const EVENT: u8 = 4;
const STATE: u8 = 5;
const NOTIFY: u8 = 18;
const VALUE: u8 = 19;
const KNOWN: u8 = 20;

/// How long the preface and a hello are.
const HELLO_BYTES: usize = PREFACE.len() + 16 + 39;

fn met(pattern: u8, role: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(HELLO, 0, &hello_of(1, pattern, role, 100)));
    bytes.extend(more);
    bytes
}

/// The hello first: a packet before it may be no longer.
fn say(liar: &Liar, bytes: &[u8]) {
    let (hello, rest) = bytes.split_at(bytes.len().min(HELLO_BYTES));
    liar.say(hello);
    liar.say(rest);
}

fn lies_to_a_listener() -> Vec<(&'static str, Vec<u8>)> {
    let says = |more: &[u8]| met(EVENT, SENDER, more);
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a sender of a queue", opened(&frame(HELLO, 0, &hello_of(1, 1, SENDER, 10)))),
        ("another listener", met(EVENT, RECEIVER, b"")),
        ("a notification before its hello", opened(&frame(NOTIFY, 1, &1_u64.to_le_bytes()))),
        ("a count of nothing", says(&frame(NOTIFY, 1, &[0; 8]))),
        ("a short count", says(&frame(NOTIFY, 1, &[1; 7]))),
        ("a long count", says(&frame(NOTIFY, 1, &[1; 9]))),
        ("an endless count", says(&frame_of(u32::MAX, NOTIFY, 1, &[1; 8]))),
        ("a message", says(&frame(MESSAGE, 1, b"x"))),
        ("a value", says(&frame(VALUE, 1, &[0, 0]))),
        ("known", says(&frame(KNOWN, 0, b""))),
        ("an end", says(&frame(END, 0, b""))),
        ("an answer", says(&frame(ACK_THROUGH, 1, b""))),
        ("two hellos", says(&frame(HELLO, 0, &hello_of(1, EVENT, SENDER, 10)))),
        ("an unknown kind", says(&frame(200, 1, b""))),
    ]
}

#[test]
fn a_listener_survives_lying_notifiers() {
    for scheme in SCHEMES {
        let meeting = Meeting::of(scheme);
        let event = Event::open(meeting.address()).expect("an event");
        let mut listener = event.listener().expect("a listener");
        let mut good = event.notifier().expect("a notifier");
        for (lie, bytes) in lies_to_a_listener() {
            let liar = Liar::connect(&meeting);
            say(&liar, &bytes);
            let told = listener.wait_timeout(DEADLINE).expect_err("a lie");
            let WaitError::Failed(error) = told else { panic!("{scheme}: {lie}: {told}") };
            let kinds = [ErrorKind::PeerMisbehaved, ErrorKind::Mismatch];
            assert!(kinds.contains(&error.kind()), "{scheme}: {lie}: {error}");
            liar.hear_the_end();
            good.notify_many_of(3, 2).expect("notified");
            let occurrence = listener.wait_timeout(DEADLINE).expect("an event");
            assert_eq!((occurrence.id, occurrence.count), (3, 2), "{scheme}: {lie}");
        }
    }
}

/// Ids without end are read as far as they may wait, and no further; what the program takes makes room.
#[test]
fn ids_without_end_are_bounded() {
    let meeting = Meeting::of("unix");
    let event = Event::open(meeting.address()).expect("an event");
    let mut listener = event.listener().expect("a listener");
    let liar = Liar::connect(&meeting);
    liar.say(&met(EVENT, SENDER, b""));
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let ids: Vec<u8> =
                (0..200_000_u64).flat_map(|id| frame(NOTIFY, id, &1_u64.to_le_bytes())).collect();
            liar.say(&ids);
        });
        (0..200_000_u64)
            .filter(|_| {
                listener.wait_timeout(DEADLINE).is_ok_and(|occurrence| occurrence.count == 1)
            })
            .count()
    });
    assert_eq!(told, 200_000);
}

fn value(version: u64, key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(key.len()).expect("a length").to_le_bytes();
    frame(VALUE, version, &[&len, key, bytes].concat())
}

fn lies_to_a_reader() -> Vec<(&'static str, Vec<u8>)> {
    let says = |more: &[u8]| met(STATE, SENDER, more);
    vec![
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a publisher", opened(&frame(HELLO, 0, &hello_of(1, 2, SENDER, 10)))),
        ("another reader", met(STATE, RECEIVER, b"")),
        ("version 0", says(&value(0, b"key", b"x"))),
        ("a key beyond its frame", says(&frame(VALUE, 1, &[9, 0, b'k']))),
        ("no key", says(&frame(VALUE, 1, &[9]))),
        ("a long key", says(&value(1, &[b'k'; 256], b""))),
        ("a key that is no text", says(&value(1, b"\xff", b""))),
        ("a key with a line feed", says(&value(1, b"a\nb", b""))),
        ("a value that is older", says(&[value(5, b"k", b""), value(4, b"k", b"")].concat())),
        ("the same twice", says(&[value(5, b"k", b""), value(5, b"k", b"")].concat())),
        ("an endless value", says(&frame_of(u32::MAX, VALUE, 1, b"x"))),
        ("known twice", says(&[frame(KNOWN, 0, b""), frame(KNOWN, 0, b"")].concat())),
        ("a notification", says(&frame(NOTIFY, 1, &1_u64.to_le_bytes()))),
        ("a message", says(&frame(MESSAGE, 1, b"x"))),
        ("an end", says(&frame(END, 0, b""))),
        ("an unknown kind", says(&frame(99, 0, b""))),
    ]
}

#[test]
fn a_reader_survives_a_lying_writer() {
    for scheme in SCHEMES {
        for (lie, bytes) in lies_to_a_reader() {
            let meeting = Meeting::of(scheme);
            let listener = listen(&meeting);
            let opening = std::thread::scope(|scope| {
                let state = State::open(meeting.address()).expect("a state");
                let opening = scope.spawn(move || state.reader());
                let liar = accept(&meeting, &listener);
                say(&liar, &bytes);
                let reader = opening.join().expect("an end");
                let told: Result<(), switchboard::Error> =
                    reader.and_then(|mut reader| match reader.watch_key("never", Some(DEADLINE)) {
                        Err(WaitError::Failed(error)) => Err(error),
                        other => panic!("{scheme}: {lie}: {other:?}"),
                    });
                liar.hear_the_end();
                told
            });
            let error = opening.expect_err("a lie");
            let kinds = [ErrorKind::PeerMisbehaved, ErrorKind::Mismatch];
            assert!(kinds.contains(&error.kind()), "{scheme}: {lie}: {error}");
        }
    }
}

/// A reader that says what no reader says is gone; others go on.
#[test]
fn a_writer_survives_lying_readers() {
    for scheme in SCHEMES {
        let meeting = Meeting::of(scheme);
        let state = State::open(meeting.address()).expect("a state");
        let mut writer = state.writer().expect("a writer");
        writer.set_key("key", b"value").expect("set");
        for lie in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            met(STATE, RECEIVER, &value(1, b"key", b"lie")),
            met(STATE, SENDER, b""),
            met(STATE, RECEIVER, &frame(ACK_THROUGH, 1, b"")),
            met(EVENT, RECEIVER, b""),
        ] {
            let liar = Liar::connect(&meeting);
            say(&liar, &lie);
            std::thread::scope(|scope| {
                let gone = scope.spawn(|| liar.hear_the_end());
                while !gone.is_finished() {
                    writer.serve(Some(Duration::from_millis(5))).expect("served");
                }
            });
            let got = std::thread::scope(|scope| {
                let options = Options::default();
                let got = scope.spawn(|| {
                    let state = State::open_with(meeting.address(), options).expect("a state");
                    let mut reader = state.reader().expect("a reader");
                    reader.wait_for_writer(Some(DEADLINE)).expect("there");
                    reader.get_key("key").expect("read").map(|value| value.bytes)
                });
                while !got.is_finished() {
                    writer.serve(Some(Duration::from_millis(5))).expect("served");
                }
                got.join().expect("an end")
            });
            assert_eq!(got.as_deref(), Some(&b"value"[..]), "{scheme}");
        }
    }
}
