//! A word in shared memory that two processes sleep on: a stage that the other waits for.
//!
//! Source: `futex(2)`, `futex(7)`.

#![allow(clippy::print_stdout)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use switchboard_kernel::futex::{Waited, wait, wake};
use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::process::{Spawn, inherited_descriptor};
use switchboard_kernel::shared_words::{SharedWords, Slot};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The number under which the child has the memory.
const MEMORY: i32 = 3;
const LAST_STAGE: u32 = 3;

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return rocket(&SharedWords::from_fd(inherited_descriptor(MEMORY)?)?.slot(0, 4)?);
    }
    let memory = SharedWords::create(4096)?;
    let slot = memory.slot(0, 4)?;
    let stage = &slot.words()[0];
    let nothing = wait(stage, 0, Deadline::after(Duration::from_millis(20)))?;
    println!("control: nobody there yet: {nothing:?}");
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg("rocket")
        .descriptor(MEMORY, duplicate(&memory)?)
        .die_with_parent()
        .spawn()?;
    let mut seen = 0;
    while seen < LAST_STAGE {
        // Sleeps only while the stage is what was seen last; if it is past that, goes on at once.
        let how = wait(stage, seen, Deadline::after(Duration::from_secs(10)))?;
        if how == Waited::TimedOut {
            return Err("no stage in time".into());
        }
        let now = stage.load(Ordering::Acquire);
        if now != seen {
            println!("control: stage {now} ({how:?})");
            seen = now;
        }
    }
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}

fn rocket(slot: &Slot) -> Outcome {
    let stage = &slot.words()[0];
    for number in 1..=LAST_STAGE {
        std::thread::sleep(Duration::from_millis(20));
        // First the word, then the wake-up: who looks in between does not fall asleep.
        stage.store(number, Ordering::Release);
        let woken = wake(stage, 1)?;
        println!("  rocket: stage {number}, {woken} woken");
    }
    Ok(())
}
