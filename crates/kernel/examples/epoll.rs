//! One process waits for many with epoll: each child writes to a pipe of its own, in its own time.
//!
//! Source: `epoll(7)`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest, read};
use switchboard_kernel::pipe::pipe;
use switchboard_kernel::process::{Child, Spawn};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CHILDREN: u32 = 3;

fn main() -> Outcome {
    if let Some(number) = std::env::args().nth(1) {
        return child(number.parse()?);
    }
    let epoll = Epoll::new()?;
    let (mut readers, mut children) = (Vec::new(), Vec::new());
    for number in 0..CHILDREN {
        let (reader, writer) = pipe()?;
        epoll.add(&reader, u64::from(number), Interest::Readable)?;
        readers.push(reader);
        let spawn = Spawn::new(std::env::current_exe()?).arg(number.to_string()).stdout(writer);
        children.push(spawn.die_with_parent().spawn()?);
    }
    let mut events = Events::with_capacity(8);
    let mut open = readers.len();
    while open > 0 {
        epoll.wait(&mut events, Deadline::NEVER)?;
        for (token, ready) in events.iter() {
            let reader = &readers[usize::try_from(token)?];
            let mut buffer = [0; 100];
            let len = read(reader, &mut buffer)?;
            if len > 0 {
                let text = String::from_utf8_lossy(&buffer[..len]);
                println!("child {token}: {:?}", text.trim_end());
            } else {
                println!("child {token}: hung up: {}", ready.hung_up);
                epoll.delete(reader)?;
                open -= 1;
            }
        }
    }
    children.into_iter().try_for_each(ended)
}

fn child(number: u32) -> Outcome {
    for word in ["hello", "good-bye"] {
        std::thread::sleep(Duration::from_millis(10) * (CHILDREN - number));
        println!("{word}");
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
