//! One shared mapping of a descriptor, unmapped on drop.
//!
//! Source: `mmap(2)`, `munmap(2)`.

#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Error, OfCall, Result};

/// Bytes of a file that this process has mapped, shared and writable.
#[derive(Debug)]
pub(crate) struct Mapped {
    address: *mut u8,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread. What may be done with its bytes is
// for those to say who take the address.
unsafe impl Send for Mapped {}
// SAFETY: as for Send; a shared reference gives only the address.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// `mmap(MAP_SHARED, PROT_READ | PROT_WRITE)` from the start of the file.
    pub(crate) fn of(fd: impl AsFd, len_bytes: usize) -> Result<Self> {
        if len_bytes == 0 {
            return Err(Error::new("mmap", Errno::INVAL));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let address = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len_bytes, access, MapFlags::SHARED, fd, 0)
        };
        Ok(Self { address: address.of("mmap")?.cast(), len_bytes })
    }

    /// Its first byte; aligned to a page.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        self.address
    }

    /// Its length.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the whole of a mapping that `of` made, and whoever uses its bytes holds
        // this value.
        let _ = unsafe { rustix::mm::munmap(self.address.cast(), self.len_bytes) };
    }
}
