//! Threads that die between two steps.
//!
//! A step is whatever a thread does to a word, a futex or a mutex. A thread that dies unwinds; what is dropped
//! on the way does nothing. Then the kernel does what it does: it marks the mutexes that the thread held, and
//! wakes another for one that it was taking or letting go of.
//!
//! Source: the kernel's `kernel/futex/core.c`, `exit_robust_list()` and `handle_futex_death()`.

use core::cell::Cell;
use core::panic::AssertUnwindSafe;

use crate::real_std::panic::{catch_unwind, resume_unwind};
use crate::real_std::thread::panicking;

use super::pthread;

loom::thread_local! {
    static LIFE: Cell<Life> = Cell::new(Life::Long);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Long,
    /// So many more steps.
    Steps(usize),
}

/// What unwinds a thread that dies.
struct Died;

/// Does this with a life of so many steps; `None` if it died of it.
pub(crate) fn live<R>(steps: usize, act: impl FnOnce() -> R) -> Option<R> {
    LIFE.with(|life| life.set(Life::Steps(steps)));
    let result = catch_unwind(AssertUnwindSafe(act));
    LIFE.with(|life| life.set(Life::Long));
    match result {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Died>() => {
            pthread::die();
            None
        }
        Err(cause) => resume_unwind(cause),
    }
}

/// Before each step. False if this thread is dead, or a model has failed, and all is only being cleared away.
pub(super) fn goes_on() -> bool {
    if panicking() {
        return false;
    }
    match LIFE.with(Cell::get) {
        Life::Long => true,
        Life::Steps(0) => resume_unwind(Box::new(Died)),
        Life::Steps(left) => {
            LIFE.with(|life| life.set(Life::Steps(left - 1)));
            true
        }
    }
}
