//! A child made by `fork(2)` has copies of what its parent holds, and lets go of nothing.

#![allow(unsafe_code)]

use switchboard_kernel::Result;
use switchboard_kernel::sync::{
    Barrier, Monitor, Mutex, MutexOptions, Once, Permits, RwLock, Shared,
};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use super::name_of;

/// Makes a child, and says whether this is it. The parent goes on when the child has ended well.
fn is_child() -> bool {
    // SAFETY: the child uses nothing that another thread of this process could have been changing but what
    // the C library puts in order itself, and ends without running anything of the test harness.
    let child = unsafe { libc::fork() };
    if child == 0 {
        return true;
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` a whole integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's end");
    false
}

fn end_child(code: i32) -> ! {
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(code) }
}

/// A child drops its copy; the original stays.
macro_rules! dropped_in_child {
    ($held:ident) => {
        if is_child() {
            drop($held);
            end_child(0);
        }
    };
}

/// What another thread finds.
fn elsewhere<T>(what: &str, look: impl FnOnce() -> Result<T> + Send) {
    let found = std::thread::scope(|scope| scope.spawn(|| name_of(look())).join());
    report(format_args!("{what}: {}", found.expect("no panic")));
}

/// Role: holds one after another, has a child drop its copy, and finds out what that changed.
pub(crate) fn forker(_: &[String]) {
    let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let guard = mutex.lock().expect("locked");
    dropped_in_child!(guard);
    elsewhere("mutex", || mutex.try_lock().map(drop));
    drop(guard);
    elsewhere("mutex let go of", || mutex.try_lock().map(drop));

    let lock = RwLock::anonymous(2).expect("a lock");
    let guard = lock.read().expect("locked");
    dropped_in_child!(guard);
    elsewhere("read lock", || lock.try_write().map(drop));
    drop(guard);
    let guard = lock.write().expect("locked");
    dropped_in_child!(guard);
    elsewhere("write lock", || lock.try_read().map(drop));
    drop(guard);
    elsewhere("write lock let go of", || lock.try_read().map(drop));

    let permits = Permits::anonymous(1).expect("permits");
    let permit = permits.acquire().expect("a permit");
    dropped_in_child!(permit);
    elsewhere("permit", || permits.try_acquire().map(drop));
    drop(permit);

    let barrier = Barrier::anonymous(1).expect("a barrier");
    let member = barrier.join().expect("a place");
    if is_child() {
        let refused = name_of(member.wait()) == "EPERM";
        drop(member);
        end_child(i32::from(!refused));
    }
    elsewhere("member", || barrier.join().map(drop));
    drop(member);
    elsewhere("member that left", || barrier.join().map(drop));

    let monitor = Monitor::anonymous(1_u64).expect("a monitor");
    let is_in_child = monitor.with(|number| {
        let is_child = is_child();
        if is_child {
            **number = 2;
        }
        is_child
    });
    if is_in_child.expect("the monitor") {
        end_child(0);
    }
    report(format_args!("monitor: {}", monitor.with(|number| **number).expect("the monitor")));

    let once = Once::anonymous(()).expect("an object");
    let mut is_in_child = false;
    let did = once.call(|| is_in_child = is_child());
    if is_in_child {
        end_child(i32::from(once.is_done()));
    }
    report(format_args!("once: {did:?}, {}", once.is_done()));
}

#[test]
fn a_forked_child_lets_go_of_nothing() {
    let mut forker = Child::role("sync_forker", &[""; 0]);
    for line in [
        "mutex: EBUSY",
        "mutex let go of: ok",
        "read lock: EBUSY",
        "write lock: EBUSY",
        "write lock let go of: ok",
        "permit: EBUSY",
        "member: EBUSY",
        "member that left: ok",
        "monitor: 1",
        "once: Ok(true), true",
    ] {
        forker.expect(line);
    }
}
