//! One process of a measurement of `locks`, over `switchboard_kernel::sync`. The same program in C is
//! `c/locks.c`; the two take the same arguments and print the same lines.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{
    Condvar, Monitor, Mutex, MutexGuard, MutexOptions, Permits, RwLock, Semaphore, Shared,
};
use switchboard_kernel::{Result, io, process};

use super::{BEGIN, MEMORY};
use crate::{Failure, pin};

/// Each object has so many bytes, at this multiple.
const PLACE: usize = 1 << 15;

/// Readers at a time.
const READERS: u32 = 8;

struct Objects {
    memory: SharedWords,
    /// Whether this process makes them.
    makes: bool,
}

impl Objects {
    fn slot(&self, place: usize) -> Result<Slot> {
        self.memory.slot(place * PLACE, PLACE)
    }

    fn object<T: Shared>(&self, place: usize, options: T::Options) -> Result<T> {
        let slot = self.slot(place)?;
        if self.makes { T::create_in(slot, options) } else { T::open_in(slot) }
    }

    fn mutex(&self, place: usize) -> Result<Mutex> {
        self.object(place, MutexOptions::new())
    }
}

/// Says that it is ready, waits for the word to begin, and does this so often; says how long it took.
#[inline(always)]
fn repeat(count: u64, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let mut out = std::io::stdout();
    let said = out.write_all(b"ready\n").and_then(|()| out.flush());
    said.expect("standard output");
    let begin = process::inherited_descriptor(BEGIN)?;
    io::read_full(&begin, &mut [0])?;
    let start = Instant::now();
    for _ in 0..count {
        step()?;
    }
    let took = start.elapsed().as_nanos();
    writeln!(out, "{took}").expect("standard output");
    Ok(())
}

#[inline(always)]
fn lock(mutex: &Mutex) -> Result<MutexGuard<'_>> {
    mutex.lock()?.or_repair(|| ())
}

/// `WHAT INDEX COUNT CPU`
pub(crate) fn main(arguments: &[String]) -> std::result::Result<(), Failure> {
    let [what, me, count, cpu] = arguments else {
        return Err("locks-peer: four arguments are needed".into());
    };
    pin(cpu.parse()?)?;
    let (me, count) = (me.parse::<usize>()?, count.parse()?);
    let memory = SharedWords::from_fd(process::inherited_descriptor(MEMORY)?)?;
    let objects = Objects { memory, makes: me == 0 };
    Ok(run(what, me, count, &objects)?)
}

fn run(what: &str, me: usize, count: u64, objects: &Objects) -> Result<()> {
    match what {
        "mutex" => {
            let mutex = objects.mutex(0)?;
            repeat(count, || lock(&mutex).map(drop))
        }
        "sum" => {
            let (mutex, sum) = (objects.mutex(0)?, objects.slot(1)?);
            let sum = &sum.words()[0];
            repeat(count, || {
                let guard = lock(&mutex)?;
                // Relaxed: the mutex orders it.
                sum.store(sum.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                drop(guard);
                Ok(())
            })
        }
        "hand-over" => hand_over(me, count, objects),
        "semaphore" => {
            let semaphore = objects.object::<Semaphore>(0, 1)?;
            repeat(count, || {
                semaphore.wait()?;
                semaphore.post()
            })
        }
        "semaphore-turns" => {
            let [first, second] =
                [objects.object::<Semaphore>(0, 1)?, objects.object::<Semaphore>(1, 0)?];
            let (mine, other) = if me == 0 { (first, second) } else { (second, first) };
            repeat(count, || {
                mine.wait()?;
                other.post()
            })
        }
        "permits" => {
            let permits = objects.object::<Permits>(0, 2)?;
            repeat(count, || permits.acquire().map(drop))
        }
        "read" => {
            let lock = objects.object::<RwLock>(0, READERS)?;
            repeat(count, || lock.read().map(drop))
        }
        "write" => {
            let lock = objects.object::<RwLock>(0, READERS)?;
            repeat(count, || lock.write()?.or_repair(|| ()).map(drop))
        }
        "notify" => {
            let changed = objects.object::<Condvar>(0, ())?;
            repeat(count, || changed.notify_one())
        }
        "condition-turns" => condition_turns(me, count, objects),
        "monitor" => {
            let monitor = objects.object::<Monitor<[u8; 64]>>(0, [0; 64])?;
            repeat(count, || {
                monitor.with(|data| {
                    data[0] = data[0].wrapping_add(1);
                    black_box(&mut **data);
                })
            })
        }
        other => panic!("no such measurement: {other}"),
    }
}

/// Each holds one of three mutexes and takes the next, which the other holds.
fn hand_over(me: usize, count: u64, objects: &Objects) -> Result<()> {
    let mutexes = [objects.mutex(0)?, objects.mutex(1)?, objects.mutex(2)?];
    let mut at = if me == 0 { 0 } else { 2 };
    let mut held = Some(lock(&mutexes[at])?);
    repeat(count, || {
        at = (at + 1) % 3;
        // The one held before is let go of here.
        held = Some(lock(&mutexes[at])?);
        Ok(())
    })?;
    drop(held);
    Ok(())
}

fn condition_turns(me: usize, count: u64, objects: &Objects) -> Result<()> {
    let mutex = objects.mutex(0)?;
    let changed = [objects.object::<Condvar>(1, ())?, objects.object::<Condvar>(2, ())?];
    let words = objects.slot(3)?;
    let turn: &AtomicU32 = &words.words()[0];
    let me_word = if me == 0 { 0 } else { 1 };
    repeat(count, || {
        let is_others = || turn.load(Ordering::Relaxed) != me_word;
        let guard = changed[me].wait_while(lock(&mutex)?, is_others)?.or_repair(|| ())?;
        turn.store(1 - me_word, Ordering::Relaxed);
        changed[1 - me].notify_one()?;
        drop(guard);
        Ok(())
    })
}
