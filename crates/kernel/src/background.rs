//! A thread of a library's own, which the program it is in need not know of.
//!
//! Source: `pthread_create(3)`, `pthread_sigmask(3)`, `sched_setaffinity(2)`.

use std::thread::Builder;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::{Error, Result};
use crate::signal::{self, SignalSet};

/// `pthread_create()`: starts a thread that runs `body` beside the program's own.
///
/// All signals are blocked in it, so that a handler runs in a thread that expects it. A new thread
/// inherits the processors that its creator is bound to; this one may run on all that the process may have,
/// for whoever bound the caller meant the caller. It has the caller's scheduling policy and priority.
///
/// It ends when `body` returns, or with the process; nobody waits for it. A child of `fork` does not have it.
///
/// ```
/// let (say, heard) = std::sync::mpsc::channel();
/// switchboard_kernel::background::spawn("helper", move || drop(say.send(7)))?;
/// assert_eq!(heard.recv(), Ok(7));
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `EAGAIN`: `RLIMIT_NPROC`, the control group's limit on processes, or no memory for its stack.
///
/// # Limits
/// A name has at most 15 bytes.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    // A thread begins with the mask of its creator.
    let mask = signal::block(&SignalSet::all())?;
    let started = Builder::new().name(name.to_owned()).spawn(move || {
        run_anywhere();
        body();
    });
    drop(mask);
    started.map(drop).map_err(|error| {
        Error::new(
            "pthread_create",
            error.raw_os_error().map_or(Errno::AGAIN, Errno::from_raw_os_error),
        )
    })
}

/// Where that is refused, the thread stays where it is.
fn run_anywhere() {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::MAX_CPU {
        all.set(cpu);
    }
    // The kernel leaves out those that the control group does not allow.
    let _ = sched_setaffinity(None, &all);
}
