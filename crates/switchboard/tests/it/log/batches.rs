//! Messages that are sent off together: all of them are seen or none, whoever dies when, and whatever fails.

use std::fs::File;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchboard::{Bytes, Queue, RecvError, Sample, SendError, Start, Subscriber, Topic};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{DEADLINE, Scratch};

use super::crash::{COUNT, have_strace, injected};
use super::{Readout, payload, publish, read_topic, segments};

/// Messages in a batch of some pages, and in a small one.
pub(super) const LARGE: u64 = 150;
pub(super) const SMALL: u64 = 10;
/// And in one that is nearly as large as it may be.
const LARGEST: u64 = 1500;

pub(super) fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}?{query}", scratch.join("log").display())
}

/// Publishes batches of so many messages, with numbers from 1 on.
pub(super) fn publish_batches(address: &str, batches: &[u64]) {
    let mut publisher = open(address);
    let mut number = 0;
    for batch in batches {
        for _ in 0..*batch {
            number += 1;
            publisher.feed(&payload(number)).expect("taken");
        }
        publisher.push().expect("pushed");
    }
    publisher.finish().expect("closed");
}

fn open(address: &str) -> switchboard::Publisher<Bytes> {
    Topic::<Bytes>::open(address).expect("a topic").publisher().expect("a publisher")
}

/// A readout without the payloads.
pub(super) fn brief(readout: &Readout) -> String {
    let numbers: Vec<u64> = readout.messages.iter().map(|(number, _)| *number).collect();
    format!("{} missing, {:?}, {numbers:?}", readout.missing, readout.reports)
}

/// Only whole messages, in order.
pub(super) fn check_whole(readout: &Readout, what: &str) {
    assert!(readout.messages.is_sorted_by(|a, b| a.0 < b.0), "{what}: {}", brief(readout));
    for (number, bytes) in &readout.messages {
        assert_eq!(bytes, &payload(*number), "{what}: message {number}");
    }
}

#[test]
fn what_is_fed_is_seen_when_it_is_pushed() {
    let scratch = Scratch::new();
    for (level, batch) in
        ["synced", "written", "memory"].iter().flat_map(|level| [(level, SMALL), (level, LARGE)])
    {
        let log = scratch.join(&format!("{level}{batch}"));
        let mut publisher = open(&format!("file:{}?durability={level}", log.display()));
        let topic = Topic::<Bytes>::open(&format!("file:{}", log.display())).expect("a topic");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
        for round in 0..3 {
            for n in 1..=batch {
                publisher.feed(&payload(round * batch + n)).expect("taken");
            }
            assert!(matches!(subscriber.try_recv(), Err(RecvError::Empty)), "{level}: too early");
            assert_eq!(publisher.acknowledged(), round * batch);
            publisher.push().expect("pushed");
            assert_eq!(publisher.acknowledged(), (round + 1) * batch);
            for n in 1..=batch {
                let sample = subscriber.try_recv().expect("a message");
                assert_eq!(sample.number, round * batch + n);
                assert_eq!(sample.message.0, payload(sample.number));
            }
        }
        // One message is one batch, also without a push.
        publisher.try_send(&Bytes(payload(1))).expect("taken");
        assert_eq!(subscriber.try_recv().expect("a message").message.0, payload(1));
        publisher.finish().expect("closed");
    }
}

#[test]
fn a_large_batch_is_seen_in_parts() {
    let scratch = Scratch::new();
    let log = address(&scratch, "durability=synced");
    let mut publisher = open(&log);
    let topic = Topic::<Bytes>::open(&log).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    let large = vec![9; 300 << 10];
    let mut seen = 0;
    for fed in 1..=80 {
        publisher.feed(&large).expect("taken");
        while let Ok(sample) = subscriber.try_recv() {
            assert_eq!(sample.message.0, large);
            seen += 1;
        }
        // So much is not held back, nor a segment that is full.
        assert!(fed - seen <= 1, "{fed} fed, {seen} seen");
    }
    assert!(seen < 80, "the last ones wait");
    publisher.push().expect("pushed");
    assert_eq!(super::numbers(&mut subscriber).len(), 80 - seen);
    assert!(segments(&scratch.join("log")).len() > 1);
}

/// More than a step of blocks, and a segment, with many syncs: what is written ahead is in nobody's way.
#[test]
fn zeros_are_written_ahead_and_nothing_is_lost() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=2MiB&durability=synced");
    publish_batches(&log, &[LARGEST; 30]);
    let segments = segments(&scratch.join("log"));
    assert!(segments.len() >= 2);
    for segment in &segments {
        assert_eq!(std::fs::metadata(segment).expect("a segment").len(), 2 << 20);
    }
    // The next one goes on where zeros were written.
    publish(&log, 30 * LARGEST + 1..30 * LARGEST + 3);
    let readout = read_topic(&log);
    check_whole(&readout, "zeros");
    assert!(readout.reports.is_empty(), "{:?}", readout.reports);
    assert_eq!(readout.messages.len() as u64, 30 * LARGEST + 2);
}

/// Role: feeds a queue that is too small for it.
pub(crate) fn feeder(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    report("open");
    for n in 1..=500 {
        sender.feed(&payload(n)).expect("taken");
    }
    sender.push().expect("pushed");
    sender.close().expect("closed");
}

#[test]
fn a_feeder_that_waits_for_room_gets_it() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=4096&capacity=8KiB&durability=synced");
    let queue = Queue::<Bytes>::open(&log).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    let mut child = Child::role("log-feeder", &[log]);
    child.expect("open");
    for n in 1..=500 {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(delivery.message.0, payload(n));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    assert!(child.wait().success());
}

#[test]
fn what_is_fed_is_seen_while_its_sender_waits_for_room() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=4096&capacity=8KiB&durability=synced");
    let queue = Queue::<Bytes>::open(&log).expect("a queue");
    // It takes one of two segments, and the newest one of a lane stays.
    let mut other = queue.sender().expect("a sender");
    let mut receiver = queue.receiver().expect("a receiver");
    let mut child = Child::role("log-feeder", std::slice::from_ref(&log));
    child.expect("open");
    for n in 1..=30 {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(delivery.message.0, payload(n));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    child.kill();
    other.send(&Bytes(payload(1))).expect("sent");
}

/// Role: publishes batch after batch until it is killed, or a line comes.
pub(crate) fn endless(arguments: &[String]) {
    let batch: u64 = arguments[1].parse().expect("a number");
    let mut publisher = open(&arguments[0]);
    for round in 0_u64.. {
        for n in 1..=batch {
            publisher.feed(&payload(round * batch + n)).expect("taken");
        }
        publisher.push().expect("pushed");
        report(format!("acknowledged {}", publisher.acknowledged()));
    }
}

#[test]
fn a_writer_killed_at_any_time_leaves_whole_batches() {
    let scratch = Scratch::new();
    for run in 0..12_u64 {
        let log = scratch.join(&format!("log{run}"));
        // Segments that hold them all, so that no batch is cut in two.
        let address = format!("file:{}?segment=8MiB&durability=written", log.display());
        let mut child = Child::role("log-endless", &[address.clone(), LARGEST.to_string()]);
        let mut acknowledged: u64 = 0;
        for _ in 0..=run % 3 {
            let line = child.line().expect("a line");
            let number = line.strip_prefix("acknowledged ").expect("a number");
            acknowledged = number.parse().expect("a number");
        }
        // Somewhere in the next batch, but for the time that this takes.
        std::thread::sleep(std::time::Duration::from_micros(run * 150));
        child.kill();
        child.wait();
        let readout = read_topic(&address);
        check_whole(&readout, "killed");
        let count = readout.messages.len() as u64;
        assert!(readout.reports.is_empty(), "{:?}", readout.reports);
        assert!(count >= acknowledged && count.is_multiple_of(LARGEST), "{count} messages");
        publish(&address, count + 1..count + 2);
        let numbers = read_topic(&address).messages.into_iter().map(|(number, _)| number);
        assert!(numbers.eq(1..count + 2));
        std::fs::remove_dir_all(log).expect("removed");
    }
}

#[test]
fn whoever_reads_meanwhile_sees_whole_batches() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=8MiB&durability=written");
    // So that the subscriber finds a log.
    publish_batches(&log, &[LARGEST]);
    let topic = Topic::<Bytes>::open(&log).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    let mut child = Child::role("log-endless", &[log, LARGEST.to_string()]);
    let mut seen = 0;
    // Whatever it is told, whoever finds nothing more has seen whole batches. A busy machine may leave it behind all the
    // time; once nobody publishes any more it finds the end.
    while let Some(sample) = next(&mut subscriber, seen, seen < 20 * LARGEST) {
        seen += 1;
        let number = if seen <= LARGEST { seen } else { seen - LARGEST };
        assert_eq!((sample.number, sample.message.0), (seen, payload(number)));
        if seen == 20 * LARGEST {
            child.kill();
        }
    }
    assert!(seen >= 20 * LARGEST);
}

/// The next message, waited for where one comes for sure; that what was seen before are whole batches, where none is there.
fn next(subscriber: &mut Subscriber<Bytes>, seen: u64, comes: bool) -> Option<Sample<Bytes>> {
    loop {
        match subscriber.try_recv() {
            Ok(sample) => return Some(sample),
            Err(RecvError::Empty) => {
                assert!(seen.is_multiple_of(LARGEST), "{seen} messages");
                if !comes {
                    return None;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Role: publishes two batches, tells how each push went, and pushes the second one again until it is
/// through, or twice.
pub(crate) fn repeater(arguments: &[String]) {
    let mut publisher = open(&arguments[0]);
    for n in 1..=2 * LARGE {
        publisher.feed(&payload(n)).expect("taken");
        if n == LARGE {
            publisher.push().expect("pushed");
        }
    }
    for _ in 0..2 {
        match publisher.push() {
            Ok(()) => report(format!("pushed, acknowledged {}", publisher.acknowledged())),
            Err(SendError::Failed(error)) => {
                let acknowledged = publisher.acknowledged();
                report(format!("failed, acknowledged {acknowledged}: {error}"));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let sent = publisher.try_send(&Bytes(payload(2 * LARGE + 1)));
    report(format!("sent {}", sent.is_ok()));
    report(format!("closed {}", publisher.finish().is_ok()));
}

#[test]
fn a_write_that_fails_is_made_again_and_a_sync_that_fails_is_not() {
    const TEST: &str = "log::batches::a_write_that_fails";
    if !have_strace() {
        return skip(TEST, "no strace");
    }
    let scratch = Scratch::new();
    let trace = scratch.join("trace");
    let log = |name: &str| {
        let path = scratch.join(name);
        format!("file:{}?segment=64KiB&durability=synced", path.display())
    };
    let undisturbed = injected("log-repeater", &[log("none")], "trace=all", &trace);
    if undisturbed.last().map(String::as_str) != Some("closed true") {
        return skip(TEST, "strace may not trace here");
    }
    let calls = std::fs::read_to_string(&trace).expect("a trace");
    // The last call of this kind before the second batch is through.
    let nth = |call: &str, behind: usize| {
        let count = calls.lines().filter(|line| line.contains(&format!(" {call}("))).count();
        assert!(count > behind, "{count} of {call}");
        count - behind
    };
    // The message at the end is written and committed, too, and synced.
    let (write, commit, sync) = (nth("pwrite64", 3), nth("pwrite64", 2), nth("fdatasync", 1));
    for (call, nth, errno) in [
        ("pwrite64", write, "ENOSPC"),
        ("pwrite64", write, "EIO"),
        ("pwrite64", commit, "EIO"),
        ("fdatasync", sync, "EIO"),
    ] {
        let name = format!("{call}-{nth}-{errno}");
        let inject = format!("inject={call}:error={errno}:when={nth}");
        let said = injected("log-repeater", &[log(&name)], &inject, &trace);
        let first = said.first().expect("a line");
        assert!(first.starts_with(&format!("failed, acknowledged {LARGE}: ")), "{said:?}");
        assert!(first.contains(errno), "{said:?}");
        let rest: Vec<&str> = said[1..].iter().map(String::as_str).collect();
        if call == "pwrite64" {
            let all = format!("pushed, acknowledged {}", 2 * LARGE);
            assert_eq!(rest, [all.as_str(), "sent true", "closed true"]);
        } else {
            // Nobody knows what the disk has.
            assert_eq!(rest[0], first, "{said:?}");
            assert_eq!(rest[1..], ["sent true", "closed false"]);
        }
        // No byte of the failed write is in the way of the next one.
        let readout = read_topic(&log(&name));
        check_whole(&readout, &name);
        assert!(readout.reports.is_empty(), "{:?}", readout.reports);
        assert_eq!(readout.messages.len() as u64, 2 * LARGE + 1, "{name}");
    }
}

/// The file, the folder in which its name is, and the one in which the log's name is; the place of a reader, too.
#[test]
fn what_is_synced_has_its_names_on_the_disk() {
    const TEST: &str = "log::batches::what_is_synced_has_its_names";
    if !have_strace() {
        return skip(TEST, "no strace");
    }
    let scratch = Scratch::new();
    let trace = scratch.join("trace");
    let log = |name: &str, durability: &str| {
        let path = scratch.join(name);
        format!("file:{}?segment=64KiB&durability={durability}", path.display())
    };
    // Logs that were made without that, and then with it.
    publish(&log("one", "memory"), 1..2);
    publish(&log("two", "memory"), 1..COUNT + 1);
    for (role, address, folders) in [
        ("log-repeater", log("one", "synced"), 2),
        ("log-named", log("two", "synced") + "&reader=me", 3),
    ] {
        let said = injected(role, &[address], "trace=fsync,openat", &trace);
        if said.is_empty() {
            return skip(TEST, "strace may not trace here");
        }
        let calls = std::fs::read_to_string(&trace).expect("a trace");
        let synced = calls.lines().filter(|line| line.contains(" fsync(")).count();
        assert!(synced >= folders, "{role}: {synced} of {folders}\n{calls}");
        assert!(calls.contains("\"..\""), "{role}: the folder above\n{calls}");
    }
}

/// Role: publishes a batch, another one while its files may be no longer than they are used, and that one
/// again when they may.
pub(crate) fn limited(arguments: &[String]) {
    let mut publisher = open(&arguments[0]);
    let feed = |publisher: &mut switchboard::Publisher<Bytes>, first: u64| {
        for n in first..first + LARGE {
            publisher.feed(&payload(n)).expect("taken");
        }
    };
    feed(&mut publisher, 1);
    publisher.push().expect("pushed");
    feed(&mut publisher, LARGE + 1);
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = |current| {
        setrlimit(Resource::Fsize, Rlimit { current, maximum }).expect("a limit");
    };
    limit(Some(15_000));
    for _ in 0..2 {
        let Err(SendError::Failed(error)) = publisher.push() else { panic!("over the limit") };
        report(format!("{:?} {error}", error.kind()));
    }
    // Nothing is accepted that comes after what cannot be written.
    let refused = publisher.feed(&payload(0)).is_err();
    report(format!("{refused} {}", publisher.acknowledged()));
    if instruction().as_deref() == Some("raise it") {
        limit(maximum);
        publisher.push().expect("pushed");
    }
    let finished = publisher.finish().is_ok();
    report(format!("{finished} {}", publisher.acknowledged()));
}

#[test]
fn a_limit_on_files_is_an_error_and_nothing_is_lost() {
    let scratch = Scratch::new();
    for (instruction, count) in [("raise it", 2 * LARGE), ("give up", LARGE)] {
        let path = scratch.join(instruction);
        let log = format!("file:{}?segment=64KiB&durability=synced", path.display());
        let mut child = Child::role("log-limited", std::slice::from_ref(&log));
        for _ in 0..2 {
            let line = child.line().expect("a line");
            assert!(line.starts_with("LimitReached ") && line.contains("EFBIG"), "{line}");
        }
        child.expect(&format!("true {LARGE}"));
        let readout = read_topic(&log);
        assert_eq!((readout.messages.len() as u64, readout.reports.len()), (LARGE, 0));
        child.tell(instruction);
        child.expect(&format!("{} {count}", count > LARGE));
        assert!(child.wait().success());
        // What was given up has no number.
        publish(&log, count + 1..count + 3);
        let readout = read_topic(&log);
        check_whole(&readout, instruction);
        assert!(readout.reports.is_empty(), "{}", brief(&readout));
        assert!(readout.messages.iter().map(|(number, _)| *number).eq(1..count + 3));
    }
}

#[test]
fn a_file_that_was_cut_is_not_made_longer() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=1MiB&durability=synced");
    let mut publisher = open(&log);
    for round in 0..2 {
        for n in 1..=LARGE {
            publisher.feed(&payload(round * LARGE + n)).expect("taken");
        }
        if round == 0 {
            publisher.push().expect("pushed");
        }
    }
    let segment = segments(&scratch.join("log")).pop().expect("a segment");
    File::options().write(true).open(&segment).expect("a segment").set_len(64).expect("cut");
    let error = publisher.push().expect_err("its file is gone");
    assert!(error.to_string().contains("segment"), "{error}");
    assert_eq!(publisher.acknowledged(), LARGE);
    publisher.feed(b"nowhere to go").expect_err("nothing more is accepted");
    assert_eq!(std::fs::metadata(&segment).expect("a segment").len(), 64);
}
