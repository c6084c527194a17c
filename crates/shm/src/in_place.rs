//! Payload where it lies, as bytes.

#![allow(unsafe_code)]

use crate::AtomicU64;

/// The first bytes of words that another process may write.
///
/// It is of the same user, or it would not be lent: it could change this process's memory in other ways
/// too. If it writes meanwhile, against the protocol, what is read is garbage, and may be another the next
/// time; so whoever checks something first copies it.
#[inline]
pub(crate) fn shared(words: &[AtomicU64], len: usize) -> &[u8] {
    assert!(len <= words.len() * 8, "more than there is");
    // SAFETY: the words are that many bytes of mapped memory, borrowed for as long as the slice, and every
    // value of them is bytes. An honest writer stores nothing there until the reader is past its frame.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) }
}

/// The first bytes of words that this process alone writes, by whoever has `own` alone.
#[inline]
pub(crate) fn exclusive<T>(
    own: &mut T,
    words: impl FnOnce(&T) -> &[AtomicU64],
    len: usize,
) -> &mut [u8] {
    let words = words(own);
    assert!(len <= words.len() * 8, "more than there is");
    // SAFETY: the words are that many bytes of mapped memory, which `own` keeps mapped, and it is borrowed
    // mutably for as long as the slice. Other processes have them read-only, and look at them only after
    // the commit that follows. An atomic's memory may be written through a shared reference.
    unsafe { std::slice::from_raw_parts_mut(words.as_ptr().cast_mut().cast(), len) }
}
