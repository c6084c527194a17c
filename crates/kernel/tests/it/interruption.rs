//! Signals that interrupt a wait: `SIGCHLD` with a handler and without `SA_RESTART`.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use crate::privileges::wait_until_blocked_in;

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
pub(crate) fn interrupt(child: &Child, thread: i32, call: libc::c_long) {
    wait_until_blocked_in(child.id(), call);
    interrupt_once(child, thread);
    wait_until_blocked_in(child.id(), call);
}

/// Sends the signal to the thread that called [`handle`].
pub(crate) fn interrupt_once(child: &Child, thread: i32) {
    let process = child.id().cast_signed();
    // SAFETY: tgkill takes three integers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGCHLD) };
    assert_eq!(sent, 0);
}
