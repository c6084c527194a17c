//! A small server that waits for its child's output, for Ctrl-C and for values, all in one epoll.
//!
//! `cargo run -p switchboard-kernel --example signalfd`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::process::Spawn;
use switchboard_kernel::signal::{self, Code, Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;
use switchboard_kernel::{pidfd, pipe};

const SIGNALS: u64 = 1;
const OUTPUT: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => server(),
        Some(server_id) => client(server_id.parse()?),
    }
}

fn server() -> Result<(), Box<dyn Error>> {
    // Before any thread is started, so that none of them is interrupted.
    let values = Signal::real_time(1).ok_or("no real-time signals")?;
    let mine = SignalSet::from([Signal::INT, Signal::TERM, Signal::CHILD, values]);
    let _blocked = signal::block(&mine)?;
    let signals = SignalFd::new(&mine)?;

    let (output, theirs) = pipe::pipe()?;
    let mut child = Spawn::new(std::env::current_exe()?)
        .arg(std::process::id().to_string())
        .stdout(theirs)
        .die_with_parent()
        .spawn()?;

    let epoll = Epoll::new()?;
    epoll.add(&signals, SIGNALS, Interest::Readable)?;
    epoll.add(&output, OUTPUT, Interest::Readable)?;
    let mut events = Events::with_capacity(4);
    let (mut taken, mut buffer) = (Vec::new(), [0; 256]);
    let deadline = Deadline::after(Duration::from_secs(10));
    loop {
        if epoll.wait(&mut events, deadline)? == 0 {
            return Err("nothing came in time".into());
        }
        for (token, _) in events.iter() {
            if token == OUTPUT {
                let read = io::read(&output, &mut buffer)?;
                match read {
                    0 => epoll.delete(&output)?,
                    _ => print!("the child says: {}", String::from_utf8_lossy(&buffer[..read])),
                }
            }
        }
        while signals.read_batch(&mut taken)? > 0 {}
        for received in taken.drain(..) {
            match received.code {
                Code::Child { status, .. } => {
                    child.wait(deadline)?;
                    println!("{}: the child ended with {status}", received.signal);
                    return Ok(());
                }
                _ => println!("{} from {:?}: {:?}", received.signal, received.pid, received.value),
            }
        }
    }
}

fn client(server_id: u32) -> Result<(), Box<dyn Error>> {
    let server = pidfd::open(server_id)?;
    println!("three values and a SIGTERM are under way");
    let values = Signal::real_time(1).ok_or("no real-time signals")?;
    for value in 1..=3 {
        signal::queue_pidfd(&server, values, value)?;
    }
    signal::send_pidfd(&server, Signal::TERM)?;
    Ok(())
}
