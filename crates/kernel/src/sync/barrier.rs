//! The barrier: a group that goes on together. The dead are not waited for.
//!
//! The algorithm and its deaths: `docs/design/sync.md`.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared, refused};
use super::seats::{Found, Seat, Seats};
use super::{next_look, out_of_patience, take};
use crate::error::{Error, Result};
use crate::futex;
use crate::io::Deadline;
use crate::pthread::{self, MutexOptions, OBJECT_BYTES};
use crate::shared_words::{SharedWords, Slot};

/// A meeting point of a number of members, who go on when all have arrived.
///
/// It stays shut until as many are members as it was made for. From then on it opens whenever all who are
/// members have arrived: whoever leaves or dies is not waited for, and another can take the place.
///
/// *Death.* A member that dies, waiting or not, is missed within [`LOOK`](super::LOOK): the others go on,
/// and are told how many died ([`Crossed::died`]). While it is shut for want of members, they wait for
/// another to join.
///
/// ```
/// use switchboard_kernel::sync::{Barrier, Shared};
///
/// let start = Barrier::anonymous(2)?;
/// let here = start.join()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| start.join()?.wait());
///     assert_eq!(here.wait()?.died, 0);
///     Ok::<(), switchboard_kernel::Error>(())
/// })?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// Up to [`Barrier::MAX`] members.
#[derive(Debug)]
pub struct Barrier {
    /// Held to look at all members at a time, and to open.
    door: pthread::Mutex,
    seats: Seats,
    placed: Placed,
}

/// Own words: the round that goes on, how many seats were ever used, whether all have joined once, and
/// how many have died so far.
const ROUND: usize = 0;
const USED: usize = 1;
const ASSEMBLED: usize = 2;
const DIED: usize = 3;

const SEATS_OFFSET: usize = HEADER_BYTES + OBJECT_BYTES;

/// The word of a seat: nobody; a member that has not arrived; else 2 + the round that it has arrived in.
const NOBODY: u32 = 0;
const ON_THE_WAY: u32 = 1;
const ARRIVED: u32 = 2;

/// Rounds are counted up to here, so that a word says which one a member has arrived in.
const ROUNDS: u32 = 1 << 31;

/// A place in the group. Dropping it leaves the group. It stays with the thread that joined.
#[derive(Debug)]
#[must_use = "dropping it leaves the group"]
pub struct Member<'a> {
    // Stands up after `drop` has said that it goes.
    seat: Seat<'a>,
    barrier: &'a Barrier,
}

/// How a member came to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crossed {
    /// Whether this member opened the barrier, as the last to arrive or the first to miss a dead one:
    /// one member of a round does. If it dies before it returns, none did.
    pub opened: bool,
    /// How many members were found to have died so far, since the barrier was made.
    pub died: u32,
}

impl Barrier {
    /// The highest number of members.
    pub const MAX: u32 = 512;

    /// Becomes a member, whom the others wait for from now on.
    ///
    /// # Errors
    /// `EBUSY` when there are as many members as there can be; `EDEADLK` from a signal handler that
    /// interrupted a call of this thread; `EINVAL` when other bytes are there by now.
    pub fn join(&self) -> Result<Member<'_>> {
        let _door = take(&self.door, Some(Deadline::NEVER))?;
        let seat = match self.seats.sit(self.placed.word(USED))? {
            Found::Seat(seat) => seat,
            Found::OfTheDead(seat) => {
                self.count_the_dead(1);
                seat
            }
            Found::None => return Err(Error::new("sync", Errno::BUSY)),
        };
        self.word_of(seat.index()).store(ON_THE_WAY, Ordering::Relaxed);
        let members = 0..self.members() as usize;
        if members
            .map(|index| self.word_of(index))
            .all(|word| word.load(Ordering::Relaxed) != NOBODY)
        {
            self.placed.word(ASSEMBLED).store(1, Ordering::Relaxed);
        }
        Ok(Member { seat, barrier: self })
    }

    /// How many members it was made for.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.placed.number()
    }

    fn round(&self) -> &AtomicU32 {
        self.placed.word(ROUND)
    }

    fn word_of(&self, index: usize) -> &AtomicU32 {
        let words = self.placed.words_from(SEATS_OFFSET + Seats::bytes(self.members()));
        &words[index]
    }

    fn count_the_dead(&self, more: u32) {
        self.placed.word(DIED).fetch_add(more, Ordering::Relaxed);
    }

    /// Opens if everybody is there; with the door held.
    fn try_open(&self, round: u32) -> Result<bool> {
        for index in 0..self.seats.in_use(self.placed.word(USED)) {
            let word = self.word_of(index);
            if self.seats.is_of_the_dead(index) {
                // Its word first: if this one dies in between, the seat is still of the dead.
                word.store(NOBODY, Ordering::Relaxed);
                if let Found::OfTheDead(_) = self.seats.try_seat(index)? {
                    self.count_the_dead(1);
                }
            }
            // Partner: the stores in `wait_until` and on drop. Acquire: whoever arrived may not have come
            // to the door yet, and has what it wrote seen by all behind the barrier.
            let found = word.load(Ordering::Acquire);
            if found != NOBODY && found != ARRIVED + round {
                return Ok(false);
            }
        }
        if self.placed.word(ASSEMBLED).load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        // Release: what the members wrote before they arrived, all can read behind the barrier.
        self.round().store((round + 1) % ROUNDS, Ordering::Release);
        Ok(true)
    }

    /// Opens if everybody is there, and tells those who sleep.
    fn look(&self, round: u32) -> Result<bool> {
        let door = take(&self.door, Some(Deadline::NEVER))?;
        let opened = self.round().load(Ordering::Acquire) == round && self.try_open(round)?;
        drop(door);
        if opened {
            futex::wake(self.round(), u32::MAX)?;
        }
        Ok(opened)
    }
}

impl Member<'_> {
    /// Arrives, and blocks until all members that live have.
    ///
    /// # Errors
    /// `EPERM` in a child made by `fork(2)`: the parent is the member; `EINVAL` when other bytes are there by now.
    pub fn wait(&self) -> Result<Crossed> {
        self.wait_until(Deadline::NEVER)
    }

    /// As [`Member::wait`], until a deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`: this member has not arrived then, and the others wait for it; else as
    /// [`Member::wait`].
    pub fn wait_until(&self, deadline: Deadline) -> Result<Crossed> {
        if !self.seat.is_of_this_thread() {
            return Err(Error::new("sync", Errno::PERM));
        }
        let barrier = self.barrier;
        let word = self.word();
        let round = barrier.round().load(Ordering::Acquire);
        word.store(ARRIVED + round, Ordering::Release);
        let mut opened = barrier.look(round)?;
        while barrier.round().load(Ordering::Acquire) == round {
            if let Err(error) = out_of_patience(Some(deadline)) {
                let _door = take(&barrier.door, Some(Deadline::NEVER))?;
                if barrier.round().load(Ordering::Acquire) == round {
                    word.store(ON_THE_WAY, Ordering::Relaxed);
                    return Err(error);
                }
                break;
            }
            futex::wait(barrier.round(), round, next_look(deadline))?;
            if barrier.round().load(Ordering::Acquire) == round {
                opened = barrier.look(round)?;
            }
        }
        let died = barrier.placed.word(DIED).load(Ordering::Relaxed);
        Ok(Crossed { opened, died })
    }

    fn word(&self) -> &AtomicU32 {
        self.barrier.word_of(self.seat.index())
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if !self.seat.is_of_this_thread() {
            // In a child made by `fork(2)`: the parent is the member.
            return;
        }
        self.word().store(NOBODY, Ordering::Release);
        // Those who wait only for this one go on now; or when they look, should this fail.
        let _ = self.barrier.look(self.barrier.round().load(Ordering::Acquire));
    }
}

impl Shared for Barrier {
    /// How many members.
    type Options = u32;

    fn bytes(members: &u32) -> usize {
        SEATS_OFFSET + Seats::bytes(*members) + size_of::<u32>() * *members as usize
    }

    fn create_in(slot: Slot, members: u32) -> Result<Self> {
        if members == 0 || members > Self::MAX {
            return Err(refused(Errno::INVAL));
        }
        let bytes = Self::bytes(&members);
        let shape = Shape { kind: Kind::Barrier, number: members, bytes, fingerprint: 0 };
        let (placed, (door, seats)) = Placed::create(slot, shape, |placed| {
            for word in [ROUND, USED, ASSEMBLED, DIED] {
                placed.word(word).store(0, Ordering::Relaxed);
            }
            let words = placed.words_from(SEATS_OFFSET + Seats::bytes(members));
            words[..members as usize].iter().for_each(|word| word.store(NOBODY, Ordering::Relaxed));
            let door = placed.part(HEADER_BYTES, OBJECT_BYTES)?;
            let door = pthread::Mutex::create(door, MutexOptions::new())?;
            Ok((door, Seats::make(placed, SEATS_OFFSET, members)?))
        })?;
        Ok(Self { door, seats, placed })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Barrier, 0)?;
        let members = placed.number();
        placed.check(1..=Self::MAX, |members| Self::bytes(&members))?;
        let door = pthread::Mutex::open(placed.part(HEADER_BYTES, OBJECT_BYTES)?)?;
        let seats = Seats::open(&placed, SEATS_OFFSET, members)?;
        Ok(Self { door, seats, placed })
    }

    fn was_made_with(&self, members: &u32) -> bool {
        self.members() == *members
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}
