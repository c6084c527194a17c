//! Who pays for the order between a store and a load: the side that sleeps, not the one that is busy.
//!
//! Two sides, each of which stores something and then looks at what the other stores: a writer commits and
//! looks whether a reader sleeps; a reader says that it sleeps and looks whether something was committed. One
//! of them has to see the other's, so each needs a full barrier in between. The busy side has none where it can
//! be done without: the other one makes all processors pass a barrier (`membarrier(2)`) before it sleeps for the
//! first time, and then leaves word that it sleeps now and then, at which the busy side fences after all.
//!
//! Source: Dice, Huang and Yang, "Asymmetric Dekker synchronization" (2001), for the idea.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::AtomicU64;
use crate::atomic::{fence, light_fence};

/// Between a store and a look whether the other side sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// A fence each time.
    Fences,
    /// Nothing but the order of the program: this process takes part in barriers of others.
    TakesPart,
}

impl Busy {
    /// A word of the other side, by which it says whether it sleeps, after a store for which it may be sleeping.
    #[inline]
    pub fn look(self, word: &AtomicU64) -> u64 {
        self.pass();
        match word.load(Relaxed) {
            0 => 0,
            _ => self.look_again(word),
        }
    }

    /// The barrier between a store and a look, such as it is.
    #[inline]
    pub(crate) fn pass(self) {
        match self {
            Self::Fences => fence(SeqCst),
            Self::TakesPart => light_fence(),
        }
    }

    /// What was found is not 0: somebody sleeps now and then, and does not call for barriers any more.
    #[cold]
    pub(crate) fn look_again(self, word: &AtomicU64) -> u64 {
        if self == Self::TakesPart {
            fence(SeqCst);
        }
        word.load(Relaxed)
    }

    /// As a flag that the other side reads.
    #[must_use]
    pub(crate) const fn flag(self, flag: u64) -> u64 {
        match self {
            Self::Fences => flag,
            Self::TakesPart => 0,
        }
    }

    pub(crate) const fn from_flag(flags: u64, flag: u64) -> Self {
        if flags & flag == 0 { Self::TakesPart } else { Self::Fences }
    }
}

/// Steps without a sleep after which nobody counts as sleeping now and then.
const AWAKE_STEPS: u32 = 8;

/// What one side knows of its own sleeps. Its word for the other is one of those of
/// [`crate::bell::Sleeps`], or [`LATELY`](Self::LATELY), or 0.
#[derive(Clone, Copy, Debug)]
pub struct Sleeper {
    /// The other side fences each time.
    fences: bool,
    /// The word is not 0, and the other side cannot but see that.
    known: bool,
    /// The word says that it sleeps.
    asleep: bool,
    steps: u32,
    /// What it made of its byte of a doorbell.
    pub(crate) byte: u64,
}

impl Sleeper {
    /// The word of one who is awake and slept lately.
    pub const LATELY: u64 = 3;

    /// `other`: what the busy side does.
    #[must_use]
    pub fn new(other: Busy) -> Self {
        Self { fences: other == Busy::Fences, known: false, asleep: false, steps: 0, byte: 0 }
    }

    /// To be called after the word was stored, and before looking for the last time. `everywhere` makes all
    /// processors pass a barrier.
    pub fn pass(&mut self, everywhere: impl FnOnce()) {
        if self.fences || self.known {
            fence(SeqCst);
        } else {
            everywhere();
        }
        (self.known, self.asleep) = (true, true);
        self.steps = 0;
    }

    /// The word after a sleep; 0 where the other side was not told of any.
    #[must_use]
    pub fn awake(&mut self) -> u64 {
        self.asleep = false;
        if self.fences || !self.known { 0 } else { Self::LATELY }
    }

    /// The word becomes 0: it does not count as sleeping now and then any more.
    pub fn forget(&mut self) {
        (self.known, self.asleep) = (false, false);
    }

    /// It has gone a step without sleeping. Whether its word is to become 0 now.
    #[inline]
    pub fn step(&mut self) -> bool {
        if !self.known || self.asleep || self.fences {
            return false;
        }
        self.steps += 1;
        if self.steps < AWAKE_STEPS {
            return false;
        }
        self.known = false;
        true
    }
}
