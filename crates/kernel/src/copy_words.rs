//! Payload in and out of words that other processes may read and write meanwhile.
//!
//! Source: the memory model of `std::sync::atomic`; `memcpy(3)`; the Rust Reference, "Inline assembly".
//!
//! A plain copy would be a data race, which the compiler may take for impossible. Short payloads are
//! loaded and stored as relaxed atomic words. Longer ones are copied by the C library's `memcpy`,
//! called from assembly: the compiler sees neither a copy nor what it copied, and moves none of it
//! over a fence or an atomic.
//!
//! *Order.* A copy comes before what follows a `fence` or a store with `Release`, and after a load
//! with `Acquire` or the `fence` after it. The words of one copy come in any order, perhaps more than
//! once: what a peer writes meanwhile is read in part. Look only at the copy.
//!
//! *Which is faster*, on a Xeon of 2023 (nanoseconds; first words, then `memcpy`): 32 bytes 2.7 and
//! 3.2; 64 bytes 3.3 and 2.7; 256 bytes 7 and 4.1; 4 KiB 90 and 34. `rep movsb` takes 3.8 up to 128
//! bytes, 10 for 256, and is level from 4 KiB on.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mmap::copy;

/// Copies bytes to the first of these words. The last word is filled up with zeroes, and no word after
/// it is touched.
///
/// # Panics
/// If there are fewer words than the bytes need: check what a peer says before.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use switchboard_kernel::copy_words::{copy_in, copy_out};
///
/// let words = [const { AtomicU64::new(u64::MAX) }; 3];
/// copy_in(&words[1..], b"payload of 1");
/// let mut found = [0; 12];
/// copy_out(&words[1..], &mut found);
/// assert_eq!(&found, b"payload of 1");
/// assert_eq!(words[0].load(Ordering::Relaxed), u64::MAX);
/// ```
#[inline]
pub fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let words = &words[..bytes.len().div_ceil(WORD_BYTES)];
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    if bytes.len() > SHORT_BYTES {
        // SAFETY: there are as many words as whole chunks, and more. They may be written through a
        // shared reference, by this as by a relaxed store.
        unsafe { copy::copy_in(whole.as_flattened(), words.as_ptr().cast_mut().cast()) };
    } else {
        for (word, chunk) in words.iter().zip(whole) {
            word.store(u64::from_le_bytes(*chunk).to_le(), Ordering::Relaxed);
        }
    }
    if let Some(word) = words.get(whole.len()) {
        word.store(padded(rest).to_le(), Ordering::Relaxed);
    }
}

/// Copies as many bytes out of the first of these words as `bytes` has. Works on memory that is mapped
/// read-only. Of the last word all 8 bytes may be read.
///
/// # Panics
/// If there are fewer words than the bytes need: check what a peer says before.
#[inline]
pub fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    let words = &words[..bytes.len().div_ceil(WORD_BYTES)];
    if bytes.len() > SHORT_BYTES {
        // SAFETY: the words are as many bytes or more.
        return unsafe { copy::copy_out(words.as_ptr().cast_mut().cast(), bytes) };
    }
    let (whole, rest) = bytes.as_chunks_mut::<WORD_BYTES>();
    for (word, chunk) in words.iter().zip(whole.iter_mut()) {
        *chunk = u64::from_le(word.load(Ordering::Relaxed)).to_le_bytes();
    }
    if let Some(word) = words.get(whole.len()) {
        cut(u64::from_le(word.load(Ordering::Relaxed)), rest);
    }
}

/// Up to here words are not slower than the call. Measured, see the top.
const SHORT_BYTES: usize = 48;

const WORD_BYTES: usize = size_of::<u64>();

/// Less than a word, the first byte lowest, and zeroes. In three steps, since a copy of so few bytes
/// would be a call.
#[inline]
fn padded(rest: &[u8]) -> u64 {
    let (mut word, mut bits) = (0, 0);
    let (four, rest) = rest.as_chunks::<4>();
    if let [part] = four {
        (word, bits) = (u64::from(u32::from_le_bytes(*part)), 32);
    }
    let (two, one) = rest.as_chunks::<2>();
    if let [part] = two {
        word |= u64::from(u16::from_le_bytes(*part)) << bits;
        bits += 16;
    }
    if let [byte] = one {
        word |= u64::from(*byte) << bits;
    }
    word
}

/// The opposite of [`padded`].
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the low part is what is meant")]
fn cut(mut word: u64, rest: &mut [u8]) {
    let (four, rest) = rest.as_chunks_mut::<4>();
    if let [part] = four {
        *part = (word as u32).to_le_bytes();
        word >>= 32;
    }
    let (two, one) = rest.as_chunks_mut::<2>();
    if let [part] = two {
        *part = (word as u16).to_le_bytes();
        word >>= 16;
    }
    if let [byte] = one {
        *byte = word as u8;
    }
}
