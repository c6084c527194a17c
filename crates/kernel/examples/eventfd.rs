//! An eventfd wakes another process: what was added several times is taken at once.
//!
//! Source: `eventfd(2)`.

#![allow(clippy::print_stdout)]

use std::os::fd::AsFd;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The numbers under which the child has the two counters.
const WORK: i32 = 3;
const DONE: i32 = 4;

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return worker();
    }
    let (work, done) = (EventFd::new(0)?, EventFd::new(0)?);
    let child = Spawn::new(std::env::current_exe()?)
        .arg("worker")
        .descriptor(WORK, duplicate(work.as_fd())?)
        .descriptor(DONE, duplicate(done.as_fd())?)
        .die_with_parent()
        .spawn()?;
    println!("parent: no result yet: {:?}", done.try_take()?);
    for pieces in [1, 2, 3] {
        println!("parent: {pieces} more pieces of work");
        work.add(pieces)?;
    }
    let mut total = 0;
    while total < 6 {
        let pieces = done.take()?;
        total += pieces;
        println!("parent: {pieces} pieces done, {total} in all");
    }
    ended(child)
}

fn worker() -> Outcome {
    let work = EventFd::from(inherited_descriptor(WORK)?);
    let done = EventFd::from(inherited_descriptor(DONE)?);
    let mut total = 0;
    while total < 6 {
        let pieces = work.take()?;
        println!("  worker: woken for {pieces}");
        done.add(pieces)?;
        total += pieces;
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
