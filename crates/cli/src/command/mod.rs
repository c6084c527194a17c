//! The commands.

pub(crate) mod demo;
