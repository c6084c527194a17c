//! Folders that hold something else: nobody makes a log there, and nothing in them is changed. And logs that are
//! just being made, or whose maker died, which are no strangers' folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use switchboard::{Address, Bytes, ErrorKind, Queue, RecvError, Start, Topic, object};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{payload, publish, read_topic, send};

fn address(scratch: &Scratch) -> String {
    format!("file:{}", scratch.join("log").display())
}

/// Every file below a folder, and what is in it; folders end with a slash.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path.join(""), Vec::new());
        } else {
            found.insert(path.clone(), std::fs::read(path).expect("a file"));
        }
    }
    found
}

/// Each way to open a log of this name, or to make one; what is said.
fn attempts(log: &str) -> Vec<(&'static str, Option<switchboard::Error>)> {
    let queue = Queue::<Bytes>::open(log).expect("a queue");
    let topic = Topic::<Bytes>::open(log).expect("a topic");
    let mut no_wait = switchboard::Options::default();
    no_wait.wait = false;
    let waits_not = Queue::<Bytes>::open_with(log, no_wait).expect("a queue");
    let named = Topic::<Bytes>::open(&format!("{log}?reader=me")).expect("a topic");
    let address: Address = log.parse().expect("an address");
    vec![
        ("create", object::create(&address).err()),
        ("a sender", queue.sender().err()),
        ("a receiver", queue.receiver().err()),
        ("a receiver that does not wait", waits_not.receiver().err()),
        ("a publisher", topic.publisher().err()),
        ("a subscriber", topic.subscriber(Start::Oldest).err()),
        ("a named subscriber", named.subscriber(Start::New).err()),
    ]
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_stays_as_it_is() {
    let notes = &b"my notes\n"[..];
    for (files, named) in [
        (&[("bell", notes)][..], "bell"),
        (&[("bell", b"short"), ("lock", b"")], "bell"),
        (&[("bell", &[b'a'; 5000])], "bell"),
        (&[("lock", b"4711\n")], "lock"),
        (&[("queue", notes)], "queue"),
        (&[("notes.txt", notes)], "notes.txt"),
        (&[("lock", b""), ("data", notes)], "data"),
        (&[("00-0000000001.seg", notes)], "00-0000000001.seg"),
        (&[("readers/one", notes)], "readers/one"),
        (&[("below/file", b"")], "below"),
        (&[(".new-1-0", notes)], ".new-1-0"),
    ] {
        let scratch = Scratch::new();
        let folder = scratch.join("log");
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, content).expect("a file");
        }
        let before = contents(&folder);
        for (who, error) in attempts(&address(&scratch)) {
            let error = error.unwrap_or_else(|| panic!("{named}: {who} opened it"));
            let kinds = [ErrorKind::Mismatch, ErrorKind::NotFound];
            assert!(kinds.contains(&error.kind()), "{named}, {who}: {error}");
            let path = folder.join(named);
            assert!(error.to_string().contains(path.to_str().expect("a path")), "{who}: {error}");
            assert_eq!(contents(&folder), before, "{named}, {who}");
        }
        object::unlink(&address(&scratch).parse().expect("an address")).expect_err(named);
        assert_eq!(contents(&folder), before, "{named}: unlink");
    }
}

/// In a folder that is a log, what has the bell's name is not made longer or written to either.
#[test]
fn another_file_in_the_place_of_the_bell_is_not_touched() {
    for content in [&b"my notes, which are longer than a word\n"[..], &[b'a'; 5000]] {
        let scratch = Scratch::new();
        let log = address(&scratch);
        publish(&log, 1..4);
        let bell = scratch.join("log/bell");
        std::fs::remove_file(&bell).expect("removed");
        std::fs::write(&bell, content).expect("a file");
        let topic = Topic::<Bytes>::open(&log).expect("a topic");
        for error in [topic.publisher().err(), topic.subscriber(Start::Oldest).err()] {
            let error = error.expect("it is no bell");
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            assert!(error.to_string().contains("log/bell is not of the log"), "{error}");
        }
        assert_eq!(std::fs::read(&bell).expect("a file"), content);
        std::fs::remove_file(&bell).expect("moved away");
        assert_eq!(read_topic(&log).messages.len(), 3);
    }
}

/// A log goes on where somebody left a file next to it.
#[test]
fn a_file_next_to_those_of_a_log_hinders_nobody() {
    let scratch = Scratch::new();
    let log = address(&scratch);
    object::create(&log.parse().expect("an address")).expect("made");
    std::fs::write(scratch.join("log/README"), "what this is").expect("a file");
    publish(&log, 1..4);
    std::fs::remove_file(scratch.join("log/bell")).expect("removed");
    publish(&log, 4..6);
    assert_eq!(read_topic(&log).messages.len(), 5);
}

#[test]
fn what_a_dead_maker_left_is_made_whole() {
    let page = &[0; 4096][..];
    for left in [
        &[][..],
        &[(".new-1-0", &b""[..])],
        &[("lock", b"")],
        &[("lock", b""), (".new-1-1", b"")],
        &[("lock", b""), (".new-1-1", page)],
        &[("lock", b""), ("bell", page)],
        &[("lock", b""), ("bell", b"")],
        &[("lock", b""), ("bell", page), (".new-1-2", b"")],
        &[("lock", b""), ("bell", page), (".new-1-2", &[0; 45_056])],
        &[("lock", b""), ("bell", page), ("queue", b"")],
        &[("lock", b""), ("bell", page), (".new-1-2", b"SWBDLOG1")],
    ] {
        let scratch = Scratch::new();
        let folder = scratch.join("log");
        std::fs::create_dir(&folder).expect("a folder");
        for (name, content) in left {
            std::fs::write(folder.join(name), content).expect("a file");
        }
        let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
        let log = address(&scratch);
        send(&log, 1..3);
        let mut receiver = Queue::<Bytes>::open(&log).expect("a queue").receiver().expect("one");
        for n in 1..3 {
            let delivery = receiver.recv_timeout(DEADLINE);
            let delivery = match delivery {
                // An empty table is a damaged one.
                Err(RecvError::Damaged { missing: 0, .. }) => receiver.recv_timeout(DEADLINE),
                delivery => delivery,
            };
            assert_eq!(delivery.expect("a message").message.0, payload(n), "{names:?}");
        }
    }
}

/// Role: sends a message to a queue that others make at the same time.
pub(crate) fn maker(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    report("begin");
    assert_eq!(instruction().as_deref(), Some("go"));
    let mut sender = queue.sender().expect("a sender");
    sender.send(&Bytes(vec![1])).expect("sent");
    sender.close().expect("closed");
    report("sent");
}

#[test]
fn several_that_make_a_log_at_the_same_time_all_have_it() {
    const MAKERS: usize = 4;
    for round in 0..10 {
        let scratch = Scratch::new();
        if round % 2 == 1 {
            std::fs::create_dir(scratch.join("log")).expect("a folder");
        }
        let log = address(&scratch);
        let mut makers: Vec<Child> =
            (0..MAKERS).map(|_| Child::role("log-maker", &[&log])).collect();
        makers.iter_mut().for_each(|maker| maker.expect("begin"));
        makers.iter_mut().for_each(|maker| maker.tell("go"));
        makers.iter_mut().for_each(|maker| maker.expect("sent"));
        let mut receiver = Queue::<Bytes>::open(&log).expect("a queue").receiver().expect("one");
        for _ in 0..MAKERS {
            drop(receiver.recv_timeout(DEADLINE).expect("a message"));
        }
    }
}
