//! Rates by tables: what was, what is, how long that took, and what follows.

use super::*;
use crate::kind::Kind;
use crate::model::{SocketUse, Times};

/// A machine at a moment, with nothing on it.
fn at(since_boot_ms: u64, taken_unix_ms: u64) -> Snapshot {
    Snapshot { machine: "here".to_owned(), since_boot_ms, taken_unix_ms, ..Snapshot::default() }
}

fn connection(received: u64, sent: u64, place: &str) -> Object {
    let mut object = Object::new(Kind::Tcp, "tcp:7");
    object.add_name(place.to_owned());
    object.details.insert("remote", place.to_owned());
    let traffic = Some(Traffic { received_bytes: received, sent_bytes: sent });
    object.socket = Some(SocketUse { traffic, ..SocketUse::default() });
    object
}

fn with(mut snapshot: Snapshot, objects: impl IntoIterator<Item = Object>) -> Snapshot {
    snapshot.objects.extend(objects);
    snapshot
}

#[test]
fn counters() {
    const MOST: u64 = u64::MAX;
    let rate = |received_bytes_per_s, sent_bytes_per_s| {
        Some(TrafficRate { received_bytes_per_s, sent_bytes_per_s })
    };
    for (was, is, ms, expected) in [
        ((0, 0), (0, 0), 1000, rate(0, 0)),
        ((10, 5), (1010, 5), 1000, rate(1000, 0)),
        ((10, 5), (1010, 505), 500, rate(2000, 1000)),
        ((0, 0), (1000, 2000), 3000, rate(333, 667)),
        ((0, 0), (1, 1), 1, rate(1000, 1000)),
        // Near the end of what a number holds.
        ((0, MOST - 1), (MOST, MOST), 1, rate(MOST, 1000)),
        ((MOST, MOST), (MOST, MOST), MOST, rate(0, 0)),
        // One of them jumped back: it is another socket's, and the other one says nothing either.
        ((10, 5), (9, 5), 1000, None),
        ((10, 5), (11, 4), 1000, None),
        ((MOST, MOST), (0, 0), 1000, None),
    ] {
        let before = with(at(1, 0), [connection(was.0, was.1, "a")]);
        let after = with(at(1_u64.saturating_add(ms), 0), [connection(is.0, is.1, "a")]);
        let after = Snapshot { since_boot_ms: after.since_boot_ms.max(2), ..after };
        let found = between(&before, &after);
        assert_eq!(found.object("tcp:7").traffic, expected, "{was:?} to {is:?} in {ms} ms");
        let moved = expected.is_some_and(|rate| rate != TrafficRate::default());
        assert_eq!(found.object("tcp:7").moved, moved);
    }
}

#[test]
fn what_came_went_or_is_another_one() {
    let one = || connection(10, 10, "a");
    let more = || connection(20, 20, "a");
    let bare = || Object::new(Kind::Tcp, "tcp:7");
    let other_kind = || Object { kind: Kind::Udp, ..more() };
    type Objects = Vec<Object>;
    let cases: [(Objects, Objects, bool); 7] = [
        (vec![one()], vec![more()], true),
        (vec![], vec![more()], false),
        (vec![one()], vec![], false),
        (vec![one()], vec![connection(20, 20, "b")], false),
        (vec![bare()], vec![more()], false),
        (vec![one()], vec![bare()], false),
        (vec![one()], vec![other_kind()], false),
    ];
    for (at_first, then, has_rate) in cases {
        let (before, after) = (with(at(1000, 0), at_first), with(at(2000, 0), then));
        let found = between(&before, &after).object("tcp:7");
        assert_eq!(found.traffic.is_some(), has_rate, "{before:?} {after:?}");
    }
}

#[test]
fn clocks() {
    let second = Some(Duration::from_secs(1));
    // Since boot, and the time of day, at each look.
    for (was, is, expected) in [
        ((1000, 50_000), (2000, 51_000), second),
        // Somebody set the time of day, forwards and backwards.
        ((1000, 50_000), (2000, 9_999_000), second),
        ((1000, 50_000), (2000, 7), second),
        // A snapshot of a program that did not write the other clock.
        ((0, 50_000), (0, 51_000), second),
        ((1000, 50_000), (0, 51_000), second),
        ((0, 50_000), (0, 49_000), None),
        // Twice the same, the wrong way round, started again meanwhile.
        ((1000, 50_000), (1000, 51_000), None),
        ((2000, 51_000), (1000, 50_000), None),
        ((9_000_000, 50_000), (10, 99_000), None),
        ((1, 0), (u64::MAX, 0), Some(Duration::from_millis(u64::MAX - 1))),
    ] {
        let before = with(at(was.0, was.1), [connection(0, 0, "a")]);
        let after = with(at(is.0, is.1), [connection(1000, 1000, "a")]);
        let found = between(&before, &after);
        assert_eq!(found.elapsed, expected, "{was:?} to {is:?}");
        assert_eq!(found.object("tcp:7").traffic.is_some(), expected.is_some());
    }
    let elsewhere = Snapshot { machine: "there".to_owned(), ..at(2000, 0) };
    assert_eq!(between(&at(1000, 0), &elsewhere).elapsed, None);
}

#[test]
fn fill() {
    const MOST: u64 = u64::MAX;
    for (was, is, ms, expected) in [
        (Some(0), Some(4096), 1000, Some(4096)),
        (Some(4096), Some(0), 2000, Some(-2048)),
        (Some(7), Some(7), 1000, Some(0)),
        (Some(0), Some(MOST), 1, Some(i64::MAX)),
        (Some(MOST), Some(0), 1, Some(-i64::MAX)),
        (None, Some(1), 1000, None),
        (Some(1), None, 1000, None),
    ] {
        let pipe = |fill| Object { fill, ..Object::new(Kind::Pipe, "pipe:1") };
        let (before, after) = (with(at(1, 0), [pipe(was)]), with(at(1 + ms, 0), [pipe(is)]));
        let found = between(&before, &after).object("pipe:1");
        assert_eq!(found.fill_per_s, expected, "{was:?} to {is:?} in {ms} ms");
        assert_eq!(found.traffic, None, "the kernel counts nothing of a pipe");
        assert_eq!(found.moved, was != is);
    }
}

/// Somebody sent and somebody received: as much is in it as before.
#[test]
fn a_queue_that_is_used_evenly() {
    let queue = |used_ms: u64| Object {
        fill: Some(5),
        times: Times { used_ms: Some(used_ms), ..Times::default() },
        ..Object::new(Kind::SysvMsg, "sysv-msg:1")
    };
    let before = with(at(1000, 0), [queue(7000)]);
    for (used_ms, moved) in [(7000, false), (8000, true)] {
        let after = with(at(2000, 0), [queue(used_ms)]);
        let found = between(&before, &after).object("sysv-msg:1");
        assert_eq!((found.fill_per_s, found.moved), (Some(0), moved));
    }
}

#[test]
fn drops() {
    let socket = |dropped| {
        let usage = SocketUse { dropped, ..SocketUse::default() };
        Object { socket: Some(usage), ..Object::new(Kind::Udp, "udp:1") }
    };
    for (was, is, expected) in [(3, 13, Some(10)), (3, 3, None), (13, 3, None)] {
        let (before, after) = (with(at(1, 0), [socket(was)]), with(at(1001, 0), [socket(is)]));
        assert_eq!(between(&before, &after).object("udp:1").dropped_per_s, expected);
    }
}

#[test]
fn processes() {
    let process = |started_ticks, bytes: Option<u64>| {
        let io = bytes.map(|bytes| Traffic { received_bytes: bytes, sent_bytes: 0 });
        Process { pid: 7, started_ticks, io, ..Process::default() }
    };
    for (was, is, expected) in [
        (process(1, Some(100)), process(1, Some(300)), Some(200)),
        (process(1, Some(300)), process(1, Some(100)), None),
        // The number went to another process.
        (process(1, Some(100)), process(2, Some(300)), None),
        (process(1, None), process(1, Some(300)), None),
    ] {
        let one = |process: Process, ms| Snapshot { processes: vec![process], ..at(ms, 0) };
        let (before, after) = (one(was, 1000), one(is, 2000));
        let found = between(&before, &after).process(7).map(|rate| rate.received_bytes_per_s);
        assert_eq!(found, expected);
        assert_eq!(between(&before, &after).process(8), None);
    }
}
