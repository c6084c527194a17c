//! The bell by itself: things are laid down without a lock, then it rings; who wants one listens, looks,
//! and sleeps.

use super::{Arc, Bounds, explore, join, threads};
use crate::io::Deadline;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::bell;

struct Table {
    bell: AtomicU32,
    things: AtomicU32,
}

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self { bell: AtomicU32::new(0), things: AtomicU32::new(0) })
    }

    // Relaxed: that a thing is seen is up to the bell.
    fn lay_down(&self, count: u32) {
        self.things.fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self) {
        loop {
            let seen = bell::listen(&self.bell);
            let one_less = |count: u32| count.checked_sub(1);
            if self.things.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                return;
            }
            bell::wait(&self.bell, seen, Deadline::NEVER).expect("a wait");
        }
    }
}

fn check(name: &str, bounds: Bounds, takers: usize, ringers: usize, all: bool) {
    explore(name, bounds, move || {
        let table = Table::new();
        let taking = {
            let table = Arc::clone(&table);
            threads(takers, move || table.take())
        };
        let ring = {
            let table = Arc::clone(&table);
            move || {
                if all {
                    table.lay_down(takers as u32);
                    bell::ring_all(&table.bell).expect("a ring");
                } else {
                    table.lay_down(1);
                    bell::ring_one(&table.bell).expect("a ring");
                }
            }
        };
        let ringing = threads(ringers - 1, ring.clone());
        ring();
        join(ringing);
        join(taking);
    });
}

#[test]
fn one_rings_for_one() {
    check("bell, 1 takes, 1 rings", Bounds { quick: 4, all: None }, 1, 1, false);
}

#[test]
fn two_ring_for_one_each() {
    check("bell, 2 take, 2 ring", Bounds { quick: 2, all: Some(3) }, 2, 2, false);
}

#[test]
fn one_rings_for_all() {
    check("bell, 2 take, 1 rings for all", Bounds { quick: 3, all: Some(5) }, 2, 1, true);
}

/// Twice, so that the second ring finds what the first has left.
#[test]
fn one_rings_twice() {
    explore("bell, 2 take, 1 rings twice", Bounds { quick: 2, all: Some(4) }, || {
        let table = Table::new();
        let taking = {
            let table = Arc::clone(&table);
            threads(2, move || table.take())
        };
        for _ in 0..2 {
            table.lay_down(1);
            bell::ring_one(&table.bell).expect("a ring");
        }
        join(taking);
    });
}

/// Some ring for one, others for all.
#[test]
fn one_and_all() {
    explore(
        "bell, 2 take, one rings for 1, one for all",
        Bounds { quick: 2, all: Some(3) },
        || {
            let table = Table::new();
            let taking = {
                let table = Arc::clone(&table);
                threads(2, move || table.take())
            };
            let other = Arc::clone(&table);
            let ringing = threads(1, move || {
                other.lay_down(1);
                bell::ring_one(&other.bell).expect("a ring");
            });
            table.lay_down(1);
            bell::ring_all(&table.bell).expect("a ring");
            join(ringing);
            join(taking);
        },
    );
}

#[test]
fn three_sleep() {
    explore("bell, 3 take, 1 rings thrice", Bounds { quick: 1, all: Some(2) }, || {
        let table = Table::new();
        let taking = {
            let table = Arc::clone(&table);
            threads(3, move || table.take())
        };
        for _ in 0..3 {
            table.lay_down(1);
            bell::ring_one(&table.bell).expect("a ring");
        }
        join(taking);
    });
}
