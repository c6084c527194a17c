//! A POSIX message queue: what a process leaves in it outlives the process, and comes out by
//! priority.
//!
//! Source: `mq_overview(7)`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_mq::{Access, CreateOptions, MessageQueue, unlink};
use switchboard_kernel::process::{Child, Spawn};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    if let Some(name) = std::env::args().nth(1) {
        return sender(&name);
    }
    let name = format!("/switchboard-example-{}", std::process::id());
    // Mode 0600, whatever the umask.
    let options = CreateOptions::new().max_messages(3).message_size_bytes(64).exclusive(true);
    let queue = MessageQueue::create(&name, Access::Receive, &options)?;
    let outcome = receiver(&name, &queue);
    unlink(&name)?;
    outcome
}

fn receiver(name: &str, queue: &MessageQueue) -> Outcome {
    let child = Spawn::new(std::env::current_exe()?).arg(name).die_with_parent().spawn()?;
    ended(child)?;
    println!("receiver: {} messages wait in {name}", queue.attributes()?.waiting_messages);
    let mut buffer = [0; 64];
    loop {
        match queue.recv_timeout(&mut buffer, Duration::from_millis(50)) {
            Ok((len, priority)) => {
                let text = String::from_utf8_lossy(&buffer[..len]);
                println!("receiver: {text:?} of priority {priority}");
            }
            Err(error) if error.name() == "ETIMEDOUT" => {
                println!("receiver: no more within 50 ms");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn sender(name: &str) -> Outcome {
    let queue = MessageQueue::open(name, Access::Send)?;
    for (text, priority) in [("whenever", 0), ("soon", 1), ("at once", 9)] {
        queue.send(text.as_bytes(), priority)?;
        println!("  sender: {text:?} of priority {priority}");
    }
    if let Err(error) = queue.try_send(b"too much", 9) {
        println!("  sender: the queue is full: {error}");
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
