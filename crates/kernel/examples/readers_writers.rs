//! Readers and writers: a board with two numbers that are always the same to whoever reads them. Many
//! read at a time; a writer is alone, and one of them is killed in the middle of writing.
//!
//! Source: Courtois, Heymans and Parnas, "Concurrent control with readers and writers", CACM 14 (1971).
//!
//! `cargo run -p switchboard-kernel --example readers_writers`

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{Locked, RwLock, Shared};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The number under which the children have the memory.
const MEMORY: i32 = 3;

const READERS: u32 = 4;
const READINGS: u32 = 2000;
const WRITERS: u32 = 2;
const WRITINGS: u32 = 200;
/// One use of so many lets others run in the middle. Not each: where the processors are busy, a process
/// that yields gets its next turn some milliseconds later for each of those that want one.
const YIELDS: u32 = 100;

/// The two numbers; how many are reading now, and how many at most were; whether a writing was begun that
/// never ends.
const LEFT: usize = 0;
const RIGHT: usize = 1;
const NOW: usize = 2;
const MOST: usize = 3;
const STUCK: usize = 4;
const BOARD_BYTES: usize = 64;

struct Board {
    lock: RwLock,
    words: Slot,
}

fn main() -> Outcome {
    let Some(role) = std::env::args().nth(1) else { return watch() };
    let memory = SharedWords::from_fd(inherited_descriptor(MEMORY)?)?;
    let (lock, words) = places(&memory)?;
    let board = Board { lock: RwLock::open_in(lock)?, words };
    match role.as_str() {
        "read" => board.read(),
        "write" => board.write(),
        _ => board.get_stuck(),
    }
}

fn watch() -> Outcome {
    let memory = SharedWords::create(RwLock::bytes(&RwLock::READERS) + BOARD_BYTES)?;
    let (lock, words) = places(&memory)?;
    let board = Board { lock: RwLock::create_in(lock, RwLock::READERS)?, words };
    let mut children = Vec::new();
    for _ in 0..READERS {
        children.push(start(&memory, "read")?);
    }
    for _ in 0..WRITERS {
        children.push(start(&memory, "write")?);
    }
    for child in &mut children {
        let status = child.wait(Deadline::NEVER)?.ok_or("no end")?;
        assert!(status.success(), "{status}");
    }
    let most = board.word(MOST).load(Ordering::Relaxed);
    println!("{READERS} readers looked {READINGS} times each, up to {most} at a time");
    assert_eq!(board.word(LEFT).load(Ordering::Relaxed), WRITERS * WRITINGS);
    println!("{WRITERS} writers wrote {WRITINGS} times each, alone: {}", WRITERS * WRITINGS);

    let mut stuck = start(&memory, "get stuck")?;
    while board.word(STUCK).load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let soon = Deadline::after(Duration::from_millis(30));
    println!("while another writes: {:?}", board.lock.read_until(soon).map(drop));
    println!("it is killed in the middle of it: {}", stuck.kill()?);
    println!(
        "a reader is told that the board may be half written: {:?}",
        board.lock.read().map(drop)
    );
    match board.lock.write()? {
        Locked::Consistent(_) => return Err("nobody said that the writer died".into()),
        Locked::OwnerDied(orphaned) => {
            let left = board.word(LEFT).load(Ordering::Relaxed);
            println!("a writer puts it right: {left} on the left, so on the right");
            board.word(RIGHT).store(left, Ordering::Relaxed);
            drop(orphaned.mark_consistent()?);
        }
    }
    drop(board.lock.read()?);
    Ok(())
}

fn places(memory: &SharedWords) -> Outcome<(Slot, Slot)> {
    let lock_bytes = RwLock::bytes(&RwLock::READERS);
    Ok((memory.slot(0, lock_bytes)?, memory.slot(lock_bytes, BOARD_BYTES)?))
}

fn start(memory: &SharedWords, role: &str) -> Outcome<Child> {
    let program = Spawn::new(std::env::current_exe()?).arg(role);
    Ok(program.descriptor(MEMORY, duplicate(memory)?).die_with_parent().spawn()?)
}

impl Board {
    fn read(&self) -> Outcome {
        for number in 0..READINGS {
            let guard = self.lock.read()?;
            let now = self.word(NOW).fetch_add(1, Ordering::Relaxed) + 1;
            self.word(MOST).fetch_max(now, Ordering::Relaxed);
            let (left, right) = (self.word(LEFT), self.word(RIGHT));
            yield_sometimes(number);
            assert_eq!(left.load(Ordering::Relaxed), right.load(Ordering::Relaxed));
            self.word(NOW).fetch_sub(1, Ordering::Relaxed);
            drop(guard);
        }
        Ok(())
    }

    fn write(&self) -> Outcome {
        for number in 0..WRITINGS {
            let guard = self.lock.write()?.or_repair(|| ())?;
            assert_eq!(self.word(NOW).load(Ordering::Relaxed), 0, "a reader is in");
            let next = self.word(LEFT).load(Ordering::Relaxed) + 1;
            self.word(LEFT).store(next, Ordering::Relaxed);
            yield_sometimes(number);
            self.word(RIGHT).store(next, Ordering::Relaxed);
            drop(guard);
        }
        Ok(())
    }

    fn get_stuck(&self) -> Outcome {
        let _guard = self.lock.write()?.or_repair(|| ())?;
        self.word(LEFT).fetch_add(1, Ordering::Relaxed);
        self.word(STUCK).store(1, Ordering::Relaxed);
        loop {
            std::thread::park();
        }
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words.words()[index]
    }
}

fn yield_sometimes(number: u32) {
    if number.is_multiple_of(YIELDS) {
        std::thread::yield_now();
    }
}
