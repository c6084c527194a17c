//! Memory that is not atomic, changed by threads under each object: what one wrote the next one reads.
//!
//! `cargo xtask prove tsan` runs these under ThreadSanitizer, which notices also a race that did no harm.
//! All threads of a test use one handle: the sanitizer knows a mutex by its address. Threads are joined one
//! by one, which it understands; it does not see how the standard library's own objects work.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::forget;
use std::thread::{JoinHandle, scope};

use switchboard_kernel::Result;
use switchboard_kernel::sync::{
    Barrier, Condvar, Locked, Monitor, Mutex, MutexGuard, MutexOptions, Once, Permits, RwLock,
    Semaphore, Shared,
};

const TIMES: u64 = 2_000;
const THREADS: u64 = 3;

/// With this in the environment, the threads of [`mutex`] forget to lock: a race, to be noticed.
const FORGET_TO_LOCK: &str = "SWITCHBOARD_FORGET_TO_LOCK";

/// A number that is not atomic.
#[derive(Debug, Default)]
struct Plain(UnsafeCell<u64>);

// SAFETY: that its threads do not use it at the same time is what each test is about; of a number that is
// torn or lost, no memory is harmed.
unsafe impl Sync for Plain {}

impl Plain {
    fn get(&self) -> u64 {
        // SAFETY: as above.
        unsafe { *self.0.get() }
    }

    fn set(&self, value: u64) {
        // SAFETY: as above.
        unsafe { *self.0.get() = value };
    }

    fn add(&self, value: u64) {
        self.set(self.get() + value);
    }
}

/// Runs this in some threads at a time, each with its number.
fn in_threads(count: u64, act: impl Fn(u64) -> Result<()> + Sync) {
    scope(|scope| {
        let act = &act;
        let threads: Vec<_> = (0..count).map(|me| scope.spawn(move || act(me))).collect();
        for thread in threads {
            thread.join().expect("no panic").expect("no error");
        }
    });
}

fn lock(mutex: &Mutex) -> Result<MutexGuard<'_>> {
    mutex.lock()?.or_repair(|| ())
}

#[test]
fn mutex() {
    let forgets = std::env::var_os(FORGET_TO_LOCK).is_some();
    let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let sum = Plain::default();
    in_threads(THREADS, |_| {
        for _ in 0..TIMES {
            let guard = if forgets { None } else { Some(lock(&mutex)?) };
            sum.add(1);
            drop(guard);
        }
        Ok(())
    });
    assert!(forgets || sum.get() == THREADS * TIMES);
}

/// Threads end with the mutex held. What they wrote is not looked at: the sanitizer knows of no way from
/// a dead thread to the next.
#[test]
fn mutex_of_the_dead() {
    let mutex: &'static Mutex =
        Box::leak(Box::new(Mutex::anonymous(MutexOptions::new()).expect("a mutex")));
    let survived = Plain::default();
    for _ in 0..20 {
        let dying: JoinHandle<Result<()>> = std::thread::spawn(move || {
            forget(lock(mutex)?);
            Ok(())
        });
        in_threads(2, |_| {
            let guard = lock(mutex)?;
            survived.add(1);
            drop(guard);
            Ok(())
        });
        dying.join().expect("no panic").expect("no error");
        // Where it came last.
        match mutex.lock().expect("the mutex") {
            Locked::Consistent(guard) => drop(guard),
            Locked::OwnerDied(orphaned) => drop(orphaned.mark_consistent().expect("repaired")),
        }
    }
    assert_eq!(survived.get(), 40);
}

#[test]
fn condvar() {
    let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let changed = Condvar::anonymous(()).expect("a condition");
    let (things, taken) = (Plain::default(), Plain::default());
    in_threads(2 * THREADS, |me| {
        for _ in 0..TIMES / 4 {
            let guard = lock(&mutex)?;
            if me % 2 == 0 {
                things.add(1);
                drop(guard);
                changed.notify_one()?;
            } else {
                let guard = changed.wait_while(guard, || things.get() == 0)?.or_repair(|| ())?;
                things.set(things.get() - 1);
                taken.add(1);
                drop(guard);
            }
        }
        Ok(())
    });
    assert_eq!((things.get(), taken.get()), (0, THREADS * (TIMES / 4)));
}

#[test]
fn rw_lock() {
    let lock = RwLock::anonymous(THREADS as u32 - 1).expect("a lock");
    let (left, right) = (Plain::default(), Plain::default());
    in_threads(THREADS + 1, |me| {
        for _ in 0..TIMES {
            if me == 0 {
                let guard = lock.write()?.or_repair(|| ())?;
                left.add(1);
                right.add(1);
                drop(guard);
            } else {
                let guard = lock.read()?;
                assert_eq!(left.get(), right.get());
                drop(guard);
            }
        }
        Ok(())
    });
    assert_eq!(left.get(), TIMES);
}

#[test]
fn permits() {
    let permits = Permits::anonymous(1).expect("permits");
    let sum = Plain::default();
    in_threads(THREADS, |_| {
        for _ in 0..TIMES {
            let permit = permits.acquire()?;
            sum.add(1);
            drop(permit);
        }
        Ok(())
    });
    assert_eq!(sum.get(), THREADS * TIMES);
}

/// A thing goes from hand to hand.
#[test]
fn semaphore() {
    let [full, empty] = [0, 1].map(|count| Semaphore::anonymous(count).expect("a semaphore"));
    let (thing, sum) = (Plain::default(), Plain::default());
    in_threads(2, |me| {
        for number in 1..=TIMES {
            if me == 0 {
                empty.wait()?;
                thing.set(number);
                full.post()?;
            } else {
                full.wait()?;
                sum.add(thing.get());
                empty.post()?;
            }
        }
        Ok(())
    });
    assert_eq!(sum.get(), TIMES * (TIMES + 1) / 2);
}

/// Each writes its own number, then reads those of the others.
#[test]
fn barrier() {
    let barrier = Barrier::anonymous(THREADS as u32).expect("a barrier");
    let rounds: Vec<Plain> = (0..THREADS).map(|_| Plain::default()).collect();
    in_threads(THREADS, |me| {
        let member = barrier.join()?;
        for round in 1..=TIMES / 10 {
            rounds[me as usize].set(round);
            member.wait()?;
            assert!(rounds.iter().all(|other| other.get() == round));
            member.wait()?;
        }
        Ok(())
    });
}

#[test]
fn once() {
    for _ in 0..TIMES / 20 {
        let (once, made) = (Once::anonymous(()).expect("an object"), Plain::default());
        in_threads(THREADS, |_| {
            once.call(|| made.add(1))?;
            assert_eq!(made.get(), 1);
            Ok(())
        });
    }
}

#[test]
fn monitor() {
    let monitor = Monitor::anonymous(0_u64).expect("a monitor");
    let beside = Plain::default();
    in_threads(THREADS, |_| {
        for _ in 0..TIMES {
            monitor.with(|sum| {
                **sum += 1;
                beside.add(1);
            })?;
        }
        Ok(())
    });
    let sum = monitor.with(|sum| **sum).expect("the sum");
    assert_eq!((sum, beside.get()), (THREADS * TIMES, THREADS * TIMES));
}
