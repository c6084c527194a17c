//! Barriers for others: all threads of this process, or of all processes that take part.
//!
//! Source: `membarrier(2)`: `MEMBARRIER_CMD_PRIVATE_EXPEDITED` (Linux 4.14) and
//! `MEMBARRIER_CMD_GLOBAL_EXPEDITED` (4.16).
//!
//! Of two threads, each of which stores something and then looks at what the other stores, one has to see the
//! other's. Where one of them does so a million times a second and the other hardly ever, the first needs no
//! fence: the second makes it pass a barrier.
//!
//! *Cost.* A system call, and an interruption of every processor that runs a thread that takes part: 0.2 to
//! some microseconds. A thread that does not run is not woken.
//!
//! *Refused*, by an old kernel or a filter of system calls: then the first must fence ([`take_part`] says so). A
//! call that is refused later on is replaced by a pause of 10 ms: no processor keeps a store to itself for so
//! long, and who is stopped has given out all of them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

const UNDECIDED: u8 = 0;
const THERE: u8 = 1;
const REFUSED: u8 = 2;

/// Decided once for the process, and given up at most once.
struct Decision(AtomicU8);

impl Decision {
    const fn new() -> Self {
        Self(AtomicU8::new(UNDECIDED))
    }

    fn is_there(&self, register: MembarrierCommand) -> bool {
        // Nothing is ordered by it. Of two threads that decide at once, the first is right.
        if self.0.load(Ordering::Relaxed) == UNDECIDED {
            let decided = if membarrier(register).is_ok() { THERE } else { REFUSED };
            let order = Ordering::Relaxed;
            let _ = self.0.compare_exchange(UNDECIDED, decided, order, order);
        }
        self.0.load(Ordering::Relaxed) == THERE
    }

    fn barrier(&self, command: MembarrierCommand) -> bool {
        let done = membarrier(command).is_ok();
        if !done {
            self.0.store(REFUSED, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
        done
    }
}

const PAUSE: Duration = Duration::from_millis(10);

static OWN_THREADS: Decision = Decision::new();
static EVERYWHERE: Decision = Decision::new();

/// Whether [`own_threads`] works; decided when it is asked first.
pub(crate) fn has_own_threads() -> bool {
    OWN_THREADS.is_there(MembarrierCommand::RegisterPrivateExpedited)
}

/// All threads of this process pass a barrier before this returns. `false` if that was refused although
/// [`has_own_threads`] had promised it: then a pause stood in for it.
pub(crate) fn own_threads() -> bool {
    OWN_THREADS.barrier(MembarrierCommand::PrivateExpedited)
}

/// Makes the threads of this process take part in barriers that others call for ([`everywhere`]). Whether they
/// do; if not, they have to fence by themselves.
///
/// A child of `fork` takes part too, until it executes another program.
#[must_use]
pub fn take_part() -> bool {
    EVERYWHERE.is_there(MembarrierCommand::RegisterGlobalExpedited)
}

/// All threads of all processes that [take part](take_part), and this one, pass a barrier before this returns.
pub fn everywhere() {
    // Whoever calls for a barrier need not take part in others'; a refusal is made up for by the pause.
    let _ = EVERYWHERE.barrier(MembarrierCommand::GlobalExpedited);
}
