//! The C library's mutex and condition variable in shared memory: a cook and a waiter, and what is
//! left when the cook is killed with the mutex in hand.
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `pthread_cond_wait(3p)`.

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Spawn, inherited_descriptor};
use switchboard_kernel::pthread::{Condition, Locked, Mutex, MutexOptions, OBJECT_BYTES};
use switchboard_kernel::shared_words::{SharedWords, Slot};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The number under which the child has the memory.
const MEMORY: i32 = 3;

/// Where things are in the memory: a C program would say so by a struct.
const MUTEX: usize = 0;
const COOKED: usize = OBJECT_BYTES;
const DISHES: usize = 2 * OBJECT_BYTES;
/// Three words: dishes begun, dishes ready, and whether the waiter has taken two.
const DISHES_BYTES: usize = 12;

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return cook(&SharedWords::from_fd(inherited_descriptor(MEMORY)?)?);
    }
    let memory = SharedWords::create(4096)?;
    let mutex = Mutex::create(memory.slot(MUTEX, OBJECT_BYTES)?, MutexOptions::new())?;
    let cooked = Condition::create(memory.slot(COOKED, OBJECT_BYTES)?)?;
    let dishes = memory.slot(DISHES, DISHES_BYTES)?;
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg("cook")
        .descriptor(MEMORY, duplicate(&memory)?)
        .die_with_parent()
        .spawn()?;

    let mut guard = mutex.lock()?.or_repair(|| ())?;
    while ready(&dishes).load(Ordering::Relaxed) < 2 {
        // Lets go of the mutex while it waits.
        guard = cooked.wait(guard)?.or_repair(|| ())?;
        println!("waiter: {} ready", ready(&dishes).load(Ordering::Relaxed));
    }
    drop(guard);
    taken(&dishes).store(1, Ordering::Relaxed);
    while begun(&dishes).load(Ordering::Relaxed) < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = mutex.lock_until(Deadline::after(Duration::from_millis(50))).map(drop);
    println!("waiter: the cook keeps the mutex: {refused:?}");
    println!("waiter: the cook is killed: {}", child.kill()?);
    inherit(&mutex, &dishes)
}

fn inherit(mutex: &Mutex, dishes: &Slot) -> Outcome {
    let guard = match mutex.lock()? {
        Locked::Consistent(_) => return Err("nobody said that the cook died".into()),
        Locked::OwnerDied(orphaned) => {
            let (begun, ready) = (begun(dishes), ready(dishes));
            println!("waiter: {begun:?} begun, {ready:?} ready; throwing away what is half done");
            begun.store(ready.load(Ordering::Relaxed), Ordering::Relaxed);
            orphaned.mark_consistent()?
        }
    };
    drop(guard);
    println!("waiter: the mutex is as good as new: {}", !mutex.lock()?.owner_died());
    Ok(())
}

fn cook(memory: &SharedWords) -> Outcome {
    let mutex = Mutex::open(memory.slot(MUTEX, OBJECT_BYTES)?)?;
    let cooked = Condition::open(memory.slot(COOKED, OBJECT_BYTES)?)?;
    let dishes = memory.slot(DISHES, DISHES_BYTES)?;
    for dish in 1..=3 {
        while dish == 3 && taken(&dishes).load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let guard = mutex.lock()?.or_repair(|| ())?;
        begun(&dishes).store(dish, Ordering::Relaxed);
        println!("  cook: dish {dish}");
        if dish == 3 {
            // Half done, and the mutex in hand: this is when it is killed.
            loop {
                std::thread::park();
            }
        }
        ready(&dishes).store(dish, Ordering::Relaxed);
        cooked.signal()?;
        drop(guard);
    }
    Ok(())
}

fn begun(dishes: &Slot) -> &AtomicU32 {
    &dishes.words()[0]
}

fn ready(dishes: &Slot) -> &AtomicU32 {
    &dishes.words()[1]
}

fn taken(dishes: &Slot) -> &AtomicU32 {
    &dishes.words()[2]
}
