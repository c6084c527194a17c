//! Messages that a receiver gives back to a log: who has them next, when, and how often.

use std::time::{Duration, Instant};

use switchboard::{Bytes, Delivery, Json, Options, Queue, Receiver, RecvError, Rejection, Text};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{payload, send};

fn queue(scratch: &Scratch, options: Options) -> Queue<Bytes> {
    Queue::open_with(&address(scratch), options).expect("a queue")
}

fn address(scratch: &Scratch) -> String {
    format!("file:{}", scratch.join("log").display())
}

fn next(receiver: &mut Receiver<Bytes>) -> Delivery<Bytes> {
    receiver.recv_timeout(DEADLINE).expect("a message")
}

/// Role: a receiver that says what it gets, and acknowledges it.
pub(crate) fn healthy(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    report("open");
    while instruction().is_some() {
        let delivery = next(&mut receiver);
        let marked = if delivery.redelivered { "marked" } else { "new" };
        report(format!("{} {} {marked}", delivery.number(), delivery.deliveries));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
}

#[test]
fn another_receiver_has_it_first() {
    let scratch = Scratch::new();
    let mut receiver = queue(&scratch, Options::default()).receiver().expect("a receiver");
    let mut other = Child::role("log-healthy", &[address(&scratch)]);
    other.expect("open");
    send(&address(&scratch), 1..2);
    let delivery = next(&mut receiver);
    other.tell("next");
    assert_eq!(receiver.reject(delivery).expect("rejected"), Rejection::GivenBack);
    other.expect("1 1 marked");
    // It does not come here again.
    let again = receiver.recv_timeout(Duration::from_millis(1500));
    assert!(matches!(again, Err(RecvError::Empty)), "{again:?}");
}

#[test]
fn alone_it_comes_again_after_pauses_and_is_gone_after_the_last_delivery() {
    let scratch = Scratch::new();
    let options = Options::default().max_deliveries(3);
    send(&address(&scratch), 1..3);
    let mut receiver = queue(&scratch, options.clone()).receiver().expect("a receiver");
    let mut since = Instant::now();
    for deliveries in 0..3 {
        let delivery = next(&mut receiver);
        assert_eq!((delivery.number(), delivery.deliveries), (1, deliveries));
        assert_eq!(delivery.redelivered, deliveries > 0);
        if deliveries > 0 {
            let least = Duration::from_millis(500) * 2_u32.pow(u32::from(deliveries) - 1);
            assert!(since.elapsed() >= least, "{:?} after delivery {deliveries}", since.elapsed());
        }
        since = Instant::now();
        let fate = receiver.reject(delivery).expect("rejected");
        let last = if deliveries == 2 { Rejection::ForGood } else { Rejection::GivenBack };
        assert_eq!(fate, last);
        if deliveries == 0 {
            // The others go on meanwhile.
            let delivery = next(&mut receiver);
            assert_eq!((delivery.number(), delivery.redelivered), (2, false));
            receiver.acknowledge(delivery).expect("acknowledged");
        }
    }
    drop(receiver);
    let mut receiver = queue(&scratch, options).receiver().expect("a receiver");
    assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn deliveries_are_counted_over_receivers() {
    let scratch = Scratch::new();
    send(&address(&scratch), 1..2);
    for deliveries in 0..5 {
        let mut receiver = queue(&scratch, Options::default()).receiver().expect("a receiver");
        let delivery = next(&mut receiver);
        assert_eq!(delivery.deliveries, deliveries);
        let fate = receiver.reject(delivery).expect("rejected");
        assert_eq!(fate == Rejection::ForGood, deliveries == 4);
    }
}

#[test]
fn what_cannot_be_used_uses_up_nothing() {
    let scratch = Scratch::new();
    send(&address(&scratch), 1..2);
    let typed = Queue::<Json<Vec<u64>>>::open_with(
        &address(&scratch),
        Options::default().max_deliveries(1).prefetch(1),
    );
    let typed = typed.expect("a queue");
    for _ in 0..7 {
        let mut receiver = typed.receiver().expect("a receiver");
        let error = receiver.recv().expect_err("it is no JSON");
        assert!(matches!(error, RecvError::Encoding { .. }), "{error}");
        // Once each: it would come to the same end.
        let again = receiver.recv_timeout(Duration::from_millis(50));
        assert!(matches!(again, Err(RecvError::Empty)), "{again:?}");
    }
    let mut sender = Queue::<Text>::open(&address(&scratch)).expect("a queue").sender();
    sender.as_mut().expect("a sender").send(&Text("[7]".into())).expect("sent");
    let mut receiver = typed.receiver().expect("a receiver");
    assert!(matches!(receiver.recv(), Err(RecvError::Encoding { .. })));
    let delivery = receiver.recv_timeout(DEADLINE).expect("the next one");
    assert_eq!(delivery.message.0, [7]);
    receiver.acknowledge(delivery).expect("acknowledged");
    drop(receiver);
    let delivery = next(&mut queue(&scratch, Options::default()).receiver().expect("a receiver"));
    assert_eq!((delivery.message.0, delivery.deliveries), (payload(1), 0));
    assert!(delivery.redelivered, "it was seen");
}

#[test]
fn many_are_given_back_and_none_is_lost() {
    const COUNT: u64 = 2400;
    let scratch = Scratch::new();
    send(&address(&scratch), 1..COUNT + 1);
    let options = Options::default().prefetch(256).acknowledge_every(256);
    let mut receiver = queue(&scratch, options.clone()).receiver().expect("a receiver");
    // More than the table takes; what is more stays with the receiver.
    for n in 1..COUNT + 1 {
        let delivery = next(&mut receiver);
        assert_eq!(delivery.number(), n);
        match n % 2 {
            0 => drop(receiver.acknowledge(delivery).expect("acknowledged")),
            _ => assert_eq!(receiver.give_back(delivery).expect("taken"), Rejection::GivenBack),
        }
    }
    assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
    drop(receiver);
    let mut receiver = queue(&scratch, options).receiver().expect("a receiver");
    let mut seen = vec![false; COUNT as usize + 1];
    while let Ok(delivery) = receiver.try_recv() {
        assert!(delivery.redelivered);
        assert_eq!(delivery.message.0, payload(delivery.number()));
        seen[delivery.number() as usize] = true;
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    let missing = (1..COUNT + 1).step_by(2).filter(|n| !seen[*n as usize]).count();
    assert_eq!(missing, 0);
}

#[test]
fn many_receivers_that_give_back_find_a_healthy_one() {
    let scratch = Scratch::new();
    let give_back = || queue(&scratch, Options::default()).receiver().expect("a receiver");
    let mut others = [give_back(), give_back(), give_back()];
    send(&address(&scratch), 1..9);
    let mut given_back = 0;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(700) {
        for receiver in &mut others {
            if let Ok(delivery) = receiver.recv_timeout(Duration::from_millis(10)) {
                receiver.give_back(delivery).expect("taken");
                given_back += 1;
                since = Instant::now();
            }
        }
    }
    assert_eq!(given_back, 8 * 3, "each message once to each of them");
    let mut healthy = Child::role("log-healthy", &[address(&scratch)]);
    healthy.expect("open");
    let mut numbers: Vec<String> = (0..8)
        .map(|_| {
            healthy.tell("next");
            healthy.line().expect("a message")
        })
        .collect();
    numbers.sort_unstable();
    let expected: Vec<String> = (1..9).map(|n| format!("{n} 0 marked")).collect();
    assert_eq!(numbers, expected);
}
