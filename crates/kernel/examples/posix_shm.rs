//! A shared-memory segment with a safe mode, where many programs say 0666.
//!
//! The parent makes a segment that its own user may write and its group may read, and a child counts
//! in it. When root runs this, another child tries as the user `nobody`, and is refused.
//!
//! Source: `shm_overview(7)`.

#![allow(clippy::print_stdout)]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering;

use switchboard_kernel::Permissions;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_shm::{Access, Segment, unlink};
use switchboard_kernel::process::effective_user_id;

const NOBODY: u32 = 65_534;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => parent(),
        [name] => count(name),
        [name, ..] => peek(name),
    }
}

fn parent() -> Outcome {
    let name = format!("/switchboard-example-{}", std::process::id());
    // Whatever the umask says, and before anybody can see the name.
    let segment = Segment::create(&name, 4096, Permissions::new().mode(0o640))?;
    let done = share(&name, &segment);
    unlink(&name)?;
    println!("parent    removed the name");
    done
}

fn share(name: &str, segment: &Segment) -> Outcome {
    let status = segment.status()?;
    println!("parent    made {name}: {} bytes, mode {:04o}", status.len_bytes, status.mode);
    let memory = segment.map(Mode::ReadWrite)?;

    Command::new(std::env::current_exe()?).arg(name).status()?;
    println!("parent    the counter is at {}", memory.load_u64(0)?);

    if effective_user_id() == 0 {
        // The program may lie in a folder that the outsider cannot enter.
        let mut outsider = Command::new("/proc/self/exe");
        outsider.args([name, "peek"]).uid(NOBODY).gid(NOBODY);
        if let Err(error) = outsider.status() {
            println!("parent    no outsider could be started: {error}");
        }
    } else {
        println!("parent    run me as root to see an outsider refused");
    }
    Ok(())
}

fn count(name: &str) -> Outcome {
    let memory = Segment::open(name, Access::ReadWrite)?.map(Mode::ReadWrite)?;
    let counter = memory.atomic_u64(0)?;
    for _ in 0..1000 {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    println!("  child   counted to 1000");
    Ok(())
}

fn peek(name: &str) -> Outcome {
    for access in [Access::ReadOnly, Access::ReadWrite] {
        match Segment::open(name, access) {
            Ok(_) => return Err("an outsider got in".into()),
            Err(error) => println!("  outsider {access:?}: {error}"),
        }
    }
    Ok(())
}
