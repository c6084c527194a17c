//! A child of `fork` has its parent's ends, and none of their memory.

use std::fmt::Display;
use std::time::{Duration, Instant};

use switchboard::{Bytes, Options, Receiver, RecvError, Sender};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::fork::{end, ended_well, fork, in_child};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// What a child is told, whatever it calls.
fn is_told(error: &impl Display) {
    let text = error.to_string();
    assert!(text.contains("opened before a fork"), "{text}");
}

/// Role: has an end, forks, and goes on with it when its child has tried everything.
pub(crate) fn forker(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let options = || Options::default().io_thread(arguments[2] == "thread");
    if arguments[3] == "writer" {
        let open = || ends::writer(pattern, &arguments[1], options()).expect("a writer");
        let mut sender = open();
        sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
        sender.send_bytes(&ends::message(1, 1, 64)).expect("sent");
        report(in_child(|| writer_in_child(&mut sender, open)));
        assert_eq!(instruction().as_deref(), Some("go on"));
        sender.send_bytes(&ends::message(1, 2, 64)).expect("sent");
        sender.close().expect("closed");
    } else {
        let open = || ends::reader(pattern, &arguments[1], options()).expect("a reader");
        let mut receiver = open();
        take(&mut receiver, 1);
        report(in_child(|| reader_in_child(&mut receiver, open)));
        assert_eq!(instruction().as_deref(), Some("go on"));
        take(&mut receiver, 2);
    }
    report("closed");
}

fn take(receiver: &mut Receiver<Bytes>, number: u64) {
    let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
    assert_eq!(ends::read(&delivery.message.0), Some((1, number)));
    receiver.acknowledge(delivery).expect("acknowledged");
}

fn writer_in_child(sender: &mut Sender<Bytes>, open: impl FnOnce() -> Sender<Bytes>) -> bool {
    let message = Bytes(ends::message(9, 9, 64));
    is_told(&sender.try_send(&message).expect_err("it is the parent's"));
    is_told(&sender.send_timeout(&message, DEADLINE).expect_err("it is the parent's"));
    is_told(&sender.loan_bytes(64).expect_err("it is the parent's"));
    // One too large for the ring.
    is_told(&sender.send_bytes(&vec![9; 100_000]).expect_err("it is the parent's"));
    assert_eq!((sender.peers(), sender.acknowledged()), (0, 0));
    // What it opens itself is its own; of the parent's it lets go only after that.
    let mut own = open();
    own.wait_for_peers(1, Some(DEADLINE)).expect("the reader");
    own.send_bytes(&ends::message(2, 1, 64)).expect("sent");
    own.close().expect("closed");
    let _ = sender.finish();
    true
}

fn reader_in_child(receiver: &mut Receiver<Bytes>, open: impl FnOnce() -> Receiver<Bytes>) -> bool {
    is_told(&receiver.try_recv().expect_err("it is the parent's"));
    is_told(&receiver.recv_timeout(DEADLINE).expect_err("it is the parent's"));
    is_told(&receiver.borrow_timeout(DEADLINE).expect_err("it is the parent's"));
    assert_eq!(receiver.peers(), 0);
    let mut own = open();
    let until = Instant::now() + DEADLINE;
    while own.peers() == 0 {
        assert!(matches!(own.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty)));
        assert!(Instant::now() < until, "its own end meets nobody");
    }
    drop(own);
    true
}

/// Role: forks while it writes and reads messages, many of which one call is about.
pub(crate) fn forks_between(arguments: &[String]) {
    let address = format!("shm:between?scope={}", arguments[0]);
    let mut receiver =
        ends::reader(Pattern::Topic, &address, Options::default()).expect("a reader");
    let mut sender = ends::writer(Pattern::Topic, &address, Options::default()).expect("a writer");
    sender.wait_for_peers(1, Some(DEADLINE)).expect("the reader");
    let (mut numbers, mut child) = (1..=10, None);
    let sent = sender.send_each(64, |room| {
        let number = numbers.next()?;
        if number == 3 {
            child = Some(fork());
        }
        // Not even the room is there in a child.
        if child != Some(None) {
            room.copy_from_slice(&ends::message(1, number, 64));
        }
        Some(64)
    });
    match child.expect("it forked") {
        None => end(sent.is_err_and(|error| error.to_string().contains("opened before a fork"))),
        Some(child) => report(format_args!("sent {} {}", ended_well(child), sent.expect("sent"))),
    }
    let (mut numbers, mut child) = (Vec::new(), None);
    let received = receiver.recv_each(10, Some(DEADLINE), |incoming, _| {
        numbers.push(ends::read(incoming.bytes).expect("a whole message").1);
        if numbers.len() == 3 {
            child = Some(fork());
        }
        false
    });
    if child == Some(None) {
        let told = receiver
            .try_recv()
            .is_err_and(|error| error.to_string().contains("opened before a fork"));
        end(told && numbers == [1, 2, 3] && received.is_ok());
    }
    let child = child.flatten().expect("it forked");
    report(format_args!(
        "received {} {}",
        ended_well(child),
        numbers == (1..=10).collect::<Vec<_>>()
    ));
}

#[test]
fn a_child_of_fork_in_the_middle_of_many_messages_is_told() {
    let scratch = Scratch::new();
    let mut forker =
        Child::role("shm-forks-between", &[scratch.join("scope").display().to_string()]);
    forker.expect("sent true 10");
    forker.expect("received true true");
    assert!(forker.wait().success());
}

#[test]
fn a_child_of_fork_is_told_and_harms_nobody() {
    for pattern in [Pattern::Topic, Pattern::Queue] {
        for driven in ["thread", "caller"] {
            forked_writer(pattern, driven);
            forked_reader(pattern, driven);
        }
    }
}

fn start(pattern: Pattern, driven: &str, end: &str, scratch: &Scratch) -> (Child, String) {
    let address = format!("shm:fork?scope={}", scratch.join("scope").display());
    let child = Child::role("shm-forker", &[pattern.name(), &address, driven, end]);
    (child, address)
}

fn forked_writer(pattern: Pattern, driven: &str) {
    let scratch = Scratch::new();
    let (mut forker, address) = start(pattern, driven, "writer", &scratch);
    let mut receiver = ends::reader(pattern, &address, Options::default()).expect("a reader");
    take(&mut receiver, 1);
    let own = receiver.recv_timeout(DEADLINE).expect("the child's own message");
    assert_eq!(ends::read(&own.message.0), Some((2, 1)));
    receiver.acknowledge(own).expect("acknowledged");
    forker.expect("true");
    forker.tell("go on");
    take(&mut receiver, 2);
    forker.expect("closed");
    assert!(forker.wait().success());
}

fn forked_reader(pattern: Pattern, driven: &str) {
    let scratch = Scratch::new();
    let (mut forker, address) = start(pattern, driven, "reader", &scratch);
    let mut sender = ends::writer(pattern, &address, Options::default()).expect("a writer");
    sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
    sender.send_bytes(&ends::message(1, 1, 64)).expect("sent");
    forker.expect("true");
    forker.tell("go on");
    sender.send_bytes(&ends::message(1, 2, 64)).expect("sent");
    forker.expect("closed");
    assert!(forker.wait().success());
    sender.close().expect("closed");
}
