//! Memory that other processes may write at any time, and how to use it all the same: by copies and
//! by atomic words.
//!
//! Source: `mmap(2)`, `shmat(2)`; the memory model of `std::sync::atomic`.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::io::Errno;

use super::copy::{copy_in, copy_out};
use super::guard::Watch;
use crate::error::{Error, Result};
use crate::futex::{self, Waited};
use crate::io::Deadline;

/// Memory that a [`Mapping`](super::Mapping) or a System V
/// [`Attachment`](crate::sysv_shm::Attachment) gives access to.
///
/// Nothing here blocks. Copies are not atomic as a whole: a copy made while somebody else writes
/// has some of the old and some of the new. The words have the byte order of the machine.
///
/// Every call fails with `EINVAL` where the place is not within the memory, and with `EIO` once the
/// file was found truncated (see [`mmap`](super)).
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
    /// There is none where no page can ever be missing.
    pub(super) watch: Option<Watch>,
}

// SAFETY: it is a range of addresses, which all threads share; every access to what is there is
// atomic, or by raw pointers in somebody else's `unsafe`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    /// `len` bytes from `start` on are mapped for as long as this can be borrowed, for reading, and
    /// for writing if `writable`; `start` is aligned to a page. No part of them is accessed but
    /// through this, raw pointers or other processes.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: usize, writable: bool) -> Self {
        Self { start, len, writable, watch: None }
    }

    /// Its length, in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is no mapping of nothing.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it can be written to.
    #[inline]
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether a page of the file was found missing, by any thread of this process: what was read
    /// since may be zeroes, and what was written may be lost. Look after using an atomic word.
    #[inline]
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_truncated)
    }

    /// Copies from here into a buffer. What others write meanwhile may come in part.
    ///
    /// # Errors
    /// `EINVAL`: not within the memory; `EIO`: the file was truncated, and the buffer's content
    /// means nothing.
    #[inline]
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        let start = self.place(offset, buffer.len(), 1)?;
        if self.watch.is_none() || buffer.len() <= CHECK_BYTES {
            // SAFETY: `place` checked that so many bytes are mapped there.
            unsafe { copy_out(start, buffer) };
            return self.check_truncated();
        }
        self.check_truncated()?;
        let places = (0..).step_by(CHECK_BYTES);
        for (at, part) in places.zip(buffer.chunks_mut(CHECK_BYTES)) {
            // SAFETY: `place` checked the whole, of which this is a part.
            unsafe { copy_out(start.wrapping_add(at), part) };
            self.check_truncated()?;
        }
        Ok(())
    }

    /// Copies bytes to here. Others may see them in any order: store to
    /// an atomic word with `Release` afterwards to say that they are all there.
    ///
    /// # Errors
    /// `EINVAL`: not within the memory; `EACCES`: it is read-only; `EIO`: the file was truncated,
    /// and nothing or a part was written.
    #[inline]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_writable()?;
        let start = self.place(offset, bytes.len(), 1)?;
        if self.watch.is_none() || bytes.len() <= CHECK_BYTES {
            // SAFETY: `place` checked that so many bytes are mapped there, and they are writable.
            unsafe { copy_in(bytes, start) };
            return self.check_truncated();
        }
        self.check_truncated()?;
        let places = (0..).step_by(CHECK_BYTES);
        for (at, part) in places.zip(bytes.chunks(CHECK_BYTES)) {
            // SAFETY: `place` checked the whole, of which this is a part; it is writable.
            unsafe { copy_in(part, start.wrapping_add(at)) };
            self.check_truncated()?;
        }
        Ok(())
    }

    /// A word to share with other processes; the offset is a multiple of 4.
    ///
    /// # Errors
    /// `EINVAL`: crooked, or not within the memory; `EACCES`: it is read-only, see
    /// [`Memory::load_u32`]; `EIO`.
    #[inline]
    pub fn atomic_u32(&self, offset: usize) -> Result<&AtomicU32> {
        self.check_writable()?;
        let word = self.word(offset, size_of::<u32>())?.cast();
        // SAFETY: `word` checked that it is mapped and aligned, and it is writable; others access it
        // by atomics too, or from other processes.
        Ok(unsafe { AtomicU32::from_ptr(word) })
    }

    /// A word to share with other processes; the offset is a multiple of 8.
    ///
    /// # Errors
    /// As [`Memory::atomic_u32`].
    #[inline]
    pub fn atomic_u64(&self, offset: usize) -> Result<&AtomicU64> {
        self.check_writable()?;
        let word = self.word(offset, size_of::<u64>())?.cast();
        // SAFETY: as in `atomic_u32`.
        Ok(unsafe { AtomicU64::from_ptr(word) })
    }

    /// The value of a word, with `Acquire`: what was written before the store that it comes from
    /// can be read after it. Works on read-only memory too; the offset is a multiple of 4.
    ///
    /// # Errors
    /// `EINVAL`: crooked, or not within the memory; `EIO`.
    #[inline]
    pub fn load_u32(&self, offset: usize) -> Result<u32> {
        let word = self.word(offset, size_of::<u32>())?.cast();
        // SAFETY: `word` checked that it is mapped and aligned. A relaxed load of this size does
        // not write, so that the page may be read-only.
        let value = unsafe { AtomicU32::from_ptr(word) }.load(Ordering::Relaxed);
        self.check_truncated()?;
        Ok(value)
    }

    /// As [`Memory::load_u32`], of 8 bytes; the offset is a multiple of 8.
    ///
    /// # Errors
    /// As [`Memory::load_u32`].
    #[inline]
    pub fn load_u64(&self, offset: usize) -> Result<u64> {
        let word = self.word(offset, size_of::<u64>())?.cast();
        // SAFETY: as in `load_u32`.
        let value = unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Relaxed);
        self.check_truncated()?;
        Ok(value)
    }

    /// `futex(FUTEX_WAIT_BITSET)`: blocks while the word is `expected`, until woken or the deadline.
    /// As [`futex::wait`](crate::futex::wait), and on read-only memory too: whoever writes the word
    /// wakes with [`futex::wake`](crate::futex::wake).
    ///
    /// # Errors
    /// As [`Memory::load_u32`] and [`futex::wait`](crate::futex::wait).
    pub fn wait_u32(&self, offset: usize, expected: u32, deadline: Deadline) -> Result<Waited> {
        let word = self.word(offset, size_of::<u32>())?.cast();
        // SAFETY: as in `load_u32`; the kernel only reads the word.
        let waited = futex::wait(unsafe { AtomicU32::from_ptr(word) }, expected, deadline);
        if waited.is_err() {
            // The kernel could not reach the page: whether the file is cut, a look at it says.
            self.load_u32(offset)?;
        }
        waited
    }

    /// Where it is in this process, for code that has an `unsafe` of its own.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn moved(&mut self, start: NonNull<u8>, len: usize) {
        (self.start, self.len) = (start, len);
    }

    pub(super) fn now_read_only(&mut self) {
        self.writable = false;
    }

    /// Also orders what was loaded before it before what follows.
    #[inline]
    pub(super) fn check_truncated(&self) -> Result<()> {
        // The handler sets the mark before it puts zeroes in place (partner: `guard::answer`), so
        // whoever loaded those zeroes, in whichever thread, finds the mark after this fence.
        fence(Ordering::Acquire);
        if self.is_truncated() { Err(Error::new("mmap", Errno::IO)) } else { Ok(()) }
    }

    #[inline]
    fn check_writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::new("mmap", Errno::ACCESS)) }
    }

    /// A place to be written to by the kernel.
    pub(crate) fn writable_place(
        &self,
        offset: usize,
        bytes: usize,
        alignment: usize,
    ) -> Result<*mut u8> {
        self.check_writable()?;
        self.check_truncated()?;
        self.place(offset, bytes, alignment)
    }

    #[inline]
    fn word(&self, offset: usize, bytes: usize) -> Result<*mut u8> {
        self.check_truncated()?;
        self.place(offset, bytes, bytes)
    }

    #[inline]
    fn place(&self, offset: usize, bytes: usize, alignment: usize) -> Result<*mut u8> {
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > self.len) || !offset.is_multiple_of(alignment) {
            return Err(Error::new("mmap", Errno::INVAL));
        }
        Ok(self.start.as_ptr().wrapping_add(offset))
    }
}

/// How much is copied between two looks at the mark: so many pages are put in place for nothing at
/// most, each of which is a signal.
const CHECK_BYTES: usize = 64 * 1024;
