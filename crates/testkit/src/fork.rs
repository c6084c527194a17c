//! Children made by `fork(2)`, which `std` has none of: they have what their parent had, and one thread.

#![allow(unsafe_code)]

/// Forks, and runs `does` in the child, which ends right after. Whether it returned `true`.
///
/// The child has a copy of everything that was the caller's, and of no other thread: it must not need
/// what another thread of the parent's may have locked. The C library sees to its own locks.
///
/// # Panics
/// When no child can be made.
#[must_use]
pub fn in_child(does: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs on with the caller's thread alone, uses what that one had, and ends by `_exit`.
    // Of what other threads may hold at this moment, the allocator's locks are put in order by the C library.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child: {}", std::io::Error::last_os_error());
    if child == 0 {
        // A panic must not run on into what comes after this in the parent.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(does));
        let status = i32::from(!done.unwrap_or(false));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    ended_well(child)
}

/// As [`in_child`], but does not wait: the process id of the child. It ends with 0 if `does` returned `true`, else with 1. Who started it
/// waits for it.
///
/// # Panics
/// When no child can be made.
#[must_use]
pub fn start(does: impl FnOnce() -> bool) -> i32 {
    // SAFETY: as in `in_child`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child: {}", std::io::Error::last_os_error());
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(does));
        let status = i32::from(!done.unwrap_or(false));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    child
}

/// Forks: both go on as the caller does. The process id of the child, and in it none: it has to [`end`].
///
/// # Panics
/// When no child can be made.
#[must_use]
pub fn fork() -> Option<i32> {
    // SAFETY: as in `in_child`, as long as the child ends by `end`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child: {}", std::io::Error::last_os_error());
    (child > 0).then_some(child)
}

/// Ends a child of [`fork`], without anything that would be its parent's to do.
pub fn end(done: bool) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(i32::from(!done)) }
}

/// Waits for a child of [`fork`]. Whether it ended with `true`.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn ended_well(child: i32) -> bool {
    let mut status = 0;
    // SAFETY: the child is this process's own, and `status` a whole integer.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "the child's end");
    status == 0
}

/// Gives up every capability, so that modes count for this process whoever it is; and, if it may, becomes this user.
///
/// # Panics
/// When the kernel refuses.
pub fn become_ordinary(user: Option<u32>) {
    if let Some(id) = user {
        // SAFETY: a list of no groups.
        let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
        // SAFETY: integers.
        let group = unsafe { libc::setresgid(id, id, id) };
        // SAFETY: integers.
        let done = unsafe { libc::setresuid(id, id, id) };
        let error = std::io::Error::last_os_error();
        assert_eq!((groups, group, done), (0, 0, 0), "another user: {error}");
    }
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).expect("no capabilities");
    // SAFETY: sets a flag of this process: it can be looked into again, as before it changed its user.
    let dumpable = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    assert_eq!(dumpable, 0, "prctl");
}
