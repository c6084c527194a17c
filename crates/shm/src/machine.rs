//! What the language has no word for: long copies that others may be in the middle of, and a hint to the cache.
//!
//! Source: the Rust Reference, "Inline assembly": what an `asm!` block does to memory is for its author to
//! say, and the compiler assumes nothing of it. `memcpy(3)`. Intel SDM volume 2, `PREFETCHW`; Arm ARM, `PRFM`.
//!
//! A plain copy would be a data race, which the compiler may take for impossible. So it is done in assembly, where
//! it is long by the C library's `memcpy`: the compiler sees neither a copy nor what it copied, and moves none
//! of it over a fence or an atomic. Bytes come in any order and grouping, perhaps more than once.
//!
//! The models have words instead.

#![allow(unsafe_code)]

use std::arch::asm;

use crate::AtomicU64;

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
}

/// From here on anything else is faster than words one by one. Measured on a Xeon of 2023, in nanoseconds, first
/// words, then a call: 32 bytes 2.7 and 3.2; 64 bytes 3.3 and 2.7; 256 bytes 7 and 4.1; 4 KiB 90 and 34.
pub(crate) const LONG_BYTES: usize = 49;

/// Up to here it is done without a call, 16 bytes at a time.
#[cfg(target_arch = "x86_64")]
const FEW_BYTES: usize = 128;

/// Copies whole words into memory that others may read.
#[inline]
pub(crate) fn store_all(words: &[AtomicU64], bytes: &[[u8; 8]]) {
    let words = &words[..bytes.len()];
    let (from, to) = (bytes.as_ptr().cast(), words.as_ptr().cast_mut().cast());
    // SAFETY: there are as many words as chunks. They may be written through a shared reference, by this as
    // by relaxed stores.
    unsafe { copy_words(from, to, bytes.len()) };
}

/// Copies whole words out of memory that others may write.
#[inline]
pub(crate) fn load_all(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
    let words = &words[..bytes.len()];
    // SAFETY: there are as many words as chunks.
    unsafe { copy_words(words.as_ptr().cast(), bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// # Safety
/// As [`copy`], of so many words.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_words(from: *const u8, to: *mut u8, words: usize) {
    let len = words * 8;
    if len > FEW_BYTES {
        // SAFETY: the caller says so.
        return unsafe { copy(from, to, len) };
    }
    // Around a call registers that are in use are stored. A writer's stores wait for the lines that its readers have,
    // and only so many can wait: with fewer of them, more messages are under way.
    let mut at = 0;
    while at + 32 <= len {
        // SAFETY: within the bytes that the caller says are mapped.
        unsafe {
            asm!(
                "movups {low}, [{from} + {at}]",
                "movups {high}, [{from} + {at} + 16]",
                "movups [{to} + {at}], {low}",
                "movups [{to} + {at} + 16], {high}",
                from = in(reg) from, to = in(reg) to, at = in(reg) at,
                low = out(xmm_reg) _, high = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
        at += 32;
    }
    while at < len {
        // SAFETY: as above.
        unsafe {
            asm!(
                "mov {word}, [{from} + {at}]",
                "mov [{to} + {at}], {word}",
                from = in(reg) from, to = in(reg) to, at = in(reg) at, word = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        at += 8;
    }
}

/// # Safety
/// As [`copy`], of so many words.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn copy_words(from: *const u8, to: *mut u8, words: usize) {
    // SAFETY: the caller says so.
    unsafe { copy(from, to, words * 8) };
}

/// # Safety
/// So many bytes are mapped at both places, and those at `to` may be written. The two do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller says that both are mapped. The arguments are those of the C calling convention,
    // what a call may change is declared, and without `nostack` the stack is aligned for it.
    unsafe {
        asm!(
            "call {memcpy}",
            memcpy = sym memcpy,
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rdx") len => _,
            clobber_abi("C"),
        );
    }
}

/// # Safety
/// So many bytes are mapped at both places, and those at `to` may be written. The two do not overlap.
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as on x86-64.
    unsafe {
        asm!(
            "bl {memcpy}",
            memcpy = sym memcpy,
            inout("x0") to => _,
            inout("x1") from => _,
            inout("x2") len => _,
            clobber_abi("C"),
        );
    }
}

/// Asks for the cache line of a word, to be written soon. It costs as much as an instruction, and does
/// nothing else.
#[inline]
pub(crate) fn will_write(word: &AtomicU64) {
    let place = std::ptr::from_ref(word);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, of a place that is mapped; processors without it do nothing.
    unsafe {
        asm!("prefetchw [{place}]", place = in(reg) place, options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, of a place that is mapped.
    unsafe {
        asm!("prfm pstl1keep, [{place}]", place = in(reg) place, options(nostack, preserves_flags));
    }
}

/// Asks for the cache line of a word, to be read soon.
#[inline]
pub(crate) fn will_read(word: &AtomicU64) {
    let place = std::ptr::from_ref(word);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, of a place that is mapped.
    unsafe {
        asm!("prefetcht0 [{place}]", place = in(reg) place, options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, of a place that is mapped.
    unsafe {
        asm!("prfm pldl1keep, [{place}]", place = in(reg) place, options(nostack, preserves_flags));
    }
}
