//! What a receiver gave back: others come first, and it has it again after a pause, or never.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::super::watch::LONGEST;
use crate::log::table::{MOST_RETURNED, Returned, Table};

/// How long others have a message to themselves after its first delivery; twice as long after each
/// further one. Receivers that wait see it at once; others look after this time.
const FIRST_PAUSE: Duration = LONGEST;
/// The pause is not doubled more often.
const MOST_DOUBLED: u32 = 7;
/// So many are remembered before it is looked which of them are gone.
const MANY: usize = 1024;

/// A message: its lane and number.
type Which = (u32, u64);

/// Messages that one receiver gave back.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    /// When it may have each of them again; `None`: never.
    again: HashMap<Which, Option<Instant>>,
    /// The earliest of those times.
    next: Option<Instant>,
    /// Not in the table yet, and still in a claim of this receiver; with their deliveries.
    pub(super) kept: BTreeMap<Which, u32>,
    /// How many were remembered after the last look at which of them are gone.
    alive: usize,
}

impl GivenBack {
    /// Notes that a message was rejected, which makes so many deliveries, or, with `None`, that it
    /// cannot be used here.
    pub(super) fn note(&mut self, message: Returned, pause: Option<u32>) {
        let pause = pause.map(|deliveries| {
            let doubled = deliveries.saturating_sub(1).min(MOST_DOUBLED);
            FIRST_PAUSE * 2_u32.pow(doubled)
        });
        let at = pause.map(|pause| Instant::now() + pause);
        let which = (message.lane, message.sequence);
        self.again.insert(which, at);
        self.next = self.next.into_iter().chain(at).min();
        self.kept.insert(which, message.deliveries);
    }

    /// Whether it is time to have one of them again.
    pub(super) fn is_due(&self) -> bool {
        self.next.is_some_and(|at| at <= Instant::now())
    }

    /// Whether this receiver may have a message that lies in the table.
    pub(super) fn may_take(&self, message: &Returned, now: Instant) -> bool {
        match self.again.get(&(message.lane, message.sequence)) {
            None => true,
            Some(at) => at.is_some_and(|at| at <= now),
        }
    }

    /// The message was taken again.
    pub(super) fn forget(&mut self, message: &Returned) {
        self.again.remove(&(message.lane, message.sequence));
    }

    /// After a look at the table: what is to come, and what is gone.
    pub(super) fn looked(&mut self, table: &Table, now: Instant) {
        if self.again.len() > MANY.max(2 * self.alive) {
            let mut before: HashMap<u32, u64> = HashMap::new();
            self.again.retain(|(lane, sequence), _| {
                *sequence >= *before.entry(*lane).or_insert_with(|| table.settled_before(*lane))
            });
            self.alive = self.again.len();
        }
        // One that was due and is not there is with somebody else.
        let to_come = self.again.values().flatten().filter(|at| **at > now);
        self.next = to_come.min().copied();
    }

    /// Puts as many of those that are kept into the table as it takes. `settle` gives one up.
    pub(super) fn put_into(&mut self, table: &mut Table, mut settle: impl FnMut(u32, u64) -> bool) {
        while table.returned.len() < MOST_RETURNED
            && let Some(((lane, sequence), deliveries)) = self.kept.pop_first()
        {
            if settle(lane, sequence) {
                table.returned.push(Returned { lane, deliveries, sequence });
            }
        }
    }
}
