//! States that live as long as their writer, with a value for each key: over links and shared memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use switchboard::pattern::state::{Reader, Writer};
use switchboard::{ErrorKind, Options, State, WaitError};
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{Child, instruction};

use super::{ask, failed, reading, told, writing};
use crate::place::{Place, each_row_that, meets};

fn each_live_row(check: fn(&Place)) {
    each_row_that("state", meets, check);
}

/// The next order; readers are let in meanwhile.
pub(super) fn next_order(writer: &mut Writer) -> Option<String> {
    let stdin = std::io::stdin();
    while let Some(fd) = writer.descriptor() {
        let waits = [(stdin.as_fd(), Interest::Readable), (fd, Interest::Readable)];
        let ready = io::poll(waits, Deadline::NEVER).expect("a wait");
        writer.drive().expect("driven");
        if ready[0].any() {
            break;
        }
    }
    instruction()
}

/// What a reader answers: `of KEY`, `any`, `see KEY` (waits for it to change), `count` (of keys), `writer`.
pub(super) fn asked(reader: &mut Reader, order: &str) -> String {
    let (what, key) = order.split_once(' ').unwrap_or((order, ""));
    let result = match what {
        "of" => match reader.get_key(key) {
            Ok(value) => return value.map_or_else(|| "none".to_owned(), |value| told(&value)),
            Err(error) => return failed(&error),
        },
        "any" => {
            reader.watch_any(Some(DEADLINE)).map(|(key, value)| format!("{key}: {}", told(&value)))
        }
        "see" => reader.watch_key(key, Some(DEADLINE)).map(|value| told(&value)),
        "count" => match reader.keys() {
            Ok(keys) => return keys.len().to_string(),
            Err(error) => return failed(&error),
        },
        "writer" => reader.wait_for_writer(Some(3 * DEADLINE)).map(|()| "there".to_owned()),
        other => panic!("{other}"),
    };
    match result {
        Ok(said) => said,
        Err(WaitError::Failed(error)) => failed(&error),
        Err(error) => format!("{error:?}"),
    }
}

/// Asks until the answer is this one.
fn comes_to(child: &mut Child, order: &str, expected: &str) {
    let deadline = Deadline::after(DEADLINE);
    loop {
        let said = ask(child, order);
        if said == expected {
            return;
        }
        assert!(!deadline.passed(), "{order}: {said}, not {expected}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_key_has_its_newest_value() {
    each_live_row(|place| {
        let mut writer = writing(&place.address);
        assert_eq!(ask(&mut writer, "key speed 7"), "done");
        assert_eq!(ask(&mut writer, "set alone"), "done");
        assert_eq!(ask(&mut writer, "key speed 8"), "done");
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut reader, "writer"), "there");
        assert_eq!(ask(&mut reader, "of speed"), "value 3 1 8");
        assert_eq!(ask(&mut reader, "get"), "value 2 5 alone");
        assert_eq!(ask(&mut reader, "of height"), "none");
        assert_eq!(ask(&mut reader, "count"), "2");
        assert_eq!(ask(&mut writer, "key height 100"), "done");
        comes_to(&mut reader, "of height", "value 4 3 100");
        assert_eq!(ask(&mut writer, "set "), "done");
        comes_to(&mut reader, "get", "value 5 0 ");
        assert_eq!(ask(&mut writer, "fill 100000"), "done");
        comes_to(&mut reader, "get", &format!("value 6 100000 {}", "x".repeat(60)));
        assert_eq!(ask(&mut writer, "version"), "Some(6)");
    });
}

#[test]
fn watchers_of_a_key_and_of_all() {
    each_live_row(|place| {
        let mut writer = writing(&place.address);
        assert_eq!(ask(&mut writer, "key a 0"), "done");
        let mut readers: Vec<Child> = (0..3).map(|_| reading(&place.address)).collect();
        for reader in &mut readers {
            assert_eq!(ask(reader, "writer"), "there");
            // What was there when it came is nothing new, once it has looked.
            assert_eq!(ask(reader, "of a"), "value 1 1 0");
        }
        let mut version = 1;
        for round in 1..=20 {
            readers[0].tell("see a");
            readers[1].tell("see b");
            readers[2].tell("any");
            version += 1;
            assert_eq!(ask(&mut writer, &format!("key a {round}")), "done");
            let len = round.to_string().len();
            readers[0].expect(&format!("value {version} {len} {round}"));
            readers[2].expect(&format!("a: value {version} {len} {round}"));
            readers[2].tell("any");
            version += 1;
            assert_eq!(ask(&mut writer, &format!("key b {round}")), "done");
            readers[1].expect(&format!("value {version} {len} {round}"));
            readers[2].expect(&format!("b: value {version} {len} {round}"));
        }
        assert_eq!(ask(&mut readers[0], "watch 50"), "TimedOut");
        let answer = ask(&mut readers[0], "cancel 30");
        assert!(answer.starts_with("Interrupted "), "{answer}");
    });
}

#[test]
fn either_side_starts_first() {
    each_live_row(|place| {
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut reader, "get"), "value 0 0 ");
        reader.tell("see key");
        let mut writer = writing(&place.address);
        assert_eq!(ask(&mut writer, "key key here"), "done");
        reader.expect("value 1 4 here");
    });
}

#[test]
fn a_value_lives_as_long_as_its_writer() {
    each_live_row(|place| {
        let mut reader = reading(&place.address);
        for round in 0..5 {
            let mut writer = writing(&place.address);
            assert_eq!(ask(&mut writer, &format!("key key round {round}")), "done");
            reader.tell("see key");
            reader.expect(&format!("value 1 7 round {round}"));
            writer.kill();
            comes_to(&mut reader, "of key", "none");
            assert_eq!(ask(&mut reader, "count"), "0");
        }
    });
}

#[test]
fn a_hundred_thousand_keys() {
    each_live_row(|place| {
        let mut writer =
            writing(&place.with(if place.row.scheme == "shm" { "?keys=100000" } else { "" }));
        assert_eq!(ask(&mut writer, "keys 100000"), "done");
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut reader, "writer"), "there");
        assert_eq!(ask(&mut reader, "count"), "100000");
        assert_eq!(ask(&mut reader, "of key99999"), "value 100000 4 \\x9f\\x86\\x01\\x00");
        assert_eq!(ask(&mut writer, "key key77777 changed"), "done");
        comes_to(&mut reader, "of key77777", "value 100001 7 changed");
    });
}

#[test]
fn what_cannot_be_a_key() {
    each_live_row(|place| {
        let mut writer = State::open(&place.address).and_then(|state| state.writer());
        let writer = writer.as_mut().expect("a writer");
        for key in ["line\nfeed", "\u{7f}", &"x".repeat(256)] {
            let refused = writer.set_key(key, b"x").expect_err("no key");
            assert_eq!(refused.kind(), ErrorKind::BadAddress, "{refused}");
        }
        writer.set_key(&"x".repeat(255), b"x").expect("a key");
    });
    let place = Place::of("mmap");
    let mut writer =
        State::open(&place.address).and_then(|state| state.writer()).expect("a writer");
    let refused = writer.set_key("key", b"x").expect_err("no keys");
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused}");
    writer.set_key("", b"x").expect("the one value");
}

#[test]
fn without_waiting_a_writer_has_to_be_there() {
    each_live_row(|place| {
        let options = Options::default().wait_for_peer(false);
        let state = State::open_with(&place.address, options).expect("a state");
        // A connection that is under way is decided a little later.
        let opened = state.reader().map(|mut end| end.wait_for_writer(Some(DEADLINE)));
        let refused = match opened {
            Ok(Err(WaitError::Failed(error))) | Err(error) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    });
}

#[test]
fn a_slow_reader_has_the_newest_in_the_end() {
    each_live_row(|place| {
        let mut writer =
            State::open(&place.address).and_then(|state| state.writer()).expect("a writer");
        let mut reader = reading(&place.address);
        let value = |n: u32| [n.to_le_bytes().as_slice(), &[b'v'; 4096]].concat();
        // It reads nothing meanwhile.
        for n in 0..2000 {
            writer.set_key(&format!("k{}", n % 7), &value(n)).expect("set");
        }
        writer.set_key("last", b"word").expect("set");
        reader.tell("see last");
        // It is served until it has said it.
        let until = Instant::now() + DEADLINE;
        let said = loop {
            writer.serve(Some(Duration::from_millis(20))).expect("served");
            if let Some(said) = reader.line_within(Duration::ZERO) {
                break said;
            }
            assert!(Instant::now() < until, "it says nothing");
        };
        assert_eq!(said, "value 2001 4 word");
        reader.tell("of k4");
        let said = reader.line().expect("an answer");
        assert!(said.starts_with("value 2000 4100 \\xcf\\x07\\x00\\x00vvv"), "{said}");
    });
}

#[test]
fn over_links_one_writer_for_all() {
    for scheme in ["unix", "unix-seqpacket", "tcp"] {
        let place = Place::of(scheme);
        let first = writing(&place.address);
        let state = State::open(&place.address).expect("a state");
        let refused = state.writer().expect_err("a second writer");
        assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{refused}");
        assert!(refused.to_string().contains(&format!("{}", first.id())), "{refused}");
        let advice = refused.advice().unwrap_or_default();
        assert!(
            advice.contains("one process at a time") && !advice.contains("connect"),
            "{advice}"
        );
        let refused = State::open(&place.with("?connect")).expect("a state").writer();
        assert_eq!(refused.expect_err("it binds").kind(), ErrorKind::BadAddress);
    }
}
