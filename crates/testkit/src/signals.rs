//! Which signals a run of the tests begins with.
//!
//! Source: signal(7), "Signal dispositions": what is ignored stays ignored after `execve`.

#![allow(unsafe_code)]

/// Signals that programs which start others in the background ignore for them: `nohup`, and a shell at `&`.
const IGNORED_BY_OTHERS: &[i32] =
    &[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP];

/// Has these signals end processes again, in this process and in those that it starts: tests send them, and count on it.
pub fn restore_defaults() {
    for &signal in IGNORED_BY_OTHERS {
        // SAFETY: SIG_DFL is a valid disposition of each of them and runs no code.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
