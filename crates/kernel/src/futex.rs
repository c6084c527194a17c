//! Futexes: sleeping until a word in shared memory changes, and waking who sleeps there.
//!
//! Source: `futex(2)`, `futex(7)`, the kernel's `Documentation/userspace-api/futex2.rst`.
//!
//! A futex is no object: it is a word of 32 bits that the processes map, wherever each has it, and a
//! queue of sleepers that the kernel keeps for it while there are some. All calls here are of the
//! shared form (without `FUTEX_PRIVATE_FLAG`), which works between processes and threads alike.
//!
//! *The rule.* Who wakes changes the word first, then wakes. Who waits looks at the word, and waits
//! only for as long as it is what was seen: the kernel compares again when it puts the caller to
//! sleep, so a change in between is never slept through.
//!
//! *Signals.* A signal handler that runs meanwhile does not end a wait: it starts again with the
//! same expected value and the same deadline. A wake-up that arrives in that moment is not lost if
//! the rule is kept, for then the word has changed and the answer is [`Waited::ValueChanged`].
//!
//! *Death.* A waiter that is killed leaves the queue. A process that is killed before it wakes
//! others wakes nobody: what it held, the word goes on saying. Wait with a deadline and watch its
//! pidfd, or use a robust [`crate::pthread::Mutex`].

#![allow(unsafe_code)]

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::ClockId;

use crate::error::{Error, Result};
use crate::io::{Deadline, retry};

/// Every bit: waits for and wakes all.
pub const ALL: NonZeroU32 = NonZeroU32::MAX;

/// Words that one [`wait_any`] takes at most (`FUTEX_WAITV_MAX`).
pub const WAIT_ANY_MAX: usize = 128;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody woke the caller; also now and then for no reason, so look at the word again.
    Woken,
    /// The word is not what was expected (`EAGAIN`): nothing to sleep for.
    ValueChanged,
    /// The deadline passed.
    TimedOut,
}

/// `futex(FUTEX_WAIT_BITSET)`: blocks while the word is `expected`, until woken or the deadline.
///
/// For a value that is not expected it returns at once. The deadline is one of the monotonic clock.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::futex::{Waited, wait, wake};
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::shared_words::SharedWords;
///
/// let slot = SharedWords::create(4096)?.slot(0, 4)?;
/// let word = &slot.words()[0];
/// assert_eq!(wait(word, 0, Deadline::after(Duration::ZERO))?, Waited::TimedOut);
/// assert_eq!(wait(word, 1, Deadline::NEVER)?, Waited::ValueChanged);
/// assert_eq!(wake(word, 1)?, 0);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `EFAULT` when the page of the word cannot be brought in: of a file that was truncated, or a full
/// disk. `ENOMEM`.
#[inline]
pub fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> Result<Waited> {
    wait_bits(word, expected, ALL, deadline)
}

/// `futex(FUTEX_WAIT_BITSET)`: as [`wait`], to be woken only by a [`wake_bits`] with which it has a
/// bit in common, or by [`wake`].
///
/// # Errors
/// As [`wait`].
#[inline]
pub fn wait_bits(
    word: &AtomicU32,
    expected: u32,
    bits: NonZeroU32,
    deadline: Deadline,
) -> Result<Waited> {
    // Absolute, so that a wait that starts again ends when the first would have.
    let until = monotonic(deadline);
    let found = retry("futex", || {
        futex::wait_bitset(word, futex::Flags::empty(), expected, until.as_ref(), bits)
    });
    match found {
        Ok(()) => Ok(Waited::Woken),
        Err(error) => ended(error).ok_or(error),
    }
}

/// `futex(FUTEX_WAKE)`: wakes up to `count` of those who wait on the word, those who wait longest
/// first (those of a real-time priority before them). Returns how many. Never blocks.
///
/// # Errors
/// `EFAULT` as for [`wait`]; `EINVAL` when the word is the lock of somebody with priority
/// inheritance.
#[inline]
pub fn wake(word: &AtomicU32, count: u32) -> Result<u32> {
    wake_bits(word, count, ALL)
}

/// `futex(FUTEX_WAKE)`: as [`wake`], by an address of this process, where nothing has to be any more: the
/// kernel looks for sleepers there, and at nothing else.
///
/// For who knows where another thread sleeps, but does not keep that memory mapped. Whoever sleeps on what lies
/// there by now wakes for no reason, as may happen to everybody who sleeps on a futex.
///
/// # Errors
/// `EFAULT` when nothing is mapped there; `EINVAL` when it is not a multiple of 4.
pub fn wake_at(address: usize, count: u32) -> Result<u32> {
    if count == 0 {
        return Ok(0);
    }
    let count = count.min(COUNT_MAX);
    // SAFETY: `FUTEX_WAKE` takes the address as a key. It neither reads nor writes there, whatever it is.
    let woken = unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, count) };
    // More than 2 GiB sleepers there are not.
    u32::try_from(woken).map_err(|_| Error::last("futex"))
}

/// `futex(FUTEX_WAKE_BITSET)`: as [`wake`], but only those that have a bit in common.
///
/// # Errors
/// As [`wake`].
#[inline]
pub fn wake_bits(word: &AtomicU32, count: u32, bits: NonZeroU32) -> Result<u32> {
    if count == 0 {
        // The kernel would wake one all the same.
        return Ok(0);
    }
    let count = count.min(COUNT_MAX);
    let woken = retry("futex", || futex::wake_bitset(word, futex::Flags::empty(), count, bits))?;
    Ok(u32::try_from(woken).unwrap_or(u32::MAX))
}

/// `futex(FUTEX_CMP_REQUEUE)`: if the word is `expected`, wakes up to `wake_count` of those who wait
/// there, and lets up to `move_count` of the others wait on another word from now on. Returns how
/// many were woken or moved; `None` when the word was something else, and nothing happened.
///
/// The two words are different ones.
///
/// # Errors
/// `EINVAL` when both are the same word; `EFAULT` as for [`wait`].
pub fn requeue(
    word: &AtomicU32,
    expected: u32,
    wake_count: u32,
    other: &AtomicU32,
    move_count: u32,
) -> Result<Option<u32>> {
    if std::ptr::eq(word, other) {
        return Err(Error::new("futex", Errno::INVAL));
    }
    let flags = futex::Flags::empty();
    let (wake_count, move_count) = (wake_count.min(COUNT_MAX), move_count.min(COUNT_MAX));
    let found =
        retry("futex", || futex::cmp_requeue(word, flags, wake_count, move_count, other, expected));
    match found {
        Ok(count) => Ok(Some(u32::try_from(count).unwrap_or(u32::MAX))),
        Err(error) if error.errno() == libc::EAGAIN => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a wait for several words ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitedAny {
    /// Somebody woke the caller at the word of this index; there may be others.
    Woken(usize),
    /// One of the words is not what was expected; which one, the words say.
    ValueChanged,
    /// The deadline passed.
    TimedOut,
}

/// `futex_waitv()`: blocks while every word is what is expected of it, until woken at any of them
/// or the deadline.
///
/// Since Linux 5.16.
///
/// # Errors
/// `ENOSYS` on an older kernel, of the kind [`crate::ErrorKind::NotSupported`]; `EINVAL` for no
/// words and for more than [`WAIT_ANY_MAX`]; else as [`wait`].
pub fn wait_any(words: &[(&AtomicU32, u32)], deadline: Deadline) -> Result<WaitedAny> {
    if words.len() > WAIT_ANY_MAX {
        return Err(Error::new("futex_waitv", Errno::INVAL));
    }
    // Room for the most there may be takes as long to fill as a part of the call.
    if words.len() <= FEW {
        wait_among(words, &mut [futex::Wait::new(); FEW], deadline)
    } else {
        wait_among(words, &mut [futex::Wait::new(); WAIT_ANY_MAX], deadline)
    }
}

/// Words of most waits.
const FEW: usize = 8;

/// There is room for all words.
#[inline]
fn wait_among(
    words: &[(&AtomicU32, u32)],
    room: &mut [futex::Wait],
    deadline: Deadline,
) -> Result<WaitedAny> {
    let until = monotonic(deadline);
    let waiters = &mut room[..words.len()];
    for (waiter, (word, expected)) in waiters.iter_mut().zip(words) {
        waiter.val = u64::from(*expected);
        waiter.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
        waiter.flags = futex::WaitFlags::SIZE_U32;
    }
    let flags = futex::WaitvFlags::empty();
    let found =
        retry("futex_waitv", || futex::waitv(waiters, flags, until.as_ref(), ClockId::Monotonic));
    match found {
        Ok(index) => Ok(WaitedAny::Woken(index)),
        Err(error) => match ended(error) {
            Some(Waited::TimedOut) => Ok(WaitedAny::TimedOut),
            Some(_) => Ok(WaitedAny::ValueChanged),
            None => Err(error),
        },
    }
}

/// The kernel takes counts for signed numbers.
const COUNT_MAX: u32 = i32::MAX.cast_unsigned();

/// What is no error but a way for a wait to end.
fn ended(error: Error) -> Option<Waited> {
    match error.errno() {
        libc::EAGAIN => Some(Waited::ValueChanged),
        libc::ETIMEDOUT => Some(Waited::TimedOut),
        _ => None,
    }
}

/// A deadline as the kernel and the C library take it: a time of the monotonic clock; none for ever.
pub(crate) fn monotonic(deadline: Deadline) -> Option<Timespec> {
    deadline.remaining().map(|left| after(ClockId::Monotonic, left))
}

/// The same by the real-time clock, for calls that know no other.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn realtime(deadline: Deadline) -> Option<Timespec> {
    deadline.remaining().map(|left| after(ClockId::Realtime, left))
}

/// A time as the C library takes it; without one, the latest there is.
pub(crate) fn c_timespec(time: Option<Timespec>) -> libc::timespec {
    libc::timespec {
        tv_sec: time.map_or(libc::time_t::MAX, |time| time.tv_sec),
        tv_nsec: time.map_or(0, |time| time.tv_nsec),
    }
}

/// `left` from now, by this clock; what does not fit becomes the latest that does.
/// That long from now, by that clock.
pub(crate) fn after(clock: ClockId, left: Duration) -> Timespec {
    const NANOSECONDS: i64 = 1_000_000_000;
    let now = rustix::time::clock_gettime(clock);
    let nanoseconds = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / NANOSECONDS),
        tv_nsec: nanoseconds % NANOSECONDS,
    }
}
