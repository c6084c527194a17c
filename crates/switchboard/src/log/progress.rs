//! How far a named subscriber is in a lane: what it was given, and what of that it has taken. No I/O.
//!
//! Messages are given in the order of their numbers and taken in any order. The place to keep is before
//! the first one that was given and not taken.

use std::collections::BTreeMap;

/// How far a subscriber is in one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything before this message is taken: the place to keep.
    place: u64,
    /// The number after the last message given.
    given: u64,
    /// What is taken, or was never there, after `place`: from, and up to, apart from each other. As many
    /// as there are holes in it.
    taken: BTreeMap<u64, u64>,
}

impl Progress {
    /// Before the first message given: at a place that was kept.
    pub(crate) fn at(place: u64) -> Self {
        Self { place, given: place, taken: BTreeMap::new() }
    }

    /// The place to keep.
    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    /// A message is given. What is missing before it will not come any more.
    pub(crate) fn give(&mut self, sequence: u64) {
        if sequence < self.given {
            // Numbers began again.
            *self = Self::at(sequence);
        }
        self.cover(self.given, sequence);
        self.given = sequence.saturating_add(1);
    }

    /// A message is taken. Whether it was given and not taken yet.
    pub(crate) fn take(&mut self, sequence: u64) -> bool {
        let before = self.taken.range(..=sequence).next_back();
        let is_taken = before.is_some_and(|(_, to)| sequence < *to);
        let is_open = (self.place..self.given).contains(&sequence) && !is_taken;
        if is_open {
            self.cover(sequence, sequence + 1);
        }
        is_open
    }

    /// Everything given is taken.
    pub(crate) fn take_all(&mut self) {
        self.place = self.given;
        self.taken.clear();
    }

    /// Adds a run to what is taken; it overlaps with none.
    fn cover(&mut self, from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        to = self.taken.remove(&to).unwrap_or(to);
        if from <= self.place {
            self.place = to;
            return;
        }
        match self.taken.range_mut(..from).next_back() {
            Some((_, end)) if *end == from => *end = to,
            _ => {
                self.taken.insert(from, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_before_the_first_that_is_not_taken() {
        let mut progress = Progress::at(10);
        (10..20).for_each(|sequence| progress.give(sequence));
        for (sequence, place) in [(12, 10), (14, 10), (10, 11), (13, 11), (11, 15), (19, 15)] {
            assert!(progress.take(sequence));
            assert!(!progress.take(sequence), "{sequence} twice");
            assert_eq!(progress.place(), place, "after {sequence}");
        }
        assert!(!progress.take(20) && !progress.take(9), "never given");
        progress.take_all();
        assert_eq!(progress, Progress::at(20));
    }

    #[test]
    fn what_is_missing_holds_nothing_up() {
        let mut progress = Progress::at(1);
        for sequence in [3, 4, 9] {
            progress.give(sequence);
        }
        assert_eq!(progress.place(), 3);
        assert!(progress.take(4) && progress.place() == 3);
        assert!(progress.take(3) && progress.place() == 9);
        assert!(!progress.take(6), "it was never there");
        assert!(progress.take(9));
        assert_eq!(progress, Progress::at(10));
    }

    #[test]
    fn numbers_may_begin_again() {
        let mut progress = Progress::at(1);
        (1..10).for_each(|sequence| progress.give(sequence));
        progress.give(4);
        assert_eq!(progress.place(), 4);
        assert!(!progress.take(7) && progress.take(4));
        assert_eq!(progress, Progress::at(5));
    }

    #[test]
    fn it_grows_with_the_holes_only() {
        let mut progress = Progress::at(1);
        (1..1000).for_each(|sequence| progress.give(sequence));
        for sequence in (2..1000).rev() {
            assert!(progress.take(sequence));
            assert_eq!(progress.taken.len(), 1);
        }
        assert!(progress.take(1));
        assert_eq!(progress, Progress::at(1000));
    }
}
