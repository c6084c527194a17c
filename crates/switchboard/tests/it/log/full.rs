//! A file system without room, and a process without mappings, to those who read a log.

use std::path::Path;

use switchboard::{Bytes, ErrorKind, Queue, RecvError, Sender, Start, Topic};
use switchboard_kernel::mmap::Mapping;
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{DEADLINE, Scratch};

use super::limits::mount;
use super::{publish, read_topic, segments};

/// Blocks are reserved in steps of this.
const STEP_BYTES: usize = 1 << 20;

/// Role: in a small file system of its own, reads a log up to where no blocks are reserved, when the rest is full.
pub(crate) fn hole(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=3m") {
        return;
    }
    report("mounted");
    let topic = Topic::<Bytes>::open(&format!("file:{folder}/log")).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    // With the headers of the segment and of its own it takes all of the first step.
    publisher.send(&Bytes(vec![1; STEP_BYTES - 64 - 32])).expect("published");
    let filler = Path::new(folder).join("filler");
    let full = std::fs::write(&filler, vec![1; 4 << 20]);
    report(format!("full: {}", full.is_err_and(|error| error.raw_os_error() == Some(28))));
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    let sample = subscriber.recv_timeout(DEADLINE).expect("a message");
    assert_eq!(sample.message.0.len(), STEP_BYTES - 64 - 32);
    for _ in 0..3 {
        let next = subscriber.try_recv();
        assert!(matches!(next, Err(RecvError::Empty)), "{next:?}");
    }
    let refused = publisher.send(&Bytes(vec![2])).expect_err("there is no room");
    assert!(refused.to_string().contains("ENOSPC"), "{refused}");
    std::fs::remove_file(&filler).expect("removed");
    for n in 2..100 {
        publisher.send(&Bytes(vec![n; 1000])).expect("published");
        let sample = subscriber.recv_timeout(DEADLINE).expect("a message");
        assert_eq!((sample.number, sample.message.0), (u64::from(n), vec![n; 1000]));
    }
    report("read");
}

/// Role: in a small file system of its own, looks at logs whose segments are longer than it: how much room that takes.
pub(crate) fn sparse(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=6m") {
        return;
    }
    report("mounted");
    let address = format!("file:{folder}/log");
    publish(&address, 1..2);
    let before = room_bytes(folder);
    for n in 2..6 {
        publish(&address, n..n + 1);
        assert_eq!(read_topic(&address).messages.len() as u64, n);
    }
    // A page or two are looked at where the next message would be.
    report(before - room_bytes(folder) < 64 << 10);
}

/// Role: in a small file system of its own, fills a queue, drains it, and fills it again, several times.
pub(crate) fn drained(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=3m") {
        return;
    }
    report("mounted");
    for durability in ["memory", "written", "synced"] {
        let address = format!("file:{folder}/{durability}?durability={durability}");
        let queue = Queue::<Bytes>::open(&address).expect("a queue");
        let mut sender = queue.sender().expect("a sender");
        let mut receiver = queue.receiver().expect("a receiver");
        for round in 0..4 {
            if round % 2 == 1 {
                // One who comes later finds the same.
                drop(sender);
                sender = queue.sender().expect("a sender");
            }
            let before = sender.sent();
            let feed = |sender: &mut Sender<Bytes>| loop {
                if let Err(error) = sender.feed(&[round; 8000]) {
                    break error.to_string();
                }
            };
            let mut refused = feed(&mut sender);
            if sender.sent() == before {
                // This receiver had the segment mapped that was to be removed, until it looks for more.
                let nothing = receiver.try_recv();
                assert!(
                    matches!(nothing, Err(RecvError::Empty)),
                    "{durability} {round} {nothing:?}"
                );
                refused = feed(&mut sender);
            }
            assert!(refused.contains("ENOSPC"), "{refused}");
            let count = sender.sent() - before;
            assert!(count > 180, "{durability}, round {round}: only {count}");
            // What was accepted before is in the log.
            assert_eq!(sender.unacknowledged(), 0, "{durability}, round {round}");
            for _ in 0..count {
                let delivery = receiver.try_recv().expect("a message");
                assert_eq!(delivery.message.0, [round; 8000]);
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
            receiver.flush().expect("settled");
        }
        drop((sender, receiver));
        std::fs::remove_dir_all(format!("{folder}/{durability}")).expect("removed");
    }
    report("done");
}

/// Role: in a small file system of its own, reads damage at the end of a log whose segment is longer than it.
pub(crate) fn damaged(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=8m") {
        return;
    }
    report("mounted");
    let topic = Topic::<Bytes>::open(&format!("file:{folder}/log")).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    (0..2).for_each(|_| publisher.send_bytes(&[1; 100]).expect("published"));
    let segment = &segments(&Path::new(folder).join("log"))[0];
    let file = std::fs::File::options().write(true).open(segment).expect("a segment");
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], 64 + 136 + 50).expect("written");
    let before = room_bytes(folder);
    assert_eq!(subscriber.recv().expect("a message").number, 1);
    let damage = subscriber.recv().expect_err("damage");
    assert!(matches!(damage, RecvError::Damaged { missing: 1, .. }), "{damage}");
    assert!(matches!(subscriber.try_recv(), Err(RecvError::Empty)));
    assert!(before - room_bytes(folder) < 256 << 10, "{before} {}", room_bytes(folder));
    for number in 3..8 {
        publisher.send_bytes(&[3; 100]).expect("published");
        assert_eq!(subscriber.recv_timeout(DEADLINE).expect("a message").number, number);
    }
    report("done");
}

/// Role: in a small file system of its own, a receiver that had a message again lets go of where that was.
pub(crate) fn rejected(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=3m") {
        return;
    }
    report("mounted");
    let queue = Queue::<Bytes>::open(&format!("file:{folder}/log")).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    let mut second = queue.receiver().expect("a receiver");
    sender.send_bytes(&[1; 100]).expect("sent");
    let delivery = second.recv().expect("a message");
    second.reject(delivery).expect("given back");
    drop(second);
    let mut receiver = queue.receiver().expect("a receiver");
    let again = receiver.recv_timeout(DEADLINE).expect("a message");
    receiver.acknowledge(again).expect("acknowledged");
    while sender.send_bytes(&[2; 8000]).is_ok() {}
    while let Ok(delivery) = receiver.try_recv() {
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    receiver.flush().expect("settled");
    if sender.send_bytes(&[3; 8000]).is_err() {
        assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
        sender.send_bytes(&[3; 8000]).expect("sent");
    }
    report("done");
}

/// What is left.
fn room_bytes(folder: &str) -> u64 {
    let found = rustix::fs::statvfs(folder).expect("a file system");
    found.f_bavail * found.f_frsize
}

/// A role with a file system of its own, which says what was expected.
fn has_its_own(role: &str, expected: &[&str]) {
    let root = rustix::process::geteuid().is_root();
    let starter: &[&str] = if root { &["unshare", "-m"] } else { &["unshare", "-U", "-r", "-m"] };
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().expect("a path").to_owned();
    let mut child = Child::role_under(starter, role, &[folder]);
    if child.line().as_deref() != Some("mounted") {
        skip(&format!("log::full, {role}"), "no mount namespace may be made here");
        return;
    }
    expected.iter().for_each(|line| child.expect(line));
}

#[test]
fn to_look_at_a_log_takes_no_room() {
    has_its_own("log-sparse", &["true"]);
}

#[test]
fn a_full_file_system_looks_like_no_damage() {
    has_its_own("log-hole", &["full: true", "read"]);
}

#[test]
fn to_search_behind_damage_takes_no_room() {
    has_its_own("log-damaged", &["done"]);
}

#[test]
fn who_had_a_message_again_lets_go_of_its_segment() {
    has_its_own("log-rejected", &["done"]);
}

#[test]
fn a_full_disk_takes_messages_again_when_they_were_received() {
    has_its_own("log-drained", &["done"]);
}

/// Role: has as many mappings as a process may, and says what ends of logs and states say then.
pub(crate) fn mappings(arguments: &[String]) {
    let (topic, state) = (&arguments[0], &arguments[1]);
    let mut all = Vec::with_capacity(1 << 20);
    let error = loop {
        match Mapping::anonymous(4096) {
            Ok(mapping) => all.push(mapping),
            Err(error) => break error,
        }
    };
    assert_eq!(error.name(), "ENOMEM", "{error}");
    let opened = Topic::<Bytes>::open(topic).and_then(|topic| topic.subscriber(Start::Oldest));
    let refused = [
        opened.map(drop),
        Topic::<Bytes>::open(topic).and_then(|topic| topic.publisher()).map(drop),
        switchboard::State::open(state).and_then(|state| state.reader()).map(drop),
        switchboard::State::open(state).and_then(|state| state.writer()).map(drop),
    ]
    .map(|result| result.expect_err("no mapping may be had"));
    drop(all);
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
        report(format!("{error}; {}", error.advice().unwrap_or_default()));
    }
    // It goes on when there is room.
    let topic = Topic::<Bytes>::open(topic).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    report(format!("got {}", subscriber.recv_timeout(DEADLINE).expect("a message").number));
}

#[test]
fn mappings_that_run_out_are_named_with_their_limit() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("a limit");
    if limit.trim().parse::<u64>().is_ok_and(|limit| limit > 300_000) {
        return skip("log::full::mappings_that_run_out", "vm.max_map_count is too high here");
    }
    let scratch = Scratch::new();
    let topic = format!("file:{}", scratch.join("log").display());
    let state = format!("mmap:{}", scratch.join("state").display());
    publish(&topic, 1..2);
    switchboard::object::create(&state.parse().expect("an address")).expect("created");
    let mut child = Child::role("log-mappings", &[topic, state]);
    for _ in 0..4 {
        let answer = child.line().expect("an answer");
        for says in ["mmap: Cannot allocate memory (ENOMEM)", "vm.max_map_count", "sysctl"] {
            assert!(answer.contains(says), "{answer}");
        }
    }
    child.expect("got 1");
}
