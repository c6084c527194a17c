//! Death at every system call: the writer, the receiver and a named subscriber of a log are killed as each
//! call begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::slice::from_ref;

use switchboard::{Bytes, Queue, RecvError, Start};
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Scratch, share};

use super::{payload, publish, read_topic};

pub(super) const COUNT: u64 = 60;

/// Role: publishes so many messages in batches of so many, and says what is acknowledged.
pub(crate) fn writer(arguments: &[String]) {
    let number = |at: usize| -> u64 { arguments[at].parse().expect("a number") };
    let (count, batch) = (number(1), number(2));
    report("begin");
    let topic = switchboard::Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    for n in 1..=count {
        publisher.feed(&payload(n)).expect("taken");
        if n % batch == 0 {
            publisher.push().expect("pushed");
            report(format!("acknowledged {}", publisher.acknowledged()));
        }
    }
    publisher.finish().expect("closed");
    report("end");
}

/// Role: receives everything, acknowledges in batches, and says both.
pub(crate) fn receiver(arguments: &[String]) {
    report("begin");
    let options = switchboard::Options::default().prefetch(17).acknowledge_every(8);
    let queue = Queue::<Bytes>::open_with(&arguments[0], options).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                let n = delivery.number();
                report(format!("got {n} {}", u8::from(delivery.redelivered)));
                receiver.acknowledge(delivery).expect("acknowledged");
                if n % 12 == 0 {
                    receiver.flush().expect("written");
                    report(format!("acknowledged {n}"));
                }
            }
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    drop(receiver);
    report("end");
}

/// Role: receives everything under a name, and says so.
pub(crate) fn named(arguments: &[String]) {
    report("begin");
    let topic = switchboard::Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    report("open");
    for _ in 0..COUNT {
        let sample = subscriber.try_recv().expect("a message");
        report(format!("got {}", sample.number));
        if sample.number.is_multiple_of(12) {
            subscriber.save().expect("kept");
            report(format!("kept {}", sample.number));
        }
    }
    assert!(matches!(subscriber.try_recv(), Err(RecvError::Empty)));
    drop(subscriber);
    report("end");
}

/// How often each system call is made before and in all, by a role that runs undisturbed.
fn calls(role: &str, arguments: &[String], trace: &Path) -> Option<BTreeMap<String, (u32, u32)>> {
    let file = trace.to_str()?;
    let mut child = Child::role_under(&["strace", "-f", "-qq", "-o", file], role, arguments);
    let lines = child.remaining_lines();
    child.wait();
    if lines.last().map(String::as_str) != Some("end") {
        return None;
    }
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut begun = false;
    for line in std::fs::read_to_string(trace).ok()?.lines() {
        let call = line.split_whitespace().nth(1)?.split('(').next()?;
        if !call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry(call.to_owned()).or_default();
        count.1 += 1;
        if !begun {
            count.0 += 1;
        }
        begun |= line.contains("begin");
    }
    Some(counts)
}

/// Runs a role that is killed as it begins a call for the nth time; what it said.
fn killed_at(role: &str, arguments: &[String], call: &str, nth: u32, trace: &Path) -> Vec<String> {
    injected(role, arguments, &format!("inject={call}:signal=SIGKILL:when={nth}"), trace)
}

/// Runs a role under strace, which does something to one of its calls; what it said.
pub(super) fn injected(
    role: &str,
    arguments: &[String],
    inject: &str,
    trace: &Path,
) -> Vec<String> {
    let starter = ["strace", "-f", "-qq", "-o", trace.to_str().expect("a path"), "-e", inject];
    let mut child = Child::role_under(&starter, role, arguments);
    let lines = child.remaining_lines();
    child.wait();
    lines
}

pub(super) fn have_strace() -> bool {
    Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_writer_killed_at_any_call_leaves_what_it_acknowledged() {
    const TEST: &str = "log::crash::a_writer_killed_at_any_call";
    let counts = writer_counts(TEST, "segment=4096", COUNT, 10);
    assert!(counts.is_none_or(|counts| counts.len() as u64 <= COUNT));
}

#[test]
fn a_writer_of_small_batches_killed_at_any_call_leaves_whole_ones() {
    const TEST: &str = "log::crash::a_writer_of_small_batches_killed_at_any_call";
    let counts = writer_counts(TEST, "segment=4096&durability=synced", 20, 10);
    assert!(counts.is_none_or(|counts| counts.is_subset(&[0, 10, 20].into())));
}

/// So often that zeros are written ahead.
#[test]
fn a_writer_that_syncs_often_killed_at_any_call_leaves_what_it_acknowledged() {
    const TEST: &str = "log::crash::a_writer_that_syncs_often_killed_at_any_call";
    let counts = writer_counts(TEST, "segment=4096&durability=synced", 70, 5);
    let Some(counts) = counts else { return };
    let mut batches = (0..=70).step_by(5);
    assert!(!share::is_whole() || batches.all(|count| counts.contains(&count)), "{counts:?}");
}

/// What is in a batch when a segment is full is written before the next one is made.
#[test]
fn a_writer_of_large_batches_killed_at_any_call_leaves_whole_ones() {
    const TEST: &str = "log::crash::a_writer_of_large_batches_killed_at_any_call";
    let counts = writer_counts(TEST, "segment=16KiB&durability=synced", 300, 150);
    let Some(counts) = counts else { return };
    let cut: Vec<u64> = counts.into_iter().filter(|count| !count.is_multiple_of(150)).collect();
    assert!(matches!(cut[..], [151..300]) || cut.is_empty() && !share::is_whole(), "{cut:?}");
}

/// The disk begins with a push of this size before all of it is gathered.
#[test]
fn a_writer_of_very_large_pushes_killed_at_any_call_leaves_whole_batches() {
    const TEST: &str = "log::crash::a_writer_of_very_large_pushes_killed_at_any_call";
    const PUSH: u64 = 7000;
    let query = "segment=1MiB&durability=synced";
    let Some(counts) = writer_counts(TEST, query, PUSH, PUSH) else { return };
    // Batches of 140 KiB: 0 to 4.
    let is_whole = counts.contains(&0) && counts.contains(&PUSH) && counts.len() >= 4;
    assert!(counts.len() <= 5 && (is_whole || !share::is_whole()), "{counts:?}");
}

/// Kills a writer at each of its calls; how many messages it left, of all runs. `None` where that cannot be
/// done.
fn writer_counts(test: &str, query: &str, count: u64, batch: u64) -> Option<BTreeSet<u64>> {
    if !have_strace() {
        skip(test, "no strace");
        return None;
    }
    let scratch = Scratch::new();
    let trace = scratch.join("trace");
    let arguments = |run: u32| {
        let address = format!("file:{}?{query}", scratch.join(&format!("log{run}")).display());
        [address, count.to_string(), batch.to_string()]
    };
    let Some(calls) = calls("log-writer", &arguments(0), &trace) else {
        skip(test, "strace may not trace here");
        return None;
    };
    let mut counts = BTreeSet::new();
    let mut runs = 0;
    for (call, (before, total)) in calls {
        for nth in before + 1..=total {
            runs += 1;
            if !share::is_mine(runs as usize) {
                continue;
            }
            let arguments = arguments(runs);
            let said = killed_at("log-writer", &arguments, &call, nth, &trace);
            let what = format!("killed at {call} {nth}: {said:?}");
            counts.insert(check_writer(&arguments[0], count, &said, &what));
        }
    }
    assert!(runs > 30, "only {runs} calls");
    Some(counts)
}

/// Looks whether a log has what its writer acknowledged, and goes on; how many messages there were.
pub(super) fn check_writer(address: &str, count: u64, said: &[String], what: &str) -> u64 {
    let acknowledged = said
        .iter()
        .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
        .max()
        .unwrap_or(0);
    let folder = address.trim_start_matches("file:").split('?').next().expect("a path");
    if !Path::new(folder).exists() {
        assert_eq!(acknowledged, 0, "{what}");
        return 0;
    }
    let before = read_topic(address);
    assert!(before.reports.is_empty() && before.missing == 0, "{what}: {before:?}");
    let before = before.messages.len() as u64;
    assert!((acknowledged..=count).contains(&before), "{what}: {before} messages");
    // The next one goes on after the last, and cleans up. So many would take it long, if it synced each.
    let next = if count > 1000 { address.replace("=synced", "=memory") } else { address.into() };
    publish(&next, before + 1..count + 3);
    let readout = read_topic(address);
    let numbers: Vec<u64> = readout.messages.iter().map(|(number, _)| *number).collect();
    assert!(numbers.iter().copied().eq(1..count + 3), "{what}: {numbers:?}");
    assert_eq!(readout.missing, 0, "{what}: {:?}", readout.reports);
    for (number, bytes) in readout.messages {
        assert_eq!(bytes, payload(number), "{what}: message {number}");
    }
    let rest = std::fs::read_dir(folder).expect("a folder").flatten();
    let hidden = rest.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-"));
    assert_eq!(hidden.count(), 0, "{what}: a hidden file was left");
    before
}

#[test]
fn a_receiver_killed_at_any_call_loses_nothing() {
    const TEST: &str = "log::crash::a_receiver_killed_at_any_call";
    if !have_strace() {
        return skip(TEST, "no strace");
    }
    let scratch = Scratch::new();
    let trace = scratch.join("trace");
    let place = |n: u32| {
        let address = format!("file:{}?segment=4096", scratch.join(&format!("log{n}")).display());
        super::send(&address, 1..COUNT + 1);
        address
    };
    let Some(calls) = calls("log-receiver", &[place(0)], &trace) else {
        return skip(TEST, "strace may not trace here");
    };
    let mut runs = 0;
    for (call, (before, total)) in calls {
        for nth in before + 1..=total {
            runs += 1;
            if !share::is_mine(runs as usize) {
                continue;
            }
            let address = place(runs);
            let said = killed_at("log-receiver", from_ref(&address), &call, nth, &trace);
            check_receiver(&address, &said, &format!("killed at {call} {nth}: {said:?}"));
        }
    }
    assert!(runs > 30, "only {runs} calls");
}

fn check_receiver(address: &str, said: &[String], what: &str) {
    let numbers = |start: &str| -> Vec<u64> {
        let rest = said.iter().filter_map(|line| line.strip_prefix(start));
        rest.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect()
    };
    let got = numbers("got ");
    let acknowledged = numbers("acknowledged ").into_iter().max().unwrap_or(0);
    let queue = Queue::<Bytes>::open(address).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    let mut rest = Vec::new();
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                let n = delivery.number();
                assert_eq!(delivery.message.0, payload(n), "{what}");
                assert!(n > acknowledged, "{what}: {n} was acknowledged");
                assert!(delivery.redelivered || !got.contains(&n), "{what}: {n} is not marked");
                rest.push(n);
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    let all: BTreeSet<u64> = got.into_iter().chain(rest).collect();
    assert!(all.into_iter().eq(1..=COUNT), "{what}");
}

#[test]
fn a_named_subscriber_killed_at_any_call_misses_nothing() {
    const TEST: &str = "log::crash::a_named_subscriber_killed_at_any_call";
    if !have_strace() {
        return skip(TEST, "no strace");
    }
    let scratch = Scratch::new();
    let trace = scratch.join("trace");
    let place = |n: u32| {
        let path = scratch.join(&format!("log{n}"));
        publish(&format!("file:{}?segment=4096", path.display()), 1..COUNT + 1);
        format!("file:{}?reader=archive", path.display())
    };
    let Some(calls) = calls("log-named", &[place(0)], &trace) else {
        return skip(TEST, "strace may not trace here");
    };
    let mut runs = 0;
    for (call, (before, total)) in calls {
        for nth in before + 1..=total {
            runs += 1;
            if !share::is_mine(runs as usize) {
                continue;
            }
            let address = place(runs);
            let said = killed_at("log-named", from_ref(&address), &call, nth, &trace);
            check_named(&address, &said, &format!("killed at {call} {nth}: {said:?}"));
        }
    }
    assert!(runs > 30, "only {runs} calls");
}

fn check_named(address: &str, said: &[String], what: &str) {
    let last = |start: &str| -> u64 {
        let rest = said.iter().rev().find_map(|line| line.strip_prefix(start));
        rest.map_or(0, |rest| rest.parse().expect("a number"))
    };
    // Once it was open, the place counts and not the start.
    let open = said.iter().any(|line| line == "open");
    let start = if open { Start::New } else { Start::Oldest };
    let topic = switchboard::Topic::<Bytes>::open(address).expect("a topic");
    let mut subscriber = topic.subscriber(start).expect("a subscriber");
    let rest = super::numbers(&mut subscriber);
    let first = rest.first().copied().unwrap_or(COUNT + 1);
    assert!(rest.into_iter().eq(first..COUNT + 1), "{what}");
    assert!(first > last("kept ") && first <= last("got ") + 1, "{what}: from {first} on");
}
