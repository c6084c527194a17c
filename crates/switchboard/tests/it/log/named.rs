//! Named subscribers (`?reader=`): whatever becomes of one, the next of its name misses nothing.

use std::time::{Duration, Instant, SystemTime};

use switchboard::{Bytes, Receiver, RecvError, Start, Topic};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{numbers, publish};

/// As many messages come again at most.
const MOST_AGAIN: u64 = 256;

/// Where the log is, for `archive`.
fn archive(scratch: &Scratch) -> String {
    format!("file:{}?reader=archive", scratch.join("log").display())
}

fn log(scratch: &Scratch) -> String {
    format!("file:{}", scratch.join("log").display())
}

fn topic(address: &str) -> Topic<Bytes> {
    Topic::open(address).expect("a topic")
}

/// What the next one of the name gets, wherever new ones begin.
fn rest(scratch: &Scratch) -> Vec<u64> {
    numbers(&mut topic(&archive(scratch)).subscriber(Start::New).expect("a subscriber"))
}

/// Role: subscribes as `archive` and receives as many messages as it is told.
///
/// Singly or in batches; or it receives all of them, and acknowledges so many.
pub(crate) fn reader(arguments: &[String]) {
    let start = match arguments[1].as_str() {
        "new" => Start::New,
        "oldest" => Start::Oldest,
        number => Start::Number(number.parse().expect("a number")),
    };
    let mut subscriber = topic(&arguments[0]).subscriber(start).expect("a subscriber");
    report("open");
    while let Some(line) = instruction() {
        let (how, count) = line.split_once(' ').expect("two words");
        let count: u64 = count.parse().expect("a number");
        match how {
            "singly" => {
                for _ in 0..count {
                    subscriber.recv_timeout(DEADLINE).expect("a message");
                }
                report(count);
            }
            "batches" => {
                let mut got = 0;
                while got < count {
                    let most = (count - got) as usize;
                    got += subscriber.recv_each(most, Some(DEADLINE), |_| {}).expect("some") as u64;
                }
                report(got);
            }
            _ => {
                let mut receiver = Receiver::from(subscriber);
                let mut tickets = Vec::new();
                while let Ok(n) = receiver.recv_each(4096, Some(Duration::ZERO), |_, ticket| {
                    tickets.push(ticket);
                    false
                }) {
                    assert!(n > 0);
                }
                // From the last to the first, as slow commands do it.
                tickets.truncate(count as usize);
                for ticket in tickets.iter().rev() {
                    receiver.acknowledge_ticket(*ticket).expect("acknowledged");
                }
                // Nothing more is there: that is when the place is kept.
                assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
                report("acknowledged");
                assert_eq!(instruction(), None);
                return;
            }
        }
    }
}

/// A reader of 2000 messages after 10 that it does not want, killed when it has received so many.
fn killed_after(how: &str, count: u64) {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..11);
    let mut child = Child::role("log-named-reader", &[archive(&scratch).as_str(), "new"]);
    child.expect("open");
    publish(&log(&scratch), 11..2011);
    if count > 0 {
        child.tell(&format!("{how} {count}"));
        child.expect(&count.to_string());
    }
    child.kill();
    let rest = rest(&scratch);
    let first = rest[0];
    let what = format!("{count} by {how}, then from {first} on");
    let last = rest.last();
    assert!(rest.iter().copied().eq(first..2011), "{what}: {} to {last:?}", rest.len());
    // The last one that it was given may not have been done with.
    assert!(first <= 10 + count.max(1) && first + MOST_AGAIN > 10 + count, "{what}");
}

#[test]
fn one_killed_in_its_first_session_loses_nothing() {
    for count in [0, 1, 2, 255, 256, 257, 300, 1024, 1999, 2000] {
        killed_after("singly", count);
    }
}

#[test]
fn one_killed_between_batches_loses_nothing() {
    for count in [1, 200, 256, 257, 600, 2000] {
        killed_after("batches", count);
    }
}

#[test]
fn the_place_is_kept_every_second() {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..101);
    let mut child = Child::role("log-named-reader", &[archive(&scratch).as_str(), "oldest"]);
    child.expect("open");
    child.tell("singly 5");
    child.expect("5");
    let begun = Instant::now();
    while begun.elapsed() <= Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.tell("singly 2");
    child.expect("2");
    child.kill();
    assert!(rest(&scratch).into_iter().eq(6..101));
}

#[test]
fn the_place_is_before_what_is_not_acknowledged() {
    for count in [0, 1, 300, 1000] {
        let scratch = Scratch::new();
        publish(&log(&scratch), 1..1001);
        let mut child = Child::role("log-named-reader", &[archive(&scratch).as_str(), "oldest"]);
        child.expect("open");
        child.tell(&format!("acknowledge {count}"));
        child.expect("acknowledged");
        child.kill();
        assert!(rest(&scratch).into_iter().eq(count + 1..1001), "{count}");
    }
}

#[test]
fn where_it_began_counts_before_its_first_message() {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..21);
    for (start, first) in [("new", 21), ("oldest", 1), ("7", 7), ("100", 21)] {
        let address = format!("{}?reader=r{start}", log(&scratch));
        let mut child = Child::role("log-named-reader", &[address.as_str(), start]);
        child.expect("open");
        child.kill();
        let subscriber = topic(&address).subscriber(Start::Oldest);
        assert!(numbers(&mut subscriber.expect("a subscriber")).into_iter().eq(first..21));
    }
    // A place beyond the end is no number that the next message has to have.
    publish(&log(&scratch), 21..22);
    let mut all = topic(&log(&scratch)).subscriber(Start::Oldest).expect("a subscriber");
    assert!(numbers(&mut all).into_iter().eq(1..22));
}

#[test]
fn a_time_to_begin_at_counts_once() {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..6);
    // The clock of a log is that of the kernel's ticks.
    let between = SystemTime::now() + Duration::from_millis(20);
    while SystemTime::now() < between + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    publish(&log(&scratch), 6..9);
    let archive = topic(&archive(&scratch));
    drop(archive.subscriber(Start::Time(between)).expect("a subscriber"));
    let late = Start::Time(SystemTime::now() + Duration::from_secs(3600));
    let mut subscriber = archive.subscriber(late).expect("a subscriber");
    assert!(numbers(&mut subscriber).into_iter().eq(6..9), "the place counts, not the time");
}

#[test]
fn lanes_that_came_while_it_was_away_are_read_whole() {
    let scratch = Scratch::new();
    // The log is there, and has no lane yet.
    assert!(rest(&scratch).is_empty());
    let mut first = topic(&log(&scratch)).publisher().expect("a publisher");
    (0..3).for_each(|_| first.send(&Bytes(vec![1])).expect("published"));
    assert_eq!(rest(&scratch), [1, 2, 3]);
    let mut second = topic(&log(&scratch)).publisher().expect("a publisher");
    (0..2).for_each(|_| second.send(&Bytes(vec![2])).expect("published"));
    first.send(&Bytes(vec![1])).expect("published");
    let mut numbers = rest(&scratch);
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 4], "two of the new lane, one of the other");
}

#[test]
fn a_place_that_lies_harms_nobody() {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..6);
    drop(topic(&archive(&scratch)).subscriber(Start::New).expect("a subscriber"));
    let path = scratch.join("log").join("readers").join("archive");
    let mut place = std::fs::read(&path).expect("a place");
    // The newer copy, at 0: lane 0 is beyond every number.
    place[16..24].fill(0xff);
    let checksum = crc32c::crc32c(&place[..528]);
    place[528..532].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, place).expect("written");
    publish(&log(&scratch), 6..8);
    // It does not hold, and the older one says where it was.
    let mut named = topic(&archive(&scratch)).subscriber(Start::New).expect("a subscriber");
    let error = named.try_recv().expect_err("it is reported");
    assert!(matches!(&error, RecvError::Damaged { missing: 0, .. }), "{error}");
    assert_eq!(numbers(&mut named), [6, 7]);
    let mut all = topic(&log(&scratch)).subscriber(Start::Oldest).expect("a subscriber");
    assert!(numbers(&mut all).into_iter().eq(1..8));
}

#[test]
fn a_damaged_place_is_reported_and_nothing_is_skipped() {
    let scratch = Scratch::new();
    publish(&log(&scratch), 1..6);
    let open = || topic(&archive(&scratch)).subscriber(Start::New).expect("a subscriber");
    drop(open());
    let place = scratch.join("log").join("readers").join("archive");
    let mut bytes = std::fs::read(&place).expect("a place");
    bytes[20] ^= 1;
    bytes[4096 + 20] ^= 1;
    std::fs::write(&place, bytes).expect("damaged");
    let mut subscriber = open();
    let error = subscriber.try_recv().expect_err("it is damaged");
    assert!(matches!(&error, RecvError::Damaged { missing: 0, .. }), "{error}");
    assert!(error.to_string().contains("archive"), "{error}");
    assert_eq!(numbers(&mut subscriber), [1, 2, 3, 4, 5]);
    drop(subscriber);
    assert!(rest(&scratch).is_empty(), "it is kept again");
}
