//! Removes objects that nobody uses, keeps what they held in a journal, and brings them back.
//!
//! [`target::Target`] is an object that can be removed, [`journal::Journal`] where it is kept, [`remove::remove`] removes one, and
//! [`restore::restore`] makes it again; [`recover`] opens what an interrupted run has closed. docs/design/clean.md says for
//! each kind how nobody is hurt.
//!
//! What this crate does not do: it decides nothing about what is leaked, and neither prints nor asks.

#![forbid(unsafe_code)]

pub mod error;
mod holders;
pub mod journal;
pub mod recover;
pub mod remove;
pub mod restore;
mod sysvipc;
pub mod target;

pub use error::{Error, Reason, Result};
pub use journal::{Journal, Limits};
pub use target::Target;

/// Where the crate's own tests start processes: [`switchboard_testkit::child`].
#[cfg(all(test, target_arch = "x86_64"))]
#[test]
fn child_process() {
    switchboard_testkit::child::enter(recover::killed::ROLES);
}
