//! The kill harness itself, on a protocol that is wrong and on one that is right; and the C library's
//! robust mutex under it.

pub(crate) mod mutex;
pub(crate) mod toy;
pub(crate) mod wrong;
