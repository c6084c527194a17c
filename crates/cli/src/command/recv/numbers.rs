//! Numbers of messages, by which a person can tell them apart: one that was given back and comes
//! again keeps its own.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// The number of a message, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    number: u64,
    deliveries: u16,
    /// This receiver gave it back before.
    pub(super) known: bool,
}

/// `message 2`, or `message 2 (delivery 3)`.
impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {}", self.number)?;
        match self.deliveries {
            0 => Ok(()),
            before => write!(f, " (delivery {})", before + 1),
        }
    }
}

/// Counts messages, and remembers those that were given back.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: u64,
    /// The number of each, how often it was delivered before, and a hash of its bytes.
    given_back: VecDeque<(Number, u64)>,
    hasher: RandomState,
}

/// So many are remembered: more are hardly on their way back at a time.
const MOST_REMEMBERED: usize = 1024;

impl Numbers {
    /// The number of a message that was received.
    #[inline]
    pub(super) fn of(&mut self, bytes: &[u8], deliveries: u16) -> Number {
        if deliveries > 0
            && let Some(known) = self.recall(bytes, deliveries)
        {
            return known;
        }
        self.last += 1;
        Number { number: self.last, deliveries, known: false }
    }

    #[cold]
    fn recall(&mut self, bytes: &[u8], deliveries: u16) -> Option<Number> {
        let hash = self.hash(bytes);
        let earlier =
            |(before, other): &(Number, u64)| *other == hash && before.deliveries < deliveries;
        let at = self.given_back.iter().position(earlier)?;
        let (Number { number, .. }, _) = self.given_back.remove(at)?;
        Some(Number { number, deliveries, known: true })
    }

    /// Whether anything came at all, be it given back.
    pub(super) fn any(&self) -> bool {
        self.last > 0
    }

    /// What a message is remembered by.
    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    /// Remembers a message that was given back.
    #[cold]
    pub(super) fn give_back(&mut self, number: Number, hash: u64) {
        if self.given_back.len() == MOST_REMEMBERED {
            self.given_back.pop_front();
        }
        self.given_back.push_back((number, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_keeps_its_number() {
        let mut numbers = Numbers::default();
        let shown = |number: Number| number.to_string();
        let (a, b) = (numbers.of(b"a", 0), numbers.of(b"b", 0));
        assert_eq!((shown(a), shown(b)), ("message 1".into(), "message 2".into()));
        for (number, bytes) in [(b, b"b"), (a, b"a")] {
            let hash = numbers.hash(bytes);
            numbers.give_back(number, hash);
        }
        assert_eq!(shown(numbers.of(b"c", 0)), "message 3");
        let again = numbers.of(b"a", 1);
        assert_eq!((shown(again), again.known), ("message 1 (delivery 2)".into(), true));
        assert_eq!(shown(numbers.of(b"b", 1)), "message 2 (delivery 2)");
        // Given back by another receiver, and so new here.
        assert_eq!(shown(numbers.of(b"b", 2)), "message 4 (delivery 3)");
    }
}
