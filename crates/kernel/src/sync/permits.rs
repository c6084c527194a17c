//! Permits: at most so many holders at a time, and those of the dead come back.
//!
//! Each permit is a seat: a robust mutex, which the kernel takes from its holder when that dies.
//! `docs/design/sync.md` has the algorithm and its deaths.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::io::Errno;

use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared, refused};
use super::seats::{Found, Seat, Seats};
use super::{bell, next_look, out_of_patience, take};
use crate::error::{Error, Result};
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// A number of permits, of which a thread holds one at a time or more, for as long as it wants.
///
/// Those who wait are served about in turn, and before those who come later, but for
/// [`Permits::try_acquire`].
///
/// *Death.* The permits of a thread that died are free again: who comes next gets them at once, who
/// waits within [`LOOK`](super::LOOK).
///
/// ```
/// use switchboard_kernel::sync::{Permits, Shared};
///
/// let connections = Permits::anonymous(2)?;
/// let first = connections.acquire()?;
/// let second = connections.acquire()?;
/// assert_eq!(connections.try_acquire().map(drop).unwrap_err().name(), "EBUSY");
/// drop(first);
/// let third = connections.try_acquire()?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// Up to [`Permits::MAX`]. Taking one looks through them for a free one, so a hundred of them that are
/// nearly all taken cost some microseconds. See [`Mutex`](super::Mutex) for how many one thread may
/// hold.
#[derive(Debug)]
pub struct Permits {
    /// Whoever waits holds this, and is the only one who sleeps on the bell.
    queue: pthread::Mutex,
    seats: Seats,
    placed: Placed,
}

/// Own words: the bell, and how many permits were ever used.
const BELL: usize = 0;
const USED: usize = 1;

const SEATS_OFFSET: usize = HEADER_BYTES + OBJECT_BYTES;

/// A permit that is held. Dropping it gives it back. It stays with the thread that took it.
#[derive(Debug)]
#[must_use = "dropping it gives the permit back"]
pub struct Permit<'a> {
    /// None once it is given back.
    seat: Option<Seat<'a>>,
    permits: &'a Permits,
    of_this_thread: PhantomData<*const ()>,
}

impl Permits {
    /// The highest number.
    pub const MAX: u32 = 1024;

    /// Takes a permit; blocks until there is a free one.
    ///
    /// # Errors
    /// `EINVAL` when other bytes are there by now.
    #[inline]
    pub fn acquire(&self) -> Result<Permit<'_>> {
        self.acquire_until(Deadline::NEVER)
    }

    /// As [`Permits::acquire`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`Permits::acquire`].
    #[inline]
    pub fn acquire_until(&self, deadline: Deadline) -> Result<Permit<'_>> {
        // Whoever waits is served first: else one that gives a permit back and takes one anew at once is
        // always there before those who have to be woken for it.
        if !self.queue.is_held()
            && let Some(permit) = self.try_seat()?
        {
            return Ok(permit);
        }
        self.queue_up(deadline)
    }

    /// As [`Permits::acquire`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY` when all are held by threads that live; else as [`Permits::acquire`].
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>> {
        match self.try_seat()? {
            Some(permit) => Ok(permit),
            None => Err(Error::new("sync", Errno::BUSY)),
        }
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.placed.number()
    }

    #[inline]
    fn try_seat(&self) -> Result<Option<Permit<'_>>> {
        Ok(match self.seats.sit(self.placed.word(USED))? {
            Found::Seat(seat) | Found::OfTheDead(seat) => {
                Some(Permit { seat: Some(seat), permits: self, of_this_thread: PhantomData })
            }
            Found::None => None,
        })
    }

    #[cold]
    fn queue_up(&self, deadline: Deadline) -> Result<Permit<'_>> {
        let _turn = loop {
            match take(&self.queue, Some(next_look(deadline))) {
                Err(error) if error.errno() == libc::ETIMEDOUT => {}
                turn => break turn?,
            }
            // The first in the queue may be stopped: the others do not wait for it where they need not.
            if let Some(permit) = self.try_seat()? {
                return Ok(permit);
            }
            out_of_patience(Some(deadline))?;
        };
        loop {
            let seen = bell::listen(self.bell());
            // Partner: the fence in `Permit::drop`. Either that sees the mark, or this the free seat.
            fence(Ordering::SeqCst);
            if let Some(permit) = self.try_seat()? {
                return Ok(permit);
            }
            out_of_patience(Some(deadline))?;
            bell::wait(self.bell(), seen, next_look(deadline))?;
        }
    }

    #[inline]
    fn bell(&self) -> &AtomicU32 {
        self.placed.word(BELL)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        drop(self.seat.take());
        let bell = self.permits.bell();
        // Partner: the fence in `Permits::queue_up`.
        fence(Ordering::SeqCst);
        if bell.load(Ordering::Relaxed) & bell::LISTENED != 0 {
            // Whoever waits looks after a while, if this should fail.
            let _ = bell::ring_all(bell);
        }
    }
}

impl Shared for Permits {
    /// How many there are.
    type Options = u32;

    fn bytes(count: &u32) -> usize {
        SEATS_OFFSET + Seats::bytes(*count)
    }

    fn create_in(slot: Slot, count: u32) -> Result<Self> {
        if count == 0 || count > Self::MAX {
            return Err(refused(Errno::INVAL));
        }
        let bytes = Self::bytes(&count);
        let shape = Shape { kind: Kind::Permits, number: count, bytes, fingerprint: 0 };
        let (placed, (queue, seats)) = Placed::create(slot, shape, |placed| {
            placed.word(BELL).store(0, Ordering::Relaxed);
            placed.word(USED).store(0, Ordering::Relaxed);
            let queue = placed.part(HEADER_BYTES, OBJECT_BYTES)?;
            let queue = pthread::Mutex::create(queue, MutexOptions::new())?;
            Ok((queue, Seats::make(placed, SEATS_OFFSET, count)?))
        })?;
        Ok(Self { queue, seats, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Permits, 0)?;
        placed.check(1..=Self::MAX, |count| Self::bytes(&count))?;
        let queue = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        let seats = Seats::open(&placed, SEATS_OFFSET, placed.number())?;
        Ok(Self { queue, seats, placed })
    }

    fn was_made_with(&self, count: &u32) -> bool {
        self.placed.number() == *count
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
