//! Receivers that wait for a log: what wakes them, and what ends the wait.

use std::os::fd::AsFd;
use std::time::Duration;

use switchboard::{Bytes, Queue, RecvError, Start, Topic};
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::send;

fn address(scratch: &Scratch) -> String {
    format!("file:{}", scratch.join("log").display())
}

/// Role: sends a message for each line it is told.
pub(crate) fn sender(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    report("open");
    while let Some(line) = instruction() {
        sender.send(&Bytes(line.into_bytes())).expect("sent");
    }
}

/// As an event loop does it: the descriptor is asked for after the last look.
#[test]
fn the_descriptor_wakes_who_has_only_looked_before() {
    let scratch = Scratch::new();
    let mut child = Child::role("log-sender", &[address(&scratch)]);
    child.expect("open");
    let queue = Queue::<Bytes>::open(&address(&scratch)).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
    let deadline = Deadline::after(DEADLINE);
    let wait = |receiver: &switchboard::Receiver<Bytes>, deadline| {
        wait_for(receiver.as_fd(), Interest::Readable, deadline).expect("a wait")
    };
    // Only what is told after this can be what wakes it.
    while wait(&receiver, Deadline::after(Duration::from_millis(50))) {
        assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
    }
    child.tell("wake up");
    loop {
        assert!(wait(&receiver, deadline), "it slept on");
        match receiver.try_recv() {
            Ok(delivery) => {
                assert_eq!(delivery.message.0, b"wake up");
                return drop(receiver.acknowledge(delivery).expect("acknowledged"));
            }
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Role: receives, subscribes or sends until that fails, and says how.
pub(crate) fn waiting(arguments: &[String]) {
    let address = &arguments[0];
    match arguments[1].as_str() {
        "receiver" => {
            let queue = Queue::<Bytes>::open(address).expect("a queue");
            let mut receiver = queue.receiver().expect("a receiver");
            report("open");
            report(receiver.recv().expect_err("nothing is sent"));
        }
        "subscriber" => {
            let topic = Topic::<Bytes>::open(address).expect("a topic");
            let mut subscriber = topic.subscriber(Start::New).expect("a subscriber");
            report("open");
            report(subscriber.recv().expect_err("nothing is published"));
        }
        _ => {
            let small = format!("{address}?segment=4096&capacity=8192");
            let queue = Queue::<Bytes>::open(&small).expect("a queue");
            let mut sender = queue.sender().expect("a sender");
            let message = Bytes(vec![7; 1000]);
            while sender.try_send(&message).is_ok() {}
            report("open");
            report(sender.send(&message).expect_err("nothing is received"));
        }
    }
}

#[test]
fn a_log_that_is_removed_or_replaced_ends_the_wait() {
    type Harm = fn(&std::path::Path);
    /// From here on, what happens to the log happens at once.
    const AT_ONCE: usize = 2;
    let harms: [(&str, Harm); 4] = [
        ("was removed", |path| std::fs::remove_dir_all(path).expect("removed")),
        ("was removed", |path| {
            switchboard::object::unlink(&format!("file:{}", path.display()).parse().expect("one"))
                .expect("unlinked");
        }),
        ("moved to another name", |path| {
            std::fs::rename(path, path.with_extension("old")).expect("moved");
        }),
        ("another one has its name", |path| {
            let other = path.with_extension("other");
            send(&format!("file:{}", other.display()), 1..2);
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, path, here, &other, exchange).expect("exchanged");
        }),
    ];
    for (index, (says, harm)) in harms.into_iter().enumerate() {
        for who in ["receiver", "subscriber", "sender"] {
            if who == "sender" && index < AT_ONCE {
                // A log that somebody writes to is not unlinked. Removed file by file, it has room for
                // a sender in between.
                continue;
            }
            let scratch = Scratch::new();
            let address = address(&scratch);
            let mut child = Child::role("log-waiting", &[address.as_str(), who]);
            child.expect("open");
            harm(&scratch.join("log"));
            let error = child.line().expect("an error");
            assert!(error.starts_with(&address) && error.contains(says), "{who}: {error}");
        }
    }
}
