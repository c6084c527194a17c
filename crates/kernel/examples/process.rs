//! A process tree and its orphan: the child starts a grandchild and ends; this process has said
//! that it adopts orphans, finds it, and reaps it.
//!
//! Source: `execve(2)`, `PR_SET_CHILD_SUBREAPER(2const)`, `proc_pid_stat(5)`.

#![allow(clippy::print_stdout)]

use switchboard_kernel::io::{Deadline, read, write_all};
use switchboard_kernel::pipe::pipe;
use switchboard_kernel::process::{
    Identity, Spawn, Stat, descendants, inherited_descriptor, set_child_subreaper, stat, wait_any,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The numbers under which the grandchild waits for its end, and says that it is there.
const HELD: i32 = 3;
const READY: i32 = 4;
/// The number under which the child waits for its own end.
const GO: i32 = 5;

fn main() -> Outcome {
    match std::env::args().nth(1).as_deref() {
        Some("child") => child(),
        Some("grandchild") => grandchild(),
        _ => parent(),
    }
}

fn parent() -> Outcome {
    set_child_subreaper(true)?;
    let ((held, end), (ready, writer), (go, stay)) = (pipe()?, pipe()?, pipe()?);
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg("child")
        .descriptor(HELD, held)
        .descriptor(READY, writer)
        .descriptor(GO, go)
        .die_with_parent()
        .spawn()?;
    read(&ready, &mut [0])?;
    println!("the tree under process {}:", std::process::id());
    for process in descendants(std::process::id())? {
        print(&process);
    }
    drop(stay);
    if let Some(status) = child.wait(Deadline::NEVER)? {
        println!("child {}: {status}", child.id());
    }
    let tree = descendants(std::process::id())?;
    let orphan = tree.first().ok_or("the orphan was not adopted")?;
    println!("its orphan is this process's child now:");
    print(orphan);

    let identity = Identity::from(orphan);
    drop(end);
    if let Some((id, status)) = wait_any(Deadline::NEVER)? {
        println!("reaped process {id}: {status}");
    }
    if let Err(error) = identity.open() {
        println!("nobody is process {} of that tick any more: {error}", identity.id);
    }
    Ok(())
}

fn print(process: &Stat) {
    println!(
        "  process {} ({}), parent {}, state {}, started at tick {}",
        process.id,
        String::from_utf8_lossy(&process.name),
        process.parent,
        process.state,
        process.start_ticks
    );
}

fn child() -> Outcome {
    let (held, ready) = (inherited_descriptor(HELD)?, inherited_descriptor(READY)?);
    let grandchild = Spawn::new(std::env::current_exe()?).arg("grandchild");
    let grandchild = grandchild.descriptor(HELD, held).descriptor(READY, ready).spawn()?;
    read(inherited_descriptor(GO)?, &mut [0])?;
    println!("  child: my child is {}, and I end", grandchild.id());
    Ok(())
}

fn grandchild() -> Outcome {
    let (held, ready) = (inherited_descriptor(HELD)?, inherited_descriptor(READY)?);
    let own = stat(std::process::id())?;
    write_all(&ready, b"!")?;
    // Until the pipe's other end is closed, or whoever has it is dead.
    read(&held, &mut [0])?;
    println!("  grandchild {}: started at tick {}, and I end", own.id, own.start_ticks);
    Ok(())
}
