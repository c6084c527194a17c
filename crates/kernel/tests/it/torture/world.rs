//! What the tortured processes share: one object of each kind, and words by which they and the driver check
//! each other.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::time::{ClockId, clock_gettime};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{
    Barrier, Condvar, Monitor, Mutex, MutexOptions, Once, Permits, RwLock, Semaphore, Shared,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Workers of a crew, at most: a bit each in half a word.
pub(super) const WORKERS: usize = 16;
pub(super) const PERMITS: u32 = 2;
pub(super) const MEMBERS: u32 = 3;
pub(super) const PLACES: u32 = 4;
pub(super) const ACCOUNTS: usize = 6;
pub(super) const OPENING_CENTS: i64 = 100;
const ONCES: usize = 256;
const READERS: u32 = 8;

const MEMORY_BYTES: usize = 128 << 10;

/// What an operation is on. The numbers are those of the words that count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mutex,
    RwLock,
    Permits,
    Semaphore,
    Monitor,
    Once,
    Name,
    Barrier,
    Buffer,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Mutex,
        Self::RwLock,
        Self::Permits,
        Self::Semaphore,
        Self::Monitor,
        Self::Once,
        Self::Name,
        Self::Barrier,
        Self::Buffer,
    ];
}

/// The number of no kind.
const IDLE: u32 = u32::MAX;

/// The money of all.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Bank {
    pub(super) cents: [i64; ACCOUNTS],
}

/// Mutex, conditions and words of a bounded buffer.
pub(super) struct Buffer {
    pub(super) mutex: Mutex,
    pub(super) not_full: Condvar,
    pub(super) not_empty: Condvar,
}

pub(super) struct World {
    pub(super) mutex: Mutex,
    pub(super) rw_lock: RwLock,
    pub(super) permits: Permits,
    pub(super) semaphore: Semaphore,
    pub(super) monitor: Monitor<Bank>,
    pub(super) onces: Vec<Once>,
    pub(super) barrier: Barrier,
    pub(super) buffer: Buffer,
    words: Slot,
    /// The barrier's own words, in a mapping of their own.
    barrier_words: Slot,
}

/// Single words, then words per kind, then words per worker.
const FAILED: usize = 0;
const INSIDE: usize = 1;
const PAIRS: usize = INSIDE + INSIDES;
const PUT: usize = PAIRS + 4;
const TAKEN: usize = PUT + 1;
const FIRST_PLACE: usize = PUT + 2;
const BEGUN: usize = FIRST_PLACE + PLACES as usize;
const MILLISECONDS: usize = BEGUN + 1;
const KINDS: usize = 32;
const PER_KIND: usize = 4;
const EACH: usize = KINDS + 9 * PER_KIND;
const PER_WORKER: usize = 8;
const INSIDE_ONCES: usize = EACH + WORKERS * PER_WORKER;
const WORDS: usize = INSIDE_ONCES + ONCES;

/// Who is inside of what: a bit for each worker, and in the upper half one for each that is about to be
/// killed and does not count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside {
    Mutex,
    Writing,
    Reading,
    Permits,
    Name,
    PlainName,
    Members,
    /// One of those that are to be done once.
    Once(usize),
}

const INSIDES: usize = 7;

impl Inside {
    fn index(self) -> usize {
        match self {
            Self::Mutex => INSIDE,
            Self::Writing => INSIDE + 1,
            Self::Reading => INSIDE + 2,
            Self::Permits => INSIDE + 3,
            Self::Name => INSIDE + 4,
            Self::PlainName => INSIDE + 5,
            Self::Members => INSIDE + 6,
            Self::Once(index) => INSIDE_ONCES + index,
        }
    }

    fn all() -> impl Iterator<Item = usize> {
        (INSIDE..INSIDE + INSIDES).chain(INSIDE_ONCES..INSIDE_ONCES + ONCES)
    }
}

/// Two numbers that are the same whenever nobody is inside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pair {
    Mutex,
    RwLock,
}

/// A word of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// Operations.
    Done,
    /// Times that a dead holder was found.
    Orphaned,
    /// When somebody was last killed who was at it.
    Death,
    /// The worst stall since a death.
    Stall,
}

/// A word of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// Operations, of all who had this number.
    Beat,
    /// What it is at.
    Operation,
    /// The longest operation, whoever died.
    Longest,
    /// How often it was replaced.
    Incarnation,
    /// 1 more than the round of the barrier that it has arrived in.
    Arrived,
    /// It has done something.
    Up,
}

impl World {
    /// Makes everything in new memory.
    pub(super) fn create() -> (SharedWords, Self) {
        let memory = SharedWords::create(MEMORY_BYTES).expect("memory");
        let world = Self::lay(&memory, true);
        for worker in 0..WORKERS {
            world.of_worker(By::Operation, worker).store(IDLE, Ordering::Relaxed);
        }
        for kind in Kind::ALL {
            world.of_kind(Of::Death, kind).store(now(), Ordering::Relaxed);
        }
        (memory, world)
    }

    /// Finds everything.
    pub(super) fn open(memory: &SharedWords) -> Self {
        Self::lay(memory, false)
    }

    fn lay(memory: &SharedWords, creates: bool) -> Self {
        let mut places = Places { memory, offset: 0, creates };
        let words = places.slot(WORDS * 4);
        let barrier_at = places.offset;
        let barrier = places.object(MEMBERS);
        let again = SharedWords::from_fd(memory).expect("a mapping");
        let bank = || Bank { cents: [OPENING_CENTS; ACCOUNTS] };
        let mutex = |places: &mut Places<'_>| places.object::<Mutex>(MutexOptions::new());
        Self {
            mutex: mutex(&mut places),
            rw_lock: places.object(READERS),
            permits: places.object(PERMITS),
            semaphore: places.object(0),
            monitor: places.object(bank()),
            onces: (0..ONCES).map(|_| places.object(())).collect(),
            barrier,
            buffer: Buffer {
                mutex: mutex(&mut places),
                not_full: places.object(()),
                not_empty: places.object(()),
            },
            words,
            barrier_words: again.slot(barrier_at, 64).expect("the barrier's header"),
        }
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words.words()[index]
    }

    pub(super) fn of_kind(&self, word: Of, kind: Kind) -> &AtomicU32 {
        self.word(KINDS + kind as usize * PER_KIND + word as usize)
    }

    pub(super) fn of_worker(&self, word: By, worker: usize) -> &AtomicU32 {
        self.word(EACH + worker * PER_WORKER + word as usize)
    }

    pub(super) fn pair(&self, pair: Pair) -> [&AtomicU32; 2] {
        let first = PAIRS + 2 * pair as usize;
        [self.word(first), self.word(first + 1)]
    }

    /// How many were put into the buffer, and how many taken.
    pub(super) fn counts(&self) -> [&AtomicU32; 2] {
        [self.word(PUT), self.word(TAKEN)]
    }

    pub(super) fn place(&self, number: u32) -> &AtomicU32 {
        self.word(FIRST_PLACE + (number % PLACES) as usize)
    }

    /// The round of the barrier: the first of the words of its own, which begin at byte 32.
    pub(super) fn round(&self) -> u32 {
        self.barrier_words.words()[8].load(Ordering::SeqCst)
    }

    /// Says that something does not hold; the driver looks here.
    pub(super) fn fail(&self) {
        self.word(FAILED).store(1, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.word(FAILED).load(Ordering::SeqCst) != 0
    }

    /// When it began, and for how long it goes on.
    pub(super) fn begin(&self, seconds: u32) {
        self.word(BEGUN).store(now(), Ordering::SeqCst);
        self.word(MILLISECONDS).store(seconds.saturating_mul(1000), Ordering::SeqCst);
    }

    /// One of those that are to be done once, and which: each for a while.
    pub(super) fn once(&self) -> (usize, &Once) {
        let passed = u64::from(now().wrapping_sub(self.word(BEGUN).load(Ordering::SeqCst))) / 100;
        let whole = u64::from(self.word(MILLISECONDS).load(Ordering::SeqCst)).max(1);
        let index = usize::try_from(passed * ONCES as u64 / whole).unwrap_or(usize::MAX);
        let index = index.min(ONCES - 1);
        (index, &self.onces[index])
    }

    fn inside(&self, what: Inside) -> &AtomicU32 {
        self.word(what.index())
    }

    /// Goes in; the others that are in and live, a bit each.
    pub(super) fn enter(&self, what: Inside, worker: usize) -> u32 {
        living(self.inside(what).fetch_or(1 << worker, Ordering::SeqCst)) & !(1 << worker)
    }

    pub(super) fn leave(&self, what: Inside, worker: usize) {
        self.inside(what).fetch_and(!(1 << worker), Ordering::SeqCst);
    }

    /// Who is in and lives.
    pub(super) fn who(&self, what: Inside) -> u32 {
        living(self.inside(what).load(Ordering::SeqCst))
    }

    /// Before a kill: the worker does not count any more.
    pub(super) fn doom(&self, worker: usize) {
        for index in Inside::all() {
            self.word(index).fetch_or(1 << (worker + WORKERS), Ordering::SeqCst);
        }
    }

    /// After it: what it was at, and its number is free.
    pub(super) fn bury(&self, worker: usize) {
        let operation = self.of_worker(By::Operation, worker).swap(IDLE, Ordering::SeqCst);
        if let Some(kind) = Kind::ALL.get(operation as usize) {
            self.of_kind(Of::Death, *kind).store(now(), Ordering::SeqCst);
        }
        self.of_worker(By::Up, worker).store(0, Ordering::SeqCst);
        self.of_worker(By::Incarnation, worker).fetch_add(1, Ordering::SeqCst);
        for index in Inside::all() {
            let both = 1 << worker | 1 << (worker + WORKERS);
            self.word(index).fetch_and(!both, Ordering::SeqCst);
        }
    }

    /// Says what a worker does from now on.
    pub(super) fn begin_operation(&self, worker: usize, kind: Option<Kind>) {
        let number = kind.map_or(IDLE, |kind| kind as u32);
        self.of_worker(By::Operation, worker).store(number, Ordering::SeqCst);
    }

    /// What it does.
    pub(super) fn operation(&self, worker: usize) -> Option<Kind> {
        let number = self.of_worker(By::Operation, worker).load(Ordering::SeqCst);
        Kind::ALL.get(number as usize).copied()
    }

    /// Times so far do not count.
    pub(super) fn forget_times(&self) {
        for kind in Kind::ALL {
            self.of_kind(Of::Stall, kind).store(0, Ordering::SeqCst);
        }
        for worker in 0..WORKERS {
            self.of_worker(By::Longest, worker).store(0, Ordering::SeqCst);
        }
    }
}

fn living(word: u32) -> u32 {
    word & !(word >> WORKERS) & 0xffff
}

/// Where things are in the memory, one after the other.
struct Places<'a> {
    memory: &'a SharedWords,
    offset: usize,
    creates: bool,
}

impl Places<'_> {
    fn slot(&mut self, len_bytes: usize) -> Slot {
        let slot = self.memory.slot(self.offset, len_bytes).expect("a slot");
        self.offset += len_bytes.next_multiple_of(64);
        slot
    }

    fn object<S: Shared>(&mut self, options: S::Options) -> S {
        let slot = self.slot(S::bytes(&options));
        let made = if self.creates { S::create_in(slot, options) } else { S::open_in(slot) };
        made.expect("an object")
    }
}

/// `CLOCK_MONOTONIC` in units of 10 µs, which come round after half a day: only differences count.
pub(super) fn now() -> u32 {
    let now = clock_gettime(ClockId::Monotonic);
    let units = now.tv_sec.wrapping_mul(100_000).wrapping_add(now.tv_nsec / 10_000);
    u32::try_from(units & i64::from(u32::MAX)).unwrap_or_default()
}

/// From one time to another, 0 if that was before.
pub(super) fn between(from: u32, to: u32) -> u32 {
    let passed = to.wrapping_sub(from);
    if passed.cast_signed() > 0 { passed } else { 0 }
}
