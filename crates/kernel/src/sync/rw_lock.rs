//! The read-write lock: a seat for each reader, a gate for the writer.
//!
//! Source: Hsieh and Weihl, "Scalable reader-writer locks for parallel systems", IPPS 1992 (a mutex for each
//! reader; the writer takes all); the algorithm and its deaths: `docs/design/sync.md`.

use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use rustix::io::Errno;

use super::locked::{Locked, Orphaned, Repairable, sealed};
use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared, refused};
use super::order::{LockOrder, Note};
use super::seats::{Found, Seat, Seats};
use super::{Patience, next_look, out_of_patience, take};
use crate::error::{Error, Result};
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// Many readers, or one writer.
///
/// Readers do not touch each other's memory, so they do not slow each other down; a writer takes a mutex
/// for each thread that ever read at the same time as others.
///
/// *Death.* A reader that dies is not waited for. When a writer dies with the lock, the next writer gets
/// [`Locked::OwnerDied`], and readers get `EOWNERDEAD` until a writer has marked it consistent.
///
/// *Fairness.* A writer that waits keeps new readers out; who waits at the gate, reader or writer, goes
/// about in turn.
///
/// ```
/// use switchboard_kernel::sync::{RwLock, Shared};
///
/// let lock = RwLock::anonymous(RwLock::READERS)?;
/// let reading = lock.read()?;
/// std::thread::scope(|scope| {
///     let other = scope.spawn(|| (lock.try_read().is_ok(), lock.try_write().is_ok()));
///     assert_eq!(other.join().unwrap(), (true, false));
/// });
/// drop(reading);
/// let writing = lock.write()?.or_repair(|| ())?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// So many readers at a time as it was made for, at most [`RwLock::MAX_READERS`]; one more waits until
/// another has gone (it looks every [`LOOK`](super::LOOK)), and everybody behind it too.
#[derive(Debug)]
pub struct RwLock {
    /// Held by a writer from before it waits until it has gone; by a reader that was kept out while
    /// it sits down.
    gate: pthread::Mutex,
    seats: Seats,
    order: Option<LockOrder>,
    placed: Placed,
}

/// Own words: what readers find, and how many seats were ever used.
const STATE: usize = 0;
const USED: usize = 1;

const SEATS_OFFSET: usize = HEADER_BYTES + OBJECT_BYTES;

/// The state. Only who holds the gate changes it.
const OPEN: u32 = 0;
/// A writer waits: readers come in through the gate.
const CLOSING: u32 = 1;
/// A writer is in, or died there.
const WRITING: u32 = 2;
/// A writer died, and another said that nothing can be done.
const UNUSABLE: u32 = 3;

/// A read lock. Dropping it unlocks. It stays with the thread that locked.
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub struct ReadGuard<'a> {
    _seat: Seat<'a>,
    _note: Note,
}

/// A write lock. Dropping it unlocks. It stays with the thread that locked.
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub struct WriteGuard<'a> {
    // Dropped in this order, after `drop` has opened.
    _seats: Vec<Seat<'a>>,
    gate: pthread::Guard<'a>,
    lock: &'a RwLock,
    _note: Note,
}

impl RwLock {
    /// Readers at a time, where nothing else is asked for.
    pub const READERS: u32 = 64;

    /// Readers at a time, at most.
    pub const MAX_READERS: u32 = 1024;

    /// Gives the lock a rank: see [`LockOrder`]. Of this handle; each process says so for itself.
    #[must_use]
    pub fn ordered(mut self, order: LockOrder) -> Self {
        self.order = Some(order);
        self
    }

    /// Locks for reading; blocks while a writer is in or waits.
    ///
    /// # Errors
    /// `EOWNERDEAD`: a writer died with the lock, and no other has put things right;
    /// `ENOTRECOVERABLE`: nor will any; `EDEADLK`: this thread holds the lock already, by this handle,
    /// or a violation of the [`LockOrder`]; `EINVAL` when other bytes are there by now.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> Result<ReadGuard<'_>> {
        self.read_until(Deadline::NEVER)
    }

    /// As [`RwLock::read`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`RwLock::read`].
    #[inline]
    #[track_caller]
    pub fn read_until(&self, deadline: Deadline) -> Result<ReadGuard<'_>> {
        self.read_with(Some(deadline), Location::caller())
    }

    /// As [`RwLock::read`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY`: a writer is in or waits, or there are as many readers as there can be; else as
    /// [`RwLock::read`].
    #[track_caller]
    pub fn try_read(&self) -> Result<ReadGuard<'_>> {
        self.read_with(None, Location::caller())
    }

    /// Locks for writing; blocks while readers or another writer are in.
    ///
    /// # Errors
    /// `ENOTRECOVERABLE`: a writer died and another said that nothing can be done; `EDEADLK`: this
    /// thread holds the lock already, or a violation of the [`LockOrder`]; `EINVAL` when other bytes
    /// are there by now.
    #[track_caller]
    pub fn write(&self) -> Result<Locked<WriteGuard<'_>>> {
        self.write_until(Deadline::NEVER)
    }

    /// As [`RwLock::write`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`RwLock::write`].
    #[track_caller]
    pub fn write_until(&self, deadline: Deadline) -> Result<Locked<WriteGuard<'_>>> {
        self.write_with(Some(deadline), Location::caller())
    }

    /// As [`RwLock::write`], but never blocks.
    ///
    /// # Errors
    /// `EBUSY`: somebody is in; else as [`RwLock::write`].
    #[track_caller]
    pub fn try_write(&self) -> Result<Locked<WriteGuard<'_>>> {
        self.write_with(None, Location::caller())
    }

    #[inline]
    fn read_with(
        &self,
        patience: Patience,
        place: &'static Location<'static>,
    ) -> Result<ReadGuard<'_>> {
        let note = self.note(place)?;
        let seat = match self.come_in()? {
            Some(seat) => seat,
            None => self.read_through_the_gate(patience)?,
        };
        Ok(ReadGuard { _seat: seat, _note: note })
    }

    fn note(&self, place: &'static Location<'static>) -> Result<Note> {
        Note::take(std::ptr::from_ref(self).addr(), self.order, true, place)
    }

    #[inline]
    fn state(&self) -> &AtomicU32 {
        self.placed.word(STATE)
    }

    /// Sits down, if no writer is there: the way in without the gate.
    #[inline]
    fn come_in(&self) -> Result<Option<Seat<'_>>> {
        if self.state().load(Ordering::Relaxed) != OPEN {
            return Ok(None);
        }
        let seat = match self.seats.sit(self.placed.word(USED))? {
            Found::Seat(seat) | Found::OfTheDead(seat) => seat,
            Found::None => return Ok(None),
        };
        // SeqCst, after the seat: either this sees that a writer came, or the writer sees the seat among
        // those in use (`write_behind_the_gate`), and waits for it. Acquire: what the last writer wrote.
        let is_open = self.state().load(Ordering::SeqCst) == OPEN;
        Ok(is_open.then_some(seat))
    }

    #[cold]
    fn read_through_the_gate(&self, patience: Patience) -> Result<Seat<'_>> {
        let _gate = take(&self.gate, patience)?;
        match self.state().load(Ordering::Acquire) {
            OPEN => {}
            // Whoever wanted to write died before it came in.
            CLOSING => self.state().store(OPEN, Ordering::SeqCst),
            WRITING => return Err(Error::new("sync", Errno::OWNERDEAD)),
            UNUSABLE => return Err(Error::new("sync", Errno::NOTRECOVERABLE)),
            _ => return Err(refused(Errno::INVAL)),
        }
        // No writer comes while this thread has the gate.
        loop {
            match self.seats.sit(self.placed.word(USED))? {
                Found::Seat(seat) | Found::OfTheDead(seat) => return Ok(seat),
                Found::None => out_of_patience(patience)?,
            }
            // Whoever sits there may stay for long: after a while all seats are looked at again.
            let look = next_look(patience.unwrap_or(Deadline::NEVER));
            match self.seats.wait_for_one(Some(look)) {
                Err(error) if error.errno() == libc::ETIMEDOUT => {}
                other => return other,
            }
        }
    }

    fn write_with(
        &self,
        patience: Patience,
        place: &'static Location<'static>,
    ) -> Result<Locked<WriteGuard<'_>>> {
        let note = self.note(place)?;
        let gate = take(&self.gate, patience)?;
        let found = self.state().load(Ordering::Acquire);
        match found {
            OPEN | CLOSING => self.state().store(CLOSING, Ordering::SeqCst),
            // The last writer died there, and stays the last until somebody has put things right.
            WRITING => {}
            UNUSABLE => return Err(Error::new("sync", Errno::NOTRECOVERABLE)),
            _ => return Err(refused(Errno::INVAL)),
        }
        let seats = self.seats.take_all(self.placed.word(USED), patience).inspect_err(|_| {
            if found != WRITING {
                self.state().store(OPEN, Ordering::SeqCst);
            }
        })?;
        self.state().store(WRITING, Ordering::Relaxed);
        // What is written under the lock stays behind this: whoever dies with the lock has said so.
        compiler_fence(Ordering::SeqCst);
        let guard = WriteGuard { _seats: seats, gate, lock: self, _note: note };
        Ok(if found == WRITING {
            Locked::OwnerDied(Orphaned::new(guard))
        } else {
            Locked::Consistent(guard)
        })
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // In a child made by `fork(2)` it is the parent's.
        if self.lock.state().load(Ordering::Relaxed) == WRITING && self.gate.is_of_this_thread() {
            // Release: whoever comes in sees what was written. A reader on a new seat may come in from
            // here on; the seats in use and the gate follow.
            self.lock.state().store(OPEN, Ordering::Release);
        }
    }
}

impl sealed::Sealed for WriteGuard<'_> {}

impl Repairable for WriteGuard<'_> {
    // From now on it is a writer like any other, which opens when it goes.
    fn mark_consistent(&self) -> Result<()> {
        Ok(())
    }

    fn give_up(&self) {
        if self.gate.is_of_this_thread() {
            self.lock.state().store(UNUSABLE, Ordering::Release);
        }
    }
}

impl Shared for RwLock {
    /// How many readers at a time.
    type Options = u32;

    fn bytes(readers: &u32) -> usize {
        SEATS_OFFSET + Seats::bytes(*readers)
    }

    fn create_in(slot: Slot, readers: u32) -> Result<Self> {
        if readers == 0 || readers > Self::MAX_READERS {
            return Err(refused(Errno::INVAL));
        }
        let bytes = Self::bytes(&readers);
        let shape = Shape { kind: Kind::RwLock, number: readers, bytes, fingerprint: 0 };
        let (placed, (gate, seats)) = Placed::create(slot, shape, |placed| {
            placed.word(STATE).store(OPEN, Ordering::Relaxed);
            placed.word(USED).store(0, Ordering::Relaxed);
            let gate = placed.part(HEADER_BYTES, OBJECT_BYTES)?;
            let gate = pthread::Mutex::create(gate, MutexOptions::new())?;
            Ok((gate, Seats::make(placed, SEATS_OFFSET, readers)?))
        })?;
        Ok(Self { gate, seats, order: None, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::RwLock, 0)?;
        placed.check(1..=Self::MAX_READERS, |readers| Self::bytes(&readers))?;
        let gate = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        let seats = Seats::open(&placed, SEATS_OFFSET, placed.number())?;
        Ok(Self { gate, seats, order: None, placed })
    }

    fn was_made_with(&self, readers: &u32) -> bool {
        self.placed.number() == *readers
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
