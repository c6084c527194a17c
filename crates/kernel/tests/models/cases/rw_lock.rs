//! Readers see all of what a writer wrote or nothing, and writers come one by one.
//!
//! A reader takes a seat and then looks at the state; a writer changes the state and then looks which seats
//! are in use. That one of them sees the other needs the total order of `SeqCst` accesses.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::Shared;
use crate::sync::rw_lock::RwLock;
use crate::world::atomic::{Fences, keep_total_order};

struct Pair {
    lock: RwLock,
    left: Plain,
    right: Plain,
}

impl Pair {
    fn new(readers: u32) -> Arc<Self> {
        let lock = RwLock::anonymous(readers).expect("a lock");
        Arc::new(Self { lock, left: Plain::new(0), right: Plain::new(0) })
    }

    fn read(&self) -> u32 {
        let guard = self.lock.read().expect("the lock");
        let (left, right) = (self.left.get(), self.right.get());
        assert_eq!(
            (left, left),
            (right, self.left.get()),
            "half a change, or one while it was read"
        );
        drop(guard);
        left
    }

    fn write(&self) {
        let guard = self.lock.write().and_then(|locked| locked.or_repair(|| ())).expect("the lock");
        self.left.add(1);
        self.right.add(1);
        drop(guard);
    }
}

fn explore_both(name: &str, bounds: Bounds, model: impl Fn() + Clone + Send + Sync + 'static) {
    for fences in [Fences::Before, Fences::After] {
        let model = model.clone();
        explore(&format!("{name}, fences {fences:?}"), bounds, move || {
            keep_total_order(fences);
            model();
        });
    }
}

fn check(name: &str, bounds: Bounds, seats: u32, readers: usize, writers: usize, used: bool) {
    explore_both(name, bounds, move || {
        let pair = Pair::new(seats);
        if used {
            pair.read();
        }
        let [reader, writer] = [Arc::clone(&pair), Arc::clone(&pair)];
        let reading = threads(readers, move || assert!(reader.read() <= 2));
        let writing = threads(writers - 1, move || writer.write());
        pair.write();
        join(writing);
        join(reading);
        assert_eq!(pair.read(), writers as u32);
    });
}

#[test]
fn the_first_reader_and_a_writer() {
    check("read-write lock, 1 reads, 1 writes", Bounds { quick: 4, all: None }, 2, 1, 1, false);
}

#[test]
fn a_reader_with_a_seat_and_a_writer() {
    check("read-write lock, used before", Bounds { quick: 4, all: None }, 2, 1, 1, true);
}

#[test]
fn two_readers_and_a_writer() {
    check("read-write lock, 2 read, 1 writes", Bounds { quick: 1, all: Some(3) }, 2, 2, 1, false);
}

#[test]
fn two_readers_with_one_seat() {
    check("read-write lock, 2 read, 1 seat", Bounds { quick: 1, all: Some(3) }, 1, 2, 1, false);
}

#[test]
fn a_reader_and_two_writers() {
    check("read-write lock, 1 reads, 2 write", Bounds { quick: 1, all: Some(3) }, 2, 1, 2, false);
}

/// Who reads twice meets the lock open after it was closed, on a seat that nobody has used before.
#[test]
fn one_reads_again() {
    explore_both("read-write lock, 1 reads twice", Bounds { quick: 3, all: Some(5) }, || {
        let pair = Pair::new(2);
        let reader = Arc::clone(&pair);
        let reading = threads(1, move || {
            let first = reader.read();
            assert!(first <= reader.read(), "a change was undone");
        });
        pair.write();
        join(reading);
    });
}
