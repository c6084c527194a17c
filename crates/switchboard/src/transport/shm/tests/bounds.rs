//! Whatever others do, an endpoint does so much at a time, keeps so much, and goes on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::{process, unix_socket};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, address, are_linked, channel, hello, names, publisher, subscriber};
use super::raw::{Heard, Listener, Raw, entry_of};
use crate::error::{Error, ErrorKind};
use crate::transport::shm::datagram::{Datagram, MOST_LINKS, WAKE};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::meeting::{
    HELLO_TIMEOUT, MOST_SILENT, MOST_STEPS, most_links_of_a_process,
};
use crate::transport::shm::name::{Entry, Found};

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
    // An honest one would dial again: it is not refused.
    assert!(crowd[..5].iter().all(|raw| raw.hear_next() == Heard::End));
    assert!(crowd[5..].iter().all(|raw| raw.hear() == Heard::Nothing));
    // They have not lost their turn.
    crowd[5].say_hello(&subscriber());
    end.turn(now);
    assert_eq!(end.met.len(), 1);
}

#[test]
fn links_have_an_end() {
    let scratch = Scratch::new();
    let (mut end, mut met) = (publisher(&scratch), Vec::new());
    let mut crowd = Vec::new();
    while met.len() < MOST_LINKS {
        let count = most_links_of_a_process().min(MOST_LINKS - met.len());
        let mut child = many(&scratch, &end, count);
        assert_eq!(until_line(&mut end, &mut met, &mut child), "all");
        assert_eq!(end.said, Vec::<String>::new());
        crowd.push(child);
    }
    let mut one_more = many(&scratch, &end, 1);
    let said = until_line(&mut end, &mut met, &mut one_more);
    assert_eq!(said, "refused: this end has 3072 links, and takes no more");
    assert!(end.said.pop().is_some_and(|said| said.contains("takes no more")));
    end.meeting.forget(met[17]);
    let mut another = many(&scratch, &end, 1);
    assert_eq!(until_line(&mut end, &mut met, &mut another), "all");
}

/// One that has as many as may be hears so; others go on, and it gets another one when one of its own has ended.
#[test]
fn a_process_has_so_many_links_with_an_end() {
    let scratch = Scratch::new();
    let (mut end, mut met) = (publisher(&scratch), Vec::new());
    let most = most_links_of_a_process();
    let mut greedy = many(&scratch, &end, most + 1);
    let who = format!("process {}", greedy.id());
    let said = until_line(&mut end, &mut met, &mut greedy);
    let expected = format!("refused: this end has {most} links with {who}");
    assert!(said.starts_with(&expected) && said.contains("RLIMIT_NOFILE"), "{said}");
    assert_eq!(met.len(), most);
    let [told] = &end.said[..] else { panic!("{:?}", end.said) };
    assert!(told.starts_with(&format!("refused: {who}")), "{told}");
    let mut other = many(&scratch, &end, 1);
    assert_eq!(until_line(&mut end, &mut met, &mut other), "all");
    end.meeting.forget(met[0]);
    greedy.tell("again");
    assert_eq!(until_line(&mut end, &mut met, &mut greedy), "met");
}

/// The same of an end that dials: it goes by its own count.
#[test]
fn an_end_dials_so_many_ends_of_a_process() {
    let scratch = Scratch::new();
    let mut end = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    let most = most_links_of_a_process();
    let listeners: Vec<(Listener, Entry)> = (0..=most)
        .map(|number| {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            let entry = Entry { pattern: Pattern::Topic, role: Role::Writer, id: Id(id) };
            (Listener::at(scratch.path(), entry), entry)
        })
        .collect();
    let mut now = Instant::now();
    end.meeting.look_around(now).expect("a scan");
    let (mut met, mut answered) = (0, 0);
    for _ in 0..most / 4 + 4 {
        now += Duration::from_secs(2);
        end.turn(now);
        // The caller keeps what it was given, and the test only its number.
        met += end.met.drain(..).count();
        for (listener, entry) in &listeners {
            if let Some(raw) = listener.accept()
                && let Heard::Hello(_) = raw.hear()
            {
                let hello = hello(Pattern::Topic, Role::Writer);
                raw.say_hello(&Hello { id: entry.id, ..hello });
                answered += 1;
            }
        }
    }
    assert_eq!((answered, met), (most, most));
    // Told again only where somebody was met in between.
    assert!((1..20).contains(&end.said.len()), "{:?}", end.said);
    for said in &end.said {
        assert!(said.starts_with("failed: ") && said.contains("no more of one process"), "{said}");
    }
}

fn many(scratch: &Scratch, end: &End, count: usize) -> Child {
    let base = scratch.path().display().to_string();
    Child::role("shm-many-links", &[base, entry_of(end).to_string(), count.to_string()])
}

/// The next line of a child, while the end goes on. Of whom it meets only the IDs are kept.
fn until_line(end: &mut End, met: &mut Vec<Id>, child: &mut Child) -> String {
    let until = Deadline::after(switchboard_testkit::DEADLINE);
    loop {
        assert!(!until.passed(), "nothing is said");
        end.meeting.wait(Deadline::after(Duration::from_millis(1))).expect("wait");
        end.turn(Instant::now());
        met.extend(end.met.drain(..).map(|met| met.hello.id));
        if let Some(line) = child.line_within(Duration::ZERO) {
            return line;
        }
    }
}

/// Role: makes so many links, one after the other, or is refused one; then one more, when it is told to.
pub(super) fn many_links(arguments: &[String]) {
    let entry = Entry::parse(&arguments[1]).and_then(|found| match found {
        Found::Visible(entry) => Some(entry),
        Found::Hidden => None,
    });
    let (base, entry) = (PathBuf::from(&arguments[0]), entry.expect("a name"));
    let dial = || {
        let raw = Raw::dial_entry(&base, entry);
        raw.say_hello(&subscriber());
        raw.hear_next()
    };
    let count: usize = arguments[2].parse().expect("a number");
    let refused = (0..count).find_map(|_| match dial() {
        Heard::Hello(_) => None,
        other => Some(other),
    });
    match refused {
        None => report("all"),
        Some(Heard::Refusal(reason)) => report(format!("refused: {reason}")),
        Some(other) => panic!("{other:?}"),
    }
    if instruction().is_some() {
        assert!(matches!(dial(), Heard::Hello(_)));
        report("met");
    }
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
    // Who made way may be honest and only slow: it is not refused, so that it dials again.
    assert_eq!(silent[0].hear_next(), Heard::End);
    assert!(silent.iter().all(|raw| matches!(raw.hear(), Heard::End | Heard::Nothing)));
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
