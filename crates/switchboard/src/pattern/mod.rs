//! Patterns: what a message means. Each is written once, over every transport.

pub mod event;
pub mod queue;
pub mod service;
pub mod state;
pub mod topic;
