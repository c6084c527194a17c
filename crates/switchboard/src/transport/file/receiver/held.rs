//! A run of messages of one lane that a receiver has taken.

use std::collections::VecDeque;
use std::ops::Range;

use crate::log::table::Claim;

/// A claim of this receiver.
#[derive(Debug)]
pub(super) struct Held {
    /// Its place in the table.
    pub(super) index: usize,
    pub(super) lane: u32,
    pub(super) deliveries: u32,
    pub(super) first: u64,
    /// For each message from `first` on, whether it is settled. Its end is the claim's end.
    pub(super) settled: VecDeque<bool>,
}

/// A message that was taken and not handed out yet.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) lane: u32,
    pub(super) sequence: u64,
    pub(super) deliveries: u16,
    pub(super) redelivered: bool,
    /// It was taken from its lane, where it can be put back.
    pub(super) from_lane: bool,
    pub(super) payload: Range<usize>,
}

impl Held {
    pub(super) fn end(&self) -> u64 {
        self.first + self.settled.len() as u64
    }

    pub(super) fn settle(&mut self, sequence: u64) -> bool {
        let Some(at) = sequence.checked_sub(self.first) else { return false };
        match self.settled.get_mut(at as usize) {
            Some(settled) => !std::mem::replace(settled, true),
            None => false,
        }
    }

    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        let at = sequence.checked_sub(self.first);
        at.and_then(|at| self.settled.get(at as usize)).copied().unwrap_or(true)
    }

    pub(super) fn unsettled(&self) -> usize {
        self.settled.iter().filter(|settled| !**settled).count()
    }

    /// As it goes into the table. What is settled at its front is forgotten.
    pub(super) fn claim(&mut self) -> Claim {
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.first += 1;
        }
        let mut claim = Claim {
            lane: self.lane,
            deliveries: self.deliveries,
            first: self.first,
            end: self.end(),
            settled: 0,
        };
        claim.settle(|sequence| self.is_settled(sequence));
        claim
    }
}
