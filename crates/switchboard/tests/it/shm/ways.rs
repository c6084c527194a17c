//! All ways to send and to take, one after the other: what one does without the core the next one goes on behind.

use std::time::Duration;

use switchboard::{Bytes, Options, Receiver, RecvError, SendError, Sender};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

const COUNT: u64 = 20_000;

/// A number that follows from another one, and looks like chance.
fn chance(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// The longest of them.
const LONGEST: usize = 40_000;

/// Mostly short, sometimes as long as a frame can be in a small ring, seldom longer; and for stretches mostly longer,
/// so that they lie in blocks.
fn length(number: u64) -> usize {
    let chance = chance(number);
    if number >> 8 & 3 == 3 && chance & 7 > 0 {
        return [5_000, 9_000, 20_000, LONGEST][chance as usize >> 3 & 3];
    }
    match chance % 16 {
        0 => 5_000,
        1 => 1_000 + (chance >> 8) as usize % 64,
        2 | 3 => ends::LEAST_BYTES + (chance >> 8) as usize % 500,
        _ => ends::LEAST_BYTES + (chance >> 8) as usize % 100,
    }
}

/// Now and then, so that the other side sleeps, or the ring is full.
fn dawdle(number: u64) {
    if chance(number) >> 32 & 255 == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes the message of a number.
fn take(reader: &mut Receiver<Bytes>, number: u64) -> Result<(), RecvError> {
    let check = |bytes: &[u8]| {
        assert_eq!(ends::read(bytes), Some((1, number)), "of {} bytes", bytes.len());
        assert_eq!(bytes.len(), length(number));
    };
    match chance(number * 3) % 12 {
        0 => check(&reader.recv_timeout(DEADLINE)?.message.0),
        1 => {
            let taken = reader.recv_each(1, Some(DEADLINE), |incoming, _| {
                check(incoming.bytes);
                true
            })?;
            assert_eq!(taken, 1);
        }
        2 => check(&reader.borrow()?),
        3 => check(&reader.borrow_timeout(DEADLINE)?),
        _ => loop {
            match reader.try_borrow() {
                Ok(message) => break check(&message),
                Err(RecvError::Empty) => std::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        },
    }
    Ok(())
}

/// Role: a subscriber that takes messages in all ways.
pub(crate) fn subscriber(arguments: &[String]) {
    let mut reader =
        ends::reader(Pattern::Topic, &arguments[0], Options::default()).expect("an end");
    report("here");
    for number in 1.. {
        dawdle(number * 5);
        match take(&mut reader, number) {
            Ok(()) => {}
            Err(RecvError::Ended) => return report(number - 1),
            Err(error) => panic!("{number}: {error}"),
        }
    }
}

/// Sends the message of a number, and perhaps the next ones: which one comes next.
fn send(writer: &mut Sender<Bytes>, number: u64) -> u64 {
    let (len, chance) = (length(number), chance(number * 7));
    let message = ends::message(1, number, len);
    match chance % 12 {
        0 => writer.send_bytes(&message).expect("sent"),
        1 => {
            writer.feed(&message).expect("accepted");
            if chance >> 8 & 1 == 0 {
                writer.push().expect("sent");
            }
        }
        2 => {
            let mut next = number;
            let sent = writer.send_each(LONGEST, |room| {
                let is_over = next == number + 5 || next > COUNT;
                let message = (!is_over).then(|| ends::message(1, next, length(next)))?;
                room[..message.len()].copy_from_slice(&message);
                next += 1;
                Some(message.len())
            });
            assert_eq!(sent.expect("sent") as u64, next - number);
            return next;
        }
        3 => {
            // Of these two nothing becomes.
            writer.loan_bytes(len).expect("room").fill(0xff);
            let mut forgotten = writer.loan_bytes(len * 2).expect("room");
            forgotten.fill(0xff);
            std::mem::forget(forgotten);
            writer.send_bytes(&message).expect("sent");
        }
        4 => {
            let mut forgotten = writer.loan_bytes(len + 64).expect("room");
            forgotten.fill(0xff);
            std::mem::forget(forgotten);
            writer.feed(&message).expect("accepted");
        }
        5 => {
            let mut room = writer.loan_bytes(len + 100).expect("room");
            room.fill(0xff);
            room[..len].copy_from_slice(&message);
            room.send_first(len).expect("sent");
        }
        6 => {
            writer.loan_bytes(len + 500).expect("room").fill(0xff);
            let mut room = writer.loan_bytes(len).expect("room");
            room.copy_from_slice(&message);
            room.send().expect("sent");
        }
        _ => {
            let mut room = writer.loan_bytes(len).expect("room");
            room.copy_from_slice(&message);
            room.send().expect("sent");
        }
    }
    number + 1
}

fn all_ways(capacity: &str) {
    let scratch = Scratch::new();
    let address = format!("shm:ways?scope={}{capacity}", scratch.join("scope").display());
    let mut writer = ends::writer(Pattern::Topic, &address, Options::default()).expect("an end");
    let mut child = Child::role("shm-ways-subscriber", &[&address]);
    child.expect("here");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let mut number = 1;
    while number <= COUNT {
        dawdle(number);
        number = send(&mut writer, number);
    }
    assert_eq!(writer.sent(), COUNT);
    writer.close().expect("closed");
    child.expect(&COUNT.to_string());
    assert!(child.wait().success());
}

#[test]
fn all_ways_lead_through_a_ring() {
    all_ways("");
}

#[test]
fn all_ways_lead_through_a_ring_that_is_small() {
    all_ways("&capacity=4096");
}

#[test]
fn who_comes_and_dies_while_messages_are_borrowed_is_told_of() {
    let scratch = Scratch::new();
    let address = format!("shm:ways?scope={}", scratch.join("scope").display());
    let mut reader = ends::reader(Pattern::Topic, &address, Options::default()).expect("an end");
    let mut first = Child::role("shm-ways-publisher", &[&address, "1"]);
    let borrow =
        |reader: &mut Receiver<Bytes>, who: u64, numbers: std::ops::RangeInclusive<u64>| {
            for number in numbers {
                let message = reader.borrow_timeout(DEADLINE).expect("a message");
                assert_eq!(ends::read(&message), Some((who, number)));
            }
        };
    // It looks after each message, and so knows where the next one comes; of the rest not all is taken.
    borrow(&mut reader, 1, 1..=3);
    assert!(matches!(reader.try_borrow(), Err(RecvError::Empty)));
    first.tell("5");
    first.expect("done");
    borrow(&mut reader, 1, 4..=6);
    let mut second = Child::role("shm-ways-publisher", &[&address, "2"]);
    second.expect("done");
    borrow(&mut reader, 1, 7..=8);
    borrow(&mut reader, 2, 1..=3);
    first.kill();
    let died = reader.borrow_timeout(DEADLINE).map(|_| ()).expect_err("it is dead");
    let RecvError::PeerDied { received, .. } = died else { panic!("{died}") };
    assert_eq!(received, 8);
    second.tell("2");
    second.expect("done");
    borrow(&mut reader, 2, 4..=5);
    assert!(matches!(reader.try_borrow(), Err(RecvError::Empty)));
    second.kill();
    let died = reader.borrow_timeout(DEADLINE).map(|_| ()).expect_err("it is dead");
    assert!(matches!(died, RecvError::PeerDied { received: 5, .. }), "{died}");
}

/// Role: publishes three messages, and as many more as it is told.
pub(crate) fn publisher(arguments: &[String]) {
    let who = arguments[1].parse().expect("a number");
    let mut writer =
        ends::writer(Pattern::Topic, &arguments[0], Options::default()).expect("an end");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let (mut number, mut count) = (0, 3);
    loop {
        for _ in 0..count {
            number += 1;
            writer.send_bytes(&ends::message(who, number, 40)).expect("sent");
        }
        report("done");
        let Some(line) = switchboard_testkit::child::instruction() else { return };
        count = line.parse().expect("a number");
    }
}

#[test]
fn room_that_was_lent_and_given_back_is_clean_when_it_is_lent_again() {
    let scratch = Scratch::new();
    let address = format!("shm:ways?scope={}", scratch.join("scope").display());
    let mut reader = ends::reader(Pattern::Topic, &address, Options::default()).expect("an end");
    let mut writer = ends::writer(Pattern::Topic, &address, Options::default()).expect("an end");
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    for number in 1..=200 {
        if number % 3 == 0 {
            writer.loan_bytes(500).expect("room").fill(0xff);
        }
        let message = ends::message(1, number, 40);
        let mut room = writer.loan_bytes(40).expect("room");
        room.copy_from_slice(&message);
        room.send().expect("sent");
        let borrowed = reader.borrow_timeout(DEADLINE).expect("a message");
        assert_eq!(ends::read(&borrowed), Some((1, number)));
        drop(borrowed);
        assert!(matches!(reader.try_borrow(), Err(RecvError::Empty)), "behind {number}");
    }
}

/// After a loan the next one is lent without the core, where it is like it: not if it is longer than this end sends.
#[test]
fn what_is_too_long_is_not_lent_after_what_is_not() {
    let scratch = Scratch::new();
    let scope = scratch.join("scope");
    for (query, len, too_long) in
        [("&max-message=100000", 70_000, 120_000), ("&capacity=4096", 4_000, usize::MAX)]
    {
        let address = format!("shm:ways?scope={}{query}", scope.display());
        let mut reader =
            ends::reader(Pattern::Topic, &address, Options::default()).expect("an end");
        let mut writer =
            ends::writer(Pattern::Topic, &address, Options::default()).expect("an end");
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
        for number in 1..=20 {
            // Its first bytes, or all of them.
            let message = ends::message(1, number, len - number as usize % 2 * 3_000);
            let mut room = writer.loan_bytes(len).expect("room");
            room[..message.len()].copy_from_slice(&message);
            room.send_first(message.len()).expect("sent");
            for len in [too_long, too_long - 1] {
                let refused = writer.loan_bytes(len).map(drop).expect_err("no room");
                assert!(
                    matches!(refused, SendError::TooLarge { len_bytes, .. } if len_bytes == len)
                );
            }
            let borrowed = reader.borrow_timeout(DEADLINE).expect("a message");
            assert_eq!(ends::read(&borrowed), Some((1, number)));
            assert_eq!(borrowed.len(), message.len());
            drop(borrowed);
            assert!(matches!(reader.try_borrow(), Err(RecvError::Empty)), "behind {number}");
        }
    }
}
