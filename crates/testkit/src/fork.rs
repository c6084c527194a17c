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
    let mut status = 0;
    // SAFETY: the child is this process's own, and `status` a whole integer.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "the child's end");
    status == 0
}
