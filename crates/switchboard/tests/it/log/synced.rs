//! What syncing costs in system calls: one sync for a push, however large, and two for a segment. The disk begins with a
//! large push before all of it is there.

use switchboard::{Bytes, Topic};
use switchboard_testkit::Scratch;
use switchboard_testkit::child::report;
use switchboard_testkit::skip::skip;

use super::crash::{have_strace, injected};
use super::segments;

/// Pushes of so many messages of 64 bytes: nine batches each.
const PUSHES: usize = 8;
const MESSAGES: usize = 16_384;

/// Role: publishes that, synced.
pub(crate) fn large_pushes(arguments: &[String]) {
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    for _ in 0..PUSHES {
        for _ in 0..MESSAGES {
            publisher.feed(&[7; 64]).expect("taken");
        }
        publisher.push().expect("pushed");
        assert_eq!(publisher.unacknowledged(), 0);
    }
    report("end");
}

#[test]
fn a_push_takes_one_sync_and_a_segment_two() {
    const TEST: &str = "log::synced::a_push_takes_one_sync";
    if !have_strace() {
        return skip(TEST, "no strace");
    }
    let scratch = Scratch::new();
    let (log, trace) = (scratch.join("log"), scratch.join("trace"));
    let address = format!("file:{}?segment=4MiB&durability=synced", log.display());
    let traced = "trace=fsync,fdatasync,openat,sync_file_range,fallocate";
    if injected("log-large-pushes", &[address], traced, &trace) != ["end"] {
        return skip(TEST, "strace may not trace here");
    }
    let calls = std::fs::read_to_string(&trace).expect("a trace");
    let count = |call: &str| calls.lines().filter(|line| line.contains(call)).count();
    let made = segments(&log).len();
    assert_eq!(made, 3);
    // Once a push; and of each segment when it is full.
    let synced = count(" fdatasync(");
    assert!((PUSHES..PUSHES + made).contains(&synced), "{synced}\n{calls}");
    // Four times in a push of a MiB, at most; and no blocks are reserved meanwhile.
    let begun = count("_RANGE_WRITE");
    assert!((2 * PUSHES..=4 * PUSHES).contains(&begun), "{begun}\n{calls}");
    let mut is_begun = false;
    for line in calls.lines() {
        assert!(!(is_begun && line.contains(" fallocate(")), "{line}\n{calls}");
        let ends = line.contains("sync(") || line.contains("_RANGE_WAIT_BEFORE");
        is_begun = line.contains("_RANGE_WRITE") || is_begun && !ends;
    }
    // The bell; the first step of the first segment, then all of it; of each other one all at once.
    assert_eq!(count(" fallocate("), made + 2, "{calls}");
    // The log's own name once, and the names in it when it is opened and for each segment.
    assert_eq!((count("\"..\""), count(" fsync(")), (1, made + 2), "{calls}");
}
