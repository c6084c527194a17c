//! What `?capacity=` counts: messages that are not settled, in all lanes. An empty queue is never full.

use std::path::Path;
use std::sync::mpsc;

use switchboard::{Bytes, Options, Queue, RecvError, SendError, Sender};
use switchboard_testkit::{DEADLINE, Scratch};

use super::segments;

fn queue(scratch: &Scratch, query: &str) -> Queue<Bytes> {
    let address = format!("file:{}?{query}", scratch.join("log").display());
    Queue::open(&address).expect("a queue")
}

fn queue_that_does_not_wait(scratch: &Scratch, query: &str) -> Queue<Bytes> {
    let address = format!("file:{}?{query}", scratch.join("log").display());
    let log = format!("file:{}", scratch.join("log").display());
    // One that does not wait makes none. It may be there already.
    let _ = switchboard::object::create(&log.parse().expect("an address"));
    let mut options = Options::default();
    options.wait = false;
    Queue::open_with(&address, options).expect("a queue")
}

/// Takes and acknowledges all that is there; how many.
fn drain(queue: &Queue<Bytes>) -> usize {
    let mut receiver = queue.receiver().expect("a receiver");
    let mut count = 0;
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Empty) => return count,
            Err(error) => panic!("{error}"),
        }
        count += 1;
    }
}

/// Sends so many messages while they are received, with a deadline.
fn pass(queue: &Queue<Bytes>, count: usize) {
    let mut sender = queue.sender().expect("a sender");
    let (done, wait) = mpsc::channel();
    let receiver = queue.clone();
    std::thread::spawn(move || {
        let mut receiver = receiver.receiver().expect("a receiver");
        for _ in 0..count {
            let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
            receiver.acknowledge(delivery).expect("acknowledged");
        }
        done.send(()).expect("told");
    });
    for n in 0..count {
        sender
            .send_timeout(&Bytes(vec![7; 100]), DEADLINE)
            .unwrap_or_else(|error| panic!("message {n}: {error}"));
    }
    sender.close().expect("closed");
    wait.recv_timeout(DEADLINE).expect("all came");
}

/// The queue is empty, however many lanes there are.
#[test]
fn as_many_lanes_as_the_capacity_has_segments_stop_nobody() {
    for (lanes, query) in [
        (2, "segment=64KiB&capacity=128KiB"),
        (9, "segment=64KiB&capacity=128KiB"),
        (5, "segment=64KiB&capacity=256KiB&durability=written"),
    ] {
        let scratch = Scratch::new();
        let queue = queue(&scratch, query);
        let mut senders: Vec<Sender<Bytes>> =
            (0..lanes).map(|_| queue.sender().expect("a sender")).collect();
        for sender in &mut senders {
            sender.send(&Bytes(vec![1])).expect("sent");
        }
        // While those are there, too.
        assert_eq!(drain(&queue), lanes, "{query}");
        pass(&queue, 1500);
        drop(senders);
        pass(&queue, 1500);
        assert_eq!(drain(&queue), 0);
    }
}

/// Senders that all go on to their next segments are not in each other's way for ever.
#[test]
fn several_senders_share_a_small_capacity() {
    const EACH: usize = 1500;
    let scratch = Scratch::new();
    let queue = queue(&scratch, "segment=64KiB&capacity=128KiB");
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let mut sender = queue.sender().expect("a sender");
                for _ in 0..EACH {
                    sender.send_timeout(&Bytes(vec![7; 100]), DEADLINE).expect("sent");
                }
                sender.close().expect("closed");
            })
        })
        .collect();
    let mut receiver = queue.receiver().expect("a receiver");
    for _ in 0..4 * EACH {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    senders.into_iter().for_each(|sender| sender.join().expect("sent all"));
}

fn bytes_in(folder: &Path) -> u64 {
    segments(folder).iter().map(|path| std::fs::metadata(path).expect("a file").len()).sum()
}

#[test]
fn a_lane_that_begins_when_the_queue_is_full_waits_as_well() {
    let scratch = Scratch::new();
    let queue = queue_that_does_not_wait(&scratch, "segment=4096&capacity=12288");
    let full = |sender: &mut Sender<Bytes>| {
        let mut sent = 0;
        loop {
            match sender.send(&Bytes(vec![7; 100])) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => return sent,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut first = queue.sender().expect("a sender");
    let sent = full(&mut first);
    assert!(sent > 60, "{sent}");
    let mut others: Vec<_> = (0..5).map(|_| queue.sender().expect("a sender")).collect();
    for other in &mut others {
        assert_eq!(full(other), 0, "nothing has room");
    }
    // No more than what they are begun with.
    let bytes = bytes_in(&scratch.join("log"));
    assert!((12_288..=12_288 + 5 * 64).contains(&bytes), "{bytes}");
    // One of those takes a lane of one that has ended with nothing.
    others.truncate(2);
    assert_eq!(full(&mut queue.sender().expect("a sender")), 0);
    assert_eq!(drain(&queue), sent);
    for other in &mut others {
        other.send(&Bytes(vec![1])).expect("there is room");
    }
    assert_eq!(drain(&queue), 2);
    drop((first, others));
    pass(&self::queue(&scratch, "segment=4096&capacity=12288"), 300);
}

/// What counts is how long they are, and not how many.
#[test]
fn segments_of_other_lengths_count_by_their_bytes() {
    let scratch = Scratch::new();
    let short = queue_that_does_not_wait(&scratch, "segment=4096&capacity=1MiB");
    let mut sender = short.sender().expect("a sender");
    while segments(&scratch.join("log")).len() < 10 {
        sender.send(&Bytes(vec![7; 1000])).expect("sent");
    }
    // Ten are 40 KiB: there is room for three of 64 KiB.
    let long = queue_that_does_not_wait(&scratch, "segment=64KiB&capacity=256KiB");
    let mut other = long.sender().expect("a sender");
    let mut sent = 0;
    while other.send(&Bytes(vec![7; 1000])).is_ok() {
        sent += 1;
    }
    assert!((150..200).contains(&sent), "{sent}");
    // And one that has room for less than what others left waits until that is settled.
    drop(sender);
    let mut sender = short.sender().expect("a sender");
    sender.send(&Bytes(vec![7; 1000])).expect("there is room");
    drop((sender, other));
    drain(&long);
    pass(&queue(&scratch, "segment=4096&capacity=8192"), 300);
}
