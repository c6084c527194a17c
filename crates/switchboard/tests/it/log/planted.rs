//! What somebody else puts into a log that several write to: links, FIFOs, and files that are cut. Nothing is
//! written elsewhere, nobody waits, and what is whole is read.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;

use switchboard::{Bytes, ErrorKind, Queue, RecvError, Start, Topic};
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{numbers, payload, publish, read_topic, segments, send};

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

/// Does something with a deadline: a FIFO that is opened waits for ever.
fn in_time<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(act()));
    wait.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what}: it hangs"))
}

/// The errors of one who sends, one who receives, and one who keeps a place; none where it works.
fn uses(log: &str, is_topic: bool) -> Vec<Option<(ErrorKind, String)>> {
    let said = |error: switchboard::Error| (error.kind(), error.to_string());
    if is_topic {
        let publisher = Topic::<Bytes>::open(log).expect("a topic").publisher();
        let sent = publisher.map_err(said).and_then(|mut publisher| {
            publisher
                .send(&Bytes(payload(9)))
                .map_err(|error| (ErrorKind::System, error.to_string()))
        });
        let address = format!("{log}{}reader=me", if log.contains('?') { '&' } else { '?' });
        let topic = Topic::<Bytes>::open(&address).expect("a topic");
        let kept = topic.subscriber(Start::Oldest).map(drop).map_err(said);
        return vec![sent.err(), kept.err()];
    }
    let queue = Queue::<Bytes>::open(log).expect("a queue");
    let sent = queue.sender().map_err(said).and_then(|mut sender| {
        sender.send(&Bytes(payload(9))).map_err(|error| (ErrorKind::System, error.to_string()))
    });
    let received = queue
        .receiver()
        .map_err(said)
        .map(|mut receiver| while !matches!(receiver.try_recv(), Err(RecvError::Empty)) {});
    vec![sent.err(), received.err()]
}

const VICTIM: &[u8] = &[b'A'; 40_000];

/// Puts something under a name of the log, and what may be written over next to the log.
fn plant(scratch: &Scratch, name: &str, how: &str) {
    let (path, victim) = (scratch.join("log").join(name), scratch.join("victim"));
    if path.is_dir() {
        std::fs::remove_dir_all(&path).expect("removed");
    } else {
        let _ = std::fs::remove_file(&path);
    }
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&victim, VICTIM).expect("a victim");
    let elsewhere = scratch.join("elsewhere");
    std::fs::create_dir_all(&elsewhere).expect("a folder");
    match how {
        "a link" => symlink(&victim, path).expect("a link"),
        "a link to a folder" => symlink(elsewhere, path).expect("a link"),
        "a link to nothing" => symlink(scratch.join("elsewhere/new"), path).expect("a link"),
        "a second name" => std::fs::hard_link(&victim, path).expect("a second name"),
        "a FIFO" => fifo::create(&path, Permissions::new()).expect("a FIFO"),
        _ => std::fs::create_dir(path).expect("a folder"),
    }
}

#[test]
fn what_is_put_under_a_name_is_not_followed_and_not_waited_for() {
    const HOW: [&str; 6] = [
        "a link",
        "a link to a folder",
        "a link to nothing",
        "a second name",
        "a FIFO",
        "a folder",
    ];
    for (name, is_topic) in [
        ("bell", true),
        ("lock", true),
        ("readers", true),
        ("readers/me", true),
        ("00-0000000001.seg", true),
        ("00-0000000002.seg", true),
        ("bell", false),
        ("queue", false),
        ("00-0000000001.seg", false),
        ("00-0000000002.seg", false),
    ] {
        for how in HOW {
            if name == "readers" && how == "a folder" {
                continue;
            }
            let what = format!("{how} as {name}");
            let scratch = Scratch::new();
            let log = address(&scratch, "");
            if is_topic {
                publish(&log, 1..4)
            } else {
                send(&log, 1..4)
            }
            plant(&scratch, name, how);
            let errors = in_time(&what, move || uses(&log, is_topic));
            // A segment is passed over; without a place there is no name; without the others nothing.
            let failed: Vec<bool> = errors.iter().map(Option::is_some).collect();
            let expected = match name {
                "00-0000000001.seg" | "00-0000000002.seg" => [false, false],
                "readers" | "readers/me" => [false, true],
                _ => [true, true],
            };
            assert_eq!(failed, expected, "{what}: {errors:?}");
            for (kind, said) in errors.into_iter().flatten() {
                assert_eq!(kind, ErrorKind::Mismatch, "{what}: {said}");
                let file = name.rsplit('/').next().expect("a name");
                assert!(said.contains(&format!("{file} of the log is")), "{what}: {said}");
            }
            let victim = std::fs::read(scratch.join("victim")).expect("the victim");
            assert!(victim == VICTIM, "{what}: it was written to");
            let left = std::fs::read_dir(scratch.join("elsewhere")).expect("a folder").count();
            assert_eq!(left, 0, "{what}: something was made elsewhere");
            // Nothing of that is removed with the log. A queue may have done with a segment, and removed the link.
            if scratch.join("log").join(name).symlink_metadata().is_ok() {
                let log = address(&scratch, "").parse().expect("an address");
                let refused = switchboard::object::unlink(&log).expect_err(&what);
                assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{what}: {refused}");
            }
        }
    }
}

/// What is whole is read, and what is sent afterwards comes.
#[test]
fn a_segment_that_is_no_file_is_reported() {
    let scratch = Scratch::new();
    let log = address(&scratch, "");
    publish(&log, 1..4);
    plant(&scratch, "00-0000000002.seg", "a FIFO");
    let after = log.clone();
    let readout = in_time("a FIFO as a segment", move || {
        publish(&after, 4..6);
        read_topic(&after)
    });
    let payloads: Vec<_> = readout.messages.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(payloads, (1..6).map(payload).collect::<Vec<_>>(), "{readout:?}");
    assert!(readout.reports.iter().any(|said| said.contains("00-0000000002.seg")), "{readout:?}");
}

#[test]
fn a_bell_that_is_cut_off_is_made_long_again() {
    for len in [0, 1, 100, 1024, 4095] {
        let scratch = Scratch::new();
        let log = address(&scratch, "");
        send(&log, 1..4);
        let bell = scratch.join("log/bell");
        File::options().write(true).open(&bell).and_then(|bell| bell.set_len(len)).expect("cut");
        send(&log, 4..6);
        let mut receiver = Queue::<Bytes>::open(&log).expect("a queue").receiver().expect("one");
        for n in 1..6 {
            let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
            assert_eq!(delivery.message.0, payload(n), "cut to {len}");
            receiver.acknowledge(delivery).expect("acknowledged");
        }
        drop(receiver);
        assert_eq!(std::fs::metadata(&bell).expect("a bell").len(), 4096);
        // A log with a cut bell is a log.
        File::options().write(true).open(&bell).and_then(|bell| bell.set_len(len)).expect("cut");
        switchboard::object::unlink(&log.parse().expect("an address")).expect("removed");
    }
}

/// One that waits has the old page, of which nothing is left.
#[test]
fn who_waits_while_the_bell_is_cut_gets_what_comes() {
    let scratch = Scratch::new();
    let log = address(&scratch, "?segment=4096");
    publish(&log, 1..4);
    let topic = Topic::<Bytes>::open(&log).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    assert_eq!(numbers(&mut subscriber), [1, 2, 3]);
    let bell = File::options().write(true).open(scratch.join("log/bell")).expect("a bell");
    bell.set_len(0).expect("cut");
    // In a segment of its own, too.
    publish(&log, 4..200);
    for n in 4..200 {
        assert_eq!(subscriber.recv_timeout(DEADLINE).expect("a message").number, n);
    }
}

#[test]
fn a_place_that_says_nothing_is_damaged_and_no_new_one() {
    let cut = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("cut");
    for (what, len, zeros, all) in [
        ("empty", 0, false, true),
        ("cut short", 100, false, true),
        ("zeros", 8192, true, true),
        ("its second copy cut off", 4096, false, false),
        ("its second copy cut short", 4500, false, false),
    ] {
        let scratch = Scratch::new();
        let log = address(&scratch, "");
        publish(&log, 1..6);
        let named = Topic::<Bytes>::open(&address(&scratch, "?reader=me")).expect("a topic");
        let open = || named.subscriber(Start::New).expect("a subscriber");
        let mut subscriber = named.subscriber(Start::Oldest).expect("a subscriber");
        for n in 1..3 {
            assert_eq!(subscriber.recv_timeout(DEADLINE).expect("a message").number, n);
        }
        drop(subscriber);
        let path = scratch.join("log/readers/me");
        let mut bytes = std::fs::read(&path).expect("a place");
        bytes.truncate(len);
        if zeros {
            bytes = vec![0; len];
        }
        cut(&path, &bytes);
        let mut subscriber = open();
        let error = subscriber.try_recv().expect_err("it is said");
        assert!(matches!(&error, RecvError::Damaged { missing: 0, .. }), "{what}: {error}");
        let came = numbers(&mut subscriber);
        // Nothing is passed over: from the older place on, or all.
        assert!(came.ends_with(&[3, 4, 5]), "{what}: {came:?}");
        assert!(!all || came == [1, 2, 3, 4, 5], "{what}: {came:?}");
        drop(subscriber);
        // It is whole again.
        publish(&log, 6..7);
        assert_eq!(numbers(&mut open()), [6], "{what}");
    }
}

#[test]
fn a_new_name_that_is_never_opened_leaves_nothing() {
    let scratch = Scratch::new();
    let log = address(&scratch, "");
    publish(&log, 1..3);
    let topic = Topic::<Bytes>::open(&address(&scratch, "?reader=me")).expect("a topic");
    let first = topic.subscriber(Start::Oldest).expect("a subscriber");
    let error = topic.subscriber(Start::Oldest).expect_err("it is used");
    assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
    drop(first);
    let hidden = std::fs::read_dir(scratch.join("log")).expect("a folder").flatten();
    let left = hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new"));
    assert_eq!(left.count(), 0);
    assert_eq!(segments(&scratch.join("log")).len(), 1);
}
