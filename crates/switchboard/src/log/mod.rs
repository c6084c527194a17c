//! The log behind `file:`: segments on disk, written by one process each and read by many.
//!
//! `docs/design/log.md` draws the bytes and says what happens when a process dies, or the disk lies,
//! at each step. `frame`, `batch`, `segment`, `ends`, `table` and `places` know the bytes, `progress` how far a named
//! subscriber is; they do no I/O.

mod batch;
pub(crate) mod content;
pub(crate) mod ends;
pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod gone;
pub(crate) mod making;
mod mapped;
pub(crate) mod places;
pub(crate) mod progress;
pub(crate) mod reader;
mod search;
pub(crate) mod segment;
pub(crate) mod table;
pub(crate) mod writer;

/// What a log says of numbers above this is no log's: a message each nanosecond for a century.
pub(crate) const MOST_NUMBER: u64 = 1 << 62;

/// When a message counts as acknowledged to its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is in the page cache: it survives every process, not a power cut.
    #[default]
    Memory,
    /// Writing it to the disk has begun.
    Written,
    /// The disk has it.
    Synced,
}

impl Durability {
    /// The level of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "memory" => Some(Self::Memory),
            "written" => Some(Self::Written),
            "synced" => Some(Self::Synced),
            _ => None,
        }
    }
}
