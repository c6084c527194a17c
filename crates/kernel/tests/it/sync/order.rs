//! The order of locks: violations are found before anything hangs.

use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::sync::{Condvar, LockOrder, Monitor, Mutex, MutexOptions, RwLock, Shared};

use super::name_of;

const FIRST: LockOrder = LockOrder::new("first", 1);
const SECOND: LockOrder = LockOrder::new("second", 2);

fn mutex(order: LockOrder) -> Mutex {
    LockOrder::check(true);
    Mutex::anonymous(MutexOptions::new()).expect("a mutex").ordered(order)
}

#[test]
fn a_violation_names_both_places_and_takes_nothing() {
    let (first, second) = (mutex(FIRST), mutex(SECOND));
    let held = second.lock().expect("locked");
    let line = line!() + 1;
    let error = first.lock().map(drop).expect_err("a violation");
    let text = error.to_string();
    assert_eq!(error.name(), "EDEADLK");
    for part in [
        "\"first\" (rank 1)",
        "\"second\" (rank 2)",
        &format!("order.rs:{line}"),
        &format!("order.rs:{}", line - 2),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(name_of(first.try_lock().map(drop)), "EDEADLK");
    drop(held);
    assert_eq!(name_of(first.lock().map(drop)), "ok");
}

#[test]
fn the_right_order_is_free() {
    let (first, second) = (mutex(FIRST), mutex(SECOND));
    for _ in 0..3 {
        let one = first.lock().expect("locked");
        let two = second.lock().expect("locked");
        // Let go in any order.
        drop(one);
        drop(two);
    }
}

#[test]
fn two_of_one_rank_are_not_held_together() {
    let (one, other) = (mutex(FIRST), mutex(FIRST));
    let held = one.lock().expect("locked");
    assert_eq!(name_of(other.lock()), "EDEADLK");
    drop(held);
    assert_eq!(name_of(other.lock()), "ok");
}

#[test]
fn all_kinds_have_ranks_and_those_without_are_not_asked() {
    LockOrder::check(true);
    let lock = RwLock::anonymous(4).expect("a lock").ordered(FIRST);
    let monitor = Monitor::anonymous(0_u32).expect("a monitor").ordered(SECOND);
    let free = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let inside = monitor.with(|_| {
        let _free = free.lock().expect("locked");
        [name_of(lock.read()), name_of(lock.write()), name_of(lock.try_read())]
    });
    assert_eq!(inside, Ok(["EDEADLK", "EDEADLK", "EDEADLK"].map(str::to_owned)));
    let reading = lock.read().expect("locked");
    assert_eq!(name_of(monitor.with(|_| ())), "ok");
    drop(reading);
}

#[test]
fn a_wait_takes_the_mutex_again_after_what_is_held_meanwhile() {
    LockOrder::check(true);
    let (first, second) = (mutex(FIRST), mutex(SECOND));
    let changed = Condvar::anonymous(()).expect("a condition");
    let outer = first.lock().and_then(|locked| locked.or_repair(|| ())).expect("locked");
    let inner = second.lock().expect("locked");
    assert_eq!(name_of(changed.wait_until(outer, Deadline::after(Duration::ZERO))), "EDEADLK");
    drop(inner);
    let outer = first.lock().and_then(|locked| locked.or_repair(|| ())).expect("locked");
    assert_eq!(name_of(changed.wait_until(outer, Deadline::after(Duration::ZERO))), "ok");
}

#[test]
fn an_order_is_of_a_thread() {
    let (first, second) = (mutex(FIRST), mutex(SECOND));
    let _held = second.lock().expect("locked");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(name_of(first.lock()), "ok"));
    });
}

#[test]
fn a_lock_that_failed_is_not_held() {
    let (first, second) = (mutex(FIRST), mutex(SECOND));
    std::thread::scope(|scope| {
        let _held = second.lock().expect("locked");
        scope
            .spawn(|| {
                assert_eq!(name_of(second.try_lock()), "EBUSY");
                assert_eq!(name_of(first.lock()), "ok");
            })
            .join()
            .expect("its end");
    });
}
