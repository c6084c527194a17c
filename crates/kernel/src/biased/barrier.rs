//! A full barrier in all other threads of this process, if the kernel gives one.
//!
//! Source: `membarrier(2)` (`MEMBARRIER_CMD_PRIVATE_EXPEDITED`, since Linux 4.14).

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

const UNDECIDED: u8 = 0;
const THERE: u8 = 1;
const REFUSED: u8 = 2;

/// Decided once for the process, and given up at most once.
static MEMBARRIER: AtomicU8 = AtomicU8::new(UNDECIDED);

/// `membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)`, the first time: whether [`all_threads`]
/// works.
pub(super) fn is_there() -> bool {
    // Nothing is ordered by it. Of two threads that decide at once, the first is right.
    if MEMBARRIER.load(Ordering::Relaxed) == UNDECIDED {
        let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        let decided = if registered { THERE } else { REFUSED };
        let order = Ordering::Relaxed;
        let _ = MEMBARRIER.compare_exchange(UNDECIDED, decided, order, order);
    }
    MEMBARRIER.load(Ordering::Relaxed) == THERE
}

/// `membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)`; `false` if that was refused although it had been
/// promised, as by a filter of system calls that was installed since.
///
/// Then a pause stands in for it: no processor keeps a store to itself for so long, and who is stopped
/// has given out all of them.
pub(super) fn all_threads() -> bool {
    let done = membarrier(MembarrierCommand::PrivateExpedited).is_ok();
    if !done {
        MEMBARRIER.store(REFUSED, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    done
}

const PAUSE: Duration = Duration::from_millis(10);
