//! Payload in and out of words that another process may be touching.
//!
//! Short payloads are loaded and stored as relaxed atomic words, longer ones by [`machine`]: what a lying
//! peer does meanwhile garbles bytes, and nothing else. What orders a copy is the header before it (see
//! [`crate::ring`]). Look only at the copy.

use std::sync::atomic::Ordering::Relaxed;

use crate::{AtomicU64, machine};

const WORD_BYTES: usize = 8;

/// Stores these bytes in the first of the words; the last one is filled up with zeros.
///
/// # Panics
/// If there are fewer words than the bytes need: check what a peer says before.
#[inline]
pub fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let words = &words[..bytes.len().div_ceil(WORD_BYTES)];
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    if bytes.len() >= machine::LONG_BYTES {
        machine::store_all(words, whole);
    } else {
        for (word, chunk) in words.iter().zip(whole) {
            word.store(u64::from_le_bytes(*chunk), Relaxed);
        }
    }
    if let Some(word) = words.get(whole.len()) {
        word.store(padded(rest), Relaxed);
    }
}

/// Loads as many bytes as there is room for. Of the last word all 8 bytes are loaded.
///
/// # Panics
/// If there are fewer words than the bytes need: check what a peer says before.
#[inline(always)]
pub fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    let words = &words[..bytes.len().div_ceil(WORD_BYTES)];
    let long = bytes.len() >= machine::LONG_BYTES;
    let (whole, rest) = bytes.as_chunks_mut::<WORD_BYTES>();
    if long {
        machine::load_all(words, whole);
    } else {
        for (word, chunk) in words.iter().zip(whole.iter_mut()) {
            *chunk = word.load(Relaxed).to_le_bytes();
        }
    }
    if let Some(word) = words.get(whole.len()) {
        cut(word.load(Relaxed), rest);
    }
}

/// Less than a word, the first byte lowest, and zeros. In three steps, since a copy of so few bytes
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
