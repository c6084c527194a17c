//! Messages that are built where they are sent from, and looked at where they lie.

use std::time::Duration;

use switchboard::transport::TABLE;
use switchboard::{
    Bytes, Options, Overflow, Queue, Receiver, RecvError, Rejection, SendError, Sender, Start,
    Topic,
};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch, unique};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::conformance::contents::{contents, digest};

fn sender(address: &str, pattern: &str) -> Sender<Bytes> {
    let options = Options::default().linger(Some(DEADLINE));
    match pattern {
        "queue" => Queue::open_with(address, options).expect("a queue").sender().expect("a sender"),
        _ => Topic::open_with(address, options)
            .expect("a topic")
            .publisher()
            .expect("a publisher")
            .into(),
    }
}

fn receiver(address: &str, pattern: &str) -> Receiver<Bytes> {
    let options = Options::default().prefetch(8);
    match pattern {
        "queue" => {
            Queue::open_with(address, options).expect("a queue").receiver().expect("a receiver")
        }
        _ => Topic::open_with(address, options)
            .expect("a topic")
            .subscriber(Start::Oldest)
            .expect("a subscriber")
            .into(),
    }
}

/// Builds messages where they are sent from, as it is told.
pub(crate) fn lender(arguments: &[String]) {
    let mut sender = sender(&arguments[0], &arguments[1]);
    report("open");
    while let Some(line) = instruction() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        match words[0] {
            "meet" => sender.wait_for_peers(number(1), Some(DEADLINE)).expect("there in time"),
            "send" => {
                let bytes = contents(1, number(1) as u64, number(2), true);
                let mut loan = sender.loan_bytes(bytes.len()).expect("room");
                loan.copy_from_slice(&bytes);
                assert_eq!(*loan, bytes[..], "what was built is there");
                if words.get(3) == Some(&"slowly") {
                    report("built");
                    assert_eq!(instruction().as_deref(), Some("go"));
                }
                loan.send().expect("sent");
            }
            "half" => {
                let bytes = contents(1, number(1) as u64, number(2), true);
                let mut loan = sender.loan_bytes(2 * bytes.len()).expect("room");
                loan.fill(b'x');
                loan[..bytes.len()].copy_from_slice(&bytes);
                loan.send_first(bytes.len()).expect("sent");
            }
            "drop" => sender.loan_bytes(number(1)).expect("room").fill(b'd'),
            "forget" => {
                let mut loan = sender.loan_bytes(number(1)).expect("room");
                loan.fill(b'f');
                std::mem::forget(loan);
            }
            "fill" => {
                // Until there is no room.
                let full = loop {
                    match sender.try_loan_bytes(number(1)) {
                        Ok(mut loan) => {
                            loan.fill(b'o');
                            loan.send().expect("sent");
                        }
                        Err(error) => break error,
                    }
                };
                assert!(matches!(full, SendError::Full | SendError::Slow { .. }), "{full}");
            }
            "flush" => sender.flush(Some(DEADLINE)).expect("all acknowledged"),
            "sent" => {
                report(sender.sent());
                continue;
            }
            other => panic!("{other}?"),
        }
        report("done");
    }
    sender.close().expect("closed");
    report("closed");
}

/// Looks at messages where they lie, as it is told.
pub(crate) fn borrower(arguments: &[String]) {
    let mut receiver = receiver(&arguments[0], &arguments[1]);
    report("open");
    while let Some(line) = instruction() {
        let message = match receiver.borrow_timeout(DEADLINE) {
            Ok(message) => message,
            Err(error) => {
                report(format_args!("{error:?}"));
                continue;
            }
        };
        let again = if message.redelivered() { " again" } else { "" };
        report(format_args!("{} {:x}{again}", message.len(), digest(&message)));
        match line.as_str() {
            "keep" => {
                assert_eq!(instruction().as_deref(), Some("look"));
                report(format_args!("{} {:x}", message.len(), digest(&message)));
                message.acknowledge().expect("acknowledged");
            }
            "take" => message.acknowledge().expect("acknowledged"),
            "leave" => drop(message),
            "reject" => assert_eq!(message.reject().expect("rejected"), Rejection::GivenBack),
            other => panic!("{other}?"),
        }
    }
}

fn said(n: u64, len: usize) -> String {
    format!("{len} {:x}", digest(&contents(1, n, len, true)))
}

fn start(role: &str, address: &str, pattern: &str) -> Child {
    let mut child = Child::role(role, &[address, pattern]);
    child.expect("open");
    child
}

fn tell(child: &mut Child, line: &str) {
    child.tell(line);
    child.expect("done");
}

/// Calls `check` with an address of each transport that carries the pattern, and can be reached by an address
/// of this folder.
fn each(pattern: &str, check: impl Fn(&str, usize)) {
    for row in TABLE.iter().filter(|row| row.patterns().contains(&pattern)) {
        let scratch = Scratch::new();
        let address = match row.scheme {
            "shm" => format!("shm:loans/{}", unique("each")),
            "unix" | "unix-seqpacket" | "file" | "fifo" => {
                format!("{}:{}", row.scheme, scratch.join("a").display())
            }
            _ => continue,
        };
        check(&address, row.capabilities.largest_message_bytes as usize);
    }
}

#[test]
fn what_is_built_in_place_arrives_over_every_transport() {
    for pattern in ["queue", "topic"] {
        each(pattern, |address, largest| {
            let mut borrower = start("borrower", address, pattern);
            let mut lender = start("lender", address, pattern);
            borrower.tell("take");
            if !address.starts_with("file") && !address.starts_with("fifo") {
                tell(&mut lender, "meet 1");
            }
            let lens =
                [1, 7, 8, 56, 57, 64, 1000, 4000, 8184, 8185, 60_000, 3_000_000, 20, 300_000];
            for (n, len) in (0..).zip(lens).filter(|(_, len)| 2 * *len <= largest) {
                let how = if n % 3 == 1 { "half" } else { "send" };
                tell(&mut lender, &format!("{how} {n} {len}"));
                borrower.expect(&said(n, len));
                borrower.tell("take");
                tell(&mut lender, &format!("drop {len}"));
                tell(&mut lender, &format!("forget {len}"));
            }
        });
    }
}

#[test]
fn what_is_borrowed_stays_as_it_is_while_its_publisher_goes_on() {
    for len in [64, 5000, 40_000] {
        let address = format!("shm:loans/{}", unique("kept"));
        let mut borrower = start("borrower", &address, "topic");
        let mut lender = start("lender", &address, "topic");
        tell(&mut lender, "meet 1");
        tell(&mut lender, &format!("send 1 {len}"));
        borrower.tell("keep");
        borrower.expect(&said(1, len));
        // All that there is room for: small ones in the ring, and large ones in blocks.
        tell(&mut lender, "fill 1000");
        lender.tell("sent");
        borrower.tell("look");
        borrower.expect(&said(1, len));
        // The room comes back.
        let sent: u64 = lender.line().expect("a number").parse().expect("a number");
        for _ in 1..sent {
            borrower.tell("leave");
            assert!(borrower.line().expect("a message").starts_with("1000 "));
        }
        lender.tell(&format!("send 2 {len}"));
        borrower.tell("leave");
        lender.expect("done");
        borrower.expect(&said(2, len));
    }
}

#[test]
fn a_borrowed_message_whose_receiver_is_killed_goes_to_another() {
    for len in [64, 40_000] {
        let address = format!("shm:loans/{}", unique("killed"));
        let mut first = start("borrower", &address, "queue");
        let mut lender = start("lender", &address, "queue");
        tell(&mut lender, "meet 1");
        tell(&mut lender, &format!("send 1 {len}"));
        first.tell("keep");
        first.expect(&said(1, len));
        first.kill();
        let mut second = start("borrower", &address, "queue");
        second.tell("take");
        tell(&mut lender, "meet 1");
        tell(&mut lender, &format!("send 2 {len}"));
        second.expect(&format!("{} again", said(1, len)));
        second.tell("reject");
        second.expect(&said(2, len));
        lender.tell("flush");
        second.tell("take");
        second.expect(&format!("{} again", said(2, len)));
        lender.expect("done");
    }
}

#[test]
fn a_loan_in_the_ring_of_a_receiver_that_dies_is_sent_to_another() {
    for len in [64, 40_000] {
        let address = format!("shm:loans/{}", unique("redirected"));
        let mut first = start("borrower", &address, "queue");
        let mut lender = start("lender", &address, "queue");
        tell(&mut lender, "meet 1");
        lender.tell(&format!("send 1 {len} slowly"));
        lender.expect("built");
        first.kill();
        let mut second = start("borrower", &address, "queue");
        lender.tell("go");
        lender.expect("done");
        second.tell("take");
        tell(&mut lender, "meet 1");
        tell(&mut lender, &format!("send 2 {len}"));
        let line = second.line().expect("a message");
        // Marked, if the death was not known yet.
        assert_eq!(line.strip_suffix(" again").unwrap_or(&line), said(1, len));
        second.tell("take");
        second.expect(&said(2, len));
    }
}

#[test]
fn what_was_lent_and_not_sent_is_lost_with_its_lender_alone() {
    let address = format!("shm:loans/{}", unique("unsent"));
    let mut borrower = start("borrower", &address, "topic");
    let mut lender = start("lender", &address, "topic");
    tell(&mut lender, "meet 1");
    tell(&mut lender, "send 1 64");
    lender.tell("send 2 64 slowly");
    lender.expect("built");
    lender.kill();
    borrower.tell("take");
    borrower.expect(&said(1, 64));
    borrower.tell("take");
    let died = borrower.line().expect("a report");
    assert!(died.starts_with("PeerDied") && died.contains("received: 1"), "{died}");
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Reading {
    celsius: f64,
    sensor: u64,
}

/// Aligned to more than a ring can promise.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u64; 8]);

#[test]
fn plain_types_are_built_and_looked_at_in_place_or_copied() {
    let address = format!("shm:loans/{}", unique("plain"));
    let topic = Topic::<Reading>::open(&address).expect("a topic");
    let mut subscriber = topic.subscriber(Start::New).expect("a subscriber");
    let mut publisher = topic.publisher().expect("a publisher");
    let mut loan = publisher.loan().expect("room");
    (loan.celsius, loan.sensor) = (21.5, 7);
    loan.send().expect("sent");
    drop(publisher.try_loan().expect("room"));
    let mut loan = publisher.loan_timeout(DEADLINE).expect("room");
    *loan = Reading { celsius: -1.0, sensor: 8 };
    loan.send().expect("sent");
    let sample = subscriber.borrow_timeout(DEADLINE).expect("a sample");
    assert_eq!((sample.celsius, sample.sensor, sample.number()), (21.5, 7, 1));
    drop(sample);
    assert_eq!(subscriber.recv().expect("a sample").message.sensor, 8);
    assert!(matches!(subscriber.try_borrow(), Err(RecvError::Empty)));

    let queue = Queue::<Line>::open(&format!("{address}-lines")).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    let mut sender = queue.sender().expect("a sender");
    sender.wait_for_peers(1, Some(DEADLINE)).expect("there");
    for n in 1..100 {
        let mut loan = sender.loan().expect("room");
        loan.0 = [n; 8];
        loan.send().expect("sent");
        let line = receiver.borrow_timeout(DEADLINE).expect("a line");
        assert_eq!(line.0, [n; 8]);
        assert_eq!((line.number(), line.deliveries(), line.redelivered()), (n, 0, false));
        line.acknowledge().expect("acknowledged");
    }
    sender.flush(Some(DEADLINE)).expect("all acknowledged");
}

#[test]
fn who_drops_the_oldest_lends_copies() {
    let address = format!("shm:loans/{}", unique("lossy"));
    let options = Options::default().overflow(Overflow::DropOldest);
    let topic = Topic::<Bytes>::open_with(&address, options).expect("a topic");
    let mut subscriber = topic.subscriber(Start::New).expect("a subscriber");
    let mut publisher = topic.publisher().expect("a publisher");
    let mut loan = publisher.loan_bytes(64).expect("room");
    loan.fill(1);
    loan.send().expect("sent");
    let sample = subscriber.borrow_timeout(DEADLINE).expect("a sample");
    for _ in 0..2000 {
        let mut loan = publisher.try_loan_bytes(64).expect("it waits for nobody");
        loan.fill(2);
        loan.send().expect("sent");
    }
    assert_eq!(*sample, [1; 64]);
    drop(sample);
    let gap = subscriber.borrow_timeout(DEADLINE).expect_err("a gap");
    assert!(matches!(gap, RecvError::Gap { missing: 1.., .. }), "{gap}");
    let sample = subscriber.borrow_timeout(DEADLINE).expect("a sample");
    assert_eq!((&*sample, sample.lost_before() > 0), (&[2; 64][..], true));
}

#[test]
fn a_message_of_another_length_is_an_error_with_its_bytes() {
    let scratch = Scratch::new();
    // Nobody compares types there.
    let address = format!("unix-dgram:{}", scratch.join("a").display());
    let mut receiver = Queue::<Reading>::open(&address).expect("a queue").receiver().expect("one");
    let mut sender = Queue::<Bytes>::open(&address).expect("a queue").sender().expect("one");
    sender.send_timeout(&Bytes(vec![3; 15]), DEADLINE).expect("sent");
    let error = receiver.borrow_timeout(Duration::from_secs(10)).expect_err("one byte is missing");
    let RecvError::Encoding { bytes, .. } = error else { panic!("{error}") };
    assert_eq!(bytes, [3; 15]);
}
