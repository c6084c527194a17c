//! The atomics that everything here is made of. The models have loom's instead (`tests/models/main.rs`).

pub use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::fence;

/// The order of the program, for the compiler: the processor's is made by who calls for a barrier.
#[inline]
pub(crate) fn light_fence() {
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

/// A page, in bytes.
pub(crate) const PAGE_BYTES: usize = 4096;
/// The smallest ring, in bytes.
pub(crate) const LEAST_CAPACITY_BYTES: u64 = 4096;
/// Of how many changes a feed says what they were of.
pub(crate) const RECENT_CHANGES: u64 = 224;
/// How often a value is looked for, at most: it is found at the first look, unless many were set in between.
pub(crate) const LOOKS: u32 = 10_000;
/// Small blocks of a state that are kept unused.
pub(crate) const SPARE_BLOCKS: usize = 64;
