//! It is done once, and everybody sees it done.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::Shared;
use crate::sync::once::Once;

fn check(name: &str, bounds: Bounds, callers: usize) {
    explore(name, bounds, move || {
        let shared = Arc::new((Once::anonymous(()).expect("an object"), Plain::new(0)));
        let caller = Arc::clone(&shared);
        let call = move || {
            caller.0.call(|| caller.1.add(1)).expect("a call");
            assert_eq!(caller.1.get(), 1);
        };
        let calling = threads(callers - 1, call.clone());
        call();
        join(calling);
    });
}

#[test]
fn two_call() {
    check("once, 2 call", Bounds { quick: 4, all: None }, 2);
}

#[test]
fn three_call() {
    check("once, 3 call", Bounds { quick: 2, all: Some(4) }, 3);
}
