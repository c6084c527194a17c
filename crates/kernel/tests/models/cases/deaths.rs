//! Threads that die with what they hold. Here waits end by themselves now and then, as they do in
//! earnest: how somebody died is found by looking.

use core::mem::forget;

use super::condvar::Shop;
use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::barrier::Barrier;
use crate::sync::rw_lock::RwLock;
use crate::sync::{Permits, Shared};
use crate::world::atomic::{Fences, keep_total_order};
use crate::world::futex::with_looks;
use crate::world::pthread::die;

#[test]
fn a_permit_comes_back() {
    explore("a holder of a permit dies", Bounds { quick: 3, all: Some(5) }, || {
        with_looks();
        let permits = Arc::new(Permits::anonymous(1).expect("permits"));
        let holder = Arc::clone(&permits);
        let dying = threads(1, move || {
            forget(holder.acquire().expect("a permit"));
            die();
        });
        drop(permits.acquire().expect("a permit"));
        join(dying);
    });
}

#[test]
fn a_reader_is_not_waited_for() {
    explore("a reader dies", Bounds { quick: 3, all: Some(5) }, || {
        with_looks();
        keep_total_order(Fences::Before);
        let lock = Arc::new(RwLock::anonymous(2).expect("a lock"));
        let reader = Arc::clone(&lock);
        let dying = threads(1, move || {
            forget(reader.read().expect("the lock"));
            die();
        });
        drop(lock.write().and_then(|locked| locked.or_repair(|| ())).expect("the lock"));
        join(dying);
    });
}

/// Readers hear of a writer that died until another has put things right.
#[test]
fn a_writer_is_told_of() {
    explore("a writer dies", Bounds { quick: 3, all: Some(5) }, || {
        with_looks();
        keep_total_order(Fences::Before);
        let lock = Arc::new(RwLock::anonymous(2).expect("a lock"));
        let writer = Arc::clone(&lock);
        let dying = threads(1, move || {
            let locked = writer.write().expect("the lock");
            assert!(!locked.owner_died());
            forget(locked);
            die();
        });
        match lock.read() {
            Ok(guard) => drop(guard),
            Err(error) => {
                assert_eq!(error.name(), "EOWNERDEAD");
                let locked = lock.write().expect("the lock");
                assert!(locked.owner_died());
                drop(locked.or_repair(|| ()).expect("repaired"));
                drop(lock.read().expect("the lock"));
            }
        }
        join(dying);
    });
}

/// The thread dies that was notified, or is about to be; the other hears of it all the same.
#[test]
fn what_the_dead_was_told_is_not_lost() {
    explore("one who waits dies", Bounds { quick: 1, all: Some(2) }, || {
        with_looks();
        let shop = Shop::new();
        let closed = Arc::new(Plain::new(0));
        let buyer = Arc::clone(&shop);
        let buying = threads(1, move || buyer.buy());
        let (other, is_closed) = (Arc::clone(&shop), Arc::clone(&closed));
        let dying = threads(1, move || {
            let guard = other.enter();
            if other.things.get() == 0 && is_closed.get() == 0 {
                // It dies with the mutex, or having been woken: before it could take the one thing.
                forget(other.changed.wait(guard).expect("a wait"));
            } else {
                forget(guard);
            }
            die();
        });
        shop.deliver(1);
        shop.changed.notify_one().expect("a ring");
        join(buying);
        // For the one that is to die, should it have come too late.
        let guard = shop.enter();
        closed.set(1);
        drop(guard);
        shop.changed.notify_all().expect("a ring");
        join(dying);
    });
}

#[test]
fn a_member_is_missed() {
    explore("a member of a barrier dies", Bounds { quick: 1, all: Some(2) }, || {
        with_looks();
        let barrier = Arc::new(Barrier::anonymous(2).expect("a barrier"));
        let member = Arc::clone(&barrier);
        let dying = threads(1, move || {
            let here = member.join().expect("a place");
            here.wait().expect("the other side");
            forget(here);
            die();
        });
        let here = barrier.join().expect("a place");
        here.wait().expect("the other side");
        assert_eq!(here.wait().expect("the other side").died, 1);
        join(dying);
    });
}
