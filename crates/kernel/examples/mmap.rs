//! A mapped file shared by two processes, and one private copy of it.
//!
//! The parent writes to the file; the child sees that at once, and answers. What the child writes to
//! its private copy stays its own. At last the child cuts the file short: for the parent that is an
//! error, where it would be a crash in C.
//!
//! Source: `mmap(2)`.

#![allow(clippy::print_stdout)]

use std::fs::File;
use std::process::Command;

use switchboard_kernel::mmap::{Mapping, Mode, Sync, reserve};

const LEN: usize = 8192;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    match std::env::args().nth(1) {
        None => parent(),
        Some(path) => child(&path),
    }
}

fn parent() -> Outcome {
    let path = std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    let done = share(&file, path.to_str().ok_or("a path that is no text")?);
    std::fs::remove_file(&path)?;
    done
}

fn share(file: &File, path: &str) -> Outcome {
    reserve(file, LEN as u64)?;
    let mapping = Mapping::of_file(file, Mode::ReadWrite, 0, LEN)?;
    mapping.write_at(0, b"parent was here")?;
    println!("parent  wrote {:?}", text_at(&mapping, 0)?);

    let status = Command::new(std::env::current_exe()?).arg(path).status()?;
    println!("parent  the child ended with {status}");
    println!("parent  found {:?} and {:?}", text_at(&mapping, 0)?, text_at(&mapping, 64)?);
    mapping.sync(0..64, Sync::Wait)?;

    match text_at(&mapping, 4096) {
        Ok(text) => println!("parent  found {text:?} where the file was cut off"),
        Err(error) => println!("parent  the second page is gone: {error}"),
    }
    Ok(())
}

fn child(path: &str) -> Outcome {
    let file = File::options().read(true).write(true).open(path)?;
    let shared = Mapping::of_file(&file, Mode::ReadWrite, 0, LEN)?;
    let private = Mapping::of_file(&file, Mode::Private, 0, LEN)?;
    println!("  child found {:?}", text_at(&shared, 0)?);

    private.write_at(0, b"only the child sees this")?;
    shared.write_at(64, b"child was here")?;
    println!("  child keeps {:?} to itself", text_at(&private, 0)?);

    file.set_len(4096)?;
    println!("  child cut the file to one page");
    Ok(())
}

/// The text at this place, up to its NUL byte.
fn text_at(mapping: &Mapping, offset: usize) -> Result<String, switchboard_kernel::Error> {
    let mut bytes = [0; 64];
    mapping.read_at(offset, &mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
