//! Kills a process at every instruction boundary of one operation, and looks whether the others can
//! go on. Also logs every load and store to shared memory on the way.
//!
//! Source: `ptrace(2)`, `personality(2)`, `proc_pid_maps(5)`, `prctl(2)` (`PR_SET_NAME`). How it works
//! and what it cannot see: docs/design/killstep.md.
//!
//! The victim is a role of the test binary. It prepares, calls [`begin`], does the operation, and
//! calls [`end`]:
//!
//! ```text
//! pub(crate) fn locker(arguments: &[String]) {
//!     let mutex = Mutex::open(slot_of(&arguments[0])).expect("the mutex");
//!     killstep::begin();
//!     drop(mutex.lock());
//!     killstep::end();
//! }
//! ```
//!
//! A [`Plan`] says how the world around it is made, and how a survivor finds out that it can go on.
//! [`run`] does the rest, [`Report::expect_clean`] makes a test of it:
//!
//! ```text
//! if killstep::refused("a_killed_locker_harms_nobody") { return; }
//! killstep::run(&Locking, How::Kill, Depth::from_environment()).expect_clean();
//! ```

mod attach;
mod boundary;
mod call;
mod code;
mod course;
mod mark;
mod memory;
mod pin;
mod place;
mod plan;
mod report;
mod run;
mod tracee;
mod walk;

pub use boundary::{Access, Boundary, Kind, Place};
pub use call::Call;
pub use mark::{begin, end};
pub use plan::{Depth, How, Plan, Recovery};
pub use report::{Finding, Report};
pub use run::{run, run_calls, run_recovery};
pub use tracee::refused;
