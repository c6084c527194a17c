//! Memory. All threads of a model use the handle that made an object, so there is nothing to map.

/// The memory that objects lie in.
#[derive(Clone, Debug)]
pub(crate) struct SharedWords;

/// A piece of it.
#[derive(Debug)]
pub(crate) struct Slot;
