//! Ends of either pattern alike, and messages that show whose they are and whether they are whole.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use switchboard::{Bytes, Error, Options, Queue, Receiver, Sender, Start, Topic};
use switchboard_testkit::DEADLINE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Topic,
    Queue,
}

impl Pattern {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Queue => "queue",
        }
    }

    pub(super) fn parse(name: &str) -> Self {
        if name == "queue" { Self::Queue } else { Self::Topic }
    }
}

/// A publisher or a sender.
pub(super) fn writer(
    pattern: Pattern,
    address: &str,
    options: Options,
) -> Result<Sender<Bytes>, Error> {
    match pattern {
        Pattern::Topic => {
            Topic::<Bytes>::open_with(address, options)?.publisher().map(Sender::from)
        }
        Pattern::Queue => Queue::<Bytes>::open_with(address, options)?.sender(),
    }
}

/// A subscriber or a receiver.
pub(super) fn reader(
    pattern: Pattern,
    address: &str,
    options: Options,
) -> Result<Receiver<Bytes>, Error> {
    match pattern {
        Pattern::Topic => {
            let topic = Topic::<Bytes>::open_with(address, options)?;
            topic.subscriber(Start::New).map(Receiver::from)
        }
        Pattern::Queue => Queue::<Bytes>::open_with(address, options)?.receiver(),
    }
}

/// Bytes of whose and which.
pub(super) const LEAST_BYTES: usize = 16;

/// A message: whose it is, its number, and bytes that follow from both.
pub(super) fn message(from: u64, number: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len_bytes.max(LEAST_BYTES));
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend((LEAST_BYTES..len_bytes).map(|at| filling(from, number, at)));
    bytes
}

fn filling(from: u64, number: u64, at: usize) -> u8 {
    (from.wrapping_mul(89) ^ number.wrapping_mul(31) ^ at as u64) as u8
}

/// Whose and which; none if it is torn.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (from, number) = (word(0)?, word(8)?);
    let mut rest = bytes.iter().enumerate().skip(LEAST_BYTES);
    rest.all(|(at, byte)| *byte == filling(from, number, at)).then_some((from, number))
}

/// Takes many in one call, which panics at one of them: it had that one, and none behind it.
pub(super) fn panic_at(reader: &mut Receiver<Bytes>, seen: &mut Vec<u64>, stop: u64) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        reader.recv_each(1000, Some(DEADLINE), |incoming, _| {
            let (_, number) = read(incoming.bytes).expect("a whole message");
            seen.push(number);
            if number == stop {
                resume_unwind(Box::new("on purpose"));
            }
            false
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(seen.last(), Some(&stop));
}
