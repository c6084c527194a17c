//! Copies to and from memory that others write meanwhile.
//!
//! Source: `memcpy(3)`; the Rust Reference, "Inline assembly": what an `asm!` block does to memory is
//! for its author to say, and the compiler assumes nothing of it.
//!
//! A plain copy would be a data race, which the compiler may take for impossible. So the C library's
//! `memcpy` is called from assembly: the compiler sees neither a copy nor what it copied. Bytes come in
//! any order and grouping, perhaps more than once; what was copied out is looked at only in the copy.

#![allow(unsafe_code)]

use std::arch::asm;

/// Copies from shared memory.
///
/// # Safety
/// As many bytes as `to` has are mapped for reading from `from` on.
#[inline]
pub(crate) unsafe fn copy_out(from: *mut u8, to: &mut [u8]) {
    // SAFETY: the caller says that so many bytes are mapped, and the slice has them.
    unsafe { copy(from, to.as_mut_ptr(), to.len()) };
}

/// Copies to shared memory.
///
/// # Safety
/// As many bytes as `from` has are mapped for writing from `to` on.
#[inline]
pub(crate) unsafe fn copy_in(from: &[u8], to: *mut u8) {
    // SAFETY: the caller says that so many bytes are mapped, and the slice has them.
    unsafe { copy(from.as_ptr(), to, from.len()) };
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
            memcpy = sym libc::memcpy,
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
            memcpy = sym libc::memcpy,
            inout("x0") to => _,
            inout("x1") from => _,
            inout("x2") len => _,
            clobber_abi("C"),
        );
    }
}
