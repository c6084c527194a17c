//! `shm:NAME`: shared memory in which each page has one writer. `docs/design/shm.md` is its design.

// Nothing opens these ends yet.
#![cfg_attr(not(test), expect(dead_code))]

mod datagram;
mod hello;
mod name;

#[cfg(test)]
mod tests;
