//! Answers `SIGBUS` for mappings whose file was cut short: a page of zeroes, and a mark.
//!
//! Source: `sigaction(2)`, `signal-safety(7)`, `mmap(2)` ("SIGBUS"); the table is a sequence lock for
//! each row (H.-J. Boehm, "Can seqlocks get along with programming language memory models?").
//!
//! The handler runs in any thread, in the middle of anything: it takes no lock and no memory, and
//! calls `mmap`, `sigaction`, `raise` and `pthread_sigmask` only.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

use libc::{c_int, c_void, siginfo_t};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked};

/// Mappings that can be watched at a time.
const ROWS: usize = 1024;

/// One watched range of addresses.
#[derive(Debug)]
struct Row {
    /// Whether somebody has it. Taken with Acquire, given back with Release: partner of itself.
    taken: AtomicBool,
    /// Even while the fields below are as they should be, odd while they change.
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 for none.
    len: AtomicUsize,
    page_bytes: AtomicUsize,
    writable: AtomicBool,
    /// Set by the handler.
    truncated: AtomicBool,
    /// Where in the range the page was that was found missing last. Written by the handler, before the mark.
    missing: AtomicUsize,
}

static TABLE: [Row; ROWS] = [const { Row::free() }; ROWS];

/// The action for `SIGBUS` that was there before; never freed, for the handler may be reading it.
static FORMER: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// A watched mapping; given up on drop, which has to come before its pages are unmapped.
#[derive(Debug)]
pub(super) struct Watch(&'static Row);

impl Watch {
    /// Takes a row of the table, which watches nothing yet.
    ///
    /// # Errors
    /// `ENOMEM`: the table is full; those of `sigaction(2)`.
    pub(super) fn new() -> Result<Self> {
        static INSTALLED: OnceLock<Result<()>> = OnceLock::new();
        (*INSTALLED.get_or_init(install))?;
        let row = TABLE.iter().find(|row| !row.taken.swap(true, Ordering::Acquire));
        let row = row.ok_or(Error::new("mmap", Errno::NOMEM))?;
        row.truncated.store(false, Ordering::Relaxed);
        Ok(Self(row))
    }

    /// Watches this range, which is mapped and stays so until another is set or this is dropped.
    /// A length of 0 is none.
    pub(super) fn set(&self, start: usize, len: usize, page_bytes: usize, writable: bool) {
        self.0.set(start, len, page_bytes, writable);
    }

    #[inline]
    pub(super) fn is_truncated(&self) -> bool {
        self.0.truncated.load(Ordering::Relaxed)
    }

    /// Where in the range a page was found missing.
    pub(super) fn missing(&self) -> Option<usize> {
        // Acquire: whoever sees the mark sees the place, of this fault or a later one.
        self.0.truncated.load(Ordering::Acquire).then(|| self.0.missing.load(Ordering::Relaxed))
    }
}

/// Whether no more mappings can be watched.
pub(super) fn is_full() -> bool {
    TABLE.iter().all(|row| row.taken.load(Ordering::Relaxed))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.set(0, 0, 1, false);
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Row {
    const fn free() -> Self {
        Self {
            taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            page_bytes: AtomicUsize::new(1),
            writable: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            missing: AtomicUsize::new(0),
        }
    }

    /// Only by who has taken it.
    fn set(&self, start: usize, len: usize, page_bytes: usize, writable: bool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Partner: the Acquire fence in `page_of`. Who sees a new field sees the odd version.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.page_bytes.store(page_bytes, Ordering::Relaxed);
        self.writable.store(writable, Ordering::Relaxed);
        // Partner: the first load in `page_of`. Who sees the even version sees all fields.
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The page that an address is in, if it is in this range.
    ///
    /// A row that changes meanwhile is passed over: the mapping that faults is borrowed by whoever
    /// touches it, so its own row cannot change.
    fn page_of(&self, address: usize) -> Option<Page> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let bytes = self.page_bytes.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        let offset = address.wrapping_sub(start);
        if !stable || offset >= len {
            return None;
        }
        let offset = offset - offset % bytes;
        Some(Page { start: start + offset, offset, bytes, writable })
    }
}

struct Page {
    start: usize,
    /// Where it is in its range.
    offset: usize,
    bytes: usize,
    writable: bool,
}

/// `sigaction(SIGBUS)`: once in a process.
fn install() -> Result<()> {
    // SAFETY: sigaction is integers and an optional function; all zeroes is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
    action.sa_sigaction = handler as *const () as usize;
    // On the alternate stack, if the thread has one: the mapping may be touched with little left.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // The former action has to be known before the first signal comes. Should another thread change
    // it between the calls, the second tells.
    keep_former(sigaction(None)?);
    let replaced = sigaction(Some(&action))?;
    keep_former(replaced);
    Ok(())
}

fn keep_former(action: libc::sigaction) {
    // Release: the handler, which loads it with Acquire, sees the whole of it.
    FORMER.store(Box::into_raw(Box::new(action)), Ordering::Release);
}

/// `sigaction(SIGBUS)`: sets an action, if one is given; returns the one before.
fn sigaction(action: Option<&libc::sigaction>) -> Result<libc::sigaction> {
    // SAFETY: as in `install`.
    let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both are whole sigactions, or null where that is allowed. The only handlers ever set
    // are `on_sigbus`, which is async-signal-safe, and the default.
    checked(unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut former) }).of("sigaction")?;
    Ok(former)
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: errno is this thread's own, at an address that stays.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. The interrupted code may be about to read it.
    let before = unsafe { *errno };
    // SAFETY: with SA_SIGINFO the kernel gives a whole siginfo_t.
    if !answer(unsafe { &*info }) {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Puts a page of zeroes where a watched mapping has none. `false` if it is not that.
fn answer(info: &siginfo_t) -> bool {
    if !matches!(info.si_code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR) {
        return false;
    }
    // SAFETY: for these codes the kernel fills in the address.
    let address = unsafe { info.si_addr() }.addr();
    let found = TABLE.iter().find_map(|row| Some((row, row.page_of(address)?)));
    let Some((row, page)) = found else { return false };
    row.missing.store(page.offset, Ordering::Relaxed);
    // Before the zeroes are there. Partner: the fence in `Memory::check_truncated`.
    row.truncated.store(true, Ordering::SeqCst);
    let protection =
        if page.writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let start = ptr::without_provenance_mut(page.start);
    // SAFETY: the page is part of a mapping of ours that cannot be unmapped now, because a thread
    // is in the middle of using it; all access to it is atomic, so it may change at any time.
    let mapped = unsafe { libc::mmap(start, page.bytes, protection, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Does what the former action would have done.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: set before the handler was installed, to a sigaction that is never freed.
    let Some(former) = (unsafe { FORMER.load(Ordering::Acquire).as_ref() }) else { return };
    // SAFETY: as in `on_sigbus`.
    let code = unsafe { (*info).si_code };
    // Not caused by what this thread does now: by a process, or a memory error found elsewhere.
    let sent = code <= 0 || code == libc::BUS_MCEERR_AO;
    match former.sa_sigaction {
        libc::SIG_IGN if sent => {}
        // A fault that is ignored kills all the same.
        libc::SIG_DFL | libc::SIG_IGN => die(signal, sent),
        handler => call(former, handler, signal, info, context),
    }
}

/// By the default action, with a core dump that shows the place.
fn die(signal: c_int, sent: bool) {
    // SAFETY: as in `install`; all zeroes is the default action.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    let _ = sigaction(Some(&default));
    // A fault comes again, as soon as this returns to what caused it.
    if sent {
        // SAFETY: it is delivered when the handler returns and unblocks it.
        unsafe { libc::raise(signal) };
    }
}

/// Calls a handler as the kernel would: with its signals blocked, and its kind of arguments.
fn call(
    former: &libc::sigaction,
    handler: usize,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    // Whatever is blocked here is unblocked when `on_sigbus` returns.
    // SAFETY: the set is whole, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const former.sa_mask, ptr::null_mut()) };
    if former.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with SA_SIGINFO the number is a function of these arguments.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO the number is a function of this argument.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}
