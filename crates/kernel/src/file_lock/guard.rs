//! A lock that is held, and what can be done with it.
//!
//! Source: `flock(2)`, `fcntl(2)`.

use std::os::fd::BorrowedFd;

use super::{Kind, Lock, Mode, Wait};
use crate::error::{OfCall, Result};
use crate::io::retry;

/// A lock that is held. Dropping it unlocks.
///
/// Unlocking is explicit (`LOCK_UN`, `F_UNLCK`), so it does not matter who else has a copy of the
/// descriptor. What can take the lock away before: for [`Lock::process`], closing any descriptor of
/// the file in this process; for [`Lock::flock`], a conversion that fails; for both that belong to
/// the open file, somebody with a copy of the descriptor who unlocks it.
#[derive(Debug)]
#[must_use = "the file is unlocked when this is dropped"]
pub struct Guard<'file> {
    file: BorrowedFd<'file>,
    lock: Lock,
}

/// What became of a conversion that may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Converted {
    /// It has the new mode.
    Done,
    /// Somebody stood in the way; it has the old mode.
    Kept,
    /// Somebody stood in the way, and the lock is lost: `flock` lets go of the old mode first.
    Lost,
}

impl<'file> Guard<'file> {
    pub(super) fn new(file: BorrowedFd<'file>, lock: Lock) -> Self {
        Self { file, lock }
    }

    /// What is held.
    #[must_use]
    pub fn lock(&self) -> Lock {
        self.lock
    }

    /// Makes it shared or exclusive; blocks until nobody stands in the way.
    ///
    /// [`Lock::process`] and [`Lock::open_file`] keep the old mode until they have the new one. So
    /// two that are shared and both want to be exclusive wait for each other: `EDEADLK`, or for
    /// ever. [`Lock::flock`] lets go first, and somebody else may have it in between: look again at
    /// what the lock protects.
    ///
    /// # Errors
    /// As [`Lock::lock`].
    pub fn convert(&mut self, mode: Mode) -> Result<()> {
        let lock = Lock { mode, ..self.lock };
        retry(lock.call(), || lock.set(self.file, Wait::Blocks))?;
        self.lock = lock;
        Ok(())
    }

    /// Makes it shared or exclusive, if nobody stands in the way; says whether it did. Never blocks.
    ///
    /// # Errors
    /// As [`Lock::try_lock`].
    pub fn try_convert(&mut self, mode: Mode) -> Result<Converted> {
        let lock = Lock { mode, ..self.lock };
        if lock.attempt(self.file)? {
            self.lock = lock;
            return Ok(Converted::Done);
        }
        Ok(if self.lock.kind == Kind::Flock { Converted::Lost } else { Converted::Kept })
    }

    /// `flock(LOCK_UN)`, `fcntl(F_UNLCK)`: unlocks. Dropping the guard does the same, and keeps
    /// errors to itself.
    ///
    /// # Errors
    /// `ENOLCK`: of a network file system; and when a lock on part of this range would be left and
    /// there is no memory for it.
    pub fn unlock(self) -> Result<()> {
        let (file, lock) = (self.file, self.lock);
        self.keep();
        lock.unset(file).of(lock.call())
    }

    /// Leaves the lock where it is: held until the file is closed (see [`Lock`] for which of its
    /// descriptors counts), or the process ends.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let _ = self.lock.unset(self.file);
    }
}
