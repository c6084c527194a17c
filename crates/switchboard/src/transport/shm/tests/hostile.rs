//! Peers that lie, say nothing, or are too many.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::{process, unix_socket};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, address, are_linked, channel, hello, names};
use super::raw::{Heard, Listener, Raw, entry_of, wait_dead};
use crate::error::{Error, ErrorKind};
use crate::transport::shm::datagram::{Datagram, MOST_LINKS, WAKE};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::meeting::{HELLO_TIMEOUT, MOST_SILENT, MOST_STEPS};
use crate::transport::shm::name::Entry;

fn publisher(scratch: &Scratch) -> End {
    End::open(scratch.path(), Pattern::Topic, Role::Writer)
}

fn subscriber() -> Hello {
    hello(Pattern::Topic, Role::Reader)
}

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
    later[12] = 2;
    self::check(|raw| raw.say(&later, 1), "refused", "version 2 of shm: meets version 1");
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

#[test]
fn a_full_backlog_is_waited_for() {
    let scratch = Scratch::new();
    let mut crowd: Vec<Raw> = Vec::new();
    let mut end = publisher(&scratch);
    let path = channel(scratch.path()).join(entry_of(&end).to_string());
    let dial = || {
        unix_socket::connect_to(
            unix_socket::Kind::Seqpacket,
            &unix_socket::Address::Path(path.clone()),
            true,
        )
    };
    while let Ok(socket) = dial() {
        crowd.push(Raw(socket));
    }
    let mut other = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    let mut now = Instant::now();
    for _ in 0..50 {
        now += Duration::from_millis(100);
        other.turn(now);
    }
    assert_eq!((other.meeting.wanted(), other.said.len()), (1, 0));
    assert_eq!(other.meeting.unanswered().count(), 0);
    let turns = crowd.len();
    drop(crowd);
    for _ in 0..turns {
        now += Duration::from_millis(100);
        end.turn(now);
        other.turn(now);
    }
    assert!(are_linked(&end, &other));
}

#[test]
fn work_is_bounded_per_turn() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let hellos = || {
        let raw = Raw::dial(scratch.path(), &end);
        raw.say_hello(&subscriber());
        raw
    };
    let crowd: Vec<Raw> = (0..100).map(|_| hellos()).collect();
    let mut turns = 0;
    while end.met.len() < crowd.len() {
        let before = end.met.len();
        end.turn(Instant::now());
        assert!(end.met.len() - before <= MOST_STEPS);
        turns += 1;
        assert!(turns < 30, "{} met", end.met.len());
    }
}

#[test]
fn of_the_silent_the_oldest_go_first() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let now = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..MOST_SILENT + 5 {
        crowd.push(Raw::dial(scratch.path(), &end));
        end.turn(now);
    }
    assert_eq!(end.said.len(), 5, "{:?}", end.said);
    for raw in &crowd[..5] {
        raw.expect_refusal("others wait");
    }
    assert!(crowd[5..].iter().all(|raw| raw.hear() == Heard::Nothing));
    // They have not lost their turn.
    crowd[5].say_hello(&subscriber());
    end.turn(now);
    assert_eq!(end.met.len(), 1);
}

#[test]
fn links_have_an_end() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let now = Instant::now();
    let ids: Vec<Id> = (0..MOST_LINKS)
        .map(|_| {
            let hello = subscriber();
            let raw = Raw::dial(scratch.path(), &end);
            raw.say_hello(&hello);
            end.turn(now);
            // The caller keeps what it was given, and the test only its number.
            assert_eq!(end.met.drain(..).count(), 1);
            hello.id
        })
        .collect();
    let attempt = |end: &mut End| {
        let raw = Raw::dial(scratch.path(), end);
        raw.say_hello(&subscriber());
        end.turn(now);
        raw
    };
    attempt(&mut end).expect_refusal("has 4096 links, and takes no more");
    assert!(end.said.pop().is_some_and(|said| said.contains("takes no more")));
    end.meeting.forget(ids[17]);
    assert!(matches!(attempt(&mut end).hear(), Heard::Hello(_)));
}

#[test]
fn what_cannot_be_made_is_told() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let limit = |kind| Some(Error::new(kind, &address(), "no memory"));
    let mut now = Instant::now();
    // For a while: tried again, and told once.
    let mut other = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    for _ in 0..3 {
        now += Duration::from_secs(1);
        end.tokens.fails = limit(ErrorKind::LimitReached);
        other.turn(now);
        end.turn(now);
    }
    assert_eq!((end.met.len(), other.met.len()), (0, 0));
    assert_eq!(end.said, ["failed: unix:/channel: no memory"]);
    end.tokens.fails = None;
    for _ in 0..3 {
        now += Duration::from_secs(1);
        end.turn(now);
        other.turn(now);
    }
    assert!(are_linked(&end, &other));
    assert_eq!(other.said, Vec::<String>::new());
    // For good: the peer is told, and does not come again.
    let mut third = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    end.tokens.fails = limit(ErrorKind::NotSupported);
    for _ in 0..3 {
        now += Duration::from_secs(1);
        third.turn(now);
        end.turn(now);
    }
    assert!(third.said[0].contains("the other side cannot make a link"), "{:?}", third.said);
    assert_eq!((end.said.len(), third.meeting.wanted()), (2, 0));
    // The same of who dials.
    let mut fourth = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    fourth.tokens.fails = limit(ErrorKind::NotSupported);
    fourth.turn(now);
    end.turn(now);
    assert_eq!(fourth.said, ["failed: unix:/channel: no memory"]);
    assert!(end.said[2].contains("the other side cannot make a link"), "{:?}", end.said);
}

#[test]
fn a_flood_of_connections_keeps_nobody_out() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let base = scratch.path().display().to_string();
    let entry = entry_of(&end).to_string();
    let mut floods: Vec<Child> =
        (0..5).map(|_| Child::role("shm-flood", &[&base, &entry])).collect();
    let mut done = 0;
    let until = Deadline::after(switchboard_testkit::DEADLINE);
    while done < floods.len() {
        assert!(!until.passed(), "the flood goes on");
        end.meeting.wait(Deadline::after(Duration::from_millis(5))).expect("wait");
        end.turn(Instant::now());
        for flood in &mut floods {
            done += usize::from(flood.line_within(Duration::ZERO).is_some());
        }
        end.said.clear();
    }
    // Five times a thousand came; some are still here, and more wait. Others come to their turn.
    let mut member = Child::role("shm-member", &[base, "reader".into(), "1".into()]);
    member.expect("ready");
    member.tell("go");
    end.until("the other is met", |end| !end.met.is_empty());
    let mut id = [0; 16];
    end.until("its ID comes", |end| unix_socket::recv(&end.met[0].socket, &mut id) == Ok(16));
    unix_socket::send(&end.met[0].socket, &end.id().0).expect("sent");
    member.expect("met");
    assert_eq!(id, end.met[0].hello.id.0);
}

/// Role: connects a thousand times, keeps a hundred of them, and says nothing.
pub(super) fn flood(arguments: &[String]) {
    let address = PathBuf::from(&arguments[0]).join("switchboard/shm/channel").join(&arguments[1]);
    let address = unix_socket::Address::Path(address);
    let mut kept = std::collections::VecDeque::new();
    for _ in 0..1000 {
        let kind = unix_socket::Kind::Seqpacket;
        kept.push_back(unix_socket::connect_to(kind, &address, false).expect("connected"));
        if kept.len() > 100 {
            kept.pop_front();
        }
    }
    report("a thousand times");
    let _ = instruction();
}

#[test]
fn a_process_short_of_descriptors_goes_on() {
    let scratch = Scratch::new();
    let base = scratch.path().display().to_string();
    let mut short = Child::role("shm-short", &[&base]);
    short.expect("open");
    let found = names(scratch.path());
    let [name] = &found[..] else { panic!("{found:?}") };
    let entry = format!("{}/switchboard/shm/channel/{name}", scratch.path().display());
    let address = unix_socket::Address::Path(entry.into());
    let dial = || unix_socket::connect_to(unix_socket::Kind::Seqpacket, &address, true);
    // Silent ones take all descriptors that it has left; then one comes that is honest.
    let silent: Vec<Raw> = (0..40).map(|_| Raw(dial().expect("connected"))).collect();
    let mut end = publisher(&scratch);
    end.until("it is met", |end| !end.met.is_empty());
    short.expect("met");
    drop(silent);
    short.tell("fill");
    short.expect("full");
    // Nothing but links takes them all: it says so, and goes on when one is free.
    let mut other = publisher(&scratch);
    other.turn(Instant::now());
    short.expect("failed: unix:/channel: cannot accept a connection");
    for _ in 0..10 {
        other.meeting.wait(Deadline::after(Duration::from_millis(20))).expect("wait");
        other.turn(Instant::now());
    }
    assert_eq!(other.met.len(), 0);
    short.tell("free");
    other.until("it is met", |end| !end.met.is_empty());
    short.expect("met");
}

/// Role: a subscriber with few descriptors.
pub(super) fn short(arguments: &[String]) {
    let mut end = End::open(&PathBuf::from(&arguments[0]), Pattern::Topic, Role::Reader);
    process::set_file_limit(32).expect("a limit");
    report("open");
    end.until("one is met", |end| !end.met.is_empty());
    report("met");
    let _ = instruction();
    // Those that hung up go first.
    (0..50).for_each(|_| end.turn(Instant::now()));
    let mut taken = Vec::new();
    while let Ok(copy) = end.meeting.fd().try_clone_to_owned() {
        taken.push(copy);
    }
    end.said.clear();
    report("full");
    end.until("a want is told", |end| end.said.iter().any(|said| said.starts_with("failed")));
    let told = end.said.iter().find(|said| said.starts_with("failed")).expect("a want");
    report(told.split(": accept").next().unwrap_or_default());
    let before = end.said.len();
    let _ = instruction();
    taken.clear();
    end.until("another is met", |end| end.met.len() == 2);
    let failed = end.said[before..].iter().filter(|said| said.starts_with("failed")).count();
    assert_eq!(failed, 0, "told once: {:?}", end.said);
    report("met");
}

#[test]
fn no_descriptor_is_kept_of_who_is_refused() {
    let scratch = Scratch::new();
    Child::role("shm-counted", &[scratch.path().display()]).expect("all are closed");
}

/// Role: counts its descriptors while peers lie. A process of its own: others' are not counted.
pub(super) fn counted(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let mut end = End::open(&base, Pattern::Topic, Role::Writer);
    let open = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
    let hello = Datagram::Hello(subscriber()).encode();
    let mut now = Instant::now();
    let before = open();
    for (bytes, descriptors) in [(&hello[..], 16), (&hello, 2), (&hello[..9], 1), (&WAKE, 2)] {
        for _ in 0..5 {
            let raw = Raw::dial(&base, &end);
            raw.say(bytes, descriptors);
            end.turn(now);
        }
        let silent = Raw::dial(&base, &end);
        end.turn(now);
        now += HELLO_TIMEOUT;
        end.turn(now);
        drop(silent);
        // Several datagrams wait on one that is refused by the first.
        let raw = Raw::dial(&base, &end);
        raw.say(bytes, descriptors);
        raw.say(&hello, 1);
        end.turn(now);
        drop(raw);
        assert_eq!(open(), before);
    }
    report("all are closed");
}

#[test]
fn another_pattern_is_told_who_was_first() {
    let scratch = Scratch::new();
    let mut first = publisher(&scratch);
    for role in [Role::Writer, Role::Reader] {
        let error = End::with(scratch.path(), hello(Pattern::Queue, role)).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let who = format!("process {} (", std::process::id());
        assert!(error.to_string().contains(&who), "{error}");
        assert!(error.to_string().contains("has this name as a topic"), "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("another name")));
    }
    assert_eq!(names(scratch.path()), [entry_of(&first).to_string()]);
    first.turn(Instant::now());
    assert_eq!(first.said, Vec::<String>::new(), "a look is no news");
    drop(first);
    // The dead are in nobody's way.
    let other = publisher(&scratch);
    let dead = Entry { pattern: Pattern::Queue, role: Role::Writer, id: Id([3; 16]) };
    drop(Listener::at(scratch.path(), dead));
    wait_dead(&channel(scratch.path()).join(dead.to_string()));
    publisher(&scratch);
    assert_eq!(names(scratch.path()), [entry_of(&other).to_string()]);
}

#[test]
fn a_child_of_fork_leaves_the_name_alone() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let before = names(scratch.path());
    end.meeting.generation += 1;
    let error = end
        .meeting
        .poll(Instant::now(), &mut end.tokens, &mut Vec::new())
        .expect_err("it is the parent's");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.to_string().contains("before a fork"), "{error}");
    end.meeting.leave();
    drop(end);
    assert_eq!(names(scratch.path()), before);
}

#[test]
fn a_socket_that_outlives_its_process_is_removed() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let (ours, theirs) = unix_socket::pair(unix_socket::Kind::Seqpacket).expect("a pair");
    let through = unix_socket::Address::Path(scratch.join("through"));
    let receiver = unix_socket::listen_at(
        unix_socket::Kind::Seqpacket,
        &through,
        switchboard_kernel::Permissions::new(),
        1,
        false,
    )
    .expect("a listener");
    drop((ours, theirs));
    let mut keeper = Child::role("shm-keeper", &[scratch.path().display()]);
    let connection = unix_socket::accept(&receiver, false).expect("a connection");
    let (_, kept) = unix_socket::recv_with_fds(&connection, &mut [0; 8], 1).expect("a listener");
    assert_eq!((kept.len(), names(scratch.path()).len()), (1, 2));
    // While it lives it is dialled.
    end.meeting.look_around(Instant::now()).expect("a scan");
    end.turn(Instant::now());
    assert_eq!(end.meeting.unanswered().count(), 1);
    // Its death is noticed, though its socket is still there.
    keeper.kill();
    end.until("it is dead", |end| end.meeting.wanted() == 0);
    assert_eq!(names(scratch.path()), [entry_of(&end).to_string()]);
    assert_eq!(end.said, Vec::<String>::new());
}

/// Role: listens, gives its socket away, and stays.
pub(super) fn keeper(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(&base, entry);
    let through = unix_socket::Address::Path(base.join("through"));
    let connection =
        unix_socket::connect_to(unix_socket::Kind::Seqpacket, &through, false).expect("connected");
    let given: [BorrowedFd<'_>; 1] = [listener.0.as_fd()];
    unix_socket::send_with_fds(&connection, b"x", &given).expect("given");
    let _ = instruction();
}

#[test]
fn another_user_is_refused() {
    if process::effective_user_id() != 0 {
        return skip("another_user_is_refused", "only root can be somebody else");
    }
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let listener = entry_of(&end).to_string();
    let open_up = |mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let below = ["", "switchboard", "switchboard/shm", "switchboard/shm/channel"];
        for folder in below {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(scratch.join(folder), mode).expect("a mode");
        }
        let socket = channel(scratch.path()).join(&listener);
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    };
    let expected = "ends of different users do not meet on shm: yet: root (0) and nobody (65534)";
    // Who should not have come in at all.
    open_up(0o777);
    let base = scratch.path().display().to_string();
    let mut stranger = Child::role("shm-stranger", &[base, listener.clone()]);
    stranger.expect("here");
    end.turn(Instant::now());
    let told = stranger.line().expect("what it was told");
    assert!(told.contains(expected), "{told}");
    assert!(
        end.said[0].starts_with(&format!("refused: process {}", stranger.id())),
        "{:?}",
        end.said
    );
    assert!(end.said[0].contains(expected), "{:?}", end.said);
    // Who listens there.
    open_up(0o700);
    let mut other = publisher(&scratch);
    other.turn(Instant::now());
    assert!(other.said[0].contains(expected), "{:?}", other.said);
    assert_eq!(other.meeting.wanted(), 0);
    let told = stranger.line().expect("what it was told");
    assert!(told.contains(expected), "{told}");
}

/// Role: as another user, connects to an endpoint, and listens beside it.
pub(super) fn stranger(arguments: &[String]) {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    set_thread_groups(&[]).expect("no groups");
    set_thread_gid(rustix::fs::Gid::from_raw(65534)).expect("another group");
    set_thread_uid(rustix::fs::Uid::from_raw(65534)).expect("another user");
    let base = PathBuf::from(&arguments[0]);
    let address = unix_socket::Address::Path(channel(&base).join(&arguments[1]));
    let connected = unix_socket::connect_to(unix_socket::Kind::Seqpacket, &address, true);
    let raw = Raw(connected.expect("connected"));
    raw.say_hello(&subscriber());
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(&base, entry);
    report("here");
    report(format!("{:?}", raw.hear_next()));
    let raw = listener.accept_within(switchboard_testkit::DEADLINE).expect("a connection");
    report(format!("{:?}", raw.hear_next()));
}

#[test]
fn a_process_of_another_namespace_is_met() {
    let test = "a_process_of_another_namespace_is_met";
    let user: &[&str] = if process::effective_user_id() == 0 {
        &["unshare"]
    } else {
        &["unshare", "--user", "--map-current-user"]
    };
    let starter = [user, &["--pid", "--fork", "--kill-child"]].concat();
    let probe = std::process::Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip(test, "no PID namespace can be made here");
    }
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let base = scratch.path().display().to_string();
    let mut inner = Child::role_under(&starter, "shm-inner", &[base]);
    end.until("it is met", |end| !end.met.is_empty());
    assert!(end.met[0].peer.pid.is_some(), "it has an id here, too");
    assert!(end.met[0].process.is_some());
    inner.expect("None a process of another PID namespace (test)");
}

/// Role: meets one whose process id it cannot know.
pub(super) fn inner(arguments: &[String]) {
    let mut end = End::open(&PathBuf::from(&arguments[0]), Pattern::Topic, Role::Reader);
    end.until("it is met", |end| !end.met.is_empty());
    assert_eq!(end.said, Vec::<String>::new());
    let peer = &end.met[0].peer;
    report(format!("{:?} {peer}", peer.pid));
    let _ = instruction();
}
