//! Nobody has a permit too many, and nobody sleeps while one is free.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Permits, Shared};

/// One permit is a lock: what is done with it is seen by the next.
fn check_one(name: &str, bounds: Bounds, users: usize) {
    explore(name, bounds, move || {
        let shared = Arc::new((Permits::anonymous(1).expect("permits"), Plain::new(0)));
        let user = Arc::clone(&shared);
        let use_one = move || {
            let permit = user.0.acquire().expect("a permit");
            user.1.add(1);
            drop(permit);
        };
        let using = threads(users - 1, use_one.clone());
        use_one();
        join(using);
        assert_eq!(shared.1.get(), users as u32);
    });
}

#[test]
fn one_permit_for_two() {
    check_one("permits, 1 for 2", Bounds { quick: 4, all: None }, 2);
}

#[test]
fn one_permit_for_three() {
    check_one("permits, 1 for 3", Bounds { quick: 1, all: Some(3) }, 3);
}

#[test]
fn two_permits_for_three() {
    explore("permits, 2 for 3", Bounds { quick: 1, all: Some(2) }, || {
        let shared = Arc::new((Permits::anonymous(2).expect("permits"), AtomicU32::new(0)));
        let user = Arc::clone(&shared);
        let use_one = move || {
            let permit = user.0.acquire().expect("a permit");
            assert!(user.1.fetch_add(1, Ordering::Relaxed) < 2, "a permit too many");
            user.1.fetch_add(u32::MAX, Ordering::Relaxed);
            drop(permit);
        };
        let using = threads(2, use_one.clone());
        use_one();
        join(using);
    });
}
