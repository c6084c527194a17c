//! Several processes write one log file under a mutex. A record is several writes; who is killed in the
//! middle of one leaves a piece, which the next removes.
//!
//! Source: `write(2)`, `ftruncate(2)`, `pthread_mutex_consistent(3)`.
//!
//! `cargo run -p switchboard-kernel --example shared_log`

#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{Mutex, MutexGuard, MutexOptions, Shared};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The number under which the children have the memory.
const MEMORY: i32 = 3;

const WRITERS: u32 = 4;
const RECORDS: u32 = 100;

/// Words beside the mutex: the length of the file up to the last whole record; records that were put
/// right; whether a record was begun that never ends.
const WHOLE_BYTES: usize = 0;
const REPAIRED: usize = 1;
const STUCK: usize = 2;
const WORDS_BYTES: usize = 64;

struct Log {
    mutex: Mutex,
    words: Slot,
    file: File,
}

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let Some(role) = arguments.next() else {
        let path = std::env::temp_dir().join(format!("shared_log-example-{}", std::process::id()));
        File::create_new(&path)?;
        let result = watch(&path);
        std::fs::remove_file(&path)?;
        return result;
    };
    let path = arguments.next().ok_or("which file?")?;
    let memory = SharedWords::from_fd(inherited_descriptor(MEMORY)?)?;
    let (mutex, words) = places(&memory)?;
    let file = File::options().write(true).open(path)?;
    let mut log = Log { mutex: Mutex::open_in(mutex)?, words, file };
    if role == "get stuck" { log.get_stuck() } else { log.write(&role) }
}

fn watch(path: &Path) -> Outcome {
    let memory = SharedWords::create(Mutex::bytes(&MutexOptions::new()) + WORDS_BYTES)?;
    let (mutex, words) = places(&memory)?;
    drop(Mutex::create_in(mutex, MutexOptions::new())?);
    let mut stuck = start(&memory, path, "get stuck")?;
    while words.words()[STUCK].load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(start(&memory, path, &format!("writer {number}"))?);
    }
    println!("in the middle of a record, its writer is killed: {}", stuck.kill()?);
    for writer in &mut writers {
        let status = writer.wait(Deadline::NEVER)?.ok_or("no end")?;
        assert!(status.success(), "{status}");
    }
    let text = std::fs::read_to_string(path)?;
    let whole = |line: &str| line.starts_with("begin writer ") && line.ends_with(" end");
    assert!(text.lines().all(whole), "{text}");
    assert_eq!(text.lines().count(), (WRITERS * RECORDS) as usize);
    let repaired = words.words()[REPAIRED].load(Ordering::Relaxed);
    println!("{} records, all whole; pieces removed: {repaired}", text.lines().count());
    assert_eq!(repaired, 1);
    Ok(())
}

fn places(memory: &SharedWords) -> Outcome<(Slot, Slot)> {
    let mutex_bytes = Mutex::bytes(&MutexOptions::new());
    Ok((memory.slot(0, mutex_bytes)?, memory.slot(mutex_bytes, WORDS_BYTES)?))
}

fn start(memory: &SharedWords, path: &Path, role: &str) -> Outcome<Child> {
    let program = Spawn::new(std::env::current_exe()?).arg(role).arg(path);
    Ok(program.descriptor(MEMORY, duplicate(memory)?).die_with_parent().spawn()?)
}

impl Log {
    fn write(&mut self, who: &str) -> Outcome {
        for number in 0..RECORDS {
            let Self { mutex, words, file } = self;
            let _guard = lock(mutex, words, file)?;
            file.seek(SeekFrom::End(0))?;
            for part in ["begin ", who, ": ", &number.to_string(), " end\n"] {
                file.write_all(part.as_bytes())?;
            }
            // The step that counts.
            let end = u32::try_from(file.stream_position()?)?;
            word(words, WHOLE_BYTES).store(end, Ordering::Relaxed);
        }
        Ok(())
    }

    fn get_stuck(&mut self) -> Outcome {
        let _guard = self.mutex.lock()?.or_repair(|| ())?;
        self.file.write_all(b"begin a record that")?;
        word(&self.words, STUCK).store(1, Ordering::Relaxed);
        loop {
            std::thread::park();
        }
    }
}

/// The mutex; with the file as it was after the last whole record.
fn lock<'a>(mutex: &'a Mutex, words: &Slot, file: &File) -> Outcome<MutexGuard<'a>> {
    let mut cut = Ok(());
    let guard = mutex.lock()?.or_repair(|| {
        cut = file.set_len(u64::from(word(words, WHOLE_BYTES).load(Ordering::Relaxed)));
        word(words, REPAIRED).fetch_add(1, Ordering::Relaxed);
    })?;
    cut?;
    Ok(guard)
}

fn word(words: &Slot, index: usize) -> &AtomicU32 {
    &words.words()[index]
}
