//! Two processes that signal each other: values that queue, signals that merge, a handler that
//! does one safe thing.
//!
//! `cargo run -p switchboard-kernel --example signal`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::process::Spawn;
use switchboard_kernel::signal::{self, Action, Handler, Signal, SignalSet};
use switchboard_kernel::{pidfd, pipe};

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => parent(),
        Some(parent_id) => child(parent_id.parse()?),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let done = Handler::install(Signal::USR2, Action::Record)?;
    let (lines, output) = pipe::pipe()?;
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg(std::process::id().to_string())
        .stdout(output)
        .die_with_parent()
        .spawn()?;
    let mut lines = BufReader::new(std::fs::File::from(lines)).lines();
    println!("child: {}", lines.next().ok_or("the child said nothing")??);

    // The pidfd means this child and no other process, ever.
    for value in [10, 20, 30] {
        signal::queue_pidfd(child.pidfd(), value_signal(), value)?;
        signal::send_pidfd(child.pidfd(), Signal::USR1)?;
    }
    println!("parent: sent SIGUSR1 and {} three times each", value_signal());
    signal::send_pidfd(child.pidfd(), Signal::TERM)?;

    for line in lines {
        println!("child: {}", line?);
    }
    let soon = Deadline::after(Duration::from_secs(10));
    let descriptor = done.descriptor().ok_or("a handler that records has one")?;
    if wait_for(descriptor, Interest::Readable, soon)?
        && let Some(received) = done.next_record()?
    {
        println!("parent: {} with value {:?}", received.signal, received.value);
    }
    child.wait(soon)?.ok_or("the child did not end")?;
    Ok(())
}

fn child(parent_id: u32) -> Result<(), Box<dyn Error>> {
    let parent = pidfd::open(parent_id)?;
    let mine = SignalSet::from([Signal::USR1, Signal::TERM, value_signal()]);
    let _blocked = signal::block(&mine)?;
    println!("ready, with {mine:?} blocked");

    // SIGTERM is sent last: then all are there.
    while !signal::pending()?.contains(Signal::TERM) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut values = 0;
    while let Some(received) = signal::wait(&mine, Deadline::after(Duration::ZERO))? {
        values += received.value.unwrap_or(0);
        println!("took {} from {:?}, value {:?}", received.signal, received.pid, received.value);
    }
    println!("SIGUSR1 was merged into one; the values add up to {values}");
    signal::queue_pidfd(parent, Signal::USR2, values)?;
    Ok(())
}

fn value_signal() -> Signal {
    Signal::real_time(1).expect("there are about thirty")
}
