//! A child of `fork` has copies of its parent's ends, and of their locks: it does nothing with them, and takes nothing
//! away by letting go of them.

use std::fmt::Display;

use switchboard::{Bytes, Options, Queue, Receiver, RecvError, Start, Topic};
use switchboard_testkit::child::report;
use switchboard_testkit::fork::in_child;
use switchboard_testkit::{Child, Scratch};

/// What a child is told, whatever it calls.
fn is_told(error: &impl Display) {
    let text = error.to_string();
    assert!(text.contains("opened before a fork"), "{text}");
}

/// Role: has ends of a log, and forks children that try everything.
pub(crate) fn forker(arguments: &[String]) {
    let [address] = arguments else { panic!("{arguments:?}") };
    sends(&format!("{address}-sent"));
    receives(&format!("{address}-received"));
    subscribes(&format!("{address}-topic"));
    report("done");
}

fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn sends(address: &str) {
    let queue = Queue::<Bytes>::open(address).expect("a queue");
    let mut sender = Some(queue.sender().expect("a sender"));
    let parents = sender.as_mut().expect("it");
    (1..=3).for_each(|n| parents.feed(&number(n)).expect("accepted"));
    parents.push().expect("sent");
    // What waits is the parent's, too.
    parents.feed(&number(4)).expect("accepted");
    assert!(in_child(|| {
        let parents = sender.as_mut().expect("it");
        is_told(&parents.push().expect_err("it is the parent's"));
        is_told(&parents.feed(&number(91)).expect_err("it is the parent's"));
        is_told(&parents.try_send(&Bytes(vec![9; 8])).expect_err("it is the parent's"));
        is_told(&parents.send_bytes(&[9; 8]).expect_err("it is the parent's"));
        drop(sender.take());
        // What it opens itself is its own.
        let mut own = queue.sender().expect("a sender");
        own.send_bytes(&number(101)).expect("sent");
        own.close().expect("closed");
        true
    }));
    // The lane is still its own: nobody else writes there.
    let mut other = queue.sender().expect("a sender");
    other.send_bytes(&number(201)).expect("sent");
    let parents = sender.as_mut().expect("it");
    (5..=7).for_each(|n| parents.feed(&number(n)).expect("accepted"));
    parents.push().expect("sent");
    other.close().expect("closed");
    sender.take().expect("it").close().expect("closed");
    let mut receiver = queue.receiver().expect("a receiver");
    let mut all = take_all(&mut receiver);
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 101, 201]);
}

fn receives(address: &str) {
    let queue =
        Queue::<Bytes>::open_with(address, Options::default().prefetch(4)).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    (1..=10).for_each(|n| sender.send_bytes(&number(n)).expect("sent"));
    let mut receiver = Some(queue.receiver().expect("a receiver"));
    let parents = receiver.as_mut().expect("it");
    let first = parents.recv().expect("a message");
    let second = parents.recv().expect("a message");
    parents.acknowledge(first).expect("acknowledged");
    let mut second = Some(second);
    assert!(in_child(|| {
        let parents = receiver.as_mut().expect("it");
        is_told(&parents.try_recv().expect_err("it is the parent's"));
        is_told(&parents.recv().expect_err("it is the parent's"));
        let delivery = second.take().expect("a delivery");
        is_told(&parents.acknowledge(delivery).expect_err("it is the parent's"));
        drop(receiver.take());
        true
    }));
    // What the parent has, nobody else gets.
    let mut other = queue.receiver().expect("a receiver");
    assert_eq!(take_all(&mut other), [5, 6, 7, 8, 9, 10]);
    let parents = receiver.as_mut().expect("it");
    parents.acknowledge(second.take().expect("a delivery")).expect("acknowledged");
    assert_eq!(take_all(parents), [3, 4]);
}

fn subscribes(address: &str) {
    let topic = Topic::<Bytes>::open(&format!("{address}?reader=joe")).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    (1..=3).for_each(|n| publisher.send_bytes(&number(n)).expect("sent"));
    let mut subscriber = Some(topic.subscriber(Start::Oldest).expect("a subscriber"));
    let parents = subscriber.as_mut().expect("it");
    assert_eq!(parents.recv().expect("a message").message.0, number(1));
    assert!(in_child(|| {
        let parents = subscriber.as_mut().expect("it");
        is_told(&parents.try_recv().expect_err("it is the parent's"));
        is_told(&parents.save().expect_err("it is the parent's"));
        drop(subscriber.take());
        true
    }));
    // The name is still the parent's.
    let used = topic.subscriber(Start::Oldest).expect_err("joe reads");
    assert!(used.to_string().contains("joe"), "{used}");
    let parents = subscriber.as_mut().expect("it");
    assert_eq!(parents.recv().expect("a message").message.0, number(2));
}

fn take_all(receiver: &mut Receiver<Bytes>) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                let bytes = delivery.message.0[..].try_into().expect("a number");
                all.push(u64::from_le_bytes(bytes));
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Empty) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_child_of_fork_takes_nothing_away() {
    let scratch = Scratch::new();
    let address = format!("file:{}", scratch.join("log").display());
    Child::role("log-forker", &[address]).expect("done");
}
