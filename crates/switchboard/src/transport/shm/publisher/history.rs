//! What late subscribers of a topic get: messages that are still in its ring.

use std::collections::VecDeque;

/// All that is kept for late subscribers at most, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// The messages that a subscriber gets that comes now, oldest first.
#[derive(Debug)]
pub(super) struct History {
    most: usize,
    kept: VecDeque<Kept>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    /// Where its frame begins, or the pad before that.
    begin: u64,
    /// The number of the message before.
    number: u64,
    len: u64,
}

impl History {
    /// Of so many messages at most.
    pub(super) fn new(most: u32) -> Self {
        Self { most: most as usize, kept: VecDeque::new(), bytes: 0 }
    }

    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.most > 0
    }

    /// Notes where the next message begins, after that of a number.
    #[cold]
    pub(super) fn keep(&mut self, begin: u64, number: u64, len: u64) {
        self.kept.push_back(Kept { begin, number, len });
        self.bytes += len;
        while self.kept.len() > self.most || self.bytes > MOST_BYTES {
            self.forget_oldest();
        }
    }

    /// Where the oldest message begins.
    pub(super) fn begin(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.begin)
    }

    /// Where the oldest message begins that the ring still has, and the number before.
    pub(super) fn begin_from(&mut self, oldest: u64) -> Option<(u64, u64)> {
        while self.begin().is_some_and(|begin| begin < oldest) {
            self.forget_oldest();
        }
        self.kept.front().map(|kept| (kept.begin, kept.number))
    }

    fn forget_oldest(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.len;
        }
    }
}
