//! A System V message queue: two processes share it by a number, and choose messages by type.
//!
//! Source: `sysvipc(7)`, `msgop(2)`.

#![allow(clippy::print_stdout)]

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::sysv_msg::{Buffer, CreateOptions, Key, MessageQueue, Select};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The types of the messages: a number above 0 that means what the programs agree on.
const ORDER: i64 = 1;
const COMPLAINT: i64 = 2;

fn main() -> Outcome {
    if let Some(id) = std::env::args().nth(1) {
        return customer(MessageQueue::from_id(id.parse()?));
    }
    // No key finds it, and its mode is 0600: only who is told its id and is this user can use it.
    let queue = MessageQueue::create(&Key::Private, &CreateOptions::new())?;
    let outcome = shop(queue);
    queue.remove()?;
    outcome
}

fn shop(queue: MessageQueue) -> Outcome {
    let child = Spawn::new(std::env::current_exe()?)
        .arg(queue.id().to_string())
        .die_with_parent()
        .spawn()?;
    let mut buffer = Buffer::with_capacity(100);
    queue.recv(Select::Type(COMPLAINT), &mut buffer)?;
    println!("shop: complaints first: {:?}", String::from_utf8_lossy(buffer.text()));
    ended(child)?;
    println!("shop: the customer is gone, and {} messages wait", queue.status()?.queued_messages);
    while let Ok(message_type) = queue.try_recv(Select::Any, &mut buffer) {
        println!("shop: type {message_type}: {:?}", String::from_utf8_lossy(buffer.text()));
    }
    Ok(())
}

fn customer(queue: MessageQueue) -> Outcome {
    for (message_type, text) in
        [(ORDER, "a chair"), (ORDER, "a table"), (COMPLAINT, "the chair wobbles")]
    {
        queue.send(message_type, text.as_bytes())?;
        println!("  customer: type {message_type}: {text:?}");
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}
