//! Lock-free structures in shared memory, each page with one writer.
//!
//! No system call is made here and no memory mapped: everything works on words that somebody else has
//! mapped ([`Words`]), and whoever has to wait is told so. docs/design/shm.md draws every byte and says
//! what is found when a process dies at any step, or lies.
//!
//! | module | what |
//! |---|---|
//! | [`ring`] | a ring of frames: one writer, any number of readers |
//! | [`arena`] | large messages: blocks in segments |
//! | [`cursor`] | a reader's page: how far it is, what it has settled |
//! | [`bell`] | the doorbell: which readers sleep |
//! | [`barrier`] | who fences between saying and looking, and who need not |
//! | [`feed`] | events and states: entries that change, and which did last |
//! | [`values`] | the values of a state: blocks in segments |
//! | [`layout`] | where everything lies |
//!
//! Nothing that a peer has written is trusted: it is read once, checked, and only the copy is used. What
//! does not hold is [`Misbehaved`].

#![deny(unsafe_code)]

pub mod arena;
mod atomic;
pub mod barrier;
pub mod bell;
mod copy;
pub mod cursor;
pub mod feed;
pub mod layout;
mod machine;
mod misbehaved;
pub mod ring;
pub mod values;
mod words;

pub use atomic::AtomicU64;
pub use copy::{copy_in, copy_out};
pub use misbehaved::Misbehaved;
pub use words::Words;
