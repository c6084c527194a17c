//! Topics over a log: replay, named places, lanes.

use std::time::{Duration, SystemTime};

use switchboard::{Bytes, ErrorKind, Queue, RecvError, Start, Topic};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{numbers, publish, read_topic, segments};
use crate::conformance::permissions::become_nobody;

fn topic(scratch: &Scratch, query: &str) -> Topic<Bytes> {
    Topic::open(&address(scratch, query)).expect("a topic")
}

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

/// Role: publishes what it is told.
pub(crate) fn publisher(arguments: &[String]) {
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    report("open");
    while let Some(line) = instruction() {
        publisher.send(&Bytes(line.into_bytes())).expect("published");
        report("published");
    }
}

#[test]
fn every_subscriber_gets_every_message_and_wakes_for_it() {
    let scratch = Scratch::new();
    let topic = topic(&scratch, "");
    let mut first = topic.subscriber(Start::New).expect("a subscriber");
    let mut child = Child::role("log-publisher", &[address(&scratch, "")]);
    child.expect("open");
    let mut second = topic.subscriber(Start::New).expect("a subscriber");
    for n in 0..50 {
        child.tell(&format!("reading {n}"));
        for subscriber in [&mut first, &mut second] {
            let sample = subscriber.recv_timeout(DEADLINE).expect("a message");
            assert_eq!(sample.message.0, format!("reading {n}").into_bytes());
            assert_eq!((sample.number, sample.lost_before), (n + 1, 0));
        }
        child.expect("published");
    }
    child.kill();
    assert!(matches!(first.try_recv(), Err(RecvError::Empty)), "its death takes nothing along");
    // Another goes on where it was.
    publish(&address(&scratch, ""), 51..52);
    assert_eq!(second.recv_timeout(DEADLINE).expect("a message").number, 51);
}

#[test]
fn a_late_subscriber_begins_where_it_wants() {
    let scratch = Scratch::new();
    let topic = topic(&scratch, "?segment=4096");
    publish(&address(&scratch, "?segment=4096"), 1..101);
    // The clock of a log is that of the kernel's ticks.
    let between = SystemTime::now() + Duration::from_millis(20);
    while SystemTime::now() < between + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    publish(&address(&scratch, "?segment=4096"), 101..161);
    let from = |start| numbers(&mut topic.subscriber(start).expect("a subscriber"));
    assert!(from(Start::Oldest).into_iter().eq(1..161));
    assert!(from(Start::Number(77)).into_iter().eq(77..161));
    assert!(from(Start::Time(between)).into_iter().eq(101..161));
    assert!(from(Start::New).is_empty());
    assert!(from(Start::Number(1000)).is_empty());
    let sample = topic.subscriber(Start::Oldest).expect("a subscriber").recv().expect("a message");
    assert!(sample.published.expect("a time") <= SystemTime::now());
}

#[test]
fn a_named_place_is_kept_and_has_one_user() {
    let scratch = Scratch::new();
    let topic = topic(&scratch, "?reader=archive");
    publish(&address(&scratch, ""), 1..11);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    for n in 1..6 {
        assert_eq!(subscriber.recv().expect("a message").number, n);
    }
    let error = topic.subscriber(Start::Oldest).expect_err("it is in use");
    assert_eq!(error.kind(), ErrorKind::AddressInUse);
    drop(subscriber);
    let mut subscriber = topic.subscriber(Start::New).expect("a subscriber");
    assert!(numbers(&mut subscriber).into_iter().eq(6..11), "the place counts, not the start");
}

#[test]
fn publishers_at_the_same_time_have_lanes_of_their_own() {
    let scratch = Scratch::new();
    let topic = topic(&scratch, "");
    let mut publishers: Vec<_> = (0..3).map(|_| topic.publisher().expect("a publisher")).collect();
    for n in 0..30_u64 {
        let at = (n % 3) as usize;
        publishers[at].send(&Bytes(vec![at as u8, n as u8])).expect("published");
    }
    drop(publishers);
    let readout = read_topic(&address(&scratch, ""));
    assert_eq!(readout.messages.len(), 30);
    for lane in 0..3 {
        let of: Vec<u8> = readout
            .messages
            .iter()
            .filter(|(_, bytes)| bytes[0] == lane)
            .map(|(_, bytes)| bytes[1])
            .collect();
        assert!(of.len() == 10 && of.is_sorted(), "{of:?}");
    }
    assert_eq!(segments(&scratch.join("log")).len(), 3);
    // The next one takes a lane that is free.
    publish(&address(&scratch, ""), 31..32);
    assert_eq!(segments(&scratch.join("log")).len(), 3);
}

#[test]
fn a_queue_and_a_topic_do_not_share_a_log() {
    let scratch = Scratch::new();
    publish(&address(&scratch, ""), 1..2);
    let queue = Queue::<Bytes>::open(&address(&scratch, "")).expect("a queue");
    for error in [queue.sender().map(drop), queue.receiver().map(drop)] {
        let error = error.expect_err("it holds a topic");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("topic"), "{error}");
    }
    let typed =
        Topic::<zerocopy::byteorder::U64<zerocopy::byteorder::LE>>::open(&address(&scratch, ""));
    let error = typed.expect("a topic").publisher().expect_err("another type");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
}

/// Role: another user, who subscribes and says what it gets.
pub(crate) fn stranger(arguments: &[String]) {
    become_nobody();
    for query in ["?reader=archive", ""] {
        let address = format!("{}{query}", arguments[0]);
        let topic = Topic::<Bytes>::open(&address).expect("a topic");
        let mut subscriber = match topic.subscriber(Start::Oldest) {
            Ok(subscriber) => subscriber,
            Err(error) => {
                report(format!("{:?}", error.kind()));
                continue;
            }
        };
        report("open");
        while let Ok(sample) = subscriber.recv_timeout(DEADLINE) {
            report(format!("got {}", sample.number));
        }
    }
}

#[test]
fn another_user_subscribes_to_what_it_may_read() {
    let scratch = Scratch::new();
    let folder = scratch.join("log");
    let mut publisher = topic(&scratch, "?mode=0644").publisher().expect("a publisher");
    publisher.send(&Bytes(vec![1])).expect("published");
    let set = |path: &std::path::Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("a mode");
    };
    let root = rustix::process::geteuid().is_root();
    set(scratch.path(), 0o755);
    if !root {
        // An ordinary user is no other user, but its own files can be closed to it.
        for file in std::fs::read_dir(&folder).expect("a folder").flatten() {
            set(&file.path(), 0o444);
        }
        set(&folder, 0o555);
    }
    let mut child = Child::role("log-stranger", &[address(&scratch, "")]);
    child.expect("PermissionDenied");
    child.expect("open");
    child.expect("got 1");
    for number in 2..5 {
        // It asks nobody to wake it, and looks by itself.
        publisher.send(&Bytes(vec![1])).expect("published");
        child.expect(&format!("got {number}"));
    }
    set(&folder, 0o755);
    // Who shall not read it may not.
    set(&folder.join("bell"), 0o600);
    if root {
        let mut child = Child::role("log-stranger", &[address(&scratch, "")]);
        child.expect("PermissionDenied");
        child.expect("PermissionDenied");
    }
}
