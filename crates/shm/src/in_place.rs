//! Payload where it lies, as bytes.

#![allow(unsafe_code)]

use crate::arena::{Arena, Block, Place};
use crate::ring::{Claim, Frame, RingReader, RingWriter};
use crate::{AtomicU64, Misbehaved, Words};

impl<W: Words> RingReader<W> {
    /// The payload where it lies, of a ring that loses nothing and whose writer is of this user: see
    /// docs/design/shm.md, "What if a peer lies".
    #[inline]
    #[must_use]
    pub fn in_place(&self, frame: &Frame) -> &[u8] {
        shared(self.payload(frame), frame.payload_bytes as usize)
    }
}

impl<W: Words> RingWriter<W> {
    /// The payload where it lies, to be built there.
    #[inline]
    pub fn room_in_place(&mut self, claim: &Claim) -> &mut [u8] {
        let len = claim.payload_bytes() as usize;
        exclusive(self, |own| own.room(claim), len)
    }
}

impl Place {
    /// The message where it lies: as [`RingReader::in_place`].
    ///
    /// # Errors
    /// When it reaches beyond its segment.
    pub fn in_place<'a>(&self, memory: &'a impl Words) -> Result<&'a [u8], Misbehaved> {
        self.words(memory).map(|words| shared(words, self.len as usize))
    }
}

impl<W: Words> Arena<W> {
    /// A block where it lies, to be filled.
    pub fn room_in_place(&mut self, block: &Block, len: usize) -> &mut [u8] {
        exclusive(self, |own| own.room(block), len)
    }
}

/// The first bytes of words that another process may write.
///
/// It is of the same user, or it would not be lent: it could change this process's memory in other ways
/// too. If it writes meanwhile, against the protocol, what is read is garbage, and may be another the next
/// time; so whoever checks something first copies it.
#[inline]
fn shared(words: &[AtomicU64], len: usize) -> &[u8] {
    assert!(len <= words.len() * 8, "more than there is");
    // SAFETY: the words are that many bytes of mapped memory, borrowed for as long as the slice, and every
    // value of them is bytes. An honest writer stores nothing there until the reader is past its frame.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) }
}

/// The first bytes of words that this process alone writes, by whoever has `own` alone.
#[inline]
fn exclusive<T>(own: &mut T, words: impl FnOnce(&T) -> &[AtomicU64], len: usize) -> &mut [u8] {
    let words = words(own);
    assert!(len <= words.len() * 8, "more than there is");
    // SAFETY: the words are that many bytes of mapped memory, which `own` keeps mapped, and it is borrowed
    // mutably for as long as the slice. Other processes have them read-only, and look at them only after
    // the commit that follows. An atomic's memory may be written through a shared reference.
    unsafe { std::slice::from_raw_parts_mut(words.as_ptr().cast_mut().cast(), len) }
}
