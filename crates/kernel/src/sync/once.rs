//! Doing something once, whoever comes first, and again if that one died doing so.

use std::sync::atomic::{AtomicU32, Ordering};

use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared};
use super::{Patience, take};
use crate::error::Result;
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// Something that one process does, and all others wait for and find done.
///
/// *Death.* When a process dies doing it, the next one does it anew, and finds what that left half done.
///
/// ```
/// use switchboard_kernel::sync::{Once, Shared};
///
/// let ready = Once::anonymous(())?;
/// let mut times = 0;
/// ready.call(|| times += 1)?;
/// ready.call(|| times += 1)?;
/// assert!(times == 1 && ready.is_done());
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Once {
    /// Held by whoever does it.
    doing: pthread::Mutex,
    placed: Placed,
}

/// Own word: 1 once it is done.
const DONE: usize = 0;

impl Once {
    const BYTES: usize = HEADER_BYTES + OBJECT_BYTES;

    /// Does it, unless it is done; says whether it did. Blocks while another process does it.
    ///
    /// When `make` panics, it is not done, and the next one does it.
    ///
    /// # Errors
    /// `EDEADLK` when `make` itself calls this; `EINVAL` when other bytes are there by now.
    #[inline]
    pub fn call(&self, make: impl FnOnce()) -> Result<bool> {
        if self.is_done() { Ok(false) } else { self.make(make, Some(Deadline::NEVER)) }
    }

    /// As [`Once::call`], but waits for another process until a deadline only.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`Once::call`].
    pub fn call_until(&self, make: impl FnOnce(), deadline: Deadline) -> Result<bool> {
        if self.is_done() { Ok(false) } else { self.make(make, Some(deadline)) }
    }

    /// As [`Once::call`], but never waits for another process.
    ///
    /// # Errors
    /// `EBUSY` while another process does it; else as [`Once::call`].
    pub fn try_call(&self, make: impl FnOnce()) -> Result<bool> {
        if self.is_done() { Ok(false) } else { self.make(make, None) }
    }

    /// Whether it is done. What was written in doing so can be read.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        // Partner: the store in `make`.
        self.done().load(Ordering::Acquire) == 1
    }

    fn done(&self) -> &AtomicU32 {
        self.placed.word(DONE)
    }

    #[cold]
    fn make(&self, make: impl FnOnce(), patience: Patience) -> Result<bool> {
        let doing = take(&self.doing, patience)?;
        if self.is_done() {
            return Ok(false);
        }
        make();
        if !doing.is_of_this_thread() {
            // A child that was made by `fork(2)` meanwhile: the parent says when it is done.
            return Ok(false);
        }
        self.done().store(1, Ordering::Release);
        Ok(true)
    }
}

impl Shared for Once {
    type Options = ();

    fn bytes((): &()) -> usize {
        Self::BYTES
    }

    fn create_in(slot: Slot, (): ()) -> Result<Self> {
        let shape = Shape { kind: Kind::Once, number: 0, bytes: Self::BYTES, fingerprint: 0 };
        let (placed, doing) = Placed::create(slot, shape, |placed| {
            placed.word(DONE).store(0, Ordering::Relaxed);
            pthread::Mutex::create(placed.part(HEADER_BYTES, OBJECT_BYTES)?, MutexOptions::new())
        })?;
        Ok(Self { doing, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Once, 0)?;
        let doing = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        Ok(Self { doing, placed })
    }

    fn was_made_with(&self, (): &()) -> bool {
        true
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
