//! Copies to and from memory that others write meanwhile: by relaxed atomic words, and bytes at the
//! edges; long ones by what the processor has for them, in assembly.
//!
//! Source: the memory model of `std::sync::atomic`; Intel, "Optimization Reference Manual", on
//! enhanced REP MOVSB and on AVX. A plain copy would be a data race, which the compiler may take for
//! impossible.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD_BYTES: usize = size_of::<u64>();

#[cfg(target_arch = "x86_64")]
mod long;

/// Copies from shared memory.
///
/// # Safety
/// As many bytes as `to` has are mapped for reading from `from` on.
#[inline]
pub(super) unsafe fn copy_out(from: *mut u8, to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if to.len() >= long::LEAST_BYTES {
        // SAFETY: the caller says that so many bytes are mapped, and the slice has them.
        return unsafe { long::copy(from, to.as_mut_ptr(), to.len()) };
    }
    let (head, words, tail) = split(from.addr(), to.len());
    let (first, rest) = to.split_at_mut(head);
    let (middle, last) = rest.split_at_mut(words);
    // SAFETY: the three parts make up the whole.
    unsafe { bytes_out(from, first) };
    let mut at = from.wrapping_add(head).cast::<u64>();
    for word in middle.chunks_exact_mut(WORD_BYTES) {
        // SAFETY: mapped, and aligned by `split`.
        let value = unsafe { AtomicU64::from_ptr(at) }.load(Relaxed);
        word.copy_from_slice(&value.to_ne_bytes());
        at = at.wrapping_add(1);
    }
    debug_assert_eq!(last.len(), tail, "the parts make up the whole");
    // SAFETY: the three parts make up the whole.
    unsafe { bytes_out(at.cast(), last) };
}

/// Copies to shared memory.
///
/// # Safety
/// As many bytes as `from` has are mapped for writing from `to` on.
#[inline]
pub(super) unsafe fn copy_in(from: &[u8], to: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    if from.len() >= long::LEAST_BYTES {
        // SAFETY: the caller says that so many bytes are mapped, and the slice has them.
        return unsafe { long::copy(from.as_ptr(), to, from.len()) };
    }
    let (head, words, _) = split(to.addr(), from.len());
    let (first, rest) = from.split_at(head);
    let (middle, last) = rest.split_at(words);
    // SAFETY: the three parts make up the whole.
    unsafe { bytes_in(first, to) };
    let mut at = to.wrapping_add(head).cast::<u64>();
    for word in middle.chunks_exact(WORD_BYTES) {
        let mut value = [0; WORD_BYTES];
        value.copy_from_slice(word);
        // SAFETY: mapped for writing, and aligned by `split`.
        unsafe { AtomicU64::from_ptr(at) }.store(u64::from_ne_bytes(value), Relaxed);
        at = at.wrapping_add(1);
    }
    // SAFETY: the three parts make up the whole.
    unsafe { bytes_in(last, at.cast()) };
}

/// How many bytes come before the first aligned word, in whole words, and after them.
#[inline]
fn split(address: usize, len: usize) -> (usize, usize, usize) {
    let head = (address.wrapping_neg() % WORD_BYTES).min(len);
    let tail = (len - head) % WORD_BYTES;
    (head, len - head - tail, tail)
}

#[inline]
unsafe fn bytes_out(from: *mut u8, to: &mut [u8]) {
    for (at, byte) in to.iter_mut().enumerate() {
        // SAFETY: the caller says that so many bytes are mapped.
        *byte = unsafe { AtomicU8::from_ptr(from.wrapping_add(at)) }.load(Relaxed);
    }
}

#[inline]
unsafe fn bytes_in(from: &[u8], to: *mut u8) {
    for (at, byte) in from.iter().enumerate() {
        // SAFETY: the caller says that so many bytes are mapped for writing.
        unsafe { AtomicU8::from_ptr(to.wrapping_add(at)) }.store(*byte, Relaxed);
    }
}
