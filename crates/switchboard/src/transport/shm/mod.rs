//! `shm:NAME`: shared memory in which each page has one writer. `docs/design/shm.md` is its design.

// Nothing opens these ends yet, and the tests do not use all of it.
#![cfg_attr(not(test), expect(dead_code))]
#![cfg_attr(test, allow(dead_code))]

mod base;
mod datagram;
mod folder;
mod greeting;
mod hello;
mod meeting;
mod name;
mod peer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::ROLES;
