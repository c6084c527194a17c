//! The marks in the victim: where the operation begins and ends.
//!
//! Source: `prctl(2)` (`PR_SET_NAME`). A mark gives the thread a name that nothing else has. Setting it
//! is harmless, and a tracer sees the call.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::child::{SUBJECT, instruction, report};

/// The name that begins the operation.
pub(super) const BEGIN: &CStr = c"killstep-begin";
/// The name that ends it.
pub(super) const END: &CStr = c"killstep-end";
/// Starts the line by which a victim says which thread it is.
pub(super) const HERE: &str = "killstep-thread ";
/// The line by which the harness says that it is attached.
pub(super) const GO: &str = "killstep-go";

static WATCHED: AtomicBool = AtomicBool::new(false);

/// In a victim: the operation begins. Blocks until the harness is attached; where no harness started
/// this process, nothing at all.
///
/// # Panics
/// When the harness does not attach: the victim's input says something else, or ends.
pub fn begin() {
    if std::env::var_os(SUBJECT).is_none() {
        return;
    }
    report(format_args!("{HERE}{}", rustix::thread::gettid().as_raw_nonzero()));
    assert_eq!(instruction().as_deref(), Some(GO), "the harness attaches");
    WATCHED.store(true, Ordering::Relaxed);
    let _ = rustix::thread::set_name(BEGIN);
}

/// In a victim: the operation has ended. One load where no harness looks on.
pub fn end() {
    // Relaxed: stored by this thread.
    if WATCHED.load(Ordering::Relaxed) {
        let _ = rustix::thread::set_name(END);
    }
}
