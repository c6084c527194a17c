//! How often each event happened and was not passed on: one entry for each id, however often.

use std::collections::{HashMap, VecDeque};

/// Ids that wait at one place at most.
pub(crate) const MOST_IDS: usize = 65_536;

/// Counts by id, in the order in which the ids came.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    order: VecDeque<u64>,
    counts: HashMap<u64, u64>,
}

impl Counts {
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether one id more would be too many.
    pub(crate) fn is_full(&self) -> bool {
        self.order.len() >= MOST_IDS
    }

    /// Whether something may be counted under this id.
    pub(crate) fn has_room_for(&self, id: u64) -> bool {
        !self.is_full() || self.counts.contains_key(&id)
    }

    pub(crate) fn add(&mut self, id: u64, count: u64) {
        match self.counts.entry(id) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                *entry.get_mut() = entry.get().saturating_add(count);
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(count);
                self.order.push_back(id);
            }
        }
    }

    /// The id that waits longest, and how often it happened.
    pub(crate) fn pop(&mut self) -> Option<(u64, u64)> {
        let id = self.order.pop_front()?;
        let count = self.counts.remove(&id).unwrap_or(1);
        if self.order.is_empty() && self.order.capacity() > 1024 {
            // What a crowd took is given back.
            *self = Self::default();
        }
        Some((id, count))
    }

    /// Adds what another one has.
    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some((id, count)) = other.pop() {
            if self.has_room_for(id) {
                self.add(id, count);
            }
        }
    }
}
