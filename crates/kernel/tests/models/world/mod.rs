//! What the algorithms run in, in place of the memory, the C library and the kernel.

pub(crate) mod atomic;
pub(crate) mod death;
pub(crate) mod futex;
pub(crate) mod pthread;
pub(crate) mod shared_words;

use core::cell::Cell;

use loom::thread::LocalKey;

/// A cell for each thread of a model.
pub(crate) struct PerThread<T: 'static>(pub(crate) &'static LocalKey<Cell<T>>);

impl<T: Copy> PerThread<T> {
    pub(crate) fn get(&self) -> T {
        self.0.with(Cell::get)
    }

    pub(crate) fn set(&self, value: T) {
        self.0.with(|cell| cell.set(value));
    }
}
