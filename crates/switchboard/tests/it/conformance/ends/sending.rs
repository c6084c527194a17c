//! The sending end of a queue or a topic.

use std::time::{Duration, Instant};

use switchboard::{Bytes, Error, Queue, SendError, Sender, Topic};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{instruction, report};

use super::super::contents::{contents, mixed_len};
use super::{Start, cancel_when_told, resident_kib, say_error, start};

/// Role: sends what it is told to.
pub(crate) fn sender(arguments: &[String]) {
    let start = start(arguments);
    let queue = Queue::open_with(&start.address, start.options.clone()).expect("a queue");
    send(start, queue.sender());
}

/// Role: publishes what it is told to.
pub(crate) fn publisher(arguments: &[String]) {
    let start = start(arguments);
    let topic = Topic::open_with(&start.address, start.options.clone()).expect("a topic");
    send(start, topic.publisher().map(Sender::from));
}

fn send(mut start: Start, opened: Result<Sender<Bytes>, Error>) {
    let mut sender = match opened {
        Ok(sender) => Some(sender),
        Err(error) => return say_error(&error),
    };
    start.handed.clear();
    report("open");
    while let Some(line) = instruction() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let len = |at: usize| words[at].parse::<usize>().expect("a length");
        let Some(end) = &mut sender else { break };
        match words[0] {
            "send" => match end.send_bytes(&contents(number(1), number(2), len(3), start.lines)) {
                Ok(()) => report("sent"),
                Err(error) => say_error(&error),
            },
            "priority" => {
                let bytes = contents(number(1), number(2), 64, start.lines);
                let priority = u32::try_from(number(3)).expect("a priority");
                end.send_bytes_with_priority(&bytes, priority).expect("sent");
                report("sent");
            }
            "text" => match end.send_bytes(text_of(words.get(1)).as_bytes()) {
                Ok(()) => report("sent"),
                Err(error) => say_error(&error),
            },
            "stream" => {
                let length = |_| len(4);
                stream(end, &start, (number(1), number(2), number(3)), length);
            }
            "mixed" => {
                let largest = len(4);
                let length = |n| mixed_len(n, largest);
                stream(end, &start, (number(1), number(2), number(3)), length);
            }
            "fed" => fed(end, (number(1), number(2), number(3)), len(4), start.lines),
            "each" => each(end, (number(1), number(2), number(3)), len(4), start.lines),
            "pour" => pour(end, number(1), len(2), start.lines),
            "fill" => fill(end, number(1), len(2), start.lines),
            "block" => {
                cancel_when_told(start.cancel.as_ref());
                let bytes = contents(1, 0, len(1), start.lines);
                loop {
                    if let Err(error) = end.send_bytes(&bytes) {
                        break say_error(&error);
                    }
                }
            }
            "timeout" => {
                let bytes = contents(number(1), number(2), len(3), start.lines);
                let since = Instant::now();
                let result = end.send_timeout(&Bytes(bytes), Duration::from_millis(number(4)));
                let took = since.elapsed().as_millis();
                match result {
                    Ok(()) => report(format!("sent {took}")),
                    Err(SendError::Full) => report(format!("full {took}")),
                    Err(SendError::Slow { peer }) => report(format!("slow {took} {peer}")),
                    Err(error) => say_error(&error),
                }
            }
            // COUNT: until so many are there.
            "meet" => match end.wait_for_peers(len(1), Some(DEADLINE)) {
                Ok(()) => report("met"),
                Err(error) => say_error(&error),
            },
            "flush" => match end.flush(Some(Duration::from_millis(number(1)))) {
                Ok(()) => report("flushed"),
                Err(error) => say_error(&error),
            },
            "drive" => match end.drive() {
                Ok(()) => report("driven"),
                Err(error) => say_error(&error),
            },
            "count" => report(format!(
                "sent={} acknowledged={} unacknowledged={} rejected={} peers={} dropped={}",
                end.sent(),
                end.acknowledged(),
                end.unacknowledged(),
                end.rejected(),
                end.peers(),
                end.dropped()
            )),
            "rss" => report(resident_kib()),
            "drop" => {
                sender = None;
                report("dropped");
            }
            "close" => match sender.take().expect("a sender").close() {
                Ok(()) => report("closed"),
                Err(error) => report(format!(
                    "close-error unacknowledged={} rejected={} {error}",
                    error.unacknowledged, error.rejected
                )),
            },
            other => panic!("no instruction {other}"),
        }
    }
}

/// A text of the test's, where `\n` stands for a line feed.
fn text_of(word: Option<&&str>) -> String {
    word.copied().unwrap_or_default().replace("\\n", "\n")
}

/// Sends numbered messages; where the test allows it, again when the receiver died.
fn stream(
    end: &mut Sender<Bytes>,
    start: &Start,
    (sender, from, to): (u64, u64, u64),
    len: impl Fn(u64) -> usize,
) {
    for n in from..to {
        let bytes = contents(sender, n, len(n), start.lines);
        loop {
            match end.send_bytes(&bytes) {
                Ok(()) => break,
                Err(SendError::PeerDied { .. }) if start.retry => {}
                Err(error) => return say_error(&error),
            }
        }
    }
    report("streamed");
}

/// Gathers messages of mixed lengths in writes that are as large as can be.
fn fed(end: &mut Sender<Bytes>, (sender, from, to): (u64, u64, u64), largest: usize, lines: bool) {
    for n in from..to {
        if let Err(error) = end.feed(&contents(sender, n, mixed_len(n, largest), lines)) {
            return say_error(&error);
        }
    }
    match end.push() {
        Ok(()) => report("streamed"),
        Err(error) => say_error(&error),
    }
}

/// Sends messages of mixed lengths in one call.
fn each(end: &mut Sender<Bytes>, (sender, from, to): (u64, u64, u64), largest: usize, lines: bool) {
    let mut n = from;
    let sent = end.send_each(largest, |room| {
        if n == to {
            return None;
        }
        let bytes = contents(sender, n, mixed_len(n, largest), lines);
        room[..bytes.len()].copy_from_slice(&bytes);
        n += 1;
        Some(bytes.len())
    });
    match sent {
        Ok(sent) => {
            assert_eq!(sent as u64, to - from);
            report("streamed");
        }
        Err(error) => say_error(&error),
    }
}

/// Sends for ever, and says now and then how much of it is acknowledged.
fn pour(end: &mut Sender<Bytes>, sender: u64, len: usize, lines: bool) {
    for n in 0.. {
        if let Err(error) = end.send_bytes(&contents(sender, n, len, lines)) {
            return say_error(&error);
        }
        if n % 16 == 0 {
            report(format!("acknowledged {}", end.acknowledged()));
        }
    }
}

/// Sends without waiting until nothing more is taken.
fn fill(end: &mut Sender<Bytes>, sender: u64, len: usize, lines: bool) {
    const MOST: u64 = 200_000;
    let bytes = Bytes(contents(sender, 0, len, lines));
    for n in 0..MOST {
        match end.try_send(&bytes) {
            Ok(()) => {}
            Err(SendError::Full) => return report(format!("full {n}")),
            Err(SendError::Slow { peer }) => return report(format!("slow {n} {peer}")),
            Err(error) => return say_error(&error),
        }
    }
    report(format!("never full after {MOST}"));
}
