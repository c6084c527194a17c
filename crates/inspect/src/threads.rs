//! Threads that work on one thing together: how many, and on which processors they begin.
//!
//! Source: `sched(7)`, `sched_setaffinity(2)`.

use std::io::Result;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

const MOST: usize = 8;

/// How many threads to do so much with, of which so much is worth one.
pub(crate) fn count(much: usize, worth_one: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(MOST).min(1 + much / worth_one)
}

/// Starts a thread, on another processor than this one's if it may use one.
///
/// # Errors
/// Where a user may have no more threads.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let here = sched_getcpu();
    Builder::new().spawn_scoped(scope, move || {
        leave(here);
        work()
    })
}

/// Leaves this processor, if it is on it. The kernel can leave two threads on one of them for 10 ms and longer while another one is idle:
/// that is a good part of a look. Afterwards it may move the thread as before.
fn leave(processor: usize) {
    if sched_getcpu() != processor || processor >= CpuSet::MAX_CPU {
        return;
    }
    let Ok(all) = sched_getaffinity(None) else { return };
    let mut others = all;
    others.unset(processor);
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        let _ = sched_setaffinity(None, &all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_use_every_processor_that_its_maker_may() {
        let all = sched_getaffinity(None).expect("a set");
        let begun = std::thread::scope(|scope| {
            let thread = start(scope, || sched_getaffinity(None)).expect("a thread");
            thread.join().expect("an end")
        });
        assert_eq!(begun.expect("a set"), all);
    }

    #[test]
    fn a_processor_is_left_if_there_is_another() {
        let all = sched_getaffinity(None).expect("a set");
        std::thread::spawn(move || {
            let first = sched_getcpu();
            let mut one = all;
            one.clear();
            one.set(first);
            // The kernel may bring it back at once, but not each time.
            let left = || {
                sched_setaffinity(None, &one).expect("a set of one");
                sched_setaffinity(None, &all).expect("the set from before");
                leave(first);
                assert_eq!(sched_getaffinity(None).expect("a set"), all);
                sched_getcpu() != first
            };
            assert!(all.count() == 1 || (0..1000).any(|_| left()));
            // On the only one that is left it stays.
            sched_setaffinity(None, &one).expect("a set of one");
            leave(first);
            assert_eq!((sched_getcpu(), sched_getaffinity(None).expect("a set")), (first, one));
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn not_more_than_the_work_is_worth() {
        assert_eq!((count(0, 10), count(9, 10)), (1, 1));
        assert!((1..=MOST).contains(&count(usize::MAX - 1, 1)));
    }
}
