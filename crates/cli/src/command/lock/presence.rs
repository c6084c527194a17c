//! The mark of a command that runs with the lock: a byte of the name's file, locked, which it inherits.
//!
//! Source: `fcntl(2)` (open file description locks), `prctl(2)` (`PR_SET_PDEATHSIG`).
//!
//! When a holder is killed, the kernel first lets go of its lock and then kills its command. Until the command
//! is gone, which may take a moment, its mark stays, and whoever gets the lock waits for it. Children of the
//! command have the mark too, and are not killed; so the wait is bounded. A holder that is not killed takes the
//! mark back itself.
//!
//! | bytes from [`FREE_FROM`] | mark of |
//! |---|---|
//! | 0 to 1023 | one that has the lock alone |
//! | 1024 to 2047 | one that shares it |
//! | 0 to N − 1 | one that has one of N slots, of a name that is used for slots |

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::file_lock::{Guard, Lock, Mode, Range};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::sync::FREE_FROM;

/// How long the command of a killed holder is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks for a free byte among several, which the kernel cannot wait for.
const PAUSE: Duration = Duration::from_millis(5);

const BYTES: u64 = 1024;

/// How the lock is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Writer,
    Reader,
    /// One of so many.
    Slot(u32),
}

/// The name's file, opened anew: its locks are not those of the object.
pub(super) fn open(memory: impl AsFd) -> kernel::Result<File> {
    let path = format!("/proc/self/fd/{}", memory.as_fd().as_raw_fd());
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| kernel::Error::from_raw("open", error.raw_os_error().unwrap_or_default()))
}

/// With the lock held: waits until no command of a killed holder is left, then marks. Says whether all
/// were gone in time. There is no mark if all bytes are taken by what such commands left.
pub(super) fn mark(file: &File, kind: Kind) -> kernel::Result<(Option<Guard<'_>>, bool)> {
    let writers = bytes(0, BYTES);
    let readers = bytes(BYTES, BYTES);
    match kind {
        Kind::Writer => {
            let is_clear = is_clear(file, bytes(0, 2 * BYTES))?;
            Ok((free_byte(file, writers)?, is_clear))
        }
        Kind::Reader => {
            let is_clear = is_clear(file, writers)?;
            Ok((free_byte(file, readers)?, is_clear))
        }
        Kind::Slot(slots) => {
            let slots = u64::from(slots);
            let deadline = Deadline::after(PATIENCE);
            loop {
                if let Some(guard) = free_byte(file, bytes(0, slots))? {
                    return Ok((Some(guard), true));
                }
                if deadline.passed() {
                    return Ok((free_byte(file, bytes(slots, 2 * BYTES - slots))?, false));
                }
                sleep(PAUSE);
            }
        }
    }
}

fn bytes(start: u64, len_bytes: u64) -> Range {
    Range { start: FREE_FROM + start, len_bytes }
}

/// Marks are exclusive: what can be locked in shared mode has none, and two can look at a time.
fn is_clear(file: &File, range: Range) -> kernel::Result<bool> {
    let lock = Lock::open_file(Mode::Shared).range(range);
    Ok(lock.lock_until(file, Deadline::after(PATIENCE))?.is_some())
}

fn free_byte(file: &File, range: Range) -> kernel::Result<Option<Guard<'_>>> {
    for start in range.start..range.start + range.len_bytes {
        let lock = Lock::open_file(Mode::Exclusive).range(Range { start, len_bytes: 1 });
        if let Some(guard) = lock.try_lock(file)? {
            return Ok(Some(guard));
        }
    }
    Ok(None)
}
