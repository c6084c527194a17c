//! Files of a log that say nothing any more, or what cannot be: as a power cut leaves them, or somebody who
//! lies. What is sent afterwards comes, and what is missing is told.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use switchboard::{Bytes, ErrorKind, Queue, RecvError, Topic};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{payload, publish, read_topic, segments, send};

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

/// What a disk has of a file that it never got to: its length, or not even that.
fn forget(path: &Path, keeps_length: bool) {
    let len = std::fs::metadata(path).expect("a file").len();
    let file = File::create(path).expect("cut to nothing");
    if keeps_length {
        file.set_len(len).expect("zeros");
    }
}

/// Takes all there is: payloads, how many reports there were, and how many messages are said to be missing.
fn drain(address: &str) -> (Vec<Vec<u8>>, usize, u64) {
    let queue = Queue::<Bytes>::open(address).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    let (mut payloads, mut reports, mut lost) = (Vec::new(), 0, 0);
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                payloads.push(delivery.message.0.clone());
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Damaged { missing, .. }) => {
                reports += 1;
                lost += missing;
            }
            Err(RecvError::Empty) => return (payloads, reports, lost),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_synced_after_a_power_cut_is_received() {
    for keeps_length in [true, false] {
        let scratch = Scratch::new();
        let (folder, plain) = (scratch.join("log"), address(&scratch, ""));
        send(&plain, 1..6);
        assert_eq!(drain(&plain).0.len(), 5);
        for segment in segments(&folder) {
            forget(&segment, keeps_length);
        }
        forget(&folder.join("queue"), keeps_length);
        forget(&folder.join("bell"), true);
        send(&address(&scratch, "?durability=synced"), 6..8);
        let (payloads, reports, lost) = drain(&plain);
        assert_eq!(payloads, [payload(6), payload(7)], "lengths kept: {keeps_length}");
        assert!(reports >= 2, "the table and the segment: {reports}");
        assert!(lost >= 1, "{lost}");
        assert_eq!(drain(&plain), (vec![], 0, 0), "that was all");
    }
}

/// One that was there is told, and one who comes with a place of its own.
#[test]
fn a_segment_that_says_nothing_is_told_though_nothing_else_knows_its_end() {
    for keeps_length in [true, false] {
        let scratch = Scratch::new();
        let (folder, plain) = (scratch.join("log"), address(&scratch, ""));
        send(&plain, 1..11);
        let queue = Queue::<Bytes>::open(&plain).expect("a queue");
        let mut receiver = queue.receiver().expect("a receiver");
        for _ in 0..3 {
            let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
            receiver.acknowledge(delivery).expect("acknowledged");
        }
        drop(receiver);
        for segment in segments(&folder) {
            forget(&segment, keeps_length);
        }
        forget(&folder.join("bell"), true);
        send(&plain, 11..13);
        let (payloads, _, lost) = drain(&plain);
        assert_eq!(payloads, [payload(11), payload(12)], "lengths kept: {keeps_length}");
        assert!(lost >= 1, "seven are, of which one is known: {lost}");
    }
}

/// A batch is one frame: the table knows of some of its messages, and nobody of the others.
#[test]
fn a_damaged_batch_of_which_a_part_was_received_is_told() {
    let scratch = Scratch::new();
    let (folder, batches) = (scratch.join("log"), address(&scratch, "?durability=written"));
    let queue = Queue::<Bytes>::open(&batches).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    for n in 1..61 {
        sender.feed(&payload(n)).expect("taken");
    }
    sender.close().expect("closed");
    let mut receiver = queue.receiver().expect("a receiver");
    for _ in 0..30 {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    drop(receiver);
    let segment = File::options().write(true).open(segments(&folder).pop().expect("a segment"));
    segment.expect("a segment").write_all_at(&[0xEE; 8], 100).expect("damaged");
    forget(&folder.join("bell"), true);
    send(&batches, 61..63);
    let (payloads, _, lost) = drain(&batches);
    assert_eq!(payloads, [payload(61), payload(62)]);
    assert!(lost >= 1, "thirty are, of which one is known: {lost}");
}

#[test]
fn the_next_sender_says_that_all_segments_are_gone() {
    let scratch = Scratch::new();
    for (forgets, first) in [(false, 11), (true, 1)] {
        publish(&address(&scratch, ""), 1..11);
        for segment in segments(&scratch.join("log")) {
            std::fs::remove_file(segment).expect("removed");
        }
        if forgets {
            forget(&scratch.join("log/bell"), true);
        }
        let topic = Topic::<Bytes>::open(&address(&scratch, "")).expect("a topic");
        let mut publisher = topic.publisher().expect("a publisher");
        let remark = publisher.remark().map(str::to_owned);
        assert_eq!(remark.is_some(), !forgets, "{remark:?}");
        assert!(remark.is_none_or(|said| said.contains("before 11")), "numbers go on");
        publisher.send(&Bytes(payload(11))).expect("published");
        publisher.finish().expect("closed");
        drop(publisher);
        let readout = read_topic(&address(&scratch, ""));
        assert_eq!(readout.messages, [(first, payload(11))]);
        switchboard::object::unlink(&address(&scratch, "").parse().expect("an address"))
            .expect("removed");
    }
}

#[test]
fn numbers_that_nobody_comes_to_are_no_numbers() {
    let scratch = Scratch::new();
    let (folder, plain) = (scratch.join("log"), address(&scratch, ""));
    // Of an empty log, and of one with messages.
    for before in [0, 3] {
        send(&plain, 1..before + 1);
        drain(&plain);
        let names = ["00-18446744073709551615.seg", "00-4611686018427387905.seg"];
        for name in names {
            File::create(folder.join(name)).expect("a file");
        }
        let bell = File::options().write(true).open(folder.join("bell")).expect("a bell");
        bell.write_all_at(&[0xFF; 4096], 0).expect("a lie");
        if before == 0 {
            let sender = Queue::<Bytes>::open(&plain).expect("a queue").sender();
            assert_eq!(sender.expect("a sender").remark(), None, "nothing was there");
        }
        for _ in 0..2 {
            send(&plain, 6..8);
            assert_eq!(drain(&plain).0, [payload(6), payload(7)]);
        }
        for name in names {
            std::fs::remove_file(folder.join(name)).expect("removed");
        }
    }
    // One that leaves no number after it is said, and not counted on from.
    let last = folder.join("00-4611686018427387904.seg");
    File::create(&last).expect("a file");
    let queue = Queue::<Bytes>::open(&plain).expect("a queue");
    let error = queue.sender().expect_err("no number is left");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains("4611686018427387904"), "{error}");
    std::fs::remove_file(last).expect("removed");
    send(&plain, 6..8);
    assert_eq!(drain(&plain).0, [payload(6), payload(7)]);
}

#[test]
fn an_empty_file_with_the_name_of_a_segment_hides_nothing() {
    let scratch = Scratch::new();
    let plain = address(&scratch, "");
    switchboard::object::create(&plain.parse().expect("an address")).expect("made");
    File::create(scratch.join("log/00-0000000005.seg")).expect("a file");
    send(&plain, 1..3);
    let (payloads, reports, _) = drain(&plain);
    assert_eq!(payloads, [payload(1), payload(2)]);
    assert!(reports > 0);
}

/// A log may have been begun with shorter segments than a sender asks for.
#[test]
fn a_message_that_the_segment_before_could_not_hold_gets_a_longer_one() {
    let scratch = Scratch::new();
    for durability in ["memory", "synced"] {
        let with = |segment: &str| address(&scratch, &format!("?durability={durability}{segment}"));
        publish(&with("&segment=4096"), 1..3);
        let topic = Topic::<Bytes>::open(&with("&segment=64KiB")).expect("a topic");
        let mut publisher = topic.publisher().expect("a publisher");
        let large = vec![7; 20_000];
        publisher.send(&Bytes(large.clone())).expect("published");
        publisher.finish().expect("closed");
        drop(publisher);
        let readout = read_topic(&with(""));
        let payloads: Vec<_> = readout.messages.into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(payloads, [payload(1), payload(2), large]);
        assert_eq!(segments(&scratch.join("log")).len(), 2);
        switchboard::object::unlink(&with("").parse().expect("an address")).expect("removed");
    }
}
