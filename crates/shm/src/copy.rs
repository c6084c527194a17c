//! Payload in and out of words that another process may be touching.
//!
//! Each word is loaded or stored whole and relaxed: what a lying peer does meanwhile garbles bytes, and
//! nothing else. What orders a copy is the header before it (see [`crate::ring`]).

use std::sync::atomic::Ordering::Relaxed;

use crate::AtomicU64;

/// Stores these bytes from the word `at` on; the last word is filled up with zeros.
#[inline]
pub fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_le_bytes(last), Relaxed);
    }
}

/// Loads as many bytes as there is room for.
#[inline]
pub fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    let (whole, rest) = bytes.as_chunks_mut::<8>();
    for (word, chunk) in words.iter().zip(whole.iter_mut()) {
        *chunk = word.load(Relaxed).to_le_bytes();
    }
    if !rest.is_empty() {
        let last = words[whole.len()].load(Relaxed).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
