//! Conditions with their mutex: bells, seats and the mutex together.

use loom::thread::JoinHandle;

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::pthread::MutexOptions;
use crate::real_std::sync::Mutex as Others;
use crate::sync::condvar::Condvar;
use crate::sync::mutex::MutexGuard;
use crate::sync::{Mutex, Shared};

pub(super) struct Shop {
    pub(super) mutex: Mutex,
    pub(super) changed: Condvar,
    pub(super) things: Plain,
    /// Who buys beside those that a model names.
    pub(super) others: Others<Vec<JoinHandle<()>>>,
}

impl Shop {
    pub(super) fn new() -> Arc<Self> {
        let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
        let changed = Condvar::anonymous(()).expect("a condition");
        Arc::new(Self { mutex, changed, things: Plain::new(0), others: Others::default() })
    }

    pub(super) fn enter(&self) -> MutexGuard<'_> {
        self.mutex.lock().and_then(|locked| locked.or_repair(|| ())).expect("the mutex")
    }

    pub(super) fn buy(&self) {
        let mut guard = self.enter();
        while !self.things.take_one() {
            let again = self.changed.wait(guard).expect("a wait");
            guard = again.or_repair(|| self.changed.notify_all().expect("a ring")).expect("it");
        }
    }

    pub(super) fn deliver(&self, count: u32) {
        let guard = self.enter();
        self.things.add(count);
        drop(guard);
    }
}

#[test]
fn one_is_notified() {
    explore("condition, 1 waits, 1 notifies", Bounds { quick: 3, all: None }, || {
        let shop = Shop::new();
        let buyer = Arc::clone(&shop);
        let buying = threads(1, move || buyer.buy());
        shop.deliver(1);
        shop.changed.notify_one().expect("a ring");
        join(buying);
    });
}

#[test]
fn two_are_notified_one_by_one() {
    explore("condition, 2 wait, 1 notifies twice", Bounds { quick: 1, all: Some(3) }, || {
        let shop = Shop::new();
        let buyer = Arc::clone(&shop);
        let buying = threads(2, move || buyer.buy());
        for _ in 0..2 {
            shop.deliver(1);
            shop.changed.notify_one().expect("a ring");
        }
        join(buying);
    });
}

#[test]
fn two_notify_two() {
    explore("condition, 2 wait, 2 notify", Bounds { quick: 1, all: Some(2) }, || {
        let shop = Shop::new();
        let buyer = Arc::clone(&shop);
        let buying = threads(2, move || buyer.buy());
        let deliver = |shop: &Shop| {
            shop.deliver(1);
            shop.changed.notify_one().expect("a ring");
        };
        let other = Arc::clone(&shop);
        let delivering = threads(1, move || deliver(&other));
        deliver(&shop);
        join(delivering);
        join(buying);
    });
}

#[test]
fn all_are_notified() {
    explore("condition, 2 wait, 1 notifies all", Bounds { quick: 2, all: Some(3) }, || {
        let shop = Shop::new();
        let buyer = Arc::clone(&shop);
        let buying = threads(2, move || buyer.buy());
        shop.deliver(2);
        shop.changed.notify_all().expect("a ring");
        join(buying);
    });
}
