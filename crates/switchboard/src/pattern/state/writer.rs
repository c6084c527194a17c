//! The writing end of a state.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::State;
use super::in_memory::MemoryWriter;
use crate::address::Address;
use crate::error::{Error, ErrorKind, WaitError};
use crate::transport::LiveWriter;

/// Sets values. In memory that outlives it (`posix-shm:`, `mmap:` …) dropping it leaves the value in place and
/// lets another writer in. Elsewhere (`unix:`, `tcp:`, `shm:`) values live as long as their writer.
#[derive(Debug)]
pub struct Writer {
    pub(super) state: State,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    InMemory(Box<MemoryWriter>),
    Live(LiveWriter),
}

impl Writer {
    /// Sets the value, and wakes who watches it. Never waits.
    ///
    /// If this process is killed meanwhile, readers have the value before (with
    /// [`Layout::Bare`](super::Layout::Bare), perhaps some bytes of each).
    ///
    /// # Errors
    /// `LimitReached`: longer than the [capacity](Self::capacity_bytes), and nothing was set;
    /// `System`: the file was cut short.
    pub fn set(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.end {
            End::InMemory(end) => end.set(bytes),
            End::Live(end) => end.set("", bytes),
        }
    }

    /// Sets the value of a key: text of up to 255 bytes, without control characters. The empty one is that of
    /// [`set`](Self::set).
    ///
    /// # Errors
    /// `NotSupported`: the address has one value and no keys; `BadAddress`: no key can be so; `AddressInUse`:
    /// another process is the writer of this key; else as [`set`](Self::set).
    pub fn set_key(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        self.state.check_key(key)?;
        match &mut self.end {
            End::InMemory(end) if key.is_empty() => end.set(bytes),
            End::InMemory(_) => Err(self.state.without_keys()),
            End::Live(end) => end.set(key, bytes),
        }
    }

    /// `msync(2)`: waits until what was set is on the disk, so that it outlives a power cut. For
    /// memory that is in no file, this does nothing.
    ///
    /// # Errors
    /// `System`: writing failed.
    pub fn sync(&self) -> Result<(), Error> {
        match &self.end {
            End::InMemory(end) => end.sync(),
            End::Live(_) => Ok(()),
        }
    }

    /// The longest value, in bytes: fixed when the memory was made.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        match &self.end {
            End::InMemory(end) => end.capacity_bytes(),
            End::Live(end) => end.capacity_bytes(),
        }
    }

    /// The version of the value that was set last; `None` with [`Layout::Bare`](super::Layout::Bare).
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        match &self.end {
            End::InMemory(end) => end.version(),
            End::Live(end) => Some(end.version()),
        }
    }

    /// Lets readers in, and says what there was no room for, without waiting. Whether every reader has been told
    /// all.
    ///
    /// Over links no thread does this: a writer moves while one of its methods runs, and readers that come
    /// wait for it. Call this when [`descriptor`](Self::descriptor) is readable, or [`serve`](Self::serve). In
    /// memory there is nothing to do.
    ///
    /// # Errors
    /// `System`.
    pub fn drive(&mut self) -> Result<bool, Error> {
        match &mut self.end {
            End::InMemory(_) => Ok(true),
            End::Live(end) => end.drive(),
        }
    }

    /// Drives it for so long, `None` for ever: while nothing is to be set.
    ///
    /// # Errors
    /// `Interrupted`; `Failed`. That the time is over is no error.
    pub fn serve(&mut self, time: Option<Duration>) -> Result<(), WaitError> {
        let deadline = Deadline::from_timeout(time);
        let End::Live(end) = &mut self.end else {
            let problem = "its value is in memory, and needs no writer to be read";
            return Err(Error::new(ErrorKind::NotSupported, &self.state.address, problem).into());
        };
        loop {
            end.drive()?;
            if deadline.passed() {
                return Ok(());
            }
            end.wait(deadline)?;
        }
    }

    /// How many readers there are now; `None` where that cannot be known.
    #[must_use]
    pub fn peers(&self) -> Option<usize> {
        match &self.end {
            End::InMemory(_) => None,
            End::Live(end) => Some(end.peers()),
        }
    }

    /// Readable when [`drive`](Self::drive) has something to do; `None` where it never has.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::InMemory(_) => None,
            End::Live(end) => Some(end.fd()),
        }
    }

    /// The address it writes to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.state.address
    }
}
