//! Logs removed: segments by hand, after which what is sent is received; and logs by `unlink`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use switchboard::{Address, Bytes, ErrorKind, Queue, RecvError, Start, Topic, object};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{number_of, numbers, payload, publish, segments, send};

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

/// Has the bell say of lane 0 how far it was written: its newest segment, and the number of the next message.
fn note_end(folder: &Path, segment: u64, sequence: u64) {
    let words = [segment, sequence].map(u64::to_le_bytes).concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&0_u32.to_le_bytes()), &words);
    let checksum = u64::from(checksum) | 1 << 32;
    let bell = File::options().write(true).open(folder.join("bell")).expect("a bell");
    bell.write_all_at(&[0; 48], 1024).expect("nothing is known");
    bell.write_all_at(&[words, checksum.to_le_bytes().to_vec()].concat(), 1024).expect("noted");
}

fn remove(scratch: &Scratch, most: usize) {
    for segment in segments(&scratch.join("log")).into_iter().rev().take(most) {
        std::fs::remove_file(segment).expect("removed");
    }
}

/// Takes what is there, and acknowledges it; numbers, and how many are said to be missing.
fn take(receiver: &mut switchboard::Receiver<Bytes>, most: usize) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    while numbers.len() < most {
        match receiver.try_recv() {
            Ok(delivery) => {
                numbers.push(delivery.number());
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Damaged { missing, .. }) => lost += missing,
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    (numbers, lost)
}

#[test]
fn a_queue_goes_on_after_the_last_message_handed_out() {
    let scratch = Scratch::new();
    let queue = Queue::<Bytes>::open(&address(&scratch, "")).expect("a queue");
    send(&address(&scratch, ""), 1..11);
    let mut receiver = queue.receiver().expect("a receiver");
    assert_eq!(take(&mut receiver, 100).0.len(), 10);
    // Both for one who is there all the time, and for one who comes later.
    for first in [11, 14] {
        remove(&scratch, usize::MAX);
        send(&address(&scratch, ""), first..first + 3);
        let numbers: Vec<u64> = (first..first + 3).collect();
        assert_eq!(take(&mut receiver, 100), (numbers, 0));
        receiver = queue.receiver().expect("a receiver");
    }
}

#[test]
fn a_queue_of_which_the_newest_segment_is_removed_goes_on() {
    let scratch = Scratch::new();
    let short = address(&scratch, "?segment=4096");
    // Somebody keeps the first message, and so the first segment.
    let queue = Queue::<Bytes>::open(&short).expect("a queue");
    send(&short, 1..101);
    let mut receiver = queue.receiver().expect("a receiver");
    let kept = receiver.try_recv().expect("a message");
    assert_eq!(take(&mut receiver, 99).0.len(), 99);
    let count = segments(&scratch.join("log")).len();
    assert!(count > 2, "{count} segments");
    remove(&scratch, count - 1);
    send(&short, 101..201);
    let (numbers, _) = take(&mut receiver, 100);
    assert!(numbers.into_iter().eq(101..201));
    receiver.acknowledge(kept).expect("acknowledged");
}

#[test]
fn a_topic_goes_on_after_the_last_message_of_a_named_subscriber() {
    let scratch = Scratch::new();
    let named = Topic::<Bytes>::open(&address(&scratch, "?reader=archive")).expect("a topic");
    publish(&address(&scratch, ""), 1..11);
    let mut subscriber = named.subscriber(Start::Oldest).expect("a subscriber");
    assert_eq!(numbers(&mut subscriber).len(), 10);
    for first in [11, 14] {
        remove(&scratch, usize::MAX);
        publish(&address(&scratch, ""), first..first + 3);
        assert!(numbers(&mut subscriber).into_iter().eq(first..first + 3));
        drop(subscriber);
        subscriber = named.subscriber(Start::New).expect("a subscriber");
    }
}

#[test]
fn a_subscriber_without_a_name_is_told_and_goes_on() {
    let scratch = Scratch::new();
    let topic = Topic::<Bytes>::open(&address(&scratch, "")).expect("a topic");
    publish(&address(&scratch, ""), 1..11);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    assert_eq!(numbers(&mut subscriber).len(), 10);
    // The log knows how far it was; without that, numbers begin again.
    remove(&scratch, usize::MAX);
    publish(&address(&scratch, ""), 11..14);
    assert_eq!(numbers(&mut subscriber), [11, 12, 13]);
    remove(&scratch, usize::MAX);
    let bell = File::options().write(true).open(scratch.join("log/bell"));
    bell.expect("a bell").write_all_at(&[0; 1024], 1024).expect("forgotten");
    publish(&address(&scratch, ""), 1..4);
    let error = subscriber.recv_timeout(DEADLINE).expect_err("its segment is gone");
    assert!(matches!(&error, RecvError::Damaged { missing: 0, .. }), "{error}");
    assert!(error.to_string().contains("removed"), "{error}");
    let first = subscriber.recv_timeout(DEADLINE).expect("a message");
    assert_eq!((first.number, first.message.0), (1, payload(1)));
    assert_eq!(numbers(&mut subscriber), [2, 3]);
}

/// Somebody who did not read them yet is told how many are missing, with the next message.
#[test]
fn segments_that_were_not_read_are_missed() {
    let scratch = Scratch::new();
    let short = address(&scratch, "?segment=4096");
    let topic = |query: &str| {
        let address = address(&scratch, query);
        Topic::<Bytes>::open(&address).expect("a topic")
    };
    publish(&short, 1..101);
    let mut named = topic("?reader=archive").subscriber(Start::Oldest).expect("a subscriber");
    let mut there = topic("").subscriber(Start::Oldest).expect("a subscriber");
    for subscriber in [&mut named, &mut there] {
        assert_eq!(subscriber.recv_timeout(DEADLINE).expect("a message").number, 1);
    }
    // One who has read all sees what comes after, too.
    let mut ahead = topic("").subscriber(Start::New).expect("a subscriber");
    drop(named);
    let left = segments(&scratch.join("log")).len();
    for keep in [1, 0] {
        remove(&scratch, left - keep);
        let first = 101 + 3 * (1 - keep as u64);
        publish(&short, first..first + 3);
        let expected: Vec<u64> = (first..first + 3).collect();
        assert_eq!(numbers(&mut ahead), expected);
        let mut named = topic("?reader=archive").subscriber(Start::New).expect("a subscriber");
        for subscriber in [&mut named, &mut there] {
            let (mut found, mut missing) = (Vec::new(), 0);
            loop {
                match subscriber.try_recv() {
                    Ok(sample) => found.push(sample.number),
                    Err(RecvError::Damaged { missing: more, .. }) => missing += more,
                    Err(RecvError::Empty) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let came = found.len() as u64;
            assert!(found.ends_with(&expected), "{found:?}");
            if keep == 1 {
                // All but the first, which was read before.
                assert_eq!(came + missing, 102, "{found:?}");
            }
        }
    }
}

#[test]
fn a_queue_says_what_was_removed_before_anybody_received_it() {
    let scratch = Scratch::new();
    let queue = Queue::<Bytes>::open(&address(&scratch, "")).expect("a queue");
    send(&address(&scratch, ""), 1..11);
    assert_eq!(take(&mut queue.receiver().expect("a receiver"), 1), (vec![1], 0));
    for first in [11, 14] {
        remove(&scratch, usize::MAX);
        send(&address(&scratch, ""), first..first + 3);
        let missing = if first == 11 { 9 } else { 2 };
        let mut receiver = queue.receiver().expect("a receiver");
        assert_eq!(take(&mut receiver, 1), (vec![first], missing));
    }
    // However many that are: nothing is kept for each.
    remove(&scratch, usize::MAX);
    note_end(&scratch.join("log"), 1, 1 << 60);
    send(&address(&scratch, ""), 17..20);
    let mut receiver = queue.receiver().expect("a receiver");
    let (numbers, missing) = take(&mut receiver, 3);
    assert_eq!((numbers[0], missing), (1 << 60, (1 << 60) - 15));
}

#[test]
fn a_table_that_is_removed_before_anybody_received_is_not_missed() {
    let scratch = Scratch::new();
    // Two lanes, neither of which begins with the first segment that was ever made.
    let queue = Queue::<Bytes>::open(&address(&scratch, "")).expect("a queue");
    let mut senders = [0, 1].map(|_| queue.sender().expect("a sender"));
    for sender in &mut senders {
        sender.send(&Bytes(payload(1))).expect("sent");
    }
    drop(senders);
    std::fs::remove_file(scratch.join("log/queue")).expect("removed");
    let mut receiver = queue.receiver().expect("a receiver");
    for _ in 0..2 {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message, and no damage");
        assert_eq!((&delivery.message.0, delivery.number()), (&payload(1), 1));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
}

/// A sender that was killed could not say how far it was: its newest segment is missed all the same.
#[test]
fn a_segment_of_a_killed_sender_is_missed() {
    let scratch = Scratch::new();
    let short = address(&scratch, "?segment=4096");
    let topic = Topic::<Bytes>::open(&short).expect("a topic");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a subscriber");
    publish(&short, 1..101);
    assert_eq!(numbers(&mut subscriber).len(), 100);
    // What is there of a lane whose sender was killed just after it began its last segment.
    let left = segments(&scratch.join("log"));
    let kept = left.len() as u64;
    note_end(&scratch.join("log"), number_of(left.last().expect("a segment")), 1);
    remove(&scratch, 1);
    publish(&short, 101..102);
    let names = segments(&scratch.join("log"));
    assert_eq!(names.len() as u64, kept, "{names:?}: a new one, with a number of its own");
    let error = subscriber.recv_timeout(DEADLINE).expect_err("numbers are there again");
    assert!(matches!(&error, RecvError::Damaged { missing: 0, .. }), "{error}");
    let again = subscriber.recv_timeout(DEADLINE).expect("what was published");
    assert_eq!(again.message.0, payload(101));
}

#[test]
fn what_is_not_of_the_log_is_named_and_nothing_is_removed() {
    let scratch = Scratch::new();
    let folder = scratch.join("log");
    publish(&address(&scratch, ""), 1..11);
    let named = Topic::<Bytes>::open(&address(&scratch, "?reader=archive")).expect("a topic");
    drop(named.subscriber(Start::New).expect("a subscriber"));
    let log: Address = address(&scratch, "").parse().expect("an address");
    let foreign =
        ["notes.txt", "1.seg", "readers/more", "lock.bak", "00-0000000009.seg", ".new-file"];
    for name in foreign {
        let path = folder.join(name);
        match name {
            // A folder of this name is no segment.
            "readers/more" | "00-0000000009.seg" => std::fs::create_dir(&path).expect("a folder"),
            _ => std::fs::write(&path, "mine").expect("a file"),
        }
        let error = object::unlink(&log).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{name}: {error}");
        assert!(error.to_string().contains(path.to_str().expect("a path")), "{name}: {error}");
        assert!(error.to_string().contains("nothing was removed"), "{name}: {error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("move")), "{error}");
        assert!(path.exists(), "{name}");
        if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) }
            .expect("moved away");
        assert_eq!(super::read_topic(&address(&scratch, "")).messages.len(), 10, "{name}");
    }
    object::unlink(&log).expect("removed");
    assert!(!folder.exists());
}

#[test]
fn what_only_has_a_name_of_the_log_is_not_removed() {
    let scratch = Scratch::new();
    let folder = scratch.join("log");
    std::fs::create_dir(&folder).expect("a folder");
    let log: Address = address(&scratch, "").parse().expect("an address");
    let text = &b"mine, all mine"[..];
    // A folder that a log never was in; no file is added to it either.
    for name in ["lock", "queue", "bell", "00-0000000001.seg", ".new-1-0"] {
        std::fs::write(folder.join(name), text).expect("a file");
        let error = object::unlink(&log).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{name}: {error}");
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 1, "{name}");
        std::fs::remove_file(folder.join(name)).expect("moved away");
    }
    // And among the files of a log.
    publish(&address(&scratch, ""), 1..11);
    let whole = segments(&folder).remove(0);
    let mut beyond = std::fs::read(&whole).expect("a segment");
    beyond.truncate(4096);
    let files = [
        ("lock", text),
        ("queue", text),
        ("00-0000000002.seg", text),
        ("64-0000000001.seg", &beyond),
        ("readers/archive", text),
        (".new-1-0", text),
    ];
    std::fs::create_dir(folder.join("readers")).expect("a folder");
    for (name, content) in files {
        let path = folder.join(name);
        let before = std::fs::read(&path).ok();
        std::fs::write(&path, content).expect("a file");
        let count = std::fs::read_dir(&folder).expect("a folder").count();
        let error = object::unlink(&log).expect_err(name);
        assert!(error.to_string().contains(path.to_str().expect("a path")), "{name}: {error}");
        assert!(error.to_string().contains("nothing was removed"), "{name}: {error}");
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), count, "{name}");
        assert_eq!(std::fs::read(&path).expect("a file"), content, "{name}");
        match before {
            Some(before) => std::fs::write(&path, before).expect("as it was"),
            None => std::fs::remove_file(&path).expect("moved away"),
        }
    }
    // What is damaged, or was cut off before its content was written, is of the log.
    let segment = std::fs::read(&whole).expect("a segment");
    let damaged: Vec<u8> =
        segment.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 60)).collect();
    for content in [&damaged[..], &damaged[..9], b"", &[0; 4096]] {
        std::fs::write(folder.join("00-0000000002.seg"), content).expect("a file");
        std::fs::write(folder.join("queue"), &content[..0]).expect("a file");
        std::fs::write(folder.join("readers/archive"), &[0; 4096][..content.len().min(4096)])
            .expect("a file");
        object::unlink(&log).expect("removed");
        assert!(!folder.exists());
        publish(&address(&scratch, ""), 1..11);
        std::fs::create_dir(folder.join("readers")).expect("a folder");
    }
}

#[test]
fn a_folder_that_is_no_log_is_left_as_it_is() {
    let scratch = Scratch::new();
    let folder = scratch.join("log");
    std::fs::create_dir(&folder).expect("a folder");
    let log: Address = address(&scratch, "").parse().expect("an address");
    for content in [None, Some("notes.txt")] {
        if let Some(name) = content {
            std::fs::write(folder.join(name), "mine").expect("a file");
        }
        let error = object::unlink(&log).expect_err("no log");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let found = std::fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(found, usize::from(content.is_some()));
    }
}
