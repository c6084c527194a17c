//! The mapped memory of the kernel crate, as the words that rings are made of.

use std::sync::atomic::{AtomicU32, AtomicU64};

use switchboard_kernel::shared_memory::{self, OwnMemory, PeerMemory};
use switchboard_kernel::{Error, ErrorKind, Result, futex};
use switchboard_shm::{Misbehaved, Words};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(super) $inner);

        impl Words for $name {
            #[inline]
            fn words(&self) -> &[AtomicU64] {
                self.0.words()
            }
        }
    )*};
}

words! {
    /// Memory of this process, which others may read.
    Own(OwnMemory);
    /// Memory of a peer, which is only read here.
    Theirs(PeerMemory);
    /// The doorbell, which both write.
    Bell(shared_memory::Doorbell);
}

/// Why memory that a peer gave is of no use.
#[derive(Debug)]
pub(super) enum Unusable {
    /// This process has no room for it now, which is no fault of the peer's.
    Short(Error),
    Wrong(Misbehaved),
}

impl Unusable {
    /// Why it was not mapped; what is to be said of memory that is not as it has to be.
    pub(super) fn of(error: Error, wrong: &'static str) -> Self {
        match error.kind() {
            ErrorKind::OutOfMemory => Self::Short(error),
            _ => Self::Wrong(Misbehaved(wrong)),
        }
    }
}

impl From<Misbehaved> for Unusable {
    fn from(what: Misbehaved) -> Self {
        Self::Wrong(what)
    }
}

/// The half of a word that is slept on.
#[inline]
pub(super) fn futex_of(word: &AtomicU64) -> &AtomicU32 {
    shared_memory::low_half(word)
}

/// Wakes all who sleep on a word.
pub(super) fn wake_all(word: &AtomicU64) -> Result<u32> {
    futex::wake(futex_of(word), i32::MAX.cast_unsigned())
}
