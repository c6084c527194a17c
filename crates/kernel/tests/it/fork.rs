//! A child of `fork` knows that it is one, and so does its child.

#![allow(unsafe_code)]

use switchboard_kernel::fork::{generation, watch};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

/// Forks; says how the child ended: 0 if what it did was true.
pub(crate) fn in_child(does: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the caller's process has one thread that does anything; the child ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(!does());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` a whole integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// Says how often generations differed where they should.
pub(crate) fn forker(_: &[String]) {
    let unwatched = generation();
    let silent = in_child(|| generation() == unwatched);
    let own = watch().expect("watched");
    let again = watch().expect("watched");
    let child = in_child(|| {
        let child = generation();
        let grandchild = in_child(|| ![own, child].contains(&generation()));
        child != own && watch() == Ok(child) && grandchild == 0
    });
    report(format_args!("{silent} {} {child} {}", own == again, own == generation()));
}

#[test]
fn children_and_theirs_are_told_apart() {
    Child::role("fork-forker", &[""]).expect("0 true 0 true");
}

/// Threads that watch at once do no harm.
#[test]
fn watching_twice_at_once_is_no_error() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(watch(), Ok(generation())));
        }
    });
}
