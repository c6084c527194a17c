//! Bytes that go through this process without being copied into it: a child gives pages of memory
//! to a pipe, this process looks at them with `tee`, and moves them to a file with `splice`.
//!
//! Source: `splice(2)`, `tee(2)`, `vmsplice(2)`.

#![allow(clippy::print_stdout)]

use std::fs::File;
use std::path::Path;

use switchboard_kernel::io::{Deadline, read_full};
use switchboard_kernel::pipe::pipe;
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::splice::{Pages, SpliceFlags, splice, tee};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The number under which the child has the writing end.
const WRITER: i32 = 3;
const LEN_BYTES: usize = 200_000;

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return child();
    }
    let path = std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    let outcome = parent(&path);
    std::fs::remove_file(&path)?;
    outcome
}

fn parent(path: &Path) -> Outcome {
    let file = File::create_new(path)?;
    let (reader, writer) = pipe()?;
    let child = Spawn::new(std::env::current_exe()?)
        .arg("child")
        .descriptor(WRITER, writer)
        .die_with_parent()
        .spawn()?;

    let (copy_reader, copy_writer) = pipe()?;
    let doubled = tee(&reader, &copy_writer, 20, SpliceFlags::empty())?;
    let mut beginning = vec![0; doubled];
    read_full(&copy_reader, &mut beginning)?;
    println!("parent: it begins with {:?}", String::from_utf8_lossy(&beginning));

    let (mut moved, mut steps) = (0, 0);
    loop {
        match splice(&reader, &file, 1 << 16, SpliceFlags::empty())? {
            0 => break,
            len => (moved, steps) = (moved + len, steps + 1),
        }
    }
    println!("parent: {moved} bytes moved to a file in {steps} steps");
    ended(child)?;
    let text = std::fs::read(path)?;
    println!("parent: the file has all of them: {}", text.len() == LEN_BYTES && moved == LEN_BYTES);
    Ok(())
}

fn child() -> Outcome {
    let writer = inherited_descriptor(WRITER)?;
    let mut pages = Pages::new(LEN_BYTES)?;
    for (number, line) in pages.bytes_mut().chunks_mut(20).enumerate() {
        line.copy_from_slice(format!("line number {number:07}\n").as_bytes());
    }
    // From here on nobody can change them: the reader sees them where they are.
    let mut frozen = pages.freeze()?;
    while !frozen.remaining().is_empty() {
        let given = frozen.vmsplice(&writer, SpliceFlags::empty())?;
        println!("  child: gave {given} bytes");
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
