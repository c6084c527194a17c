//! The process that does an operation under the harness's eyes.

use std::time::Duration;

use switchboard::{Bytes, Delivery, Options, Receiver, RecvError, Sender};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::killstep;

use super::super::ends;
use super::operations::{Act, End, Operation, all};
use super::{GO, READY};

/// Whose its messages are.
pub(super) const VICTIM: u64 = 1;

/// Role: does operation N at an address.
pub(crate) fn victim(arguments: &[String]) {
    let number: usize = arguments[0].parse().expect("a number");
    let operation = all().nth(number).expect("an operation");
    let options = Options::default().io_thread(operation.io_thread).prefetch(operation.window);
    if operation.act == Act::Join {
        join(operation, &arguments[1], options);
    } else if operation.end.writes() {
        let sender = ends::writer(operation.end.pattern(), &arguments[1], options);
        write(operation, sender.expect("a writer"));
    } else {
        let receiver = ends::reader(operation.end.pattern(), &arguments[1], options);
        read(operation, receiver.expect("a reader"));
    }
}

/// Everybody is as they should be.
fn ready() {
    report(READY);
    assert_eq!(instruction().as_deref(), Some(GO), "the harness goes on");
}

fn join(operation: &Operation, address: &str, options: Options) {
    let pattern = operation.end.pattern();
    // First calls take long, and are the same: elsewhere, and alone.
    let elsewhere = address.replacen("shm:", "shm:elsewhere-", 1);
    let alone = options.clone().linger(Some(Duration::ZERO));
    if operation.end.writes() {
        drop(ends::writer(pattern, &elsewhere, alone).expect("a writer"));
    } else {
        let mut reader = ends::reader(pattern, &elsewhere, alone).expect("a reader");
        assert!(reader.try_recv().is_err());
    }
    ready();
    killstep::begin();
    if operation.end.writes() {
        let mut sender = ends::writer(pattern, address, options).expect("a writer");
        sender.wait_for_peers(1, None).expect("a reader");
        killstep::end();
        std::mem::forget(sender);
    } else {
        let mut receiver = ends::reader(pattern, address, options).expect("a reader");
        let delivery = receiver.recv().expect("a message");
        killstep::end();
        std::mem::forget((receiver, delivery));
    }
}

fn write(operation: &Operation, mut sender: Sender<Bytes>) {
    let message = |number| ends::message(VICTIM, number, operation.len_bytes);
    // Where one leaves before the operation there are two, and each gets some.
    let readers = if operation.act == Act::GiveOutAgain { 2 } else { 1 };
    sender.wait_for_peers(readers, None).expect("readers");
    for number in 1..=operation.before {
        sender.send_bytes(&message(number)).expect("sent");
    }
    let last = match operation.act {
        Act::Send(count) | Act::Feed(count) | Act::SendEach(count) | Act::Loans(count) => {
            operation.before + count
        }
        _ => operation.before + 1,
    };
    let messages: Vec<Vec<u8>> = (operation.before + 1..=last).map(message).collect();
    ready();
    match operation.act {
        Act::Leave => {
            killstep::begin();
            sender.close().expect("closed");
            killstep::end();
            return;
        }
        Act::Send(_) => {
            killstep::begin();
            for message in &messages {
                sender.send_bytes(message).expect("sent");
            }
        }
        Act::SendUrgent => {
            killstep::begin();
            sender.send_bytes_with_priority(&messages[0], 7).expect("sent");
        }
        Act::Feed(_) => {
            killstep::begin();
            for message in &messages {
                sender.feed(message).expect("accepted");
            }
            sender.push().expect("sent");
        }
        Act::SendEach(count) => {
            let mut left = messages.iter();
            killstep::begin();
            let sent = sender.send_each(operation.len_bytes, |room| {
                let message = left.next()?;
                room[..message.len()].copy_from_slice(message);
                Some(message.len())
            });
            assert_eq!(sent.expect("sent") as u64, count);
        }
        Act::Loans(_) => {
            killstep::begin();
            for message in &messages {
                let mut loan = sender.loan_bytes(message.len()).expect("room");
                loan.copy_from_slice(message);
                loan.send().expect("sent");
            }
        }
        Act::Loan | Act::LoanInVain => {
            killstep::begin();
            let mut loan = sender.loan_bytes(messages[0].len()).expect("room");
            loan.copy_from_slice(&messages[0]);
            if operation.act == Act::Loan {
                loan.send().expect("sent");
            } else {
                drop(loan);
            }
        }
        Act::GiveOutAgain => {
            killstep::begin();
            sender.drive().expect("given out");
        }
        other => unreachable!("a writer does not {other:?}"),
    }
    killstep::end();
    // It dies without a farewell.
    std::mem::forget(sender);
}

fn read(operation: &Operation, mut receiver: Receiver<Bytes>) {
    let mut taken: Vec<Option<Delivery<Bytes>>> = Vec::new();
    for number in 1..=operation.taken {
        let delivery = receiver.recv().expect("a message");
        assert_eq!(ends::read(&delivery.message.0).map(|tag| tag.1), Some(number));
        if number <= operation.settled && operation.end == End::Receiver {
            receiver.acknowledge(delivery).expect("acknowledged");
            taken.push(None);
        } else {
            taken.push(Some(delivery));
        }
    }
    ready();
    match operation.act {
        Act::Leave => {
            killstep::begin();
            drop(receiver);
            killstep::end();
            return;
        }
        Act::Receive => {
            killstep::begin();
            let received = receiver.recv();
            killstep::end();
            match &received {
                Ok(delivery) => assert!(ends::read(&delivery.message.0).is_some(), "torn"),
                Err(error) => assert!(matches!(error, RecvError::Gap { .. }), "{error:?}"),
            }
            std::mem::forget(received);
        }
        Act::BorrowTwo => {
            killstep::begin();
            let first = receiver.borrow().expect("a message").to_vec();
            let second = receiver.borrow().expect("a message").to_vec();
            killstep::end();
            let numbers = [first, second].map(|bytes| ends::read(&bytes).map(|tag| tag.1));
            assert_eq!(numbers, [1, 2].map(|n| Some(operation.taken + n)), "torn");
        }
        Act::Borrow | Act::BorrowAndAcknowledge | Act::BorrowAndReject => {
            killstep::begin();
            let borrowed = receiver.borrow().expect("a message");
            // In between: nobody may write here as long as it is borrowed.
            let seen = borrowed.to_vec();
            match operation.act {
                Act::BorrowAndAcknowledge => borrowed.acknowledge().expect("acknowledged"),
                Act::BorrowAndReject => drop(borrowed.reject().expect("given back")),
                _ => drop(borrowed),
            }
            killstep::end();
            let number = ends::read(&seen).map(|tag| tag.1);
            assert_eq!(number, Some(operation.taken + 1), "torn");
        }
        Act::ReceiveEach(count) => {
            killstep::begin();
            let mut whole = 0;
            let received = receiver.recv_each(count as usize, None, |incoming, _| {
                whole += u64::from(ends::read(incoming.bytes).is_some());
                operation.end == End::Receiver
            });
            killstep::end();
            assert_eq!(whole, count);
            assert_eq!(received.expect("messages"), count as usize);
        }
        Act::Acknowledge(numbers) => {
            killstep::begin();
            for number in numbers {
                let delivery = taken[*number as usize - 1].take().expect("a message");
                receiver.acknowledge(delivery).expect("acknowledged");
            }
            killstep::end();
        }
        Act::Reject(number) => {
            let delivery = taken[number as usize - 1].take().expect("a message");
            killstep::begin();
            receiver.reject(delivery).expect("given back");
            killstep::end();
        }
        other => unreachable!("a reader does not {other:?}"),
    }
    std::mem::forget((receiver, taken));
}
