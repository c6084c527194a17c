//! A process as a descriptor: waited for and signalled without its number, which another process
//! may come to have.
//!
//! Source: `pidfd_open(2)`, `pidfd_send_signal(2)`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{Signal, Spawn};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        // Longer than anybody waits here.
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let mut child = Spawn::new(std::env::current_exe()?).arg("child").die_with_parent().spawn()?;
    let pidfd = duplicate(child.pidfd())?;
    println!("child {}: dead: {}", child.id(), pidfd::is_dead(&pidfd)?);
    let ended = pidfd::wait_dead(&pidfd, Deadline::after(Duration::from_millis(50)))?;
    println!("child {}: dead within 50 ms: {ended}", child.id());

    pidfd::send_signal(&pidfd, Signal::TERM)?;
    let ended = pidfd::wait_dead(&pidfd, Deadline::NEVER)?;
    println!("after SIGTERM: dead: {ended}; a zombie until it is reaped");
    if let Some(status) = child.wait(Deadline::NEVER)? {
        println!("reaped: {status}");
    }
    if let Err(error) = pidfd::send_signal(&pidfd, Signal::TERM) {
        println!("the descriptor never means another process: {error}");
    }
    Ok(())
}
