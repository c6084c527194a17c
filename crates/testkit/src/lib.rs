//! Test support: child processes that play a role, scratch names that clean up, skips that count.
//!
//! Development only. Tests talk about processes, so the subject of a test runs in processes of its
//! own: [`child::Child::role`] starts the test binary again as another process.
//!
//! [`gallery`] has groups of processes that wait in known ways.
//!
//! [`killstep`] kills a process at every instruction of an operation. It exists on x86-64 only.
//!
//! Rules for tests: wait for an event with a deadline, never sleep for luck; leave nothing behind;
//! pass in parallel, repeatedly, as root and as an ordinary user.

#![deny(unsafe_code)]

pub mod browser;
pub mod child;
pub mod fork;
pub mod gallery;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod killstep;
mod port;
pub mod ring;
pub mod scratch;
pub mod share;
pub mod signals;
pub mod skip;
pub mod tmux;
pub mod user_namespace;

pub use child::{Child, DEADLINE};
pub use port::free_port;
pub use scratch::{Scratch, unique};
