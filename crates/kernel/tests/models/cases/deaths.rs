//! A thread that dies at each of its steps, in every order with the others. Here waits end by themselves now
//! and then, as they do in earnest: how somebody died is found by looking.

use super::condvar::Shop;
use super::{Arc, AtomicBool, Bounds, Plain, explore, join, threads};
use crate::sync::atomic::Ordering;
use crate::sync::barrier::Barrier;
use crate::sync::mutex::MutexGuard;
use crate::sync::once::Once;
use crate::sync::rw_lock::RwLock;
use crate::sync::semaphore::Semaphore;
use crate::sync::{Mutex, Permits, Shared};
use crate::world::atomic::{Fences, keep_total_order};
use crate::world::death::live;
use crate::world::futex::with_looks;
use crate::world::pthread::MutexOptions;

use super::monitor::{account, add};

/// Runs a model with a `victim` that dies after 0, 1, 2 … steps, until it lives to its end.
fn at_each_step<T: 'static>(
    name: &str,
    bounds: Bounds,
    make: impl Fn() -> Arc<T> + Clone + Send + Sync + 'static,
    victim: impl Fn(&T) + Clone + Send + Sync + 'static,
    survivor: impl Fn(&T) + Clone + Send + Sync + 'static,
    after: impl Fn(&T) + Clone + Send + Sync + 'static,
) {
    for steps in 0.. {
        let died = Arc::new(AtomicBool::new(false));
        let (make, victim) = (make.clone(), victim.clone());
        let (survivor, after, died_once) = (survivor.clone(), after.clone(), Arc::clone(&died));
        explore(&format!("{name}, after {steps} steps"), bounds, move || {
            with_looks();
            keep_total_order(Fences::Before);
            let shared = make();
            let (of_victim, victim) = (Arc::clone(&shared), victim.clone());
            let died = Arc::clone(&died_once);
            let dying = threads(1, move || {
                if live(steps, || victim(&of_victim)).is_none() {
                    died.store(true, Ordering::Relaxed);
                }
            });
            survivor(&shared);
            join(dying);
            after(&shared);
        });
        if !died.load(Ordering::Relaxed) {
            return;
        }
    }
}

const BOUNDS: Bounds = Bounds { quick: 2, all: Some(4) };

#[test]
fn of_permits() {
    let take = |permits: &Permits| drop(permits.acquire().expect("a permit"));
    let make = || Arc::new(Permits::anonymous(1).expect("permits"));
    at_each_step("a permit's holder dies", BOUNDS, make, take, take, take);
}

/// Two wait. One is woken, and dies before it has the mutex, which another has taken by then.
#[test]
fn of_those_who_wait_for_a_mutex() {
    fn lock(mutex: &Mutex) -> MutexGuard<'_> {
        mutex.lock().and_then(|locked| locked.or_repair(|| ())).expect("the mutex")
    }
    // Who waits with a deadline looks at any time: more switches are more of these.
    let bounds = Bounds { quick: 0, all: Some(0) };
    for steps in 0..14 {
        explore(&format!("who waits for a mutex dies, after {steps} steps"), bounds, move || {
            with_looks();
            let mutex = Arc::new(Mutex::anonymous(MutexOptions::new()).expect("a mutex"));
            let held = lock(&mutex);
            let (of_victim, of_other) = (Arc::clone(&mutex), Arc::clone(&mutex));
            let dying = threads(1, move || {
                let _ = live(steps, || drop(lock(&of_victim)));
            });
            let other = threads(1, move || drop(lock(&of_other)));
            // Those who wait come to do so, and whoever is woken comes to find it taken again.
            loom::thread::yield_now();
            drop(held);
            let again = lock(&mutex);
            loom::thread::yield_now();
            drop(again);
            join(dying);
            join(other);
        });
    }
}

struct Pair {
    lock: RwLock,
    left: Plain,
    right: Plain,
}

impl Pair {
    fn new() -> Arc<Self> {
        let lock = RwLock::anonymous(2).expect("a lock");
        Arc::new(Self { lock, left: Plain::new(0), right: Plain::new(0) })
    }

    /// If a writer died there, it takes a writer to put things right.
    fn read(&self) {
        match self.lock.read() {
            Ok(guard) => {
                assert_eq!(self.left.get(), self.right.get(), "half a change");
                drop(guard);
            }
            Err(error) => {
                assert_eq!(error.name(), "EOWNERDEAD");
                self.write();
                drop(self.lock.read().expect("the lock"));
            }
        }
    }

    fn write(&self) {
        let locked = self.lock.write().expect("the lock");
        let guard = locked.or_repair(|| self.right.set(self.left.get())).expect("the lock");
        assert_eq!(self.left.get(), self.right.get(), "half a change");
        self.left.add(1);
        // A step, to die at.
        self.lock.try_read().map(drop).expect_err("it is locked");
        self.right.add(1);
        drop(guard);
    }
}

#[test]
fn of_readers() {
    at_each_step("a reader dies", BOUNDS, Pair::new, Pair::read, Pair::write, Pair::read);
}

#[test]
fn of_writers() {
    at_each_step("a writer dies", BOUNDS, Pair::new, Pair::write, Pair::read, Pair::write);
}

#[test]
fn of_those_who_wait_for_a_semaphore() {
    let make = || Arc::new(Semaphore::anonymous(0).expect("a semaphore"));
    let wait = |count: &Semaphore| count.wait().expect("a wait");
    let post_and_wait = |count: &Semaphore| {
        count.post().expect("a post");
        count.post().expect("a post");
        count.wait().expect("a wait");
    };
    at_each_step("who waits for a semaphore dies", BOUNDS, make, wait, post_and_wait, |_| ());
}

/// Whether it was raised or not: who waits finds out.
#[test]
fn of_those_who_post() {
    let make = || Arc::new(Semaphore::anonymous(0).expect("a semaphore"));
    let post = |count: &Semaphore| count.post().expect("a post");
    let wait = |count: &Semaphore| {
        let other = count.value();
        if other == 0 {
            count.post().expect("a post");
        }
        count.wait().expect("a wait");
    };
    at_each_step("who raises a semaphore dies", BOUNDS, make, post, wait, |_| ());
}

/// Two things for two: what the dead took or was told of leaves enough for the other.
#[test]
fn of_those_who_wait_for_a_condition() {
    explore_shop("who waits for a condition dies", |shop| shop.buy());
}

/// The thing may be there or not; another comes in any case.
#[test]
fn of_those_who_notify() {
    explore_shop("who notifies dies", |shop| {
        shop.deliver(1);
        shop.changed.notify_one().expect("a ring");
    });
}

fn explore_shop(name: &str, victim: impl Fn(&Shop) + Clone + Send + Sync + 'static) {
    let bounds = Bounds { quick: 0, all: Some(2) };
    let make = || {
        let shop = Shop::new();
        // One more buyer, beside the victim and who delivers.
        let buyer = Arc::clone(&shop);
        *shop.others.lock().expect("no panic") = threads(1, move || buyer.buy());
        shop
    };
    let deliver = |shop: &Shop| {
        for _ in 0..2 {
            shop.deliver(1);
            shop.changed.notify_one().expect("a ring");
        }
    };
    let after = |shop: &Shop| join(core::mem::take(&mut *shop.others.lock().expect("no panic")));
    at_each_step(name, bounds, make, victim, deliver, after);
}

/// Two were members, and one has left: whoever comes in its place may die.
#[test]
fn of_members() {
    let make = || {
        let barrier = Barrier::anonymous(2).expect("a barrier");
        let both = [barrier.join().expect("a place"), barrier.join().expect("a place")];
        drop(both);
        Arc::new(barrier)
    };
    let cross = |times: u32| {
        move |barrier: &Barrier| {
            let here = barrier.join().expect("a place");
            for _ in 0..times {
                here.wait().expect("the other side");
            }
        }
    };
    let bounds = Bounds { quick: 0, all: Some(2) };
    at_each_step("a member dies", bounds, make, cross(1), cross(2), cross(1));
}

#[test]
fn of_those_who_do_it_once() {
    let make = || Arc::new((Once::anonymous(()).expect("an object"), Plain::new(0)));
    let call = |(once, made): &(Once, Plain)| {
        once.call(|| made.set(1)).expect("a call");
        assert_eq!(made.get(), 1);
    };
    at_each_step("who does it once dies", BOUNDS, make, call, call, call);
}

#[test]
fn in_a_monitor() {
    let bounds = Bounds { quick: 0, all: Some(2) };
    at_each_step("who changes a monitor dies", bounds, account, add, add, add);
}
