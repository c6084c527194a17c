//! One process writes files into a folder, another one sees each as it is complete.
//!
//! `cargo run -p switchboard-kernel --example inotify`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use switchboard_kernel::inotify::{Buffer, Event, Inotify, Mask};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::Spawn;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = std::env::args_os().nth(1) {
        return write(Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("inotify-example-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = watch(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn watch(folder: &Path) -> Result<(), Box<dyn Error>> {
    // A file is complete when it is closed or moved here, not when it is created.
    let inotify = Inotify::new()?;
    inotify.watch(folder, Mask::CLOSE_WRITE | Mask::MOVED_FROM | Mask::MOVED_TO)?;
    let program = Spawn::new(std::env::current_exe()?).arg(folder);
    let mut child = program.die_with_parent().spawn()?;

    let mut buffer = Buffer::new();
    let deadline = Deadline::after(Duration::from_secs(10));
    let mut last = false;
    while !last {
        if inotify.read(&mut buffer, deadline)? == 0 {
            return Err("nothing happened in time".into());
        }
        for event in buffer.events() {
            match event {
                Event::Seen { what, cookie: 0, name: Some(name), .. } => {
                    println!("{what:?}: {}", name.display());
                }
                Event::Seen { what, name: Some(name), .. } => {
                    println!("{what:?}, half of a renaming: {}", name.display());
                    last |= name == OsStr::new("last");
                }
                Event::Overflow => println!("some were lost: look at the whole folder"),
                other => println!("{other:?}"),
            }
        }
    }
    child.wait(deadline)?.ok_or("the writer did not end")?;
    println!("in the folder: {} files", fs::read_dir(folder)?.count());
    Ok(())
}

fn write(folder: &Path) -> Result<(), Box<dyn Error>> {
    for name in ["first", "second"] {
        fs::write(folder.join(name), name)?;
    }
    fs::write(folder.join(".last.part"), "written apart, and renamed when complete")?;
    fs::rename(folder.join(".last.part"), folder.join("last"))?;
    Ok(())
}
