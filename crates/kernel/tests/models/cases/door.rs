//! One goes in and out, others come now and then: nobody is in with another, and each sees what was done.
//!
//! Only with fences: what a barrier in another thread does cannot be said to loom. The lock of those who
//! come now and then, and what is done with it, is that of `biased.rs` in short.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::door::Door;

struct Value {
    door: Door,
    visitors: loom::sync::Mutex<()>,
    /// How often somebody was in.
    count: Plain,
}

impl Value {
    fn own(&self) {
        if !self.door.enter() {
            let _visitors = self.visitors.lock().expect("no panic");
            self.door.enter_alone();
        }
        self.count.add(1);
        self.door.leave();
    }

    fn visit(&self, barrier: fn() -> bool) {
        let _visitors = self.visitors.lock().expect("no panic");
        self.door.want(barrier);
        while !self.door.is_free() {
            loom::thread::yield_now();
        }
        self.count.add(1);
        self.door.done();
    }
}

fn check(name: &str, bounds: Bounds, stays: u32, visitors: usize) {
    explore(name, bounds, move || {
        let (visitors_lock, count) = (loom::sync::Mutex::new(()), Plain::new(0));
        let value = Arc::new(Value { door: Door::new(true), visitors: visitors_lock, count });
        let visited = Arc::clone(&value);
        let visiting = threads(visitors, move || visited.visit(|| unreachable!("it is fenced")));
        for _ in 0..stays {
            value.own();
        }
        join(visiting);
        assert_eq!(value.count.get() as usize, stays as usize + visitors);
    });
}

#[test]
fn one_visits() {
    check("door, 2 stays, 1 visits", Bounds { quick: 4, all: None }, 2, 1);
}

#[test]
fn one_visits_a_busy_one() {
    check("door, 3 stays, 1 visits", Bounds { quick: 3, all: Some(5) }, 3, 1);
}

#[test]
fn two_visit() {
    check("door, 2 stays, 2 visit", Bounds { quick: 2, all: Some(4) }, 2, 2);
}
