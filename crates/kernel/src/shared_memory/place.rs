//! A place in shared memory that is used more than once.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;

use super::{OwnMemory, PeerMemory};

/// A place in shared memory, and the memory: found once to be all there, and then used as often as need be.
///
/// What is said of [`PeerMemory::bytes`], [`OwnMemory::bytes`] and [`OwnMemory::room`] holds for it.
///
/// ```
/// use switchboard_kernel::shared_memory::{OwnMemory, PeerMemory, Place};
///
/// let memory = OwnMemory::create("ring", 4096)?;
/// let theirs = PeerMemory::received(memory.read_only_fd()?, 4096..=4096)?;
///
/// let mut own = Place::nothing_of(memory);
/// own.lend(3, 5);
/// own.room().copy_from_slice(b"hello");
///
/// let mut place = Place::nothing_of(theirs);
/// assert_eq!(place.bytes(), b"");
/// assert!(place.show(3, 5));
/// assert_eq!(place.bytes(), b"hello");
/// assert!(!place.show(511, 9));
/// assert_eq!(place.bytes(), b"", "not all there");
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
pub struct Place<M> {
    memory: M,
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the place belongs to the memory, which is the process's, and no thread's; it is written through a
// reference that is not shared.
unsafe impl<M: Send> Send for Place<M> {}
// SAFETY: as for Send.
unsafe impl<M: Sync> Sync for Place<M> {}

impl<M> Place<M> {
    /// Nothing of it yet.
    #[must_use]
    pub fn nothing_of(memory: M) -> Self {
        Self { memory, start: NonNull::dangling(), len_bytes: 0 }
    }

    /// The memory.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// What is there.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes were found there, in memory that this keeps and never exchanges, or there are none. That
        // they are read while others might write is said in `PeerMemory::bytes` and `OwnMemory::bytes`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len_bytes) }
    }
}

impl Place<PeerMemory> {
    /// So many bytes from a word on, from now on; nothing, where they are not all there. Whether they are.
    #[inline]
    pub fn show(&mut self, word: usize, len_bytes: usize) -> bool {
        let found = self.memory.bytes(word, len_bytes);
        let bytes = found.unwrap_or_default();
        (self.start, self.len_bytes) = (NonNull::from(bytes).cast(), bytes.len());
        found.is_some()
    }
}

impl Place<OwnMemory> {
    /// So many bytes from a word on, for this once: as [`OwnMemory::room`].
    #[inline]
    #[must_use]
    pub fn room_at(&mut self, word: usize, len_bytes: usize) -> Option<&mut [u8]> {
        self.memory.room(word, len_bytes)
    }

    /// So many bytes from a word on, from now on; nothing, where they are not all there.
    #[inline]
    pub fn lend(&mut self, word: usize, len_bytes: usize) {
        let room = self.memory.room(word, len_bytes).unwrap_or_default();
        (self.start, self.len_bytes) = (NonNull::from(&mut *room).cast(), room.len());
    }

    /// What is there, to be filled.
    #[inline]
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes were found there, mapped for writing, in memory that this keeps and never exchanges, or
        // there are none. That nobody else in this process uses them is said in `OwnMemory::room`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len_bytes) }
    }
}

impl<M> fmt::Debug for Place<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}
