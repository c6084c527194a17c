//! Long copies on x86-64, by vectors or by `rep movsb`.
//!
//! Source: Intel, "Optimization Reference Manual"; measured on Sapphire Rapids. There `rep movsb` is
//! as fast as the C library's `memcpy` in most places, but at 4 KiB sometimes takes four times as
//! long, which the bench showed and nothing explained; vectors do not.

#![allow(unsafe_code)]

use std::arch::asm;

/// From here on it is faster than word by word.
pub(super) const LEAST_BYTES: usize = 512;
/// From here on `rep movsb` is the faster one.
const STRING_BYTES: usize = 16_384;
const VECTOR_BYTES: usize = 32;
const BLOCK_BYTES: usize = 4 * VECTOR_BYTES;

/// Bytes in any order and grouping, each once, as atomic loads and stores of each.
///
/// The compiler takes an `asm!` block for code that may touch any memory, so this is no data race.
///
/// # Safety
/// So many bytes are mapped at both places, and those at `to` may be written.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len >= STRING_BYTES || !std::is_x86_feature_detected!("avx") {
        // SAFETY: as the caller says.
        return unsafe { by_string(from, to, len) };
    }
    let head = to.addr().wrapping_neg() % VECTOR_BYTES;
    let blocks = (len - head) / BLOCK_BYTES * BLOCK_BYTES;
    let tail = head + blocks;
    // SAFETY: as the caller says: the three parts make up the whole, for `head` is shorter than the
    // shortest `len`.
    unsafe { by_pieces(from, to, head) };
    let (from_block, to_block) = (from.wrapping_add(head), to.wrapping_add(head));
    // SAFETY: as above. There is AVX, `to` is aligned after the head, and there is at least one block.
    unsafe { by_vectors(from_block, to_block, blocks) };
    // SAFETY: as above.
    unsafe { by_pieces(from.wrapping_add(tail), to.wrapping_add(tail), len - tail) };
}

/// # Safety
/// As [`copy`].
unsafe fn by_string(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller says that both are mapped. The direction flag is clear, as the calling
    // convention demands.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As [`copy`]; the processor has AVX, `to` is aligned to a vector, and `len` is a multiple of
/// [`BLOCK_BYTES`] and not 0.
#[target_feature(enable = "avx")]
unsafe fn by_vectors(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller says that both are mapped, and that these instructions are there.
    unsafe {
        asm!(
            "2:",
            "vmovdqu ymm0, [rsi]",
            "vmovdqu ymm1, [rsi + 32]",
            "vmovdqu ymm2, [rsi + 64]",
            "vmovdqu ymm3, [rsi + 96]",
            "vmovdqa [rdi], ymm0",
            "vmovdqa [rdi + 32], ymm1",
            "vmovdqa [rdi + 64], ymm2",
            "vmovdqa [rdi + 96], ymm3",
            "add rsi, 128",
            "add rdi, 128",
            "sub rcx, 128",
            "jnz 2b",
            "vzeroupper",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            // Of all vector registers, for vzeroupper changes all.
            clobber_abi("C"),
            options(nostack),
        );
    }
}

/// Words and then bytes, aligned or not.
///
/// # Safety
/// As [`copy`].
unsafe fn by_pieces(from: *const u8, to: *mut u8, len: usize) {
    let words = len - len % 8;
    for at in (0..words).step_by(8) {
        // SAFETY: the caller says that both are mapped, and this is within them.
        unsafe {
            asm!(
                "mov {word}, [{from}]",
                "mov [{to}], {word}",
                from = in(reg) from.wrapping_add(at),
                to = in(reg) to.wrapping_add(at),
                word = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
    }
    for at in words..len {
        // SAFETY: as above.
        unsafe {
            asm!(
                "mov {byte}, [{from}]",
                "mov [{to}], {byte}",
                from = in(reg) from.wrapping_add(at),
                to = in(reg) to.wrapping_add(at),
                byte = out(reg_byte) _,
                options(nostack, preserves_flags),
            );
        }
    }
}
