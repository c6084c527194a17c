//! A lock that was taken, and whether its last holder died.

use crate::error::Result;

/// A lock that was taken.
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub enum Locked<G: Repairable> {
    /// After nobody, or after a holder that let go of it.
    Consistent(G),
    /// After a holder that died with it.
    OwnerDied(Orphaned<G>),
}

impl<G: Repairable> Locked<G> {
    /// The guard; if the last holder died, `repair` puts right what it left behind first, and the
    /// lock is marked consistent.
    ///
    /// # Errors
    /// As [`Orphaned::mark_consistent`].
    #[inline(always)]
    pub fn or_repair(self, repair: impl FnOnce()) -> Result<G> {
        match self {
            Self::Consistent(guard) => Ok(guard),
            Self::OwnerDied(orphaned) => {
                repair();
                orphaned.mark_consistent()
            }
        }
    }

    /// Whether the last holder died.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// A lock whose last holder died. What it protects may be half done.
///
/// Dropping it without [`Orphaned::mark_consistent`] says that nothing can be done: everybody who
/// waits for the lock or takes it later gets `ENOTRECOVERABLE`, until it is made anew.
#[derive(Debug)]
#[must_use = "dropping it makes the lock unusable for good"]
pub struct Orphaned<G: Repairable> {
    guard: Option<G>,
}

impl<G: Repairable> Orphaned<G> {
    pub(super) fn new(guard: G) -> Self {
        Self { guard: Some(guard) }
    }

    /// What the lock protects is in order again.
    ///
    /// If this process dies before it says so, the next one gets [`Locked::OwnerDied`] again. Whoever
    /// uses a [`Condvar`](super::Condvar) with the lock wakes all who wait there, for the dead one may
    /// have had something to tell them.
    ///
    /// # Errors
    /// `EINVAL` when other bytes are there by now: then the lock is not held any more.
    pub fn mark_consistent(mut self) -> Result<G> {
        let Some(guard) = self.guard.take() else { unreachable!("taken only here and on drop") };
        guard.mark_consistent()?;
        Ok(guard)
    }
}

impl<G: Repairable> Drop for Orphaned<G> {
    #[inline]
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.give_up();
        }
    }
}

/// A guard of a lock that says when its holder died. Of this crate only.
pub trait Repairable: sealed::Sealed {
    #[doc(hidden)]
    fn mark_consistent(&self) -> Result<()>;
    /// Called before the guard is dropped without having been marked consistent.
    #[doc(hidden)]
    fn give_up(&self);
}

pub(super) mod sealed {
    pub trait Sealed {}
}
