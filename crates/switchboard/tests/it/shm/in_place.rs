//! Large messages that `recv_each` hands out: where they lie, and until when.

use std::collections::BTreeSet;
use std::time::Duration;

use switchboard::{Bytes, Options, Receiver, RecvError, Sender};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

const BOTH: [Pattern; 2] = [Pattern::Topic, Pattern::Queue];

/// Long ones lie in blocks, short ones in the ring.
const LONG: usize = 40_000;
const SHORT: usize = 64;

fn address(scratch: &Scratch, pattern: Pattern) -> String {
    format!("shm:{}?scope={}", pattern.name(), scratch.join("scope").display())
}

fn ends(scratch: &Scratch, pattern: Pattern) -> (Sender<Bytes>, Receiver<Bytes>) {
    let address = address(scratch, pattern);
    let reader = ends::reader(pattern, &address, Options::default()).expect("a reader");
    let mut writer = ends::writer(pattern, &address, Options::default()).expect("a writer");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("the reader");
    (writer, reader)
}

fn send(writer: &mut Sender<Bytes>, numbers: impl IntoIterator<Item = u64>, len: usize) {
    for number in numbers {
        writer.send_bytes(&ends::message(1, number, len)).expect("sent");
    }
}

/// Takes up to a number, and says where each message was.
fn take(reader: &mut Receiver<Bytes>, seen: &mut Vec<u64>, last: u64) -> Vec<usize> {
    let mut places = Vec::new();
    while seen.last() != Some(&last) {
        reader
            .recv_each(1000, Some(DEADLINE), |incoming, _| {
                seen.push(ends::read(incoming.bytes).expect("a whole message").1);
                places.push(incoming.bytes.as_ptr().addr());
                true
            })
            .expect("messages");
    }
    places
}

#[test]
fn large_messages_are_looked_at_where_they_lie() {
    let scratch = Scratch::new();
    for pattern in BOTH {
        let (mut writer, mut reader) = ends(&scratch, pattern);
        let mut seen = Vec::new();
        for first in [1, 5, 9] {
            send(&mut writer, first..first + 2, LONG);
            send(&mut writer, [first + 2], SHORT);
            send(&mut writer, [first + 3], LONG);
            let places = take(&mut reader, &mut seen, first + 3);
            // A copy is where the last one was.
            let long: BTreeSet<usize> = [0, 1, 3].map(|at| places[at]).into();
            assert_eq!(long.len(), 3, "{pattern:?}: {places:x?}");
        }
        assert_eq!(seen, (1..=12).collect::<Vec<_>>(), "{pattern:?}");
    }
}

#[test]
fn their_room_is_given_back_when_the_call_returns() {
    let scratch = Scratch::new();
    for pattern in BOTH {
        let (mut writer, mut reader) = ends(&scratch, pattern);
        for (number, most) in [(1, 1), (2, 1000)] {
            send(&mut writer, [number], LONG);
            let taken = reader.recv_each(most, Some(DEADLINE), |incoming, _| {
                assert_eq!(ends::read(incoming.bytes), Some((1, number)));
                // It is the caller's until then.
                assert!(writer.flush(Some(Duration::ZERO)).is_err(), "{pattern:?}");
                true
            });
            assert_eq!(taken.expect("a message"), 1);
            // Without another call of its reader.
            writer.flush(Some(DEADLINE)).unwrap_or_else(|error| panic!("{pattern:?}: {error}"));
        }
    }
}

/// What is held back until it was told what is missing before it is a copy.
#[test]
fn their_room_is_given_back_behind_a_gap() {
    let scratch = Scratch::new();
    let address = address(&scratch, Pattern::Topic);
    let options = Options::default().max_message_bytes(Some(LONG as u32));
    let mut reader = ends::reader(Pattern::Topic, &address, options).expect("a reader");
    let mut writer = ends::writer(Pattern::Topic, &address, Options::default()).expect("a writer");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("the reader");
    send(&mut writer, [1], SHORT);
    assert_eq!(take(&mut reader, &mut Vec::new(), 1).len(), 1);
    send(&mut writer, [2], LONG + 1);
    send(&mut writer, [3], LONG);
    let told = reader.recv_each(1, Some(DEADLINE), |_, _| panic!("a gap is before it"));
    assert!(matches!(told, Err(RecvError::Gap { .. })), "{told:?}");
    writer.flush(Some(DEADLINE)).expect("room is given back");
    assert_eq!(take(&mut reader, &mut Vec::new(), 3).len(), 1);
}

#[test]
fn a_panic_while_one_is_looked_at_gives_its_room_back() {
    let scratch = Scratch::new();
    for most in [1, 1000] {
        let (mut writer, mut reader) = ends(&scratch, Pattern::Topic);
        send(&mut writer, [1], LONG);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            reader.recv_each(most, Some(DEADLINE), |_, _| {
                std::panic::resume_unwind(Box::new("on purpose"))
            })
        }));
        assert!(panicked.is_err());
        // Without another call of its reader.
        writer.flush(Some(DEADLINE)).expect("room is given back");
    }
}

#[test]
fn a_panic_while_one_is_looked_at_loses_none() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = ends(&scratch, Pattern::Topic);
    let mut seen = Vec::new();
    send(&mut writer, 1..=6, LONG);
    for stop in [1, 2, 4] {
        ends::panic_at(&mut reader, &mut seen, stop);
    }
    take(&mut reader, &mut seen, 6);
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    writer.flush(Some(DEADLINE)).expect("room is given back");
}

/// Role: sends two large messages, and stays until it is told to go.
pub(crate) fn sends_large(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let mut writer = ends::writer(pattern, &arguments[1], Options::default()).expect("a writer");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("the reader");
    send(&mut writer, 1..=2, LONG);
    report("sent");
    let _ = instruction();
}

#[test]
fn what_is_looked_at_outlives_its_writer() {
    let scratch = Scratch::new();
    for pattern in BOTH {
        let address = address(&scratch, pattern);
        let mut reader = ends::reader(pattern, &address, Options::default()).expect("a reader");
        let arguments = [pattern.name().to_owned(), address];
        let mut child = Some(Child::role("shm-sends-large", &arguments));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            reader
                .recv_each(1000, Some(DEADLINE), |incoming, _| {
                    if let Some(mut child) = child.take() {
                        child.expect("sent");
                        child.kill();
                    }
                    seen.push(ends::read(incoming.bytes).expect("a whole message").1);
                    true
                })
                .expect("messages");
        }
        assert_eq!(seen, [1, 2], "{pattern:?}");
    }
}
