//! `file:`, a log on disk: what only it has. What every queue has to keep is in the conformance tests.

pub(crate) mod batches;
mod capacity;
pub(crate) mod crash;
mod damage;
pub(crate) mod foreign;
mod forged;
pub(crate) mod fork;
pub(crate) mod full;
pub(crate) mod given_back;
#[cfg(target_arch = "x86_64")]
pub(crate) mod killstep;
pub(crate) mod limits;
mod living;
pub(crate) mod named;
mod planted;
mod removed;
mod retention;
mod since;
pub(crate) mod synced;
pub(crate) mod topic;
mod torn;
mod unreadable;
pub(crate) mod waiting;

use std::path::{Path, PathBuf};

use switchboard::{Bytes, Queue, RecvError, Start, Subscriber, Topic};

/// What a log gives to one who reads all of it.
#[derive(Debug, Default)]
struct Readout {
    /// Numbers and payloads.
    messages: Vec<(u64, Vec<u8>)>,
    /// What was reported as damaged.
    reports: Vec<String>,
    /// Messages said to be missing.
    missing: u64,
}

/// Reads a topic's log from its beginning.
fn read_topic(address: &str) -> Readout {
    let topic = Topic::<Bytes>::open(address).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    let mut readout = Readout::default();
    loop {
        match subscriber.try_recv() {
            Ok(sample) => readout.messages.push((sample.number, sample.message.0)),
            Err(RecvError::Damaged { problem, missing }) => {
                readout.reports.push(problem);
                readout.missing += missing;
            }
            Err(RecvError::Empty) => return readout,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The numbers of the messages that are there.
fn numbers(subscriber: &mut Subscriber<Bytes>) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match subscriber.try_recv() {
            Ok(sample) => numbers.push(sample.number),
            Err(RecvError::Empty) => return numbers,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What message `n` holds: short and long ones, and an empty one.
fn payload(n: u64) -> Vec<u8> {
    let len = (n * 37 % 120) as usize;
    (0..len).map(|at| (n as u8).wrapping_mul(31).wrapping_add(at as u8)).collect()
}

/// Publishes messages `from..to`, with numbers from 1 on in an empty log.
fn publish(address: &str, range: std::ops::Range<u64>) {
    let mut publisher =
        Topic::<Bytes>::open(address).expect("a topic").publisher().expect("a publisher");
    for n in range {
        publisher.send(&Bytes(payload(n))).expect("published");
    }
    publisher.finish().expect("closed");
}

fn send(address: &str, range: std::ops::Range<u64>) {
    let mut sender = Queue::<Bytes>::open(address).expect("a queue").sender().expect("a sender");
    for n in range {
        sender.send(&Bytes(payload(n))).expect("sent");
    }
    sender.close().expect("closed");
}

/// The segments in a log's folder, in order.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

/// The number of a segment of lane 0.
fn number_of(segment: &Path) -> u64 {
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    let number = name.strip_prefix("00-").and_then(|name| name.strip_suffix(".seg"));
    number.and_then(|number| number.parse().ok()).expect("a number")
}

/// How many bytes of a segment are in use.
fn used_bytes(segment: &Path) -> usize {
    let bytes = std::fs::read(segment).expect("a segment");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(8)
}
