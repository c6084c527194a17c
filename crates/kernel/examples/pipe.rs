//! A parent and its child over a pipe: the child writes, the parent reads until the child is gone.
//!
//! Source: `pipe(7)`.

#![allow(clippy::print_stdout)]

use switchboard_kernel::io::{Deadline, read_full, write_all};
use switchboard_kernel::pipe::{capacity, pipe};
use switchboard_kernel::process::{Spawn, inherited_descriptor};

/// The number under which the child has the writing end.
const WRITER: i32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return child();
    }
    let (reader, writer) = pipe()?;
    println!("parent {}: a pipe with room for {} bytes", std::process::id(), capacity(&reader)?);
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg("child")
        .descriptor(WRITER, writer)
        .die_with_parent()
        .spawn()?;
    // The parent's copy of the writing end went with `Spawn`: else the pipe would never end.
    let mut text = [0; 1024];
    let len = read_full(&reader, &mut text)?;
    print!("parent: read to the end of file:\n{}", String::from_utf8_lossy(&text[..len]));
    if let Some(status) = child.wait(Deadline::NEVER)? {
        println!("parent: the child's end: {status}");
    }
    Ok(())
}

fn child() -> Result<(), Box<dyn std::error::Error>> {
    let writer = inherited_descriptor(WRITER)?;
    for word in ["one", "two", "three"] {
        write_all(&writer, format!("  {word} from child {}\n", std::process::id()).as_bytes())?;
    }
    Ok(())
}
