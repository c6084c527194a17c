//! What is on its way when an end dies or leaves: all of it arrives, at this or another reader.

use std::time::Duration;

use switchboard::{Options, Receiver, RecvError};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// Longer than a frame of the smallest ring.
const LARGE_BYTES: usize = 1200;

/// Role: a writer that its caller drives. It sends a message of so many bytes each time that it is told.
pub(crate) fn writer(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let options = Options::default().io_thread(false);
    let mut sender = ends::writer(pattern, &arguments[1], options).expect("a writer");
    sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
    let mut number = 0;
    while let Some(line) = instruction() {
        number += 1;
        let message = ends::message(1, number, line.parse().expect("a length"));
        sender.send_bytes(&message).expect("sent");
        report("sent");
    }
}

fn address(scratch: &Scratch) -> String {
    format!("shm:channel?scope={}&capacity=4096", scratch.join("scope").display())
}

/// The number of the next message.
fn next(receiver: &mut Receiver<switchboard::Bytes>) -> Option<u64> {
    let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
    let (_, number) = ends::read(&delivery.message.0)?;
    receiver.acknowledge(delivery).expect("acknowledged");
    Some(number)
}

fn send(writer: &mut Child, len_bytes: usize) {
    writer.tell(&len_bytes.to_string());
    writer.expect("sent");
}

#[test]
fn memory_that_a_writer_gave_before_it_died_is_taken() {
    let scratch = Scratch::new();
    let address = address(&scratch);
    let options = Options::default().io_thread(false);
    let mut receiver = ends::reader(Pattern::Queue, &address, options).expect("a receiver");
    let mut writer = Child::role("shm-writer", &["queue", &address]);
    while receiver.peers() == 0 {
        assert!(matches!(receiver.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty)));
    }
    send(&mut writer, 24);
    let first = receiver.recv_timeout(DEADLINE).expect("a message");
    send(&mut writer, LARGE_BYTES);
    // It never hears of this, and so the kernel says that its connection was reset.
    receiver.reject(first).expect("given back");
    writer.kill();
    assert_eq!(next(&mut receiver), Some(2));
    let died = receiver.recv_timeout(DEADLINE);
    assert!(matches!(died, Err(RecvError::PeerDied { received: 2, .. })), "{died:?}");
}

#[test]
fn a_message_given_back_to_the_dead_hides_no_death() {
    let scratch = Scratch::new();
    let address = address(&scratch);
    let options = Options::default().io_thread(false);
    let mut receiver = ends::reader(Pattern::Queue, &address, options).expect("a receiver");
    let mut writer = Child::role("shm-writer", &["queue", &address]);
    writer.tell("24");
    let first = receiver.recv_timeout(DEADLINE).expect("a message");
    writer.kill();
    receiver.reject(first).expect("nobody is there to take it");
    let died = receiver.recv_timeout(DEADLINE);
    assert!(matches!(died, Err(RecvError::PeerDied { received: 1, .. })), "{died:?}");
}

#[test]
fn a_subscriber_that_left_holds_no_growing_publisher_up() {
    let scratch = Scratch::new();
    let address = address(&scratch);
    let options = || Options::default().io_thread(false).linger(Some(Duration::ZERO));
    for _ in 0..4 {
        let mut publisher = ends::writer(Pattern::Topic, &address, options()).expect("a publisher");
        let subscriber = ends::reader(Pattern::Topic, &address, Options::default());
        publisher.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
        publisher.send_bytes(&ends::message(1, 1, 24)).expect("sent");
        drop(subscriber);
        // It has not looked whether the other one is still there, and gives it memory.
        for number in 2..300 {
            let message = switchboard::Bytes(ends::message(1, number, LARGE_BYTES));
            publisher.send_timeout(&message, DEADLINE).expect("nobody is waited for");
        }
        publisher.drive().expect("driven");
        assert_eq!(publisher.peers(), 0);
    }
}

#[test]
fn what_a_receiver_left_goes_to_another_while_its_sender_is_elsewhere() {
    let scratch = Scratch::new();
    let address = address(&scratch);
    let mut sender = ends::writer(Pattern::Queue, &address, Options::default()).expect("a sender");
    let left = ends::reader(Pattern::Queue, &address, Options::default()).expect("a receiver");
    for number in 1..=3 {
        sender.send_bytes(&ends::message(1, number, 24)).expect("sent");
    }
    // From here on the sender's caller does nothing.
    drop(left);
    let mut receiver =
        ends::reader(Pattern::Queue, &address, Options::default()).expect("a receiver");
    for number in 1..=3 {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(ends::read(&delivery.message.0), Some((1, number)));
        assert!(delivery.redelivered);
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    sender.close().expect("all is settled");
}

#[test]
fn the_longest_message_of_a_ring_is_given_out_again() {
    let scratch = Scratch::new();
    let address = address(&scratch);
    let mut sender = ends::writer(Pattern::Queue, &address, Options::default()).expect("a sender");
    let mut receiver =
        ends::reader(Pattern::Queue, &address, Options::default()).expect("a receiver");
    for len_bytes in 1000..=1024 {
        let message = ends::message(1, len_bytes as u64, len_bytes);
        sender.send_bytes(&message).expect("sent");
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        receiver.reject(delivery).expect("given back");
        let again = receiver.recv_timeout(DEADLINE);
        let again = again.unwrap_or_else(|error| panic!("{len_bytes} bytes: {error}"));
        assert!(again.redelivered && again.message.0 == message, "{len_bytes} bytes: {again:?}");
        receiver.acknowledge(again).expect("acknowledged");
    }
    sender.close().expect("all is settled");
}
