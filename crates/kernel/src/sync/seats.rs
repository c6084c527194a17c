//! A row of robust mutexes, one for each thread that must not be missed when it dies.
//!
//! Whoever holds a read lock, a permit, or waits for a condition sits on a seat: holds its mutex. When
//! the thread dies, the kernel marks the seat. A seat protects nothing, so whoever finds it marked makes
//! it consistent and may take it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use super::object::Placed;
use super::{Patience, take};
use crate::error::Result;
use crate::pthread::{Guard, Locked, Mutex, MutexOptions, OBJECT_BYTES};

thread_local! {
    /// Where this thread sat last: there it looks first, so that threads keep out of each other's way.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// The row. `used` counts the seats that were ever sat on: those after it need not be looked at.
#[derive(Debug)]
pub(super) struct Seats {
    mutexes: Box<[Mutex]>,
}

/// A seat that is held. Dropping it stands up.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    index: usize,
    mutex: &'a Mutex,
    guard: Guard<'a>,
}

/// What became of an attempt to sit down.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Seat(Seat<'a>),
    /// The seat was that of somebody who died.
    OfTheDead(Seat<'a>),
    /// All are taken.
    None,
}

impl Seat<'_> {
    /// Which of the row.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Whether this thread sits there, which a child made by `fork(2)` does not.
    pub(super) fn is_of_this_thread(&self) -> bool {
        self.guard.is_of_this_thread()
    }
}

impl Seats {
    pub(super) const fn bytes(count: u32) -> usize {
        count as usize * OBJECT_BYTES
    }

    pub(super) fn make(placed: &Placed, offset_bytes: usize, count: u32) -> Result<Self> {
        Self::each(placed, offset_bytes, count, |slot| Mutex::create(slot, MutexOptions::new()))
    }

    pub(super) fn open(placed: &Placed, offset_bytes: usize, count: u32) -> Result<Self> {
        Self::each(placed, offset_bytes, count, Mutex::open)
    }

    fn each(
        placed: &Placed,
        offset_bytes: usize,
        count: u32,
        one: impl Fn(crate::shared_words::Slot) -> Result<Mutex>,
    ) -> Result<Self> {
        let places = (offset_bytes..).step_by(OBJECT_BYTES).take(count as usize);
        let mutexes = places.map(|place| one(placed.part(place, OBJECT_BYTES)?));
        Ok(Self { mutexes: mutexes.collect::<Result<_>>()? })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.mutexes.len()
    }

    /// Whether the seat is one of these.
    pub(super) fn owns(&self, seat: &Seat<'_>) -> bool {
        self.mutexes.as_ptr_range().contains(&std::ptr::from_ref(seat.mutex))
    }

    /// How many of them were ever used, whatever the word says.
    #[inline]
    pub(super) fn in_use(&self, used: &AtomicU32) -> usize {
        // SeqCst: see `RwLock::write`, which must not miss a seat that somebody sat on.
        (used.load(Ordering::SeqCst) as usize).min(self.len())
    }

    /// Sits down where nobody sits, by preference where this thread sat last. Never blocks.
    #[inline]
    pub(super) fn sit(&self, used: &AtomicU32) -> Result<Found<'_>> {
        let in_use = self.in_use(used);
        let last = LAST.get();
        if last < in_use {
            match self.try_seat(last)? {
                Found::None => {}
                found => return Ok(found),
            }
        }
        self.sit_anywhere(used, in_use)
    }

    #[cold]
    fn sit_anywhere(&self, used: &AtomicU32, in_use: usize) -> Result<Found<'_>> {
        for index in 0..self.len() {
            if index >= in_use {
                // Before the seat is taken: whoever goes through the seats in use does not miss it.
                used.fetch_max(u32::try_from(index + 1).unwrap_or(u32::MAX), Ordering::SeqCst);
            }
            match self.try_seat(index)? {
                Found::None => {}
                found => {
                    LAST.set(index);
                    return Ok(found);
                }
            }
        }
        Ok(Found::None)
    }

    /// One seat, if nobody sits there.
    #[inline]
    pub(super) fn try_seat(&self, index: usize) -> Result<Found<'_>> {
        match self.mutexes[index].try_lock() {
            Ok(Locked::Consistent(guard)) => {
                Ok(Found::Seat(Seat { index, mutex: &self.mutexes[index], guard }))
            }
            Ok(Locked::OwnerDied(orphaned)) => {
                let guard = orphaned.mark_consistent()?;
                Ok(Found::OfTheDead(Seat { index, mutex: &self.mutexes[index], guard }))
            }
            // Somebody else sits there, or this thread does.
            Err(error) if [libc::EBUSY, libc::EDEADLK].contains(&error.errno()) => Ok(Found::None),
            Err(error) => Err(error),
        }
    }

    /// The seat where this thread sat last, or the first one; waits until whoever sits there stands up
    /// or dies.
    ///
    /// # Errors
    /// `EDEADLK` when this thread sits there; `ETIMEDOUT`, `EBUSY`.
    pub(super) fn wait_for_one(&self, patience: Patience) -> Result<Seat<'_>> {
        let last = LAST.get();
        self.wait_for(if last < self.len() { last } else { 0 }, patience)
    }

    fn wait_for(&self, index: usize, patience: Patience) -> Result<Seat<'_>> {
        let mutex = &self.mutexes[index];
        Ok(Seat { index, mutex, guard: take(mutex, patience)? })
    }

    /// Takes all seats that are in use, in order, and those that come into use meanwhile.
    ///
    /// # Errors
    /// As [`Seats::wait_for_one`]; with none taken.
    pub(super) fn take_all(&self, used: &AtomicU32, patience: Patience) -> Result<Vec<Seat<'_>>> {
        let mut taken = Vec::with_capacity(self.in_use(used));
        while taken.len() < self.in_use(used) {
            taken.push(self.wait_for(taken.len(), patience)?);
        }
        Ok(taken)
    }

    /// Whether somebody sits on each of them, or died there, without changing anything.
    pub(super) fn are_all_taken(&self, used: &AtomicU32) -> bool {
        self.in_use(used) == self.len() && self.mutexes.iter().all(Mutex::is_held)
    }

    /// Whether the one who sat there died, without changing anything.
    pub(super) fn is_of_the_dead(&self, index: usize) -> bool {
        self.mutexes[index].is_orphaned()
    }

    /// Clears the seats of those who died; how many there were.
    pub(super) fn clear_the_dead(&self, used: &AtomicU32) -> Result<usize> {
        let mut dead = 0;
        for index in 0..self.in_use(used) {
            if self.is_of_the_dead(index) && matches!(self.try_seat(index)?, Found::OfTheDead(_)) {
                dead += 1;
            }
        }
        Ok(dead)
    }
}
