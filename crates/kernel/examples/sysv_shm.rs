//! A System V segment that removes itself with its last user.
//!
//! The parent makes a segment with a key from a path, and marks it for removal as soon as the child
//! has attached it: from then on nobody can find it, and it goes when both have let go.
//!
//! Source: `sysvipc(7)`.

#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use switchboard_kernel::sysv_shm::{Access, CreateOptions, Key, Segment, limits};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    match std::env::args().nth(1) {
        None => parent(),
        Some(path) => child(path.into()),
    }
}

fn key(path: PathBuf) -> Key {
    Key::Path { path, id: b'E' }
}

fn parent() -> Outcome {
    let path = std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    std::fs::write(&path, "")?;
    println!("parent  at most {} segments here", limits().max_segments);
    let options = CreateOptions::new().exclusive(true);
    let segment = Segment::create(&key(path.clone()), 4096, &options)?;
    let done = share(segment, &path);
    // Nothing is left to remove, unless something failed.
    let _ = segment.remove();
    std::fs::remove_file(&path)?;
    done
}

fn share(segment: Segment, path: &PathBuf) -> Outcome {
    let memory = segment.attach(Access::ReadWrite)?;
    memory.write_at(64, b"hello from the parent")?;

    let mut child = Command::new(std::env::current_exe()?)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    println!("{}", said.next().ok_or("the child said nothing")??);
    println!("parent  the segment is attached {} times", segment.status()?.attached);

    segment.remove()?;
    let found = Segment::open(&key(path.clone())).err().ok_or("found again")?;
    println!("parent  marked it for removal; looking for it: {found}");
    memory.atomic_u32(0)?.store(7, Ordering::Release);
    drop(memory);
    writeln!(child.stdin.take().ok_or("no input")?, "go on")?;
    for line in said {
        println!("{}", line?);
    }
    child.wait()?;
    println!("parent  now it is gone: {}", segment.status().err().ok_or("still there")?);
    Ok(())
}

fn child(path: PathBuf) -> Outcome {
    let memory = Segment::open(&key(path))?.attach(Access::ReadWrite)?;
    let mut text = [0; 21];
    memory.read_at(64, &mut text)?;
    println!("  child read {:?}", String::from_utf8_lossy(&text));
    std::io::stdin().read_line(&mut String::new())?;
    println!("  child still has it, and finds {}", memory.load_u32(0)?);
    Ok(())
}
