//! Peers that lie, or say nothing: at a meeting here, and what they do on a link in the modules.

mod again;
mod between;
mod control;
mod feeds;
mod given;
mod honest;
mod memory;
mod peer;
mod reader;
mod scene;
mod scribble;
mod writer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use switchboard_kernel::{process, unix_socket};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, are_linked, publisher, subscriber};
use super::raw::{Heard, Listener, Raw, entry_of};
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::meeting::HELLO_TIMEOUT;
use crate::transport::shm::name::Entry;

pub(super) use control::hands_over;
pub(super) use honest::honest;

/// What an endpoint says of a peer that did this, and what the peer is told.
#[track_caller]
fn check(act: impl FnOnce(&Raw), kind: &str, problem: &str) {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let raw = Raw::dial(scratch.path(), &end);
    act(&raw);
    end.turn(Instant::now());
    let name = process::command_name(std::process::id()).expect("a name");
    let [said] = &end.said[..] else { panic!("{:?}", end.said) };
    let begin = format!("{kind}: process {} ({name}): ", std::process::id());
    assert!(said.starts_with(&begin) && said.contains(problem), "{said} without {problem}");
    assert_eq!(end.tokens.made, 0, "nothing was made for it");
    raw.expect_refusal(problem);
    // Nobody else minds.
    let mut other = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    other.turn(Instant::now());
    end.turn(Instant::now());
    other.turn(Instant::now());
    assert!(are_linked(&end, &other));
}

#[test]
fn a_first_datagram_that_is_none_is_refused() {
    let misbehaved = "misbehaved";
    check(|raw| raw.say(b"GET / HTTP/1.1\r\n\r\n", 0), misbehaved, "unknown kind");
    check(|raw| raw.say(&[1], 0), misbehaved, "too short");
    check(|raw| raw.say(&[0; 2000], 0), misbehaved, "more than 1024 bytes");
    check(|raw| raw.say(&WAKE, 0), misbehaved, "a wake-up before its hello");
    let hello = Datagram::Hello(subscriber()).encode();
    check(|raw| raw.say(&hello, 0), misbehaved, "with 0 descriptors where 1 belong");
    check(|raw| raw.say(&hello, 2), misbehaved, "with 2 descriptors where 1 belong");
    check(|raw| raw.say(&hello, 3), misbehaved, "more than 2 descriptors");
    check(|raw| raw.say(&hello, 16), misbehaved, "more than 2 descriptors");
    check(|raw| raw.say(&hello[..40], 1), misbehaved, "too short");
    let mut garbage = hello.clone();
    garbage[4..12].copy_from_slice(b"SWBDSHM2");
    check(|raw| raw.say(&garbage, 1), misbehaved, "a hello that begins with \"SWBDSHM2\"");
}

#[test]
fn a_hello_that_does_not_fit_is_refused() {
    let check = |hello: &Hello, problem: &str| {
        check(|raw| raw.say_hello(hello), "refused", problem);
    };
    let fits = subscriber();
    check(&Hello { pattern: Pattern::Queue, ..fits.clone() }, "a receiver (a queue) do not meet");
    check(&Hello { role: Role::Writer, ..fits.clone() }, "both sides are a publisher");
    let other = Hello { fingerprint: 8, schema: "Other".into(), ..fits };
    check(&other, "a publisher uses Reading, a subscriber uses Other");
    let mut later = Datagram::Hello(other).encode();
    later[12] = 3;
    self::check(|raw| raw.say(&later, 1), "refused", "version 3 of shm: meets version 2");
}

#[test]
fn a_peer_that_refuses_is_told_of() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let raw = Raw::dial(scratch.path(), &end);
    raw.say(&Datagram::Refuse("not you".into()).encode(), 0);
    end.turn(Instant::now());
    assert_eq!(raw.hear_next(), Heard::End);
    let [said] = &end.said[..] else { panic!("{:?}", end.said) };
    assert!(said.starts_with("refused: process ") && said.ends_with(": not you"), "{said}");
}

#[test]
fn both_of_two_that_do_not_fit_are_told() {
    let scratch = Scratch::new();
    let mut one = publisher(&scratch);
    let other = Hello { fingerprint: 8, schema: "Other".into(), ..subscriber() };
    let mut other = End::with(scratch.path(), other).expect("an endpoint");
    let now = Instant::now();
    other.turn(now);
    one.turn(now);
    other.turn(now);
    for end in [&one, &other] {
        let [said] = &end.said[..] else { panic!("{:?}", end.said) };
        assert!(said.starts_with("refused: process "), "{said}");
        assert!(said.contains("a publisher uses Reading, a subscriber uses Other"), "{said}");
        assert_eq!(end.meeting.wanted(), 0, "that is final");
    }
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let raw = Raw::dial(scratch.path(), &end);
    let start = Instant::now();
    end.turn(start);
    end.turn(start + HELLO_TIMEOUT - Duration::from_millis(1));
    assert_eq!((raw.hear(), end.said.len()), (Heard::Nothing, 0));
    end.turn(start + HELLO_TIMEOUT);
    raw.expect_refusal("no hello within 10 seconds");
    assert!(end.said[0].starts_with("misbehaved: "), "{:?}", end.said);
    // Who only looked whether somebody is there is no news.
    drop(Raw::dial(scratch.path(), &end));
    end.turn(start);
    let raw = Raw::dial(scratch.path(), &end);
    end.turn(start);
    drop(raw);
    end.turn(start);
    assert_eq!(end.said.len(), 1, "{:?}", end.said);
}

#[test]
fn a_false_identity_is_refused() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let raw = Raw::dial(scratch.path(), &end);
    raw.say_hello(&Hello { id: end.id(), ..subscriber() });
    end.turn(Instant::now());
    raw.expect_refusal("the ID of who it meets");

    // Another process says that it is one that is being dialled.
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([0; 16]) };
    let listener = Listener::at(scratch.path(), entry);
    end.meeting.look_around(Instant::now()).expect("a scan");
    end.turn(Instant::now());
    let dialled = listener.accept().expect("it dials");
    let base = scratch.path().display().to_string();
    let mut thief = Child::role("shm-thief", &[base, entry_of(&end).to_string()]);
    thief.expect("said");
    end.turn(Instant::now());
    let expected = format!("it has the ID of process {}", std::process::id());
    assert!(thief.line().is_some_and(|line| line.contains(&expected)));
    assert!(end.said.iter().any(|said| said.contains(&expected)), "{:?}", end.said);
    // The right one is met all the same.
    assert!(matches!(dialled.hear(), Heard::Hello(_)));
    dialled.say_hello(&Hello { id: entry.id, ..subscriber() });
    end.turn(Instant::now());
    assert_eq!(end.met.len(), 1);
}

/// Role: connects, and says another's ID.
pub(super) fn thief(arguments: &[String]) {
    let address = PathBuf::from(&arguments[0]).join("switchboard/shm/channel").join(&arguments[1]);
    let address = unix_socket::Address::Path(address);
    let connected = unix_socket::connect_to(unix_socket::Kind::Seqpacket, &address, true);
    let raw = Raw(connected.expect("connected"));
    raw.say_hello(&Hello { id: Id([0; 16]), ..subscriber() });
    report("said");
    report(format!("{:?}", raw.hear_next()));
}

#[test]
fn a_second_connection_of_one_peer_is_closed() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let hello = subscriber();
    let now = Instant::now();
    let first = Raw::dial(scratch.path(), &end);
    first.say_hello(&hello);
    end.turn(now);
    assert!(matches!(first.hear(), Heard::Hello(_)));
    let second = Raw::dial(scratch.path(), &end);
    second.say_hello(&hello);
    end.turn(now);
    assert_eq!(second.hear_next(), Heard::End);
    assert_eq!((end.met.len(), end.said.len(), end.tokens.made), (1, 0, 1));
    assert_eq!(first.hear(), Heard::Nothing);
    // When the link has ended it may come again.
    end.meeting.forget(hello.id);
    let third = Raw::dial(scratch.path(), &end);
    third.say_hello(&hello);
    end.turn(now);
    assert!(matches!(third.hear(), Heard::Hello(_)));
    assert_eq!(end.met.len(), 2);
}

/// What an endpoint does with a listener that answers it so. Gives what it says, and the endpoint.
fn dialling(act: impl FnOnce(&Raw, &Entry)) -> (Vec<String>, usize) {
    let scratch = Scratch::new();
    // The folder, for the listener.
    let other = publisher(&scratch);
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(scratch.path(), entry);
    let mut end = publisher(&scratch);
    assert_eq!(end.meeting.wanted(), 1);
    let mut now = Instant::now();
    end.turn(now);
    let raw = listener.accept().expect("it dials");
    assert!(matches!(raw.hear(), Heard::Hello(_)));
    act(&raw, &entry);
    for _ in 0..20 {
        now += Duration::from_secs(2);
        end.turn(now);
    }
    assert_eq!(end.meeting.wanted(), 0, "that is final");
    assert!(listener.accept().is_none(), "it is not dialled again");
    drop(other);
    (end.said, end.met.len())
}

#[test]
fn a_listener_that_lies_is_left_alone() {
    let check = |act: fn(&Raw, &Entry), expected: &str| {
        let (said, met) = dialling(act);
        let [said] = &said[..] else { panic!("{said:?}") };
        assert!(said.contains(expected), "{said} without {expected}");
        assert_eq!(met, 0);
    };
    check(|raw, _| raw.say(b"SSH-2.0-x\r\n", 0), "unknown kind");
    check(|raw, _| raw.say(&WAKE, 0), "before its hello");
    check(|raw, _| raw.say(&Datagram::Hello(subscriber()).encode(), 16), "more than 2");
    check(|raw, _| raw.say_hello(&subscriber()), "is dialled as 0909");
    check(
        |raw, entry| raw.say_hello(&Hello { id: entry.id, fingerprint: 8, ..subscriber() }),
        "messages do not fit",
    );
    check(|raw, _| raw.say(&Datagram::Refuse("no\u{7}".into()).encode(), 0), "no\u{fffd}");
    let (said, met) = dialling(|raw, entry| raw.say_hello(&Hello { id: entry.id, ..subscriber() }));
    assert_eq!((said.len(), met), (0, 1));
}

#[test]
fn who_does_not_answer_is_waited_for_without_end() {
    let scratch = Scratch::new();
    let mut other = publisher(&scratch);
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(scratch.path(), entry);
    let mut end = publisher(&scratch);
    let mut now = Instant::now();
    for _ in 0..1000 {
        now += Duration::from_secs(1);
        end.turn(now);
    }
    assert_eq!(end.said, Vec::<String>::new());
    let unanswered: Vec<u32> = end.meeting.unanswered().filter_map(|peer| peer.pid).collect();
    assert_eq!(unanswered, [std::process::id()]);
    let raw = listener.accept().expect("one connection");
    assert!(listener.accept().is_none(), "and one only");
    // Others are met meanwhile.
    let mut third = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    third.turn(now);
    end.turn(now);
    other.turn(now);
    third.turn(now);
    assert!(are_linked(&end, &third) && are_linked(&other, &third));
    // At last.
    raw.say_hello(&Hello { id: entry.id, ..subscriber() });
    end.turn(now);
    assert_eq!((end.met.len(), end.meeting.wanted()), (2, 0));
}

#[test]
fn who_hangs_up_is_dialled_again_and_not_too_often() {
    let scratch = Scratch::new();
    let other = publisher(&scratch);
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(scratch.path(), entry);
    let mut end = publisher(&scratch);
    let mut now = Instant::now();
    let mut dials = 0;
    for _ in 0..6000 {
        now += Duration::from_millis(10);
        end.turn(now);
        dials += usize::from(listener.accept().is_some());
    }
    // A minute: once each second, and a few times more at first.
    assert!((55..80).contains(&dials), "{dials}");
    assert_eq!(end.said, Vec::<String>::new());
    now += Duration::from_secs(2);
    end.turn(now);
    let raw = listener.accept().expect("it dials");
    raw.say_hello(&Hello { id: entry.id, ..subscriber() });
    end.turn(now);
    assert_eq!(end.met.len(), 1);
    drop(other);
}
