//! Where a victim is: the boundary between two instructions; and what it did to shared memory.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Call;

/// A boundary between two instructions of the operation.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Which: 0 is before the first instruction.
    pub number: usize,
    /// Who is there: `victim` or `survivor`.
    pub who: &'static str,
    /// The next instruction.
    pub place: Place,
    /// Whether the instruction before changed shared bytes.
    pub changed: bool,
    /// Whether it read some: what it knows of them may be old news by now.
    pub loaded: bool,
    /// The system call that the instruction before was.
    pub ended: Option<Call>,
    /// The system call that the next instruction is.
    pub begins: Option<Call>,
    /// The system call that it sleeps in. This counts as a boundary too.
    pub blocked: Option<Call>,
    /// Of a survivor: where the victim was killed before.
    pub after: Option<Arc<Boundary>>,
    pub(super) end: bool,
}

impl Boundary {
    /// Whether the operation is over: nobody was killed.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.end
    }

    /// Whether the world may differ from what it was at the boundary before.
    #[must_use]
    pub fn is_event(&self) -> bool {
        let call = self.ended.or(self.begins).or(self.blocked);
        self.number == 0 || self.changed || call.is_some()
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end {
            write!(f, "the {}'s end, after {} boundaries", self.who, self.number)?;
        } else {
            write!(f, "{} at boundary {}, {}", self.who, self.number, self.place)?;
        }
        if self.changed {
            write!(f, ", shared bytes changed")?;
        } else if self.loaded {
            write!(f, ", shared bytes read")?;
        }
        for (what, call) in
            [("ended", self.ended), ("begins", self.begins), ("sleeps in", self.blocked)]
        {
            if let Some(call) = call {
                write!(f, ", {what} {call}")?;
            }
        }
        match &self.after {
            Some(after) => write!(f, " (after {after})"),
            None => Ok(()),
        }
    }
}

/// A load or a store in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which of [`super::Plan::shared`]; without those, which of all that is shared, as it was found.
    pub object: usize,
    /// The file, as the kernel names it: `/dev/shm/NAME`, `/memfd:NAME (deleted)`.
    pub file: Arc<Path>,
    /// From the object's start.
    pub offset_bytes: u64,
    /// How many bytes. Of a repeated string instruction, those of one round.
    pub len_bytes: usize,
    /// What it does.
    pub kind: Kind,
    /// Whether the bytes differ after it.
    pub changed: bool,
    /// The instruction.
    pub place: Place,
}

impl Access {
    /// Whether all of it is within these bytes of the object.
    #[must_use]
    pub fn is_within(&self, bytes: std::ops::Range<u64>) -> bool {
        let end = self.offset_bytes + self.len_bytes as u64;
        self.offset_bytes >= bytes.start && end <= bytes.end
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Load => "load",
            Kind::Store => "store",
            Kind::Update => "read-modify-write",
        };
        let changed = if self.changed { ", changed" } else { "" };
        let (object, offset, len) = (self.object, self.offset_bytes, self.len_bytes);
        write!(f, "{kind} of {len} bytes at {offset} of object {object}{changed}, {}", self.place)?;
        write!(f, ", {}", self.file.display())
    }
}

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads and writes: an atomic operation, or `add` to memory.
    Update,
}

impl Kind {
    /// Whether it may write.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Load
    }
}

/// An address in a program or library. Shown as `NAME+0x1c`, or by its offset where no symbol is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub module: Arc<Path>,
    /// Its byte there.
    pub offset: u64,
}
