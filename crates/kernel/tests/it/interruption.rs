//! Signals that interrupt a wait: `SIGCHLD` with a handler and without `SA_RESTART`.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE};

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// In a child: handles the signal from now on, and reports this thread's id for [`interrupt`].
pub(crate) fn handle() {
    // SAFETY: all zeroes is a valid sigaction: no flags (so no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as usize;
    // SAFETY: the handler does nothing but add to an atomic counter.
    let result = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    report(rustix::thread::gettid().as_raw_nonzero());
}

/// In a child: how many signals came.
pub(crate) fn handled() -> u32 {
    HANDLED.load(Ordering::Relaxed)
}

/// Sends the signal to the thread that called [`handle`], once that sleeps in this system call, and
/// waits until it sleeps again.
pub(crate) fn interrupt(child: &Child, thread: u32, call: libc::c_long) {
    wait_until_asleep(child.id(), thread, call);
    let before = times_asleep(child.id(), thread);
    interrupt_once(child, thread);
    let since = Instant::now();
    while times_asleep(child.id(), thread) <= before {
        assert!(since.elapsed() < DEADLINE, "thread {thread} does not sleep again");
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_until_asleep(child.id(), thread, call);
}

/// How often a thread went to sleep so far.
fn times_asleep(process: u32, thread: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/status"));
    let status = status.expect("the thread");
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.expect("a count").trim().parse().expect("a number")
}

/// Sends the signal to the thread that called [`handle`].
pub(crate) fn interrupt_once(child: &Child, thread: u32) {
    // SAFETY: tgkill takes three integers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, child.id(), thread, libc::SIGCHLD) };
    assert_eq!(sent, 0);
}

/// Waits until this very thread sleeps in this system call: others of its process, such as the test
/// harness's, sleep in `futex` at all times.
pub(crate) fn wait_until_asleep(process: u32, thread: u32, call: libc::c_long) {
    let since = Instant::now();
    let path = format!("/proc/{process}/task/{thread}/syscall");
    let is_in = || {
        std::fs::read_to_string(&path)
            .is_ok_and(|text| text.split(' ').next() == Some(&call.to_string()))
    };
    while !is_in() {
        assert!(since.elapsed() < DEADLINE, "thread {thread} is not in system call {call}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
