//! What can be known only before `main` runs: which standard streams the process was started with.
//!
//! Source: `execve(2)`, `fcntl(2)` (`F_GETFD`), the System V ABI's section on initialization
//! functions (`.init_array`).
//!
//! A number of 0, 1 and 2 that is closed would be given to the next file that is opened. Rust's
//! runtime keeps that from happening: before `main` it opens `/dev/null` under it, for reading and
//! writing, just as others do who want `/dev/null` there (`daemon(3)`, Python's `DEVNULL`). From then
//! on nothing tells the two apart. So this looks when the program is loaded.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each standard stream that was closed. Written once, while the program is loaded and has
/// one thread of ours at most; so relaxed ordering suffices.
static CLOSED: AtomicU8 = AtomicU8::new(0);

// SAFETY: the C library calls what is in this section with its own arguments, which a C function may
// ignore, once it is initialized itself. `look` needs nothing else: it makes system calls, uses none
// of Rust's runtime, and cannot panic.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = look;

extern "C" fn look() {
    for number in 0..3 {
        // SAFETY: F_GETFD takes any number, open or not, and changes nothing.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// `fcntl(number, F_GETFD)`, asked when the program was loaded: whether standard input (0), output
/// (1) or error (2) was closed. Reading one that was gives nothing and writing to it succeeds, since
/// `/dev/null` was opened in its place: what is written is lost without an error.
///
/// In a program that loads this library later (`dlopen`), what was so then.
#[must_use]
pub fn started_without(number: i32) -> bool {
    (0..3).contains(&number) && CLOSED.load(Ordering::Relaxed) & (1 << number) != 0
}
