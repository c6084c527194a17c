//! The receiving end of a queue or a topic.

use std::time::{Duration, Instant};

use switchboard::{Bytes, Delivery, Error, Json, Queue, Receiver, RecvError, Rejection, Topic};
use switchboard_testkit::child::{instruction, report};

use super::super::contents::{digest, tag};
use super::{Start, cancel_when_told, resident_kib, say_error, start};

fn say_got(delivery: &Delivery<Bytes>) {
    let bytes: &[u8] = &delivery.message;
    let tag = tag(bytes).map_or("-".to_owned(), |(sender, n)| format!("{sender}:{n}"));
    report(format!(
        "got {tag} {} {:016x} {} {} {} {}",
        bytes.len(),
        digest(bytes),
        u8::from(delivery.redelivered),
        delivery.deliveries,
        delivery.lost_before,
        delivery.priority
    ));
}

/// Role: receives what it is told to.
pub(crate) fn receiver(arguments: &[String]) {
    let start = start(arguments);
    let queue = Queue::open_with(&start.address, start.options.clone()).expect("a queue");
    receive(start, queue.receiver());
}

/// Role: receives from a topic what it is told to, from the oldest message.
pub(crate) fn subscriber(arguments: &[String]) {
    let start = start(arguments);
    let topic = Topic::open_with(&start.address, start.options.clone()).expect("a topic");
    receive(start, topic.subscriber(switchboard::Start::Oldest).map(Receiver::from));
}

fn receive(mut start: Start, opened: Result<Receiver<Bytes>, Error>) {
    let mut receiver = match opened {
        Ok(receiver) => Some(receiver),
        Err(error) => return say_error(&error),
    };
    start.handed.clear();
    report("open");
    let mut held = Vec::new();
    while let Some(line) = instruction() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let Some(end) = &mut receiver else { break };
        match words[0] {
            // COUNT MS: until so many came, or none for so long.
            "recv" => take(end, number(1), Duration::from_millis(number(2)), None),
            // TAG MS: until this one came.
            "until" => take(end, u64::MAX, Duration::from_millis(number(2)), Some(words[1])),
            "text" => match end.recv_timeout(Duration::from_millis(number(1))) {
                Ok(delivery) => {
                    let bytes = end.acknowledge(delivery).expect("acknowledged");
                    report(format!("text {}", String::from_utf8_lossy(&bytes)));
                }
                Err(error) => say_error(&error),
            },
            "hold" => {
                for _ in 0..number(1) {
                    match end.recv_timeout(Duration::from_millis(number(2))) {
                        Ok(delivery) => {
                            say_got(&delivery);
                            held.push(delivery);
                        }
                        Err(error) => {
                            say_error(&error);
                            break;
                        }
                    }
                }
                report("done");
            }
            "acknowledge" => {
                for delivery in held.drain(..) {
                    end.acknowledge(delivery).expect("acknowledged");
                }
                report("done");
            }
            // The newest first, so that each is out of order.
            "acknowledge-backwards" => {
                for delivery in held.drain(..).rev() {
                    end.acknowledge(delivery).expect("acknowledged");
                }
                report("done");
            }
            "reject" => {
                for delivery in held.drain(..) {
                    let back = end.reject(delivery).expect("rejected");
                    let back = match back {
                        Rejection::GivenBack => "back",
                        Rejection::ForGood => "for good",
                        _ => "not taken",
                    };
                    report(format!("rejected {back}"));
                }
                report("done");
            }
            "timeout" => {
                let since = Instant::now();
                let result = end.recv_timeout(Duration::from_millis(number(1)));
                let took = since.elapsed().as_millis();
                match result {
                    Err(RecvError::Empty) => report(format!("empty {took}")),
                    Err(error) => say_error(&error),
                    Ok(delivery) => say_got(&delivery),
                }
            }
            "block" => {
                cancel_when_told(start.cancel.as_ref());
                match end.recv() {
                    Err(error) => say_error(&error),
                    Ok(delivery) => say_got(&delivery),
                }
            }
            "count" => report(format!("peers={}", end.peers())),
            "local" => report(end.local_address().unwrap_or_default()),
            "rss" => report(resident_kib()),
            "close" => {
                receiver = None;
                report("closed");
            }
            other => panic!("no instruction {other}"),
        }
    }
}

/// Role: receives lists of numbers as JSON until it is told no more.
pub(crate) fn json_receiver(arguments: &[String]) {
    let start = start(arguments);
    let queue = Queue::<Json<Vec<u64>>>::open_with(&start.address, start.options.clone());
    let mut receiver = match queue.expect("a queue").receiver() {
        Ok(receiver) => receiver,
        Err(error) => return say_error(&error),
    };
    drop(start);
    report("open");
    while let Some(line) = instruction() {
        let timeout = Duration::from_millis(line.parse().expect("a time"));
        match receiver.recv_timeout(timeout) {
            Ok(delivery) => {
                let Json(numbers) = receiver.acknowledge(delivery).expect("acknowledged");
                report(format!("json {numbers:?}"));
            }
            Err(RecvError::Encoding { bytes, .. }) => {
                report(format!("encoding {}", String::from_utf8_lossy(&bytes)));
            }
            Err(RecvError::Empty) => report("empty"),
            Err(error) => say_error(&error),
        }
    }
}

fn take(end: &mut Receiver<Bytes>, count: u64, idle: Duration, until: Option<&str>) {
    let mut taken = 0;
    while taken < count {
        let delivery = match end.recv_timeout(idle) {
            Ok(delivery) => delivery,
            Err(error) => {
                say_error(&error);
                // One peer's end is not everybody's.
                let one = matches!(
                    error,
                    RecvError::Gap { .. }
                        | RecvError::PeerDied { .. }
                        | RecvError::PeerMisbehaved { .. }
                        | RecvError::PeerRefused { .. }
                );
                if one {
                    continue;
                }
                break;
            }
        };
        taken += 1;
        // Reported first, acknowledged then: what the sender need not keep, the test knows of.
        let bytes = &delivery.message.0;
        let tag = tag(bytes).map_or("-".to_owned(), |(sender, n)| format!("{sender}:{n}"));
        report(format!(
            "got {tag} {} {:016x} {} {} {} {}",
            bytes.len(),
            digest(bytes),
            u8::from(delivery.redelivered),
            delivery.deliveries,
            delivery.lost_before,
            delivery.priority,
        ));
        end.acknowledge(delivery).expect("acknowledged");
        if until == Some(tag.as_str()) {
            break;
        }
    }
    report("done");
}
