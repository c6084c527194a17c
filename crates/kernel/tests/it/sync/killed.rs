//! Placeholder of the kill plans.
pub(crate) fn victim(_: &[String]) {}
