//! The disk lies: every byte of a small log is flipped, and every file cut off at every length. What is
//! whole is always read, damage is always said, and the log goes on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use switchboard::{Bytes, Queue, RecvError};
use switchboard_testkit::Scratch;

use super::{Readout, payload, publish, read_topic, segments, send, used_bytes};

/// Messages in the small log: two segments of 4096 bytes.
const COUNT: u64 = 60;

fn small_log(scratch: &Scratch) -> String {
    let address = format!("file:{}?segment=4096", scratch.join("log").display());
    publish(&address, 1..COUNT + 1);
    let whole = read_topic(&address);
    assert!(whole.reports.is_empty() && whole.messages.len() as u64 == COUNT, "{whole:?}");
    assert!(segments(&scratch.join("log")).len() >= 2);
    address
}

/// Only whole messages come, in order, and nothing is missing without a word.
fn check(readout: &Readout, what: &str) {
    let numbers: Vec<u64> = readout.messages.iter().map(|(number, _)| *number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: {numbers:?}");
    for (number, bytes) in &readout.messages {
        assert_eq!(bytes, &payload(*number), "{what}: message {number}");
    }
    assert!(!readout.reports.is_empty(), "{what}: damage that nobody reports");
}

#[test]
fn every_flipped_byte_costs_at_most_its_own_message() {
    let scratch = Scratch::new();
    let address = small_log(&scratch);
    for segment in segments(&scratch.join("log")) {
        let used = used_bytes(&segment);
        let file = File::options().read(true).write(true).open(&segment).expect("a segment");
        // The word after the last frame too, where a reader looks for the next. Only its last byte commits.
        for at in 0..(used + 8).min(4096) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).expect("a byte");
            let flipped = [byte[0] ^ 1 << (at % 8)];
            file.write_all_at(&flipped, at as u64).expect("written");
            let what = format!("{} byte {at}", segment.display());
            let mut readout = read_topic(&address);
            if (used..used + 7).contains(&at) && readout.reports.is_empty() {
                readout.reports.push("nothing was there: the next sender says it".to_owned());
                assert_eq!(readout.messages.len() as u64, COUNT, "{what}");
            }
            check(&readout, &what);
            let count = readout.messages.len() as u64;
            assert!(count >= COUNT - 1, "{what}: {count} messages, {:?}", readout.reports);
            assert!(count + readout.missing >= COUNT, "{what}: {readout:?}");
            file.write_all_at(&byte, at as u64).expect("restored");
        }
    }
    assert_eq!(read_topic(&address).messages.len() as u64, COUNT, "all restored");
}

#[test]
fn a_segment_cut_anywhere_keeps_what_was_before_the_cut() {
    let scratch = Scratch::new();
    let address = small_log(&scratch);
    let mut before = 0;
    for segment in segments(&scratch.join("log")) {
        let whole = std::fs::read(&segment).expect("a segment");
        let used = used_bytes(&segment);
        let ends = frame_ends(&whole[..used]);
        for len in 0..whole.len() {
            if len > used + 16 && len % 61 != 0 {
                continue;
            }
            std::fs::write(&segment, &whole[..len]).expect("cut");
            let what = format!("{} cut to {len}", segment.display());
            let readout = read_topic(&address);
            check(&readout, &what);
            // Every message of the other segments, and those that end before the cut.
            let kept = ends.iter().filter(|end| **end <= len).count() as u64;
            let count = readout.messages.len() as u64;
            assert_eq!(count, COUNT - (ends.len() as u64 - kept), "{what}: {readout:?}");
            let prefix = readout.messages.iter().take((before + kept) as usize);
            assert!(prefix.map(|(number, _)| *number).eq(1..=before + kept), "{what}");
        }
        std::fs::write(&segment, &whole).expect("restored");
        before += ends.len() as u64;
    }
}

/// Where each frame of a whole segment ends.
fn frame_ends(segment: &[u8]) -> Vec<usize> {
    let mut at = 64;
    let mut ends = Vec::new();
    while at + 32 <= segment.len() {
        let word = segment[at..at + 4].try_into().expect("four bytes");
        at += 32 + (u32::from_le_bytes(word) as usize).next_multiple_of(8);
        ends.push(at);
    }
    ends
}

#[test]
fn a_damaged_log_goes_on() {
    let scratch = Scratch::new();
    let address = small_log(&scratch);
    let folder = scratch.join("log");
    let last = segments(&folder).pop().expect("a segment");
    let whole = std::fs::read(&last).expect("a segment");
    let used = used_bytes(&last);
    for at in (0..used + 8).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&last, &bytes).expect("damaged");
        let before = read_topic(&address);
        publish(&address, COUNT + 1..COUNT + 3);
        let mut after = read_topic(&address);
        // Their numbers may be higher by one: what was there may have been a message.
        let added = after.messages.split_off(before.messages.len());
        check(&after, &format!("byte {at}"));
        let payloads: Vec<_> = added.into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(payloads, [payload(COUNT + 1), payload(COUNT + 2)], "byte {at}");
        // A new segment was made for them; away with it.
        for segment in segments(&folder).into_iter().filter(|segment| *segment > last) {
            std::fs::remove_file(segment).expect("removed");
        }
        std::fs::write(&last, &whole).expect("restored");
    }
}

#[test]
fn zeros_in_the_middle_hide_nothing_behind_them() {
    let scratch = Scratch::new();
    let address = small_log(&scratch);
    let last = segments(&scratch.join("log")).pop().expect("a segment");
    let mut bytes = std::fs::read(&last).expect("a segment");
    let ends = frame_ends(&bytes[..used_bytes(&last)]);
    assert!(ends.len() > 3, "{ends:?}");
    // As after a power cut, where the disk had written later parts and not this one.
    bytes[ends[0]..ends[1]].fill(0);
    std::fs::write(&last, &bytes).expect("damaged");
    publish(&address, COUNT + 1..COUNT + 2);
    let readout = read_topic(&address);
    check(&readout, "a hole");
    assert_eq!(readout.messages.len() as u64, COUNT, "one lost, one new: {readout:?}");
    assert_eq!(readout.missing, 1);
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error_and_no_fault() {
    let scratch = Scratch::new();
    let address = format!("file:{}?segment=1MiB", scratch.join("log").display());
    let topic = switchboard::Topic::<Bytes>::open(&address).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    let mut subscriber = topic.subscriber(switchboard::Start::Oldest).expect("a subscriber");
    for n in 1..1000 {
        publisher.send(&Bytes(payload(n))).expect("published");
    }
    for n in 1..100 {
        assert_eq!(subscriber.recv().expect("a message").message.0, payload(n));
    }
    let segment = segments(&scratch.join("log")).pop().expect("a segment");
    File::options().write(true).open(segment).expect("a segment").set_len(64).expect("cut");
    let mut reports = 0;
    loop {
        match subscriber.try_recv() {
            Ok(sample) => assert_eq!(sample.message.0, payload(sample.number)),
            Err(RecvError::Damaged { .. }) => reports += 1,
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(reports > 0);
    let error = publisher.send(&Bytes(vec![0; 100])).expect_err("its file is gone");
    assert!(error.to_string().contains("segment"), "{error}");
}

#[test]
fn a_damaged_table_loses_no_message() {
    let scratch = Scratch::new();
    let address = format!("file:{}", scratch.join("log").display());
    send(&address, 1..21);
    let queue = Queue::<Bytes>::open(&address).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    for _ in 1..11 {
        let delivery = receiver.recv().expect("a message");
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    drop(receiver);
    let path = scratch.join("log").join("queue");
    let whole = std::fs::read(&path).expect("a table");
    let [first, second] = [4096, 24_576];
    let flips = |places: &[usize]| {
        let mut bytes = whole.clone();
        places.iter().for_each(|at| bytes[*at] ^= 4);
        bytes
    };
    let cut = |len: usize| whole[..len].to_vec();
    let cases = [
        ("the first copy", flips(&[first + 100]), 10),
        ("the second copy", flips(&[second + 100]), 10),
        ("both copies", flips(&[first, second]), 20),
        ("the number of those given back", flips(&[first + 3608, second + 3615]), 20),
        ("the second copy cut off", cut(second), 10),
        ("the second copy cut short", cut(second + 3619), 10),
        ("both copies cut off", cut(first), 20),
        ("nothing left", cut(0), 20),
        ("zeros", vec![0; whole.len()], 20),
    ];
    for (what, bytes, least) in cases {
        std::fs::write(&path, &bytes).expect("damaged");
        let (numbers, reports, unmarked) = drain(&queue, &path, &whole);
        assert!(numbers.len() >= least, "{what}: {numbers:?}");
        assert!((11..21).all(|n| numbers.contains(&n)), "{what}: {numbers:?}");
        assert_eq!((reports, unmarked), (1, 0), "{what}");
    }
}

#[test]
fn a_table_damaged_under_a_receiver_is_reported_and_repaired() {
    let scratch = Scratch::new();
    let address = format!("file:{}", scratch.join("log").display());
    send(&address, 1..11);
    let options = switchboard::Options::default().prefetch(4);
    let queue = Queue::<Bytes>::open_with(&address, options).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    for n in 1..4 {
        let delivery = receiver.recv().expect("a message");
        assert_eq!((delivery.number(), delivery.redelivered), (n, false));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    let held = receiver.recv().expect("a message");
    File::options()
        .write(true)
        .open(scratch.join("log").join("queue"))
        .and_then(|table| table.set_len(0))
        .expect("cut");
    // The acknowledgement meets the damage.
    receiver.acknowledge(held).expect("acknowledged");
    let error = receiver.flush().expect_err("it is reported");
    assert!(matches!(&error, RecvError::Damaged { problem, .. } if problem.contains("table")));
    let mut seen = Vec::new();
    while let Ok(delivery) = receiver.try_recv() {
        assert!(delivery.redelivered, "message {} comes unmarked", delivery.number());
        seen.push(delivery.number());
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    assert!((1..11).all(|n| seen.contains(&n)), "{seen:?}");
    drop(receiver);
    send(&address, 11..12);
    let delivery = queue.receiver().expect("a receiver").recv().expect("a message");
    assert_eq!((delivery.message.0, delivery.redelivered), (payload(11), false), "all is well");
}

#[test]
fn a_new_queue_and_an_empty_one_are_not_damaged() {
    let scratch = Scratch::new();
    let address = format!("file:{}", scratch.join("log").display());
    let queue = Queue::<Bytes>::open(&address).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)), "nothing was sent");
    drop(receiver);
    File::create(scratch.join("log").join("queue")).expect("cut to nothing");
    let mut receiver = queue.receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)), "nothing can be missing");
    drop(receiver);
    std::fs::remove_file(scratch.join("log").join("queue")).expect("removed");
    send(&address, 1..3);
    let mut receiver = queue.receiver().expect("a receiver");
    let delivery = receiver.recv().expect("a message");
    assert!(!delivery.redelivered, "nobody has received from it");
    receiver.acknowledge(delivery).expect("acknowledged");
    drop(receiver);
    // From then on it is missed.
    std::fs::remove_file(scratch.join("log").join("queue")).expect("removed");
    let mut receiver = queue.receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Damaged { missing: 0, .. })));
    for _ in 0..2 {
        assert!(receiver.try_recv().expect("a message").redelivered);
    }
}

#[test]
fn a_table_removed_after_segments_were_is_damage() {
    let scratch = Scratch::new();
    let address = format!("file:{}?segment=4096", scratch.join("log").display());
    let queue = Queue::<Bytes>::open(&address).expect("a queue");
    send(&address, 1..COUNT + 1);
    let mut receiver = queue.receiver().expect("a receiver");
    while let Ok(delivery) = receiver.try_recv() {
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    drop(receiver);
    assert!(!scratch.join("log").join("00-0000000001.seg").exists(), "the first was removed");
    std::fs::remove_file(scratch.join("log").join("queue")).expect("removed");
    let mut receiver = queue.receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Damaged { .. })));
    assert!(receiver.recv().expect("a message").redelivered);
}

/// Receives everything, and puts the table back as it was: the numbers, how many reports there were,
/// and how many messages came unmarked.
fn drain(queue: &Queue<Bytes>, path: &Path, whole: &[u8]) -> (Vec<u64>, usize, usize) {
    let mut receiver = queue.receiver().expect("a receiver");
    let (mut numbers, mut reports, mut unmarked) = (Vec::new(), 0, 0);
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                numbers.push(delivery.number());
                unmarked += usize::from(!delivery.redelivered);
                assert_eq!(delivery.message.0, payload(delivery.number()));
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Damaged { .. }) => reports += 1,
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    drop(receiver);
    std::fs::write(path, whole).expect("restored");
    (numbers, reports, unmarked)
}
