//! What follows from a snapshot: who talks to whom, who waits for whom, who waits for ever, what was left behind, how full things are, what changed.
//!
//! Source: docs/design/inspect.md, docs/design/leaks.md. Pure functions: they read the snapshot and nothing else.

pub mod deadlocks;
pub mod difference;
pub mod doubts;
pub mod graph;
pub mod leaks;
pub mod left;
pub mod peers;
pub mod pressure;
pub mod rates;
pub mod stuck;
pub mod wakers;
pub mod why;

pub use leaks::leaks;

/// The detail of a socket in which descriptors wait to be taken: how many.
pub(crate) const DESCRIPTORS_IN_FLIGHT: &str = "descriptors in flight";
