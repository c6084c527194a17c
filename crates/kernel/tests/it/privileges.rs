//! Who a test runs as, and whether another process is stuck where it should be.

#![allow(unsafe_code)]
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::time::{Duration, Instant};

use switchboard_testkit::DEADLINE;

/// `nobody`, `nogroup` or what stands in for them.
pub(crate) const NOBODY: u32 = 65_534;

/// In a child: root becomes `nobody`, for good and without capabilities; others stay who they are.
pub(crate) fn become_ordinary_user() {
    if !is_root() {
        return;
    }
    // SAFETY: no pointers but a null one with a length of zero; all threads change together.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}

pub(crate) fn is_root() -> bool {
    switchboard_kernel::process::effective_user_id() == 0
}

/// Waits until a thread of the process sleeps in this system call.
pub(crate) fn wait_until_blocked_in(pid: u32, call: libc::c_long) {
    let since = Instant::now();
    while !is_in(pid, call) {
        assert!(since.elapsed() < DEADLINE, "process {pid} is not in system call {call}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_in(pid: u32, call: libc::c_long) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("syscall"))
            .is_ok_and(|text| text.split(' ').next() == Some(&call.to_string()))
    })
}
