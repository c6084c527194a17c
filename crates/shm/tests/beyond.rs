//! A mistake on purpose: what watches memory has to notice it.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;

use switchboard_shm::Words;

/// With this in the environment the test reads on behind its memory: for `cargo xtask prove asan`.
const READ_ON: &str = "SWITCHBOARD_READ_ON";

#[test]
fn memory_ends_with_its_last_word() {
    let memory: Vec<AtomicU64> = (1..=512).map(AtomicU64::new).collect();
    let beyond = usize::from(std::env::var_os(READ_ON).is_some());
    let words = memory.words();
    let last = words.as_ptr().cast::<u64>().wrapping_add(words.len() - 1 + beyond);
    // SAFETY: it is the last word, unless somebody wants to see the mistake.
    let word = unsafe { last.read_volatile() };
    assert!(word == 512 || beyond > 0);
}
