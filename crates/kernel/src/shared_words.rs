//! Memory that several processes map, given out in pieces: where futexes, semaphores, mutexes and
//! condition variables are placed.
//!
//! Source: `mmap(2)`, `memfd_create(2)`, `fcntl(2)` (file seals).
//!
//! [`SharedWords`] is the memory as this process maps it, [`Slot`] a piece of it that one object has
//! to itself here: a mapping never gives out the same bytes twice at a time, so that two objects of
//! one program cannot be laid over each other by mistake. What other processes do with the bytes
//! nobody can prevent: share memory only with those that may break what is in it.

#![allow(unsafe_code)]

mod mapped;
mod placed;

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::io::{duplicate, retry};

pub(crate) use mapped::Mapped;
pub(crate) use placed::{Kind, create_in, open_in};

pub use placed::OBJECT_BYTES;

/// Memory that several processes map, by a descriptor that they pass on or inherit.
///
/// A clone is the same mapping. The memory stays mapped until the last clone and the last [`Slot`]
/// are gone, and exists until no process maps it or has its descriptor open. The death of a process
/// changes nothing in it.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use switchboard_kernel::shared_words::SharedWords;
///
/// let ours = SharedWords::create(4096)?;
/// let theirs = SharedWords::from_fd(&ours)?;
/// ours.slot(0, 64)?.words()[3].store(7, Ordering::Relaxed);
/// assert_eq!(theirs.slot(0, 64)?.words()[3].load(Ordering::Relaxed), 7);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedWords(Arc<Memory>);

struct Memory {
    mapped: Mapped,
    fd: OwnedFd,
    /// What slots have, in bytes.
    taken: Mutex<Vec<Range<usize>>>,
}

impl SharedWords {
    /// `memfd_create()`, `fallocate()`, seals, `mmap(MAP_SHARED)`: new memory of this many bytes,
    /// all zero. Its size is sealed: no process can shrink it under another.
    ///
    /// # Errors
    /// `EINVAL` for 0 bytes and for more than the address space holds; `ENOMEM`, `ENOSPC` when
    /// there is not so much memory; `EMFILE` at `RLIMIT_NOFILE`; `ENFILE`.
    pub fn create(len_bytes: usize) -> Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("switchboard-words", flags).of("memfd_create")?;
        let len = u64::try_from(len_bytes).unwrap_or(u64::MAX);
        retry("fallocate", || rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).of("fcntl F_ADD_SEALS")?;
        Self::map(fd)
    }

    /// `fcntl(F_GET_SEALS)`, `mmap(MAP_SHARED)`: all of the memory that another process made, by a
    /// copy of its descriptor.
    ///
    /// # Errors
    /// `EPERM` when it is not sealed against shrinking, `EINVAL` when it is nothing that can be;
    /// see [`SharedWords::from_unsealed_fd`]. `EACCES` when it is not open for reading and writing;
    /// `EMFILE`; `ENOMEM`.
    pub fn from_fd(fd: impl AsFd) -> Result<Self> {
        let fd = duplicate(fd)?;
        let seals = rustix::fs::fcntl_get_seals(&fd).of("fcntl F_GET_SEALS")?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::new("fcntl F_GET_SEALS", Errno::PERM));
        }
        Self::map(fd)
    }

    /// `mmap(MAP_SHARED)`: all of a file, as long as it is now: of `shm_open(3)`, or on a disk.
    ///
    /// Whoever may write the file may also shrink it. Then touching the memory beyond its new end
    /// kills this process with `SIGBUS`. So this is for files of processes that are trusted.
    ///
    /// # Errors
    /// `EINVAL` when the file is empty; `EACCES` when it is not open for reading and writing;
    /// `ENODEV` when it cannot be mapped; `EMFILE`; `ENOMEM`.
    pub fn from_unsealed_fd(fd: impl AsFd) -> Result<Self> {
        Self::map(duplicate(fd)?)
    }

    fn map(fd: OwnedFd) -> Result<Self> {
        let size = rustix::fs::fstat(&fd).of("fstat")?.st_size;
        let len_bytes = usize::try_from(size).map_err(|_| Error::new("mmap", Errno::INVAL))?;
        let mapped = Mapped::of(&fd, len_bytes)?;
        Ok(Self(Arc::new(Memory { mapped, fd, taken: Mutex::default() })))
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.mapped.len_bytes()
    }

    /// A piece of the memory, to place one object in, or for words of one's own. Makes no system
    /// call. The piece is free again when the slot, or the object in it, is dropped.
    ///
    /// # Errors
    /// `EINVAL` when the offset is no multiple of 8 or the length none of 4, when it is empty, or
    /// reaches beyond the end; `EBUSY` when another slot of this mapping has some of it.
    pub fn slot(&self, offset_bytes: usize, len_bytes: usize) -> Result<Slot> {
        let invalid = Error::new("slot", Errno::INVAL);
        let end = offset_bytes.checked_add(len_bytes).ok_or(invalid)?;
        let aligned = offset_bytes.is_multiple_of(8) && len_bytes.is_multiple_of(4);
        if len_bytes == 0 || !aligned || end > self.len_bytes() {
            return Err(invalid);
        }
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.iter().any(|other| other.start < end && offset_bytes < other.end) {
            return Err(Error::new("slot", Errno::BUSY));
        }
        taken.push(offset_bytes..end);
        let address = self.0.mapped.address().wrapping_add(offset_bytes);
        let claim = Claim { memory: self.clone(), start: offset_bytes };
        Ok(Slot { address, len_bytes, claim: Arc::new(claim) })
    }
}

/// The descriptor, to be given to another process.
impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords").field("len_bytes", &self.len_bytes()).finish_non_exhaustive()
    }
}

/// A piece of [`SharedWords`] that nothing else in this process has by the same mapping.
#[derive(Debug)]
pub struct Slot {
    /// Kept, so that a lock does not have to follow pointers to find it.
    address: *mut u8,
    len_bytes: usize,
    claim: Arc<Claim>,
}

/// The mapping of a slot and of its parts; it keeps other slots away from the bytes until all are
/// dropped.
#[derive(Debug)]
struct Claim {
    memory: SharedWords,
    start: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.memory.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|other| other.start != self.start);
    }
}

// SAFETY: the address is one of a mapping of the process, which `claim` keeps, and not of a thread.
// What may be done with the bytes is for those to say who take the address.
unsafe impl Send for Slot {}
// SAFETY: as for Send; a shared reference gives words that are atomic, or the address.
unsafe impl Sync for Slot {}

impl Slot {
    /// The piece as words. Other processes may change them at any time.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the slot lies within the mapping, which lives as long as `self`, is aligned for
        // words, and is only accessed by atomic operations for as long as `self` is borrowed: the
        // objects that let the C library access it have taken the slot by value.
        unsafe { std::slice::from_raw_parts(self.address().cast(), self.len_bytes / 4) }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Makes it all zero, so that an object can be created in it again: after its creator died half
    /// way, or when the old object is of no use any more. No process may be using the old one.
    pub fn clear(&mut self) {
        // From the end: the word that says that an object is ready is the last of it, and goes first.
        for word in self.words().iter().rev() {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// A piece of the piece, for an object that is made of several; `offset_bytes` is a multiple of 8.
    /// Parts may be asked for again; whoever does so sees to it that they hold the same objects.
    pub(crate) fn part(&self, offset_bytes: usize, len_bytes: usize) -> Result<Self> {
        let end = offset_bytes.checked_add(len_bytes);
        let aligned = offset_bytes.is_multiple_of(8) && len_bytes.is_multiple_of(4);
        if !aligned || len_bytes == 0 || end.is_none_or(|end| end > self.len_bytes) {
            return Err(Error::new("slot", Errno::INVAL));
        }
        let address = self.address.wrapping_add(offset_bytes);
        Ok(Self { address, len_bytes, claim: Arc::clone(&self.claim) })
    }

    /// The memory it is a piece of.
    #[must_use]
    pub fn memory(&self) -> &SharedWords {
        &self.claim.memory
    }

    /// Where it is. The bytes may only be accessed as what every process takes them for.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        self.address
    }
}
