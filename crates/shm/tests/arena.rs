//! How large the segments of an arena are, and in which order their blocks are used.

use std::sync::atomic::AtomicU64;

use switchboard_shm::Words;
use switchboard_shm::arena::{Arena, Block, LARGEST_BYTES};

struct Memory(Vec<AtomicU64>);

impl Words for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The sizes of so many segments for messages of a length, as they are added.
fn sizes(mut arena: Arena<Memory>, bytes: u64, count: usize) -> Vec<u64> {
    let mut sizes = Vec::new();
    for _ in 0..count {
        let size = arena.next_segment_bytes(bytes, u64::MAX).expect("room for one more");
        arena.add(Memory((0..size / 8).map(AtomicU64::new).collect()), bytes);
        sizes.push(size);
    }
    sizes
}

#[test]
fn segments_grow() {
    let few = sizes(Arena::default(), 5_000, 7);
    assert_eq!(few, [2, 4, 8, 16, 32, 64, 64].map(|blocks| blocks * 8 * KIB));
    let small = sizes(Arena::with_first_bytes(4 * MIB), 5_000, 2);
    assert_eq!(small, [128, 128].map(|blocks| blocks * 8 * KIB));
    let many = sizes(Arena::with_first_bytes(4 * MIB), 100_000, 4);
    assert_eq!(many, [32, 64, 128, 128].map(|blocks| blocks * 128 * KIB));
    let large = sizes(Arena::with_first_bytes(4 * MIB), MIB, 1);
    assert_eq!(large, [4 * MIB]);
    let larger = sizes(Arena::with_first_bytes(3 * MIB), 2 * MIB, 1);
    assert_eq!(larger, [2 * 2 * MIB], "as few as without it");
}

/// An arena with one segment of 128 blocks of 4 KiB.
fn one_segment() -> Arena<Memory> {
    let mut arena = Arena::with_first_bytes(4 * MIB);
    let size = arena.next_segment_bytes(4 * KIB, u64::MAX).expect("room for one");
    assert_eq!(size, 128 * 4 * KIB);
    arena.add(Memory((0..size / 8).map(AtomicU64::new).collect()), 4 * KIB);
    arena
}

/// Takes a block, and says which it is.
fn take(arena: &mut Arena<Memory>) -> Option<(u64, Block)> {
    let block = arena.take(4 * KIB)?;
    Some((arena.place(&block, 1).offset / (4 * KIB), block))
}

#[test]
fn blocks_are_taken_by_address_in_whatever_order_they_come_back() {
    let mut arena = one_segment();
    let mut taken: Vec<_> = std::iter::from_fn(|| take(&mut arena)).collect();
    assert_eq!(taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (0..128).collect::<Vec<_>>());
    assert!(!arena.has_free(4 * KIB));
    let odd: Vec<_> = taken.extract_if(.., |(at, _)| *at % 2 == 1).collect();
    for (_, block) in odd.into_iter().rev().chain(taken) {
        arena.give_back(block);
    }
    for round in 0..3 {
        for wanted in 0..128 {
            let (at, block) = take(&mut arena).expect("all are free");
            assert_eq!(at, wanted, "round {round}");
            arena.give_back(block);
        }
    }
}

/// A block that is held is passed over, and the one given back last is not the one taken next.
#[test]
fn blocks_that_are_held_are_passed_over() {
    let mut arena = one_segment();
    let mut held = Vec::new();
    for wanted in 0..128 {
        let (at, block) = take(&mut arena).expect("nobody took it");
        assert_eq!(at, wanted);
        if [0, 1, 63, 64, 127].contains(&at) {
            held.push(block);
        } else {
            arena.give_back(block);
        }
    }
    let free: Vec<u64> = (0..123)
        .map(|_| {
            let (at, block) = take(&mut arena).expect("123 are free");
            arena.give_back(block);
            at
        })
        .collect();
    assert_eq!(free, (2..63).chain(65..127).collect::<Vec<_>>());
    for block in held.drain(..) {
        arena.give_back(block);
    }
    assert_eq!(take(&mut arena).map(|(at, _)| at), Some(127), "behind the one before it");
}

/// Whatever others take, there is a block of each size.
#[test]
fn memory_that_is_taken_leaves_one_block_of_each_size() {
    let mut arena = Arena::<Memory>::with_first_bytes(2 * MIB);
    assert_eq!(arena.next_segment_bytes(MIB, 3 * MIB + 5), Some(3 * MIB));
    assert_eq!(arena.next_segment_bytes(MIB, MIB - 1), Some(MIB));
    assert_eq!(arena.next_segment_bytes(LARGEST_BYTES, 0), Some(LARGEST_BYTES));
    assert_eq!(arena.next_segment_bytes(LARGEST_BYTES + 1, u64::MAX), None);
    arena.add(Memory((0..MIB / 8).map(AtomicU64::new).collect()), MIB);
    assert_eq!(arena.next_segment_bytes(MIB, MIB - 1), None);
    assert_eq!(arena.next_segment_bytes(MIB, MIB), Some(MIB));
    let block = arena.take(MIB).expect("the only one");
    assert!(arena.take(MIB).is_none() && !arena.has_free(MIB));
    arena.give_back(block);
    assert!(arena.has_free(MIB) && !arena.has_free(MIB / 2));
}
