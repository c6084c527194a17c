//! The bounded buffer: producers wait while it is full, consumers while it is empty. A mutex, two
//! conditions, and the buffer, in one piece of shared memory; one consumer is killed while it works.
//!
//! Source: Dijkstra, "Cooperating sequential processes" (EWD 123, 1965).
//!
//! `cargo run -p switchboard-kernel --example bounded_buffer`

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{Condvar, Mutex, MutexGuard, MutexOptions, Shared};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The number under which the children have the memory.
const MEMORY: i32 = 3;

const PLACES: usize = 8;
const PRODUCERS: u32 = 3;
const EACH: u32 = 400;
/// What a consumer takes as a request to end.
const CLOSING: u32 = 0;

/// Words of the buffer: how many were put and taken, the sum of what was consumed, then the places.
const PUT: usize = 0;
const TAKEN: usize = 1;
const CONSUMED: usize = 2;
const SUM: usize = 3;
const FIRST_PLACE: usize = 4;

struct Buffer {
    mutex: Mutex,
    not_full: Condvar,
    not_empty: Condvar,
    words: Slot,
}

fn main() -> Outcome {
    match std::env::args().nth(1).as_deref() {
        None => watch(),
        Some(role) => {
            let memory = SharedWords::from_fd(inherited_descriptor(MEMORY)?)?;
            let places = Places::of(&memory)?;
            let buffer = Buffer {
                mutex: Mutex::open_in(places.mutex)?,
                not_full: Condvar::open_in(places.not_full)?,
                not_empty: Condvar::open_in(places.not_empty)?,
                words: places.words,
            };
            if role == "produce" { buffer.produce() } else { buffer.consume() }
        }
    }
}

fn watch() -> Outcome {
    let memory = SharedWords::create(16 << 10)?;
    let places = Places::of(&memory)?;
    let buffer = Buffer {
        mutex: Mutex::create_in(places.mutex, MutexOptions::new())?,
        not_full: Condvar::create_in(places.not_full, ())?,
        not_empty: Condvar::create_in(places.not_empty, ())?,
        words: places.words,
    };
    let mut unlucky = start(&memory, "consume")?;
    let mut consumers = [start(&memory, "consume")?, start(&memory, "consume")?];
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        producers.push(start(&memory, "produce")?);
    }
    while buffer.word(CONSUMED).load(Ordering::Relaxed) < 100 {
        std::thread::yield_now();
    }
    println!("after a hundred or more, a consumer is killed: {}", unlucky.kill()?);
    for producer in &mut producers {
        producer.wait(Deadline::NEVER)?;
    }
    for _ in &consumers {
        buffer.put(CLOSING)?;
    }
    for consumer in &mut consumers {
        consumer.wait(Deadline::NEVER)?;
    }
    let consumed = buffer.word(CONSUMED).load(Ordering::Relaxed);
    let sum = buffer.word(SUM).load(Ordering::Relaxed);
    let expected = PRODUCERS * EACH * (EACH + 1) / 2;
    println!("{consumed} of {} consumed, sum {sum} of {expected}", PRODUCERS * EACH);
    // What it had taken and not added when it died is gone with it: one at most.
    let (missing, lost) = (PRODUCERS * EACH - consumed, expected - sum);
    assert!(missing <= 1 && lost <= EACH * missing, "{missing} missing, worth {lost}");
    println!("lost with the killed consumer: {missing}, worth {lost}");
    Ok(())
}

fn start(memory: &SharedWords, role: &str) -> Outcome<Child> {
    let program = Spawn::new(std::env::current_exe()?).arg(role);
    Ok(program.descriptor(MEMORY, duplicate(memory)?).die_with_parent().spawn()?)
}

impl Buffer {
    fn produce(&self) -> Outcome {
        for number in 1..=EACH {
            self.put(number)?;
        }
        Ok(())
    }

    fn consume(&self) -> Outcome {
        loop {
            let number = self.take()?;
            if number == CLOSING {
                return Ok(());
            }
            let _guard = self.lock()?;
            self.word(SUM).fetch_add(number, Ordering::Relaxed);
            self.word(CONSUMED).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, number: u32) -> Outcome {
        let mut guard = self.lock()?;
        while self.held() == PLACES {
            guard = self.not_full.wait(guard)?.or_repair(repair)?;
        }
        let put = self.word(PUT).load(Ordering::Relaxed);
        self.place(put).store(number, Ordering::Relaxed);
        // The step that counts: who dies before it has put nothing.
        self.word(PUT).store(put + 1, Ordering::Relaxed);
        // With the mutex: who is killed after the change and before this leaves it to the next one to tell.
        self.not_empty.notify_one()?;
        drop(guard);
        Ok(())
    }

    fn take(&self) -> Outcome<u32> {
        let mut guard = self.lock()?;
        while self.held() == 0 {
            guard = self.not_empty.wait(guard)?.or_repair(repair)?;
        }
        let taken = self.word(TAKEN).load(Ordering::Relaxed);
        let number = self.place(taken).load(Ordering::Relaxed);
        self.word(TAKEN).store(taken + 1, Ordering::Relaxed);
        self.not_full.notify_one()?;
        drop(guard);
        Ok(number)
    }

    fn lock(&self) -> Outcome<MutexGuard<'_>> {
        let locked = self.mutex.lock()?;
        let owner_died = locked.owner_died();
        let guard = locked.or_repair(repair)?;
        if owner_died {
            // It may have had something to tell.
            self.not_full.notify_all()?;
            self.not_empty.notify_all()?;
        }
        Ok(guard)
    }

    fn held(&self) -> usize {
        let (put, taken) = (self.word(PUT), self.word(TAKEN));
        (put.load(Ordering::Relaxed) - taken.load(Ordering::Relaxed)) as usize
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words.words()[index]
    }

    fn place(&self, number: u32) -> &AtomicU32 {
        self.word(FIRST_PLACE + number as usize % PLACES)
    }
}

/// Each change here is one store, so nothing is ever half done.
fn repair() {
    println!("a process died with the mutex: nothing to repair");
}

struct Places {
    mutex: Slot,
    not_full: Slot,
    not_empty: Slot,
    words: Slot,
}

impl Places {
    fn of(memory: &SharedWords) -> Outcome<Self> {
        let mut offset = 0;
        let mut place = |len_bytes: usize| {
            let slot = memory.slot(offset, len_bytes);
            offset += len_bytes.next_multiple_of(64);
            slot
        };
        Ok(Self {
            mutex: place(Mutex::bytes(&MutexOptions::new()))?,
            not_full: place(Condvar::bytes(&()))?,
            not_empty: place(Condvar::bytes(&()))?,
            words: place((FIRST_PLACE + PLACES) * 4)?,
        })
    }
}
