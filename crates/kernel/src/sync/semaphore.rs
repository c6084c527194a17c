//! The counting semaphore whose waiters do not miss a count because one of them died.
//!
//! Source: `sem_overview(7)` for what it does; the algorithm and its deaths: `docs/design/sync.md`.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared, refused};
use super::{next_look, out_of_patience, take};
use crate::error::{Error, Result};
use crate::futex;
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// A count that anybody may raise, and that whoever wants something waits for and lowers by one.
///
/// *Death.* What a dead process had taken stays taken: a semaphore does not know who took what
/// ([`Permits`](super::Permits) do). Those who wait miss nothing: when one dies that was just woken, or
/// somebody dies while raising the count, the next looks within [`LOOK`](super::LOOK).
///
/// ```
/// use switchboard_kernel::sync::{Semaphore, Shared};
///
/// let jobs = Semaphore::anonymous(0)?;
/// jobs.post()?;
/// jobs.wait()?;
/// assert_eq!(jobs.try_wait().unwrap_err().name(), "EBUSY");
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// The count goes up to [`Semaphore::MAX`].
#[derive(Debug)]
pub struct Semaphore {
    /// Whoever waits holds this, and is the only one who sleeps on the count.
    queue: pthread::Mutex,
    placed: Placed,
}

/// Own word: twice the count, plus 1 while somebody may sleep on it.
const COUNT: usize = 0;
const LISTENED: u32 = 1;
const ONE: u32 = 2;

impl Semaphore {
    /// The highest count.
    pub const MAX: u32 = (1 << 30) - 1;

    const BYTES: usize = HEADER_BYTES + OBJECT_BYTES;

    /// Lowers the count by one; blocks while it is 0.
    ///
    /// # Errors
    /// `EDEADLK`: a signal handler waits that interrupted a wait of this thread; `EINVAL` when other
    /// bytes are there by now.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(Deadline::NEVER)
    }

    /// As [`Semaphore::wait`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`Semaphore::wait`].
    #[inline]
    pub fn wait_until(&self, deadline: Deadline) -> Result<()> {
        if self.lower(0) { Ok(()) } else { self.queue_up(deadline) }
    }

    /// As [`Semaphore::wait`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY` while the count is 0.
    #[inline]
    pub fn try_wait(&self) -> Result<()> {
        if self.lower(0) { Ok(()) } else { out_of_patience(None) }
    }

    /// Raises the count by one, and wakes who waits for it. Never blocks.
    ///
    /// # Errors
    /// `EOVERFLOW` at [`Semaphore::MAX`].
    #[inline]
    pub fn post(&self) -> Result<()> {
        let raised = self.count().fetch_update(Ordering::Release, Ordering::Relaxed, |count| {
            (count < Self::MAX * ONE).then(|| count + ONE)
        });
        match raised {
            Ok(before) if before & LISTENED == 0 => Ok(()),
            Ok(_) => futex::wake(self.count(), 1).map(drop),
            Err(_) => Err(Error::new("sync", Errno::OVERFLOW)),
        }
    }

    /// The count, which may be another one by now.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.count().load(Ordering::Relaxed) / ONE
    }

    #[inline]
    fn count(&self) -> &AtomicU32 {
        self.placed.word(COUNT)
    }

    /// Lowers the count if it is not 0, and takes these bits off.
    #[inline]
    fn lower(&self, bits: u32) -> bool {
        self.count()
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
                (count >= ONE).then(|| (count - ONE) & !bits)
            })
            .is_ok()
    }

    #[cold]
    fn queue_up(&self, deadline: Deadline) -> Result<()> {
        let _turn = take(&self.queue, Some(deadline))?;
        loop {
            let seen = self.count().fetch_or(LISTENED, Ordering::Relaxed) | LISTENED;
            if self.lower(LISTENED) {
                return Ok(());
            }
            if seen >= ONE {
                continue;
            }
            out_of_patience(Some(deadline))?;
            futex::wait(self.count(), seen, next_look(deadline))?;
        }
    }
}

impl Shared for Semaphore {
    /// The count it begins with.
    type Options = u32;

    fn bytes(_: &u32) -> usize {
        Self::BYTES
    }

    fn create_in(slot: Slot, count: u32) -> Result<Self> {
        if count > Self::MAX {
            return Err(refused(Errno::INVAL));
        }
        let shape = Shape { kind: Kind::Semaphore, number: 0, bytes: Self::BYTES, fingerprint: 0 };
        let (placed, queue) = Placed::create(slot, shape, |placed| {
            placed.word(COUNT).store(count * ONE, Ordering::Relaxed);
            pthread::Mutex::create(placed.part(HEADER_BYTES, OBJECT_BYTES)?, MutexOptions::new())
        })?;
        Ok(Self { queue, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Semaphore, 0)?;
        let queue = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        Ok(Self { queue, placed })
    }

    fn was_made_with(&self, _: &u32) -> bool {
        true
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
