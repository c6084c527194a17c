//! What a link has received: which messages were handed out, and which of them are settled.

use std::collections::VecDeque;

/// Sequences handed out and settled. Bounded by the window, which the sender must keep.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The last sequence that arrived.
    pub(crate) last: u64,
    /// Everything up to here is settled.
    through: u64,
    /// Flags of messages after `through`, once one was settled out of order; the front one is never
    /// set, and what is beyond its end is unset.
    settled: VecDeque<bool>,
    /// The cumulative acknowledgement last written.
    told: u64,
}

/// What settling a message means for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// A cumulative acknowledgement covers it.
    InOrder,
    /// Earlier messages are unsettled: it needs a frame of its own.
    OutOfOrder,
    /// It was settled before, or never arrived.
    Not,
}

impl Incoming {
    /// A message arrived: the next one.
    #[inline]
    pub(crate) fn arrived(&mut self) {
        self.last += 1;
    }

    /// Messages handed out and not settled.
    #[inline]
    pub(crate) fn unsettled(&self) -> u64 {
        let later = self.settled.iter().filter(|settled| **settled).count() as u64;
        self.last - self.through - later
    }

    /// Messages after the settled prefix: what the sender counts against the window at most.
    #[inline]
    pub(crate) fn spread(&self) -> u64 {
        self.last - self.through
    }

    /// The application is done with a message.
    #[inline]
    pub(crate) fn settle(&mut self, sequence: u64) -> Settled {
        if sequence <= self.through || sequence > self.last {
            return Settled::Not;
        }
        if sequence == self.through + 1 && self.settled.is_empty() {
            self.through = sequence;
            return Settled::InOrder;
        }
        self.settled.resize((self.last - self.through) as usize, false);
        let at = (sequence - self.through - 1) as usize;
        if std::mem::replace(&mut self.settled[at], true) {
            return Settled::Not;
        }
        if at > 0 {
            return Settled::OutOfOrder;
        }
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.through += 1;
        }
        if !self.settled.contains(&true) {
            self.settled.clear();
        }
        Settled::InOrder
    }

    /// The application is done with a run of messages. `false`: settle them one by one.
    #[inline]
    pub(crate) fn settle_run(&mut self, first: u64, last: u64) -> bool {
        let in_order = self.settled.is_empty() && first == self.through + 1;
        if in_order && (first..=self.last).contains(&last) {
            self.through = last;
            return true;
        }
        false
    }

    /// Nothing up to here will come any more.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.last = sequence;
        self.settle_all();
    }

    /// Everything that arrived is settled.
    pub(crate) fn settle_all(&mut self) {
        self.through = self.last;
        self.settled.clear();
    }

    /// How many acknowledgements wait to be written.
    #[inline]
    pub(crate) fn untold(&self) -> u64 {
        self.through - self.told
    }

    /// The cumulative acknowledgement to write now, if there is a new one.
    pub(crate) fn tell(&mut self) -> Option<u64> {
        (self.through > self.told).then(|| {
            self.told = self.through;
            self.through
        })
    }
}
