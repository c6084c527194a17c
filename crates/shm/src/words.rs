//! Memory as words.

use crate::AtomicU64;

/// Memory as words. Another process may write them at any time, or it may be mapped so that this one must
/// not: then only loads are made.
pub trait Words {
    /// All of them, the same each time.
    fn words(&self) -> &[AtomicU64];
}

impl<W: Words> Words for &W {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        (*self).words()
    }
}

impl<W: Words> Words for std::sync::Arc<W> {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        (**self).words()
    }
}

impl Words for Vec<AtomicU64> {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self
    }
}
