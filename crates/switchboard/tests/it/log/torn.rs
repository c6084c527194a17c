//! What the disk has of a batch: a part of it, or something else. Nothing of a batch that nobody committed is
//! taken for messages, nor anything of one that is damaged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use switchboard::{Bytes, Queue, RecvError, Start, Topic};
use switchboard_testkit::Scratch;

use super::batches::{LARGE, SMALL, address, brief, check_whole, publish_batches};
use super::{Readout, payload, publish, read_topic, segments};

/// The byte of a commit word without which nothing is committed.
const COMMIT_BYTE_AT: usize = 7;

/// Where the frames of a segment begin, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = 64;
    let mut found = vec![at];
    while at + 32 <= bytes.len() && bytes[at + COMMIT_BYTE_AT] != 0 {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        at += 32 + len.next_multiple_of(8);
        found.push(at);
    }
    found
}

/// A log whose only segment ends with a batch: its path, its bytes, and where that batch is.
struct Ended {
    scratch: Scratch,
    address: String,
    segment: PathBuf,
    whole: Vec<u8>,
    frames: Vec<usize>,
    batch: std::ops::Range<usize>,
    /// Messages before the batch.
    before: u64,
}

impl Ended {
    fn with(batch: u64) -> Self {
        let scratch = Scratch::new();
        let address = address(&scratch, "segment=64KiB&durability=written");
        publish_batches(&address, &[SMALL, SMALL, batch]);
        let found = segments(&scratch.join("log"));
        let [segment] = found.as_slice() else { panic!("{found:?}") };
        let whole = std::fs::read(segment).expect("a segment");
        let frames = frames(&whole);
        let [_, _, begin, end] = frames[..] else { panic!("{frames:?}") };
        let batch = begin..end;
        Self { segment: segment.clone(), address, scratch, whole, frames, batch, before: 2 * SMALL }
    }

    /// Puts bytes in the place of the segment, and removes those that were made since.
    fn put(&self, bytes: &[u8]) {
        for segment in segments(&self.scratch.join("log")) {
            if segment != self.segment {
                std::fs::remove_file(segment).expect("removed");
            }
        }
        std::fs::write(&self.segment, bytes).expect("written");
        // It would know of the segments that are removed.
        std::fs::remove_file(self.scratch.join("log").join("bell")).expect("removed");
    }

    /// What the next sender and its readers find before what it sends.
    fn goes_on(&self, what: &str) -> Readout {
        publish(&self.address, 1000..1001);
        let mut readout = read_topic(&self.address);
        let (number, bytes) = readout.messages.pop().expect("a message");
        assert_eq!(bytes, payload(1000), "{what}: {number}");
        check_whole(&readout, what);
        readout
    }

    /// The same, where all messages before the batch are to be found, and no more than they.
    fn goes_on_without_it(&self, what: &str) -> Readout {
        let readout = self.goes_on(what);
        let numbers = readout.messages.iter().map(|(number, _)| *number);
        assert!(numbers.eq(1..=self.before), "{what}: {}", brief(&readout));
        readout
    }
}

/// As death in the middle of the write leaves it: it is not committed, and a part of the rest is there.
#[test]
fn a_torn_batch_is_dropped_wherever_it_is_torn() {
    for batch in [SMALL, LARGE] {
        let log = Ended::with(batch);
        let len = log.batch.len();
        let pages = (0..len).filter(|at| (log.batch.start + at).is_multiple_of(4096));
        let mut cuts: Vec<usize> = (0..len).step_by(if batch == LARGE { 493 } else { 7 }).collect();
        cuts.extend(pages.flat_map(|at| [at.saturating_sub(1), at, at + 1]));
        cuts.extend(0..40);
        cuts.push(len);
        for cut in cuts {
            let mut bytes = log.whole.clone();
            bytes[log.batch.start + COMMIT_BYTE_AT] = 0;
            bytes[log.batch.start + cut..].fill(0);
            log.put(&bytes);
            let what = format!("{batch} messages, torn after {cut} bytes");
            let readout = read_topic(&log.address);
            let reports = &readout.reports;
            assert!(reports.is_empty(), "{what}: before the next sender: {}", brief(&readout));
            assert_eq!(readout.messages.len() as u64, log.before, "{what}");
            let readout = log.goes_on_without_it(&what);
            assert_eq!(readout.missing, 0, "{what}: {}", brief(&readout));
            let is_dropped = readout.reports.len() == 1 && readout.reports[0].contains("dropped");
            let is_empty = bytes[log.batch.start..].iter().all(|byte| *byte == 0);
            assert_eq!(is_dropped, !is_empty, "{what}: {}", brief(&readout));
        }
    }
}

/// As a power cut leaves it: of the last batch the disk has some blocks and not others.
#[test]
fn a_batch_of_which_the_disk_has_a_part_is_not_taken_for_one() {
    let log = Ended::with(LARGE);
    let blocks: Vec<usize> = (log.batch.start / 512..log.batch.end.div_ceil(512)).collect();
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..150 {
        // All but one, one alone, or some.
        let chosen = blocks[round % blocks.len()];
        let lost = |block: usize, random: u64| match round % 3 {
            0 => block == chosen,
            1 => block != chosen,
            _ => random.is_multiple_of(3),
        };
        let mut bytes = log.whole.clone();
        for block in &blocks {
            let place = (block * 512).max(log.batch.start)..((block + 1) * 512).min(bytes.len());
            if lost(*block, next()) {
                bytes[place].fill(0);
            }
        }
        log.put(&bytes);
        let what = format!("round {round}");
        let is_committed = bytes[log.batch.start + COMMIT_BYTE_AT] != 0;
        let readout = read_topic(&log.address);
        check_whole(&readout, &what);
        assert_eq!(!readout.reports.is_empty(), is_committed, "{what}: {}", brief(&readout));
        let readout = log.goes_on_without_it(&what);
        // Of what is all zeros nobody knows that there was more.
        let shows = bytes[log.batch.clone()].iter().any(|byte| *byte != 0);
        assert_eq!(!readout.reports.is_empty(), shows, "{what}: {}", brief(&readout));
        assert_eq!(readout.missing > 0, is_committed, "{what}: {}", brief(&readout));
    }
}

/// Zeros where a batch begins, which was committed: something behind it says so.
#[test]
fn a_lost_commit_word_hides_nothing_that_others_prove() {
    let scratch = Scratch::new();
    let log = address(&scratch, "segment=8192&durability=written");
    publish_batches(&log, &[SMALL; 16]);
    let found = segments(&scratch.join("log"));
    assert!(found.len() >= 2);
    let file = File::options().write(true).open(&found[0]).expect("a segment");
    let whole = std::fs::read(&found[0]).expect("a segment");
    let frames = frames(&whole);
    // The last batch of the first segment may be a part of one that was pushed.
    let last = frames.len() - 2;
    let in_last = u32::from_le_bytes(whole[frames[last] + 12..][..4].try_into().expect("a count"));
    for (batch, count) in [(1, SMALL), (last, u64::from(in_last.max(1)))] {
        let (from, until) = (frames[batch], frames[batch + 1]);
        let first = batch as u64 * SMALL + 1;
        // Its block, or all of it. What remains behind the last batch is a batch that was not committed.
        for (lost, reports) in [(from + 8, if batch == last { 2 } else { 1 }), (until, 1)] {
            file.write_all_at(&vec![0; lost - from], from as u64).expect("damaged");
            let readout = read_topic(&log);
            check_whole(&readout, "a hole");
            let numbers = readout.messages.iter().map(|(number, _)| *number);
            let all = (1..=16 * SMALL).filter(|n| !(first..first + count).contains(n));
            assert!(numbers.eq(all), "{}", brief(&readout));
            let said = (readout.missing, readout.reports.len());
            assert_eq!(said, (count, reports), "{}", brief(&readout));
            file.write_all_at(&whole[from..until], from as u64).expect("restored");
        }
    }
}

#[test]
fn every_flipped_byte_of_a_batch_costs_its_batch_and_no_more() {
    let log = Ended::with(SMALL);
    let file = File::options().write(true).open(&log.segment).expect("a segment");
    let all = log.before + SMALL;
    for at in 64..log.batch.end {
        file.write_all_at(&[log.whole[at] ^ 1 << (at % 8)], at as u64).expect("written");
        let readout = read_topic(&log.address);
        let what = format!("byte {at}");
        check_whole(&readout, &what);
        let batch = log.frames.iter().rposition(|begin| *begin <= at).expect("a frame") as u64;
        let lost = batch * SMALL + 1..=(batch + 1) * SMALL;
        let numbers = readout.messages.iter().map(|(number, _)| *number);
        let rest = (1..=all).filter(|number| !lost.contains(number));
        assert!(numbers.eq(rest), "{what}: {}", brief(&readout));
        // Of the last batch nothing says yet how many messages it had.
        let missing = if log.batch.contains(&at) { 1 } else { SMALL };
        assert_eq!((readout.missing, readout.reports.len()), (missing, 1), "{what}");
        file.write_all_at(&[log.whole[at]], at as u64).expect("restored");
    }
}

/// The bell knows how far the lane was, also where its sender was killed.
#[test]
fn what_the_last_batch_had_is_told_with_the_next_message() {
    for at in [0, 3, 9, 13, 20, 28, 40, 400] {
        let log = Ended::with(SMALL);
        let file = File::options().write(true).open(&log.segment).expect("a segment");
        let at = log.batch.start + at;
        file.write_all_at(&[log.whole[at] ^ 4], at as u64).expect("written");
        let what = format!("byte {at}");
        let readout = log.goes_on_without_it(&what);
        assert_eq!(readout.missing, SMALL, "{what}: {}", brief(&readout));
        let last = read_topic(&log.address).messages.pop().expect("a message");
        assert_eq!(last.0, log.before + SMALL + 1, "{what}: a number is not used twice");
    }
}

#[test]
fn a_segment_that_is_cut_anywhere_gives_the_batches_before() {
    let log = Ended::with(SMALL);
    for cut in 0..=log.batch.end {
        log.put(&log.whole[..cut]);
        let what = format!("cut after {cut} bytes");
        let whole = log.frames[1..].iter().filter(|end| **end <= cut).count() as u64;
        for readout in [read_topic(&log.address), log.goes_on(&what)] {
            check_whole(&readout, &what);
            assert!(!readout.reports.is_empty(), "{what}: {}", brief(&readout));
            let numbers = readout.messages.iter().map(|(number, _)| *number);
            assert!(numbers.eq(1..=whole * SMALL), "{what}: {}", brief(&readout));
        }
    }
}

#[test]
fn a_place_may_be_inside_a_batch() {
    let log = Ended::with(LARGE);
    let all = log.before + LARGE;
    let topic = Topic::<Bytes>::open(&log.address).expect("a topic");
    for first in 1..=all + 1 {
        let mut subscriber = topic.subscriber(Start::Number(first)).expect("a subscriber");
        assert!(super::numbers(&mut subscriber).into_iter().eq(first..=all), "from {first} on");
    }
    // What is damaged before it is reported, and nothing is missing.
    let mut bytes = log.whole.clone();
    bytes[log.frames[1] + 40] ^= 1;
    log.put(&bytes);
    let first = log.before + 50;
    let mut subscriber = topic.subscriber(Start::Number(first)).expect("a subscriber");
    let damage = subscriber.try_recv().expect_err("damage");
    assert!(matches!(damage, RecvError::Damaged { missing: 0, .. }), "{damage:?}");
    assert!(super::numbers(&mut subscriber).into_iter().eq(first..=all));
}

#[test]
fn receivers_share_a_batch() {
    let scratch = Scratch::new();
    let log = address(&scratch, "durability=synced");
    let mut sender = Queue::<Bytes>::open(&log).expect("a queue").sender().expect("a sender");
    for n in 1..=LARGE {
        sender.feed(&payload(n)).expect("taken");
    }
    sender.push().expect("pushed");
    let options = switchboard::Options::default().prefetch(7);
    let queue = Queue::<Bytes>::open_with(&log, options).expect("a queue");
    let mut seen = Vec::new();
    let mut begun = None;
    while seen.len() < LARGE as usize {
        // Each takes two, acknowledges one, and gives the other back.
        let mut receiver = queue.receiver().expect("a receiver");
        for acknowledged in [true, false] {
            let Ok(delivery) = receiver.try_recv() else { break };
            assert_eq!(delivery.message.0, payload(delivery.number()));
            assert_eq!(delivery.redelivered, begun == Some(delivery.number()));
            if acknowledged {
                seen.push(delivery.number());
                receiver.acknowledge(delivery).expect("acknowledged");
            } else {
                begun = Some(delivery.number());
            }
        }
    }
    assert!(seen.into_iter().eq(1..=LARGE));
}
