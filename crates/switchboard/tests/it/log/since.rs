//! Subscribers that begin at a time: what they read, and that no header that lies takes a message from them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchboard::{Bytes, RecvError, Start, Topic};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{numbers, payload, publish, read_topic, segments};

/// Where a header says when it was made, and until when what is before it was sent.
const MADE_AT: usize = 48;
const UNTIL_AT: usize = 56;

fn address(scratch: &Scratch, query: &str) -> String {
    format!("file:{}{query}", scratch.join("log").display())
}

fn topic(scratch: &Scratch, query: &str) -> Topic<Bytes> {
    Topic::open(&address(scratch, query)).expect("a topic")
}

/// Writes into a segment's header, and makes its checksum hold.
fn forge(segment: &Path, at: usize, bytes: &[u8]) {
    let file = File::options().read(true).write(true).open(segment).expect("a segment");
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).expect("a header");
    header[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&header, 0).expect("written");
}

fn seconds(time: SystemTime) -> u32 {
    time.duration_since(UNIX_EPOCH).expect("a time").as_secs().try_into().expect("this century")
}

fn wait(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A log of short segments with messages 1 to 200, and 201 to 400 a while later: the time between them.
fn log(scratch: &Scratch) -> SystemTime {
    publish(&address(scratch, "?segment=4096"), 1..201);
    // Headers say seconds, and the clock of a log is that of the kernel's ticks.
    wait(Duration::from_millis(1100));
    let between = SystemTime::now();
    wait(Duration::from_millis(50));
    publish(&address(scratch, "?segment=4096"), 201..401);
    between
}

#[test]
fn what_is_older_than_the_time_is_not_read() {
    let scratch = Scratch::new();
    let between = log(&scratch);
    let all = segments(&scratch.join("log"));
    assert!(all.len() > 6, "{all:?}");
    // A bit in the number of a message: whoever reads the segment says so.
    let file = File::options().read(true).write(true).open(&all[0]).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64 + 16).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], 64 + 16).expect("flipped");
    let mut oldest = topic(&scratch, "").subscriber(Start::Oldest).expect("a subscriber");
    assert!(
        matches!(oldest.try_recv(), Err(RecvError::Damaged { .. })),
        "this test breaks nothing"
    );
    for query in ["", "?reader=late"] {
        let topic = topic(&scratch, query);
        let mut late = topic.subscriber(Start::Time(between)).expect("a subscriber");
        assert!(numbers(&mut late).into_iter().eq(201..401), "{query}");
    }
    // Under its name it goes on.
    publish(&address(&scratch, "?segment=4096"), 401..402);
    let named = topic(&scratch, "?reader=late");
    assert_eq!(numbers(&mut named.subscriber(Start::Oldest).expect("a subscriber")), [401]);
}

#[test]
fn a_header_that_lies_takes_no_message_away() {
    let scratch = Scratch::new();
    let begun = SystemTime::now() - Duration::from_secs(1);
    let between = log(&scratch);
    let topic = topic(&scratch, "");
    let check = |what: &str| {
        for (since, first) in [(begun, 1), (between, 201)] {
            let mut from = topic.subscriber(Start::Time(since)).expect("a subscriber");
            assert!(numbers(&mut from).into_iter().eq(first..401), "{what}, from {first}");
        }
        let later = SystemTime::now() + Duration::from_secs(3600);
        let mut from = topic.subscriber(Start::Time(later)).expect("a subscriber");
        assert!(numbers(&mut from).is_empty(), "{what}");
    };
    check("as it is");
    let all = segments(&scratch.join("log"));
    for (at, segment) in all.iter().enumerate() {
        let kept = std::fs::read(segment).expect("a segment");
        // Nothing, as an older version; the oldest time, one in between, and others to come.
        for until in [0, 1, seconds(between), seconds(between) + 100, u32::MAX] {
            forge(segment, UNTIL_AT, &until.to_le_bytes());
            check(&format!("segment {at} of {} says {until}", all.len()));
        }
        for made in [0, 1, u64::MAX] {
            forge(segment, MADE_AT, &made.to_le_bytes());
            check(&format!("segment {at} was made at {made}"));
        }
        forge(segment, UNTIL_AT, &kept[UNTIL_AT..UNTIL_AT + 4]);
        forge(segment, MADE_AT, &kept[MADE_AT..MADE_AT + 8]);
    }
    // A log of a version that said nothing.
    all.iter().for_each(|segment| forge(segment, UNTIL_AT, &[0; 4]));
    check("nothing is said");
    // Who goes on in it does not know what came before, and does not say it.
    publish(&address(&scratch, "?segment=4096"), 401..501);
    let mut from = topic.subscriber(Start::Time(between)).expect("a subscriber");
    assert!(numbers(&mut from).into_iter().eq(201..501));
}

#[test]
fn a_sender_knows_the_newest_message_also_behind_a_header_that_does_not_hold() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..201);
    let all = segments(&scratch.join("log"));
    let newest = all.last().expect("a segment");
    let file = File::options().write(true).open(newest).expect("a segment");
    file.write_all_at(b"?", 20).expect("damaged");
    publish(&address(&scratch, "?segment=4096"), 201..301);
    wait(Duration::from_millis(1100));
    let between = SystemTime::now();
    wait(Duration::from_millis(50));
    publish(&address(&scratch, "?segment=4096"), 301..401);
    // What is before is not read: nobody says that a header does not hold.
    let mut late = topic(&scratch, "").subscriber(Start::Time(between)).expect("a subscriber");
    assert!(numbers(&mut late).into_iter().eq(301..401));
}

/// A clock that was ahead when segments were made: they are removed all the same.
#[test]
fn a_time_that_has_not_come_keeps_nothing_for_ever() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..201);
    let all = segments(&scratch.join("log"));
    let next_year = SystemTime::now() + Duration::from_secs(365 * 86_400);
    let made = u64::from(seconds(next_year)) * 1_000_000_000;
    all.iter().for_each(|segment| forge(segment, MADE_AT, &made.to_le_bytes()));
    wait(Duration::from_millis(1100));
    let retained = topic(&scratch, "?segment=4096&retain=1s");
    drop(retained.publisher().expect("a publisher"));
    let left = segments(&scratch.join("log"));
    assert!(left.len() <= 2 && !left.contains(&all[0]), "{left:?}");
}

/// The same where the messages, too, were sent by that clock: they go once another segment says when it was.
#[test]
fn messages_of_a_time_that_has_not_come_are_removed() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..201);
    let all = segments(&scratch.join("log"));
    let next_year = seconds(SystemTime::now()) + 365 * 86_400;
    for segment in &all {
        forge(segment, MADE_AT, &(u64::from(next_year) * 1_000_000_000).to_le_bytes());
        forge(segment, UNTIL_AT, &next_year.to_le_bytes());
    }
    wait(Duration::from_millis(1100));
    let retained = topic(&scratch, "?segment=4096&retain=1s");
    let mut publisher = retained.publisher().expect("a publisher");
    let begun = Instant::now();
    for n in 201.. {
        publisher.send(&Bytes(payload(n))).expect("published");
        if !segments(&scratch.join("log")).iter().any(|segment| all.contains(segment)) {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "nothing is removed");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(publisher);
    assert!(read_topic(&address(&scratch, "")).messages.iter().all(|(number, _)| *number > 200));
}

/// A clock that was behind, as a machine without one begins with 1970: what was just sent is not removed for it.
#[test]
fn a_clock_that_was_behind_removes_nothing_early() {
    let scratch = Scratch::new();
    publish(&address(&scratch, "?segment=4096"), 1..201);
    let all = segments(&scratch.join("log"));
    all.iter().skip(1).for_each(|segment| forge(segment, MADE_AT, &[0; 8]));
    drop(topic(&scratch, "?segment=4096&retain=1h").publisher().expect("a publisher"));
    assert!(segments(&scratch.join("log")).starts_with(&all));
    assert_eq!(read_topic(&address(&scratch, "")).messages.len(), 200);
}
