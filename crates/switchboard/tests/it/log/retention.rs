//! Retention: what is removed, when, and that subscribers are told.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use switchboard::{Bytes, RecvError, Start, Topic};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{numbers, payload, publish, read_topic, segments};

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

fn topic(scratch: &Scratch, query: &str) -> Topic<Bytes> {
    Topic::open(&address(scratch, query)).expect("a topic")
}

#[test]
fn retention_removes_the_oldest_and_says_what_is_missing() {
    let scratch = Scratch::new();
    let query = "?segment=4096&retain-bytes=8KiB";
    let mut slow = topic(&scratch, query).subscriber(Start::New).expect("a subscriber");
    publish(&address(&scratch, query), 1..2);
    assert_eq!(numbers(&mut slow), [1]);
    publish(&address(&scratch, query), 2..201);
    assert!(segments(&scratch.join("log")).len() <= 3);
    let readout = read_topic(&address(&scratch, query));
    let first = readout.messages.first().expect("a message").0;
    assert!(first > 20 && readout.messages.last().expect("a message").0 == 200);
    for (number, bytes) in readout.messages {
        assert_eq!(bytes, payload(number));
    }
    // It was reading the first segment, which it still has; then it is told what it missed.
    let (mut seen, mut missing) = (1, 0);
    loop {
        match slow.try_recv() {
            Ok(sample) => {
                assert_eq!(sample.number, seen + missing + 1);
                seen += 1;
            }
            Err(RecvError::Damaged { missing: more, .. }) => missing += more,
            Err(RecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(missing > 0 && seen + missing == 200, "{seen} seen, {missing} missing");
}

#[test]
fn a_publisher_removes_what_is_too_much_when_it_is_opened() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..201);
    let before = segments(&scratch.join("log"));
    assert!(before.len() > 3, "{before:?}");
    let query = "?segment=4096&retain-bytes=8KiB";
    let publisher = topic(&scratch, query).publisher().expect("a publisher");
    assert_eq!(segments(&scratch.join("log")), before[before.len() - 2..]);
    drop(publisher);
    let readout = read_topic(&address(&scratch, ""));
    assert_eq!(readout.messages.last().expect("a message").0, 200);
}

#[test]
fn a_publisher_removes_what_is_too_old_when_it_is_opened() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..101);
    let sent = Instant::now();
    let open = |query| drop(topic(&scratch, query).publisher().expect("a publisher"));
    open("?segment=4096&retain=1h");
    assert_eq!(read_topic(&address(&scratch, "")).messages.len(), 100);
    while sent.elapsed() < Duration::from_millis(1100) {
        std::thread::sleep(Duration::from_millis(20));
    }
    open("?segment=4096&retain=1s");
    assert!(read_topic(&address(&scratch, "")).messages.is_empty());
    assert_eq!(segments(&scratch.join("log")).len(), 1, "the newest stays");
    publish(&address(&scratch, ""), 101..102);
    assert_eq!(read_topic(&address(&scratch, "")).messages[0].0, 101);
}

#[test]
fn a_publisher_removes_what_is_too_old_while_it_publishes() {
    let scratch = Scratch::new();
    // All of it would fit into one segment.
    let mut publisher = topic(&scratch, "?retain=1s").publisher().expect("a publisher");
    let mut sent = Vec::new();
    let begun = Instant::now();
    let readout = loop {
        sent.push(Instant::now());
        publisher.send(&Bytes(payload(sent.len() as u64))).expect("published");
        let readout = read_topic(&address(&scratch, ""));
        if readout.messages[0].0 > 1 {
            break readout;
        }
        assert!(begun.elapsed() < DEADLINE, "nothing is removed");
        std::thread::sleep(Duration::from_millis(10));
    };
    let numbers: Vec<u64> = readout.messages.iter().map(|(number, _)| *number).collect();
    let first = numbers[0];
    assert!(numbers.into_iter().eq(first..=sent.len() as u64) && readout.missing == 0);
    // The clock of a log may be a tick behind.
    let youngest = sent[first as usize - 2].elapsed();
    assert!(youngest >= Duration::from_millis(980), "{youngest:?}");
    // A segment of a second, a second, and up to a second until it looks; a busy machine adds to that.
    let kept = sent[first as usize - 1].elapsed();
    assert!(kept < DEADLINE / 2, "{kept:?}");
}

#[test]
fn a_segment_that_is_begun_for_its_age_takes_little_room() {
    let scratch = Scratch::new();
    let query = "?retain=1s&durability=synced";
    let mut publisher = topic(&scratch, query).publisher().expect("a publisher");
    let begun = Instant::now();
    let first = segments(&scratch.join("log"));
    loop {
        publisher.send(&Bytes(b"a few bytes".into())).expect("published");
        let now = segments(&scratch.join("log"));
        for segment in &now {
            // Removed meanwhile, it takes none.
            let taken = std::fs::metadata(segment).map_or(0, |segment| segment.blocks() * 512);
            assert!(taken < 2 << 20, "{taken} bytes of {}", segment.display());
        }
        if now.last() != first.last() {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "no other segment is begun");
        std::thread::sleep(Duration::from_millis(10));
    }
}
