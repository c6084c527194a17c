//! An io_uring that holds files by itself.
//!
//! Source: `io_uring_setup(2)`, `io_uring_register(2)`.

#![allow(unsafe_code)]

use std::fmt;
use std::io::Result;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// A ring with files registered, whose own descriptors may be closed.
pub struct Ring(io_uring::IoUring);

impl Ring {
    /// A new one, with these files.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS` where this user, or this kernel, has none.
    pub fn holding(files: &[&dyn AsFd]) -> Result<Self> {
        let ring = io_uring::IoUring::new(4)?;
        let files: Vec<RawFd> = files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        ring.submitter().register_files(&files)?;
        Ok(Self(ring))
    }

    /// Closes the ring's own descriptor: from then on it lives by its mappings alone, as long as this process does.
    pub fn keep_mapped_only(self) {
        // SAFETY: the descriptor is the ring's own, and nobody uses it after: its owner is forgotten below.
        unsafe { libc::close(self.0.as_raw_fd()) };
        std::mem::forget(self.0);
    }

    /// Begins to wait until there is something to read in the first file, in a request that goes on when its descriptor is closed.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`.
    pub fn wait_to_read(&mut self, file: &impl AsFd) -> Result<()> {
        let fd = io_uring::types::Fd(file.as_fd().as_raw_fd());
        let poll = io_uring::opcode::PollAdd::new(fd, 1).build();
        // SAFETY: the request has no buffer.
        let pushed = unsafe { self.0.submission().push(&poll) };
        pushed.map_err(std::io::Error::other)?;
        self.0.submit().map(drop)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.0.as_raw_fd()).finish()
    }
}

/// Whether this process may have one.
#[must_use]
pub fn is_possible() -> bool {
    io_uring::IoUring::new(4).is_ok()
}
