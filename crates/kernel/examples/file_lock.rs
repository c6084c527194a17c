//! Four processes add to one number in a file. Without a lock, additions would be lost.
//!
//! `cargo run -p switchboard-kernel --example file_lock`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::file_lock::{Lock, Mode, Range};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::Spawn;

const PROCESSES: u64 = 4;
const ADDITIONS: u64 = 250;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args_os().nth(1) {
        return add(Path::new(&path));
    }
    let path = std::env::temp_dir().join(format!("file_lock-example-{}", std::process::id()));
    std::fs::write(&path, "0")?;
    let result = count(&path);
    std::fs::remove_file(&path)?;
    result
}

fn count(path: &PathBuf) -> Result<(), Box<dyn Error>> {
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        let program = Spawn::new(std::env::current_exe()?).arg(path);
        children.push(program.die_with_parent().spawn()?);
    }
    let soon = Deadline::after(Duration::from_secs(10));
    for child in &mut children {
        child.wait(soon)?.ok_or("a process did not end")?;
    }
    let total = std::fs::read_to_string(path)?;
    println!("{PROCESSES} processes added {ADDITIONS} each: {total}");
    assert_eq!(total.parse(), Ok(PROCESSES * ADDITIONS));

    let (one, two) = (open(path)?, open(path)?);
    let exclusive = Lock::open_file(Mode::Exclusive);
    let _first = exclusive.range(Range { start: 0, len_bytes: 8 }).lock(&one)?;
    let second = exclusive.range(Range { start: 8, len_bytes: 8 }).try_lock(&two)?;
    println!("bytes 8 to 15 can be had while 0 to 7 are locked: {}", second.is_some());
    let third = exclusive.range(Range { start: 4, len_bytes: 1 });
    println!("byte 4 cannot: {:?}", third.holder(&two)?);
    let soon = Deadline::after(Duration::from_millis(50));
    println!("and not within 50 ms: {}", third.lock_until(&two, soon)?.is_none());
    Ok(())
}

fn add(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = open(path)?;
    let copy = file.try_clone()?;
    for _ in 0..ADDITIONS {
        let _guard = Lock::open_file(Mode::Exclusive).lock(&copy)?;
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        let more = text.parse::<u64>()? + 1;
        file.rewind()?;
        write!(file, "{more}")?;
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).open(path)
}
