//! Patterns: what a message means. Each is written once, over every transport.

pub mod queue;
