//! A timer in a descriptor: armed here, it goes off in a child that inherited it, too; and what it
//! missed is counted.
//!
//! Source: `timerfd_create(2)`.

#![allow(clippy::print_stdout)]

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest, duplicate, read_full, wait_for};
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::timerfd::TimerFd;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The number under which the child has the timer.
const TIMER: i32 = 3;
const PERIOD: Duration = Duration::from_millis(20);

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return child();
    }
    let timer = TimerFd::new()?;
    let start = Instant::now();
    timer.arm(PERIOD, Some(PERIOD))?;
    let child = Spawn::new(std::env::current_exe()?)
        .arg("child")
        .descriptor(TIMER, duplicate(timer.as_fd())?)
        .die_with_parent()
        .spawn()?;
    ended(child)?;
    std::thread::sleep(3 * PERIOD);
    let missed = timer.clear()?;
    println!(
        "parent: {missed} more while nobody looked, {} ms in all",
        start.elapsed().as_millis()
    );
    timer.disarm()?;
    let again = wait_for(&timer, Interest::Readable, Deadline::after(2 * PERIOD))?;
    println!("parent: disarmed; it goes off again: {again}");
    Ok(())
}

fn child() -> Outcome {
    let timer = inherited_descriptor(TIMER)?;
    for _ in 0..3 {
        // The descriptor is a non-blocking one.
        wait_for(&timer, Interest::Readable, Deadline::NEVER)?;
        let mut count = [0; 8];
        read_full(&timer, &mut count)?;
        let count = u64::from_ne_bytes(count);
        println!("  child: descriptor {} expired {count} times", timer.as_raw_fd());
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
