//! The ends of a queue in tasks, between processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchboard::tokio::{AsyncReceiver, AsyncSender};
use switchboard::{Bytes, Queue, RecvError};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use crate::conformance::Meeting;
use crate::conformance::contents::{contents, tag};

const COUNT: u64 = 300;
const LEN: usize = 700;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Role: sends from a task, next to another task that has to get its turns.
pub(crate) fn sender(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        let mut sender = AsyncSender::new(queue.sender().expect("a sender"));
        for n in 0..COUNT {
            sender.send(&Bytes(contents(1, n, LEN, false))).await.expect("sent");
        }
        let closed = tokio::time::timeout(Duration::from_secs(20), sender.close()).await;
        closed.expect("closed in time").expect("closed");
    });
    report("closed");
}

/// Role: receives in a task, while another one counts ticks.
pub(crate) fn receiver(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        let mut receiver = AsyncReceiver::new(queue.receiver().expect("a receiver"));
        let ticking = tokio::spawn(async {
            let mut ticks = 0_u64;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks += 1;
                if ticks == 5 {
                    report("ticking");
                }
            }
        });
        // A wait that is given up loses nothing.
        let early = tokio::time::timeout(Duration::from_millis(30), receiver.recv()).await;
        assert!(early.is_err(), "{early:?}");
        report("waiting");
        for n in 0..COUNT {
            let delivery = receiver.recv().await.expect("a message");
            let bytes = receiver.acknowledge(delivery).expect("acknowledged");
            assert_eq!(tag(&bytes), Some((1, n)));
            assert!(bytes.0 == contents(1, n, LEN, false), "message {n}");
        }
        report("all");
        let after = tokio::time::timeout(Duration::from_millis(200), receiver.recv()).await;
        match after {
            Ok(Err(RecvError::Ended)) => report("ended"),
            Err(_) => report("nothing more"),
            Ok(other) => panic!("{other:?}"),
        }
        ticking.abort();
    });
}

/// Role: both ends in tasks of one thread. A drop that waited would keep the other end from answering.
pub(crate) fn one_thread(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        for wait in [true, false] {
            let mut receiver = AsyncReceiver::new(queue.receiver().expect("a receiver"));
            let acknowledged = Arc::new(AtomicBool::new(false));
            let told = acknowledged.clone();
            let receiving = tokio::spawn(async move {
                let delivery = receiver.recv().await.expect("a message");
                receiver.acknowledge(delivery).expect("acknowledged");
                told.store(true, Ordering::Relaxed);
                receiver.recv().await
            });
            let mut sender = AsyncSender::new(queue.sender().expect("a sender"));
            sender.send(&Bytes(contents(1, 0, LEN, false))).await.expect("sent");
            while wait && !acknowledged.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(sender);
            report("dropped");
            let error = receiving.await.expect("a task").expect_err("nothing more");
            report(format!("{error:?}"));
        }
    });
}

#[test]
fn a_sender_is_dropped_in_the_thread_of_its_receiver() {
    let meeting = Meeting::of("unix");
    let mut child = Child::role("tasks-of-one-thread", &[meeting.address()]);
    child.expect("dropped");
    child.expect("Ended");
    // What was not acknowledged when it was dropped cannot be told from a death.
    child.expect("dropped");
    let answer = child.line().expect("an answer");
    assert!(answer.starts_with("PeerDied") || answer == "Ended", "{answer}");
    assert!(child.wait().success());
}

#[test]
fn tasks_send_and_receive_between_processes() {
    for (scheme, end) in [("unix", "ended"), ("mq", "nothing more")] {
        let meeting = Meeting::of(scheme);
        let mut receiver = Child::role("async-receiver", &[meeting.address()]);
        receiver.expect("ticking");
        receiver.expect("waiting");
        let mut sender = Child::role("async-sender", &[meeting.address()]);
        receiver.expect("all");
        receiver.expect(end);
        sender.expect("closed");
        assert!(sender.wait().success() && receiver.wait().success(), "{scheme}");
    }
}

#[test]
fn a_task_and_a_thread_are_each_others_other_side() {
    let mut meeting = Meeting::of("unix");
    let mut receiver = meeting.receiver("");
    let mut sender = Child::role("async-sender", &[meeting.address()]);
    let haul = receiver.recv(COUNT);
    assert!(haul.of(1).into_iter().eq(0..COUNT), "{haul:?}");
    receiver.must("timeout 15000", "error Ended");
    sender.expect("closed");
}
