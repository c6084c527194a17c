//! `ls -l | grep .txt` built by hand, as a shell does it: one pipe, two programs, nothing left open.
//!
//! Source: `pipe(7)`, `dup2(2)`, `execve(2)`.

#![allow(clippy::print_stdout)]

use std::path::Path;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pipe::pipe;
use switchboard_kernel::process::Spawn;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let folder = std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = in_folder(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn in_folder(folder: &Path) -> Outcome {
    for name in ["notes.txt", "picture.png", "shopping.txt", "txt.sh"] {
        std::fs::write(folder.join(name), name)?;
    }
    let (reader, writer) = pipe()?;
    // Each end goes to its program, as descriptor 1 or 0, and is closed here: `grep` finds the end
    // of its input when `ls` ends.
    let mut ls = Spawn::new("ls").arg("-l").current_dir(folder).stdout(writer).spawn()?;
    let mut grep = Spawn::new("grep").arg(r"\.txt$").stdin(reader).spawn()?;
    for (name, child) in [("ls", &mut ls), ("grep", &mut grep)] {
        if let Some(status) = child.wait(Deadline::NEVER)? {
            println!("{name} (process {}): {status}", child.id());
        }
    }
    Ok(())
}
