//! The dining philosophers, each a process, each fork a mutex: how they starve, how a lock order says so
//! before anybody does, and how they eat.
//!
//! Source: Dijkstra, "Hierarchical ordering of sequential processes", Acta Informatica 1 (1971).
//!
//! `cargo run -p switchboard-kernel --example dining_philosophers`

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Spawn, inherited_descriptor};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{
    Barrier, LockOrder, Member, Mutex, MutexGuard, MutexOptions, Shared,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The number under which the children have the memory.
const MEMORY: i32 = 3;

const PHILOSOPHERS: u32 = 5;
const MEALS: u32 = 200;
const PATIENCE: Duration = Duration::from_millis(100);

/// The forks' place in the order of all locks; `LockOrder` has names for people, so each has its own.
const ORDER: [LockOrder; PHILOSOPHERS as usize] = [
    LockOrder::new("fork 0", 0),
    LockOrder::new("fork 1", 1),
    LockOrder::new("fork 2", 2),
    LockOrder::new("fork 3", 3),
    LockOrder::new("fork 4", 4),
];

/// Words: meals that were eaten, and those who could not.
const EATEN: usize = 0;
const STARVED: usize = 1;
const WARNED: usize = 2;

struct Table {
    forks: Vec<Mutex>,
    barrier: Barrier,
    words: Slot,
}

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let Some(manners) = arguments.next() else { return watch() };
    let number: u32 = arguments.next().ok_or("which philosopher?")?.parse()?;
    let memory = SharedWords::from_fd(inherited_descriptor(MEMORY)?)?;
    let table = Table::open(&memory)?;
    match manners.as_str() {
        "greedy" => table.greedy(number),
        "ranked" => table.ranked(number),
        _ => table.polite(number),
    }
}

fn watch() -> Outcome {
    let (_, starved, _) = dinner("greedy")?;
    assert_eq!(starved, PHILOSOPHERS);
    println!("left fork first, without an order: {starved} of {PHILOSOPHERS} would wait for ever");
    let (eaten, starved, warned) = dinner("ranked")?;
    println!("left fork first, with an order: {warned} was told at once, the others ate: {eaten}");
    assert!(warned == 1 && starved == 0, "{warned} told, {starved} starved");
    let (eaten, ..) = dinner("polite")?;
    println!("lower fork first: {eaten} meals, and nobody waits in a circle");
    assert_eq!(eaten, PHILOSOPHERS * MEALS);
    Ok(())
}

/// How many meals were eaten, how many starved, how many were told.
fn dinner(manners: &str) -> Outcome<(u32, u32, u32)> {
    let memory = SharedWords::create(Table::BYTES)?;
    let words = Table::lay(&memory)?;
    let mut philosophers = Vec::new();
    for number in 0..PHILOSOPHERS {
        let program = Spawn::new(std::env::current_exe()?).arg(manners).arg(number.to_string());
        let program = program.descriptor(MEMORY, duplicate(&memory)?);
        philosophers.push(program.die_with_parent().spawn()?);
    }
    for philosopher in &mut philosophers {
        let status = philosopher.wait(Deadline::after(Duration::from_secs(20)))?;
        assert!(status.ok_or("they hang")?.success());
    }
    let word = |index: usize| words.words()[index].load(Ordering::Relaxed);
    Ok((word(EATEN), word(STARVED), word(WARNED)))
}

impl Table {
    const PLACE_BYTES: usize = 4096;
    const BYTES: usize = (PHILOSOPHERS as usize + 2) * Self::PLACE_BYTES;

    fn place(memory: &SharedWords, number: u32) -> Outcome<Slot> {
        Ok(memory.slot(number as usize * Self::PLACE_BYTES, Self::PLACE_BYTES)?)
    }

    /// New forks and a new barrier; the words for who counts.
    fn lay(memory: &SharedWords) -> Outcome<Slot> {
        for number in 0..PHILOSOPHERS {
            Mutex::create_in(Self::place(memory, number)?, MutexOptions::new())?;
        }
        Barrier::create_in(Self::place(memory, PHILOSOPHERS)?, PHILOSOPHERS)?;
        Self::place(memory, PHILOSOPHERS + 1)
    }

    fn open(memory: &SharedWords) -> Outcome<Self> {
        let forks = (0..PHILOSOPHERS).map(|n| Ok(Mutex::open_in(Self::place(memory, n)?)?));
        Ok(Self {
            forks: forks.collect::<Outcome<_>>()?,
            barrier: Barrier::open_in(Self::place(memory, PHILOSOPHERS)?)?,
            words: Self::place(memory, PHILOSOPHERS + 1)?,
        })
    }

    fn sides(number: u32) -> (usize, usize) {
        (number as usize, (number + 1) as usize % PHILOSOPHERS as usize)
    }

    /// All take the left fork, then want the right one. Without a deadline, they would sit there still.
    fn greedy(&self, number: u32) -> Outcome {
        let (left, right) = Self::sides(number);
        let here = self.barrier.join()?;
        let _left = lock(&self.forks[left])?;
        here.wait()?;
        match self.forks[right].lock_until(Deadline::after(PATIENCE)) {
            Err(error) if error.name() == "ETIMEDOUT" => self.count(STARVED),
            Err(error) => return Err(error.into()),
            Ok(_) => self.count(EATEN),
        }
        here.wait()?;
        Ok(())
    }

    /// The same, but the forks have ranks: whoever closes the circle is told before it waits.
    fn ranked(self, number: u32) -> Outcome {
        let (left, right) = Self::sides(number);
        let Self { forks, barrier, words } = self;
        LockOrder::check(true);
        let forks: Vec<Mutex> =
            forks.into_iter().zip(ORDER).map(|(fork, order)| fork.ordered(order)).collect();
        let here: Member<'_> = barrier.join()?;
        let guard = lock(&forks[left])?;
        here.wait()?;
        match forks[right].lock() {
            Err(error) if error.name() == "EDEADLK" => {
                println!("philosopher {number}: {error}");
                words.words()[WARNED].fetch_add(1, Ordering::Relaxed);
                // Puts the left one down, too; so the others can eat.
                drop(guard);
            }
            Err(error) => return Err(error.into()),
            Ok(locked) => {
                drop(locked.or_repair(|| ())?);
                words.words()[EATEN].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The fork with the lower rank first.
    fn polite(self, number: u32) -> Outcome {
        let (left, right) = Self::sides(number);
        LockOrder::check(true);
        let (lower, higher) = (left.min(right), left.max(right));
        let Self { forks, barrier, words } = self;
        let forks: Vec<Mutex> =
            forks.into_iter().zip(ORDER).map(|(fork, order)| fork.ordered(order)).collect();
        barrier.join()?.wait()?;
        for _ in 0..MEALS {
            let _lower = lock(&forks[lower])?;
            let _higher = lock(&forks[higher])?;
            words.words()[EATEN].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn count(&self, what: usize) {
        self.word(what).fetch_add(1, Ordering::Relaxed);
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words.words()[index]
    }
}

/// Nothing can be left half done with a fork.
#[track_caller]
fn lock(fork: &Mutex) -> Outcome<MutexGuard<'_>> {
    Ok(fork.lock()?.or_repair(|| ())?)
}
