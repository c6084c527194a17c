//! A window into all inter-process communication of a machine: every object, who is at its ends, who waits for
//! whom, and who waits for ever.
//!
//! [`Request::take`] looks at the machine and gives a [`Snapshot`]; the functions in [`analysis`] are about a snapshot
//! and touch nothing else, so they work on a saved one as well. docs/design/inspect.md says where each fact
//! comes from, and what cannot be seen.
//!
//! ```
//! use switchboard_inspect::{Kind, Request};
//!
//! let pipes = Request::of([Kind::Pipe]).take();
//! for pipe in &pipes.objects {
//!     assert!(pipe.id.starts_with("pipe:"));
//! }
//! assert!(pipes.coverage.readable >= 1, "this process, at least");
//! ```
//!
//! What this crate does not do: it changes nothing, keeps no state between calls (but what a [`Watch`] holds), and neither prints nor decides.

#![forbid(unsafe_code)]

pub mod analysis;
mod collect;
pub mod contents;
mod details;
pub mod futex;
mod join;
mod kept;
pub mod kind;
pub mod model;
pub mod name;
mod poll_sets;
mod saved;
pub mod source;
pub mod text;
mod threads;
pub mod times;
mod traffic;
mod waits;
mod watch;

pub use collect::Request;
pub use kind::{Kind, Kinds};
pub use model::{
    Coverage, End, Feature, Limit, Need, Object, Process, Rings, Snapshot, SocketUse, Target,
    Thread, Traffic, Via, Wait, WaitOn,
};
pub use saved::LoadError;
pub use watch::Watch;
