//! One shared mapping, of which a child of `fork` has nothing, and how its words are reached.
//!
//! Source: `mmap(2)`, `madvise(2)` (`MADV_DONTFORK`).

#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::{Error, OfCall, Result};
use crate::fork;

/// What may be done with the mapped words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
}

/// A mapping, unmapped on drop by the process that made it.
pub(super) struct Region(View);

/// Where a region is; kept in each handle, so that its words are found without following pointers.
#[derive(Clone, Copy)]
pub(super) struct View {
    start: NonNull<AtomicU64>,
    len_words: usize,
    /// [`fork::generation`] of the process that has it.
    generation: u32,
}

// SAFETY: the region belongs to the process, not to a thread, and is accessed by atomics.
unsafe impl Send for View {}
// SAFETY: as for Send.
unsafe impl Sync for View {}

impl Region {
    /// `mmap(MAP_SHARED)`, `madvise(MADV_DONTFORK)`. The length is a multiple of 8, and the file is as
    /// long, and sealed against shrinking or about to be.
    pub(super) fn of(fd: impl AsFd, access: Access, len_bytes: usize) -> Result<Self> {
        let generation = fork::watch()?;
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: no address is asked for, so the mapping replaces nothing.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len_bytes, protection, MapFlags::SHARED, fd, 0)
        };
        let start =
            NonNull::new(start.of("mmap")?.cast()).ok_or(Error::new("mmap", Errno::FAULT))?;
        let region =
            Self(View { start, len_words: len_bytes / size_of::<AtomicU64>(), generation });
        // SAFETY: the pages are this region's, and nobody uses them yet.
        unsafe { rustix::mm::madvise(start.as_ptr().cast(), len_bytes, Advice::LinuxDontFork) }
            .of("madvise MADV_DONTFORK")?;
        Ok(region)
    }

    /// Where it is, for as long as it lives.
    pub(super) fn view(&self) -> View {
        self.0
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // In a child the region is not there, and something else may be.
        if self.0.is_here() {
            // SAFETY: this is the whole of a mapping that `of` made, and whoever uses its words holds
            // this value.
            let _ = unsafe { rustix::mm::munmap(self.0.start.as_ptr().cast(), self.0.len_bytes()) };
        }
    }
}

impl View {
    /// The words.
    ///
    /// # Safety
    /// The region lives for as long as the result is borrowed. Nothing is stored through it if the
    /// region is one to read.
    #[inline]
    pub(super) unsafe fn words(&self) -> &[AtomicU64] {
        // SAFETY: the caller keeps the region, which has so many words and is accessed by atomics
        // alone. Whoever forks has promised (`fork` is unsafe) to call nothing in the child that
        // needs what children do not have.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len_words) }
    }

    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.len_words * size_of::<AtomicU64>()
    }

    #[inline]
    pub(super) fn is_here(&self) -> bool {
        fork::generation() == self.generation
    }

    #[inline]
    pub(super) fn check_here(&self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(not_here()) }
    }
}

#[cold]
fn not_here() -> Error {
    Error::new("fork", Errno::STALE)
}
