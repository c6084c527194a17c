//! What is taken from the memory of other processes: what their system calls' arguments point at, and words that they sleep on.

use std::os::unix::fs::FileExt;

use switchboard_inspect::futex;
use switchboard_inspect::source::memory::Memory;
use switchboard_inspect::source::system_call::arguments::{
    UnixName, message_address, poll_entries, record_lock, select_set, semaphore_operations,
    unix_name,
};

use super::parsers::{Parser, shape};

pub(super) const TABLE: &[Parser] = &[
    Parser {
        name: "poll entries",
        seeds: || vec![[3_i32, 0x1, 4, 0x2004, -1, 0].map(i32::to_ne_bytes).concat()],
        read: |bytes| {
            let found = poll_entries(bytes);
            assert_eq!(found.len(), bytes.len() / 8);
            shape(
                &found.iter().take(9).map(|(fd, events)| (*fd < 0, events & 7)).collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "select sets",
        seeds: || vec![vec![0b101, 0, 0, 0, 0, 0, 0, 0x80], vec![0xff; 128]],
        read: |bytes| {
            let count = bytes.first().map_or(usize::MAX, |&count| usize::from(count) * 16);
            let found = select_set(bytes, count);
            assert!(
                found.iter().all(|&fd| fd >= 0 && fd.cast_unsigned() as usize / 8 < bytes.len())
            );
            shape(&found.iter().take(9).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "struct flock",
        seeds: || {
            let longs = [7_i64, i64::MAX].map(i64::to_ne_bytes).concat();
            vec![[&[1, 0, 2, 0, 0, 0, 0, 0][..], &longs].concat(), vec![0; 24]]
        },
        read: |bytes| {
            let found = record_lock(bytes);
            shape(&found.map(|lock| (lock.exclusive, lock.whence, lock.start < 0, lock.len < 0)))
        },
    },
    Parser {
        name: "struct sembuf",
        seeds: || vec![vec![1, 0, 0xff, 0xff, 0, 0x10, 0, 0, 0, 0, 0, 0]],
        read: |bytes| {
            let found = semaphore_operations(bytes);
            shape(
                &found
                    .iter()
                    .take(5)
                    .map(|one| (one.change.signum(), one.undone))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "struct msghdr",
        seeds: || vec![[0x7f00_1234_u64, 110].map(u64::to_ne_bytes).concat()],
        read: |bytes| {
            shape(&message_address(bytes).map(|(address, len)| (address > 0, len.min(200))))
        },
    },
    Parser {
        name: "struct sockaddr_un",
        seeds: || vec![b"\x01\0/run/x.sock\0".to_vec(), b"\x01\0\0abstract".to_vec()],
        read: |bytes| {
            shape(&unix_name(bytes).map(|name| match name {
                UnixName::Path(path) => (0, path.len()),
                UnixName::Abstract(name) => (1, name.len()),
            }))
        },
    },
    Parser {
        name: "futex words",
        seeds: word_seeds,
        read: |bytes| {
            let [operation, expected, offset, rest @ ..] = &words(bytes)[..] else { return 0 };
            // What is read lies at its place in the memory, and nothing is around it.
            let start = BASE + u64::from(*offset) % 64;
            let memory = memory(bytes.get(12..).unwrap_or_default());
            let timed = rest.first().is_some_and(|word| word % 2 == 1);
            let arguments =
                [start, (*operation).into(), (*expected).into(), u64::from(timed), 0, 0];
            let entry = [u64::from(*expected), start, u64::from(operation % 256)];
            let entry = entry.map(u64::to_ne_bytes).concat();
            let lives = |id: u32| id % 2 == 1;
            shape(&(
                futex::in_words(&arguments, &memory, lives),
                futex::entries_in_words(&entry, &memory, lives),
            ))
        },
    },
    Parser {
        name: "futex entries",
        seeds: || vec![[1_u64, BASE, 130, 0, BASE + 4, 2].map(u64::to_ne_bytes).concat()],
        read: |bytes| shape(&futex::entries_in_words(bytes, &memory(bytes), |id| id % 2 == 1)),
    },
];

/// Where the memory begins: below lies nothing.
const BASE: u64 = 4096;

fn memory(bytes: &[u8]) -> Memory {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(bytes, BASE).expect("written");
    Memory::of_file(file)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |word: &[u8]| word.try_into().map_or(0, u32::from_ne_bytes);
    bytes.chunks_exact(4).map(word).collect()
}

/// Operation, expected value and offset, then what lies there: locks of the C library, with an owner of an odd number.
fn word_seeds() -> Vec<Vec<u8>> {
    const OWNER: u32 = 4711;
    const WAITERS: u32 = 0x8000_0000;
    let seeds: [&[u32]; 7] = [
        // A plain mutex, a robust one, one that inherits priorities.
        &[0, 2, 0, 2, 0, OWNER, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0, WAITERS | OWNER, 0, WAITERS | OWNER, 0, OWNER, 1, 16, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, WAITERS | OWNER, 0, OWNER, 1, 32, 0, 0, 0, 0, 0, 0],
        // A semaphore at 0 that one waits for; a read-write lock, written and read.
        &[9 + 256, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        &[9 + 256, 2, 8, 1, 1, 2, 0, 0, 0, OWNER, 0, 0, 0],
        &[9 + 256, 1, 8, 9, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        // The end of a thread.
        &[9 + 256, OWNER, 16, 4096, 0, 4096, 0, OWNER, 0, 0],
    ];
    seeds.iter().map(|words| words.iter().flat_map(|word| word.to_ne_bytes()).collect()).collect()
}
