//! Handlers that do one safe thing, chosen from a fixed menu.
//!
//! Source: `sigaction(2)`, `signal-safety(7)`, the self-pipe trick.
//!
//! A handler may run between any two instructions of any thread, so no code of the program's runs
//! in one: only [`run`], which touches nothing but atomics that live for ever, and makes at most
//! the system calls `getpid` and `write`.

#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_void};
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::{Fields, Received, Signal};
use crate::error::{Error, OfCall, Result, checked};
use crate::{io, pipe};

/// What a [`Handler`] does when its signal comes.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// `SIG_IGN`: nothing; the signal is discarded. A program that is executed inherits this.
    Ignore,
    /// Sets this to true, with release ordering.
    Flag(&'static AtomicBool),
    /// Adds one to this. Merged signals count once.
    Count(&'static AtomicU64),
    /// Adds one to an eventfd: [`Handler::descriptor`] becomes readable, [`Handler::wakes`] takes
    /// the count.
    Wake,
    /// Writes what is known of the signal to a pipe: [`Handler::descriptor`] becomes readable,
    /// [`Handler::next_record`] takes it, with sender and value.
    Record,
}

/// `sigaction(signal)`: as long as this lives, the signal does what its [`Action`] says, in
/// whichever thread of the process it comes; then again what it did before.
///
/// A blocked signal waits until it is unblocked. After `execve` the default holds again. In a
/// forked child that executes nothing the handler still runs, but does not write to the parent's
/// descriptor.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use switchboard_kernel::signal::{self, Action, Handler, Signal};
///
/// static RELOAD: AtomicBool = AtomicBool::new(false);
/// let _handler = Handler::install(Signal::HUP, Action::Flag(&RELOAD))?;
/// signal::send_thread(std::process::id(), signal::thread_id(), Signal::HUP)?;
/// assert!(RELOAD.load(Ordering::Acquire));
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the old action is restored when this is dropped"]
pub struct Handler {
    signal: Signal,
    ours: libc::sighandler_t,
    before: Disposition,
    readable: Option<OwnedFd>,
    /// Kept open until the handler runs no more. None for an eventfd, which is `readable`.
    writable: Option<OwnedFd>,
}

impl Handler {
    /// Installs an action; blocked calls that can be restarted are (`SA_RESTART`).
    ///
    /// # Errors
    /// `EBUSY`: a handler of this kind is there for the signal already; `EINVAL`: SIGKILL and
    /// SIGSTOP, which cannot be handled, and SIGSEGV, SIGBUS, SIGFPE and SIGILL, after which the
    /// instruction at fault would be repeated for ever; `EMFILE` at `RLIMIT_NOFILE`; `ENFILE`.
    ///
    /// # Limits
    /// One per signal and process. The pipe of [`Action::Record`] holds about 3000 records that
    /// were not taken yet; further ones are counted in [`Handler::lost`].
    pub fn install(signal: Signal, action: Action) -> Result<Self> {
        install(signal, action, libc::SA_RESTART)
    }

    /// Installs an action; a blocked call of the thread in which the handler runs ends with `EINTR`.
    ///
    /// Of this crate, only calls that say so return `EINTR`; all others go on waiting.
    ///
    /// # Errors
    /// As [`Handler::install`].
    ///
    /// # Limits
    /// As [`Handler::install`].
    pub fn install_interrupting(signal: Signal, action: Action) -> Result<Self> {
        install(signal, action, 0)
    }

    /// The signal that is handled.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// What becomes readable when the signal comes, to be polled; only [`Action::Wake`] and
    /// [`Action::Record`] have it.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.readable.as_ref().map(AsFd::as_fd)
    }

    /// `read(eventfd)`: how often the handler ran since this was last asked; 0 if it did not, or
    /// its action is not [`Action::Wake`]. Never blocks.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn wakes(&self) -> Result<u64> {
        let mut count = [0; 8];
        let found = !self.records() && self.read(&mut count)?;
        Ok(if found { u64::from_ne_bytes(count) } else { 0 })
    }

    /// `read(pipe)`: the next signal that was recorded; `None` if there is none, or its action is
    /// not [`Action::Record`]. Never blocks.
    ///
    /// When several threads run the handler at once, records may change places.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn next_record(&self) -> Result<Option<Received>> {
        let mut record = [0; RECORD_BYTES];
        if !self.records() || !self.read(&mut record)? {
            return Ok(None);
        }
        decode(record).received("read").map(Some)
    }

    /// How many signals came that could not be recorded, because the pipe was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.slot().lost.load(Ordering::Relaxed)
    }

    fn records(&self) -> bool {
        self.writable.is_some()
    }

    fn read(&self, buffer: &mut [u8]) -> Result<bool> {
        let Some(fd) = &self.readable else { return Ok(false) };
        match io::read(fd, buffer) {
            Ok(n) => Ok(n == buffer.len()),
            Err(error) if error.errno() == libc::EAGAIN => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn slot(&self) -> &'static Slot {
        slot(self.signal)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // Somebody who installed another handler on top keeps it. If that one calls this one on,
        // it finds an empty slot.
        if current(self.signal).is_ok_and(|now| now.0.sa_sigaction == self.ours) {
            let _ = set_disposition(self.signal, &self.before.0);
        }
        self.slot().release();
    }
}

fn install(signal: Signal, action: Action, flags: c_int) -> Result<Handler> {
    let faults = [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL];
    if faults.contains(&signal) {
        return Err(Error::new("sigaction", Errno::INVAL));
    }
    let (readable, writable) = match action {
        Action::Wake => {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            (Some(rustix::event::eventfd(0, flags).of("eventfd")?), None)
        }
        Action::Record => {
            let (reader, writer) = pipe::pipe_nonblocking()?;
            (Some(reader), Some(writer))
        }
        _ => (None, None),
    };
    let slot = slot(signal);
    slot.claim(action, readable.as_ref(), writable.as_ref())?;
    let new = disposition(action, flags);
    let ours = new.sa_sigaction;
    match set_disposition(signal, &new) {
        Ok(before) => Ok(Handler { signal, ours, before, readable, writable }),
        Err(error) => {
            slot.release();
            Err(error)
        }
    }
}

/// `sigaction(signal)`: whether the signal is ignored in this process, as it is from the start under
/// `nohup(1)`. A program should leave SIGHUP so.
///
/// # Errors
/// None for a [`Signal`] that can be caught; `EINVAL` otherwise.
pub fn is_ignored(signal: Signal) -> Result<bool> {
    Ok(current(signal)?.0.sa_sigaction == libc::SIG_IGN)
}

/// What a signal does, as `sigaction(2)` has it.
struct Disposition(libc::sigaction);

impl core::fmt::Debug for Disposition {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0.sa_sigaction {
            libc::SIG_DFL => "default",
            libc::SIG_IGN => "ignored",
            _ => "handled",
        })
    }
}

fn disposition(action: Action, flags: c_int) -> libc::sigaction {
    // SAFETY: sigaction is integers; all zeroes is a valid value: the default action, no flags and
    // no further signals blocked.
    let mut new: libc::sigaction = unsafe { core::mem::zeroed() };
    if matches!(action, Action::Ignore) {
        new.sa_sigaction = libc::SIG_IGN;
    } else {
        new.sa_sigaction = entry(action);
        new.sa_flags = flags | libc::SA_ONSTACK;
        if matches!(action, Action::Record) {
            // Only there is it worth while that the kernel writes down what it knows.
            new.sa_flags |= libc::SA_SIGINFO;
        }
    }
    new
}

fn set_disposition(signal: Signal, new: &libc::sigaction) -> Result<Disposition> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `new` is SIG_IGN, an entry to `run` of the kind that its flags say, which is safe in any
    // thread at any time, or what this function returned before; both places are valid.
    let result = unsafe { libc::sigaction(signal.number(), new, before.as_mut_ptr()) };
    checked(result).of("sigaction")?;
    // SAFETY: zeroed, and written by sigaction.
    Ok(Disposition(unsafe { before.assume_init() }))
}

fn current(signal: Signal) -> Result<Disposition> {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the current one, to a valid place.
    let result = unsafe { libc::sigaction(signal.number(), ptr::null(), now.as_mut_ptr()) };
    checked(result).of("sigaction")?;
    // SAFETY: zeroed, and written by sigaction.
    Ok(Disposition(unsafe { now.assume_init() }))
}

/// The address of a way into [`run`], as `sigaction(2)` takes it.
fn entry(action: Action) -> libc::sighandler_t {
    match action {
        Action::Record => {
            run_with as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)
                as libc::sighandler_t
        }
        _ => run_without as extern "C" fn(c_int) as libc::sighandler_t,
    }
}

/// With what the kernel knows of the signal.
extern "C" fn run_with(number: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    run(number, info);
}

/// Without it.
extern "C" fn run_without(number: c_int) {
    run(number, ptr::null());
}

/// What the handler of one signal finds. Never freed, so a handler that is late finds it too.
struct Slot {
    /// Whether a [`Handler`] has it. Swapped with acquire and released with release ordering, so
    /// that the next owner sees the last one's end.
    taken: AtomicBool,
    /// The process that installed it; others (forked ones) do not write to its descriptor.
    owner: AtomicU32,
    flag: AtomicPtr<AtomicBool>,
    count: AtomicPtr<AtomicU64>,
    /// Where to write, or -1. Pairs with `running`, see [`Slot::release`].
    fd: AtomicI32,
    /// Whether a record is written there, and not a count.
    records: AtomicBool,
    /// How many threads are in [`run`] for this signal.
    running: AtomicU32,
    lost: AtomicU64,
}

/// By signal number: up to 64, on MIPS up to 127.
static SLOTS: [Slot; 128] = [const { Slot::new() }; 128];

fn slot(signal: Signal) -> &'static Slot {
    // Numbers that `Signal` allows are below 128.
    &SLOTS[signal.number().cast_unsigned() as usize % SLOTS.len()]
}

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            owner: AtomicU32::new(0),
            flag: AtomicPtr::new(ptr::null_mut()),
            count: AtomicPtr::new(ptr::null_mut()),
            fd: AtomicI32::new(-1),
            records: AtomicBool::new(false),
            running: AtomicU32::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Fills it in. The handler is installed only afterwards, by a system call.
    fn claim(
        &self,
        action: Action,
        readable: Option<&OwnedFd>,
        writable: Option<&OwnedFd>,
    ) -> Result<()> {
        if self.taken.swap(true, Ordering::Acquire) {
            return Err(Error::new("sigaction", Errno::BUSY));
        }
        let own = std::process::id();
        if self.owner.swap(own, Ordering::Relaxed) != own {
            // Threads of the process that this one was forked from are not in it here.
            self.running.store(0, Ordering::Relaxed);
        }
        self.lost.store(0, Ordering::Relaxed);
        self.records.store(writable.is_some(), Ordering::Relaxed);
        match action {
            Action::Flag(flag) => {
                self.flag.store(ptr::from_ref(flag).cast_mut(), Ordering::Release);
            }
            Action::Count(count) => {
                self.count.store(ptr::from_ref(count).cast_mut(), Ordering::Release);
            }
            Action::Ignore | Action::Wake | Action::Record => {}
        }
        let fd = writable.or(readable).map_or(-1, AsRawFd::as_raw_fd);
        self.fd.store(fd, Ordering::SeqCst);
        Ok(())
    }

    /// Empties it, and waits until no thread can be writing to its descriptor any more.
    fn release(&self) {
        self.flag.store(ptr::null_mut(), Ordering::Release);
        self.count.store(ptr::null_mut(), Ordering::Release);
        // This store and the load of `running` below are ordered against the increment of `running`
        // and the load of `fd` in `run` (all SeqCst): either the handler sees -1, or this sees it.
        self.fd.store(-1, Ordering::SeqCst);
        // In a forked child the threads that were in it are gone, and would never come out of it.
        if self.owner.load(Ordering::Relaxed) == std::process::id() {
            while self.running.load(Ordering::SeqCst) != 0 {
                std::thread::yield_now();
            }
        }
        self.taken.store(false, Ordering::Release);
    }
}

/// What runs when a signal comes. Only atomics and system calls: no lock, no memory, no panic.
fn run(number: c_int, info: *const libc::siginfo_t) {
    let Some(slot) = usize::try_from(number).ok().and_then(|number| SLOTS.get(number)) else {
        return;
    };
    // SAFETY: null, or from a `&'static`.
    if let Some(flag) = unsafe { slot.flag.load(Ordering::Acquire).as_ref() } {
        flag.store(true, Ordering::Release);
    }
    // SAFETY: as above.
    if let Some(count) = unsafe { slot.count.load(Ordering::Acquire).as_ref() } {
        count.fetch_add(1, Ordering::Release);
    }
    // Where nothing is to be written nobody has to wait for the end of this. An action that writes has its
    // descriptor here before it is installed.
    if slot.fd.load(Ordering::Acquire) < 0 {
        return;
    }
    slot.running.fetch_add(1, Ordering::SeqCst);
    let fd = slot.fd.load(Ordering::SeqCst);
    if fd >= 0 {
        // SAFETY: the description, if there is one, is the kernel's; `fd` is open, because `release` waits
        // for `running` before it lets the descriptor be closed.
        unsafe { tell(slot, fd, info) };
    }
    slot.running.fetch_sub(1, Ordering::SeqCst);
}

/// # Safety
/// `fd` is the slot's own open descriptor, non-blocking; `info` is the kernel's, or null.
unsafe fn tell(slot: &Slot, fd: c_int, info: *const libc::siginfo_t) {
    // SAFETY: getpid has no conditions.
    let own = unsafe { libc::getpid() };
    if own.cast_unsigned() != slot.owner.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: it has no conditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's, and always there.
    let before = unsafe { errno.read() };
    let written = if slot.records.load(Ordering::Relaxed) {
        // SAFETY: as the caller promised.
        match unsafe { info.as_ref() } {
            Some(info) => {
                // SAFETY: as the caller promised.
                let record = encode(unsafe { Fields::of(info) });
                // SAFETY: the bytes are there; a write of fewer than PIPE_BUF is all or nothing. Not
                // `write(3)`, which is a cancellation point.
                unsafe { libc::syscall(libc::SYS_write, fd, record.as_ptr(), record.len()) }
            }
            // Somebody else's handler passed a signal on to an entry of before.
            None => -1,
        }
    } else {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_write, fd, one.as_ptr(), one.len()) }
    };
    if written < 0 {
        slot.lost.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: as above. What was interrupted may be about to look at it.
    unsafe { errno.write(before) };
}

/// Five integers; a divisor of no page size, but `PIPE_BUF` keeps them whole.
const RECORD_BYTES: usize = 20;

fn encode(fields: Fields) -> [u8; RECORD_BYTES] {
    let Fields { number, code, pid, uid, value } = fields;
    let mut record = [0; RECORD_BYTES];
    let words = [number, code, pid.cast_signed(), uid.cast_signed(), value];
    for (place, word) in record.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    record
}

fn decode(record: [u8; RECORD_BYTES]) -> Fields {
    let mut words = record.chunks_exact(4).map(|word| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(word);
        i32::from_ne_bytes(bytes)
    });
    let mut next = || words.next().unwrap_or_default();
    let (number, code) = (next(), next());
    let (pid, uid) = (next().cast_unsigned(), next().cast_unsigned());
    Fields { number, code, pid, uid, value: next() }
}
