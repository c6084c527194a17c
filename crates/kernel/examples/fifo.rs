//! A FIFO between two programs, and how it blocks: opening waits for the other side, reading waits
//! for bytes, and the last writer's end is the end of the file.
//!
//! Source: `fifo(7)`.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, read, write_all};
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::{Permissions, fifo};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long the writer keeps the reader waiting, to show that it waits.
const KEPT_WAITING: Duration = Duration::from_millis(100);

fn main() -> Outcome {
    if let Some(path) = std::env::args_os().nth(1) {
        return reader(Path::new(&path));
    }
    let path: PathBuf =
        std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    fifo::create(&path, Permissions::new().mode(0o600))?;
    let outcome = writer(&path);
    fifo::unlink(&path)?;
    outcome
}

fn writer(path: &Path) -> Outcome {
    if let Err(error) = fifo::open_writer(path) {
        println!("writer: not waiting for a reader: {error}");
    }
    let child = Spawn::new(std::env::current_exe()?).arg(path).die_with_parent().spawn()?;
    std::thread::sleep(KEPT_WAITING);
    let fifo = fifo::open_writer_blocking(path)?;
    for line in ["first", "second"] {
        std::thread::sleep(KEPT_WAITING);
        println!("writer: {line}");
        write_all(&fifo, line.as_bytes())?;
    }
    drop(fifo);
    ended(child)
}

fn reader(path: &Path) -> Outcome {
    let start = Instant::now();
    let fifo = fifo::open_reader_blocking(path)?;
    println!("  reader: waited {} ms until there was a writer", start.elapsed().as_millis());
    let mut buffer = [0; 100];
    loop {
        let start = Instant::now();
        let len = read(&fifo, &mut buffer)?;
        let (text, waited) = (String::from_utf8_lossy(&buffer[..len]), start.elapsed());
        if len == 0 {
            println!("  reader: end of file: no writer is left");
            return Ok(());
        }
        println!("  reader: {text:?}, after waiting {} ms", waited.as_millis());
    }
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
