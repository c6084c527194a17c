//! The kernel's side of a futex.
//!
//! Source: the kernel's `kernel/futex/waitwake.c`: who waits takes the lock of the queue, and only then
//! compares the word; who wakes takes the lock. Those who wait longest are woken first. The full barriers on
//! the way are left out: nothing may rely on them but that lock.
//!
//! A wait has no deadline here: who is not woken hangs, which loom reports. Only where a model has deaths
//! ([`with_looks`]), a wait that has a deadline may end for no reason at any time.

use core::cell::Cell;

use loom::sync::{Condvar, Mutex};
use switchboard_kernel::Result;
pub(crate) use switchboard_kernel::futex::Waited;

use super::atomic::AtomicU32;
use super::death::goes_on;
use crate::io::Deadline;
use crate::real_std::sync::OnceLock;

/// Who sleeps on a word.
#[derive(Debug, Default)]
pub(crate) struct Sleepers(OnceLock<Queue>);

#[derive(Debug)]
struct Queue {
    /// How many there are.
    count: Mutex<u32>,
    woken: Condvar,
}

loom::lazy_static! {
    static ref LOOKS: Looks = Looks(Cell::new(false));
}

struct Looks(Cell<bool>);

/// From now on in this run of the model, time passes: waits with a deadline come to it.
pub(crate) fn with_looks() {
    LOOKS.0.set(true);
}

impl Sleepers {
    fn queue(&self) -> &Queue {
        self.0.get_or_init(|| Queue { count: Mutex::new(0), woken: Condvar::new() })
    }
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> Result<Waited> {
    if !goes_on() {
        return Ok(Waited::Woken);
    }
    if LOOKS.0.get() && deadline != Deadline::NEVER {
        loom::thread::yield_now();
        let changed = word.glimpse() != expected;
        return Ok(if changed { Waited::ValueChanged } else { Waited::TimedOut });
    }
    let queue = word.sleepers().queue();
    let mut count = queue.count.lock().expect("nobody panics with it");
    if word.glimpse() != expected {
        return Ok(Waited::ValueChanged);
    }
    *count += 1;
    drop(queue.woken.wait(count).expect("nobody panics with it"));
    Ok(Waited::Woken)
}

pub(crate) fn wake(word: &AtomicU32, at_most: u32) -> Result<u32> {
    Ok(if goes_on() { wake_now(word, at_most) } else { 0 })
}

/// Without a step of its own.
pub(super) fn wake_now(word: &AtomicU32, at_most: u32) -> u32 {
    let queue = word.sleepers().queue();
    let mut count = queue.count.lock().expect("nobody panics with it");
    let woken = at_most.min(*count);
    *count -= woken;
    (0..woken).for_each(|_| queue.woken.notify_one());
    woken
}
