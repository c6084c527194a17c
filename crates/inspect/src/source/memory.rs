//! A few words of another process's memory: /proc/PID/mem.
//!
//! Source: `proc_pid_mem(5)`. Reading it needs the right to trace and stops nobody. What is read may change at any
//! moment and is checked before it is believed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};

use super::folder::Folder;

/// The memory of a process.
#[derive(Debug)]
pub struct Memory(Option<File>);

impl Memory {
    /// Opens it, if that is allowed.
    #[must_use]
    pub fn of(process: &Folder) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self(rustix::fs::openat(process, "mem", flags, Mode::empty()).ok().map(File::from))
    }

    /// What is in a file, at its addresses there: for a look at memory that was made up.
    #[must_use]
    pub fn of_file(file: File) -> Self {
        Self(Some(file))
    }

    /// None: whatever is asked for is not there.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Bytes at an address; at most 64 KiB.
    #[must_use]
    pub fn bytes(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        if address == 0 || len > 64 << 10 {
            return None;
        }
        let mut bytes = vec![0; len];
        self.0.as_ref()?.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    /// A word of 32 bits.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u32> {
        let bytes = self.bytes(address, 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// A word of 64 bits.
    #[must_use]
    pub fn long(&self, address: u64) -> Option<u64> {
        let bytes = self.bytes(address, 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// A text that a zero ends; none if it is longer than a path can be.
    #[must_use]
    pub fn text(&self, address: u64) -> Option<Vec<u8>> {
        let file = self.0.as_ref()?;
        let mut text = vec![0; 4096];
        // The end of a page may be the end of what is mapped.
        let n = file.read_at(&mut text, address).ok()?;
        let end = text.get(..n)?.iter().position(|&byte| byte == 0)?;
        text.truncate(end);
        Some(text)
    }
}
