//! The layout `bare`: the memory's bytes as they are, for programs that are not ours.
//!
//! A value is all of the memory. Whoever reads while somebody writes may see some of the old bytes and
//! some of the new. A change is seen by comparing, every 0.2 to 10 ms: one that is undone between two
//! looks is not seen.

use switchboard_kernel as kernel;
use switchboard_kernel::mmap::Memory;

use super::Value;
use super::slots::Problem;

/// Writes a value from the start of the memory, and zeroes after it.
pub(crate) fn set(memory: &Memory, bytes: &[u8]) -> Result<(), Problem> {
    let rest = memory.len().checked_sub(bytes.len()).ok_or_else(|| Problem::TooLarge {
        capacity: u32::try_from(memory.len()).unwrap_or(u32::MAX),
    })?;
    memory.write_at(0, bytes)?;
    let zeroes = vec![0; rest.min(64 << 10)];
    for start in (bytes.len()..memory.len()).step_by(zeroes.len().max(1)) {
        let len = zeroes.len().min(memory.len() - start);
        memory.write_at(start, &zeroes[..len])?;
    }
    Ok(())
}

/// What a reader saw last, and how often it saw a change.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bytes: Vec<u8>,
    version: u64,
}

impl Seen {
    pub(crate) fn first(memory: &Memory) -> kernel::Result<Self> {
        let mut seen = Self::default();
        seen.look(memory)?;
        seen.version = 0;
        Ok(seen)
    }

    /// Reads it all. Whether it changed.
    pub(crate) fn look(&mut self, memory: &Memory) -> kernel::Result<bool> {
        let mut bytes = vec![0; memory.len()];
        memory.read_at(0, &mut bytes)?;
        let changed = bytes != self.bytes;
        if changed {
            self.bytes = bytes;
            self.version += 1;
        }
        Ok(changed)
    }

    pub(crate) fn value(&self) -> Value {
        Value { bytes: self.bytes.clone(), version: self.version, restored: false }
    }
}
