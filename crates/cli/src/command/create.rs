//! `switchboard create ADDRESS`: a FIFO, a message queue, a semaphore, shared memory or a log, with
//! owner, mode and sizes.

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::transport::Transport;
use switchboard::{Address, object};

use super::with_examples;
use crate::endpoint::{self, with_option};
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Outcome, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// What to create, as fifo:PATH, mq:/NAME, sysv:PATH#ID, sem:/NAME, posix-shm:/NAME or file:PATH
    address: String,
    /// Permission bits in octal; 0600 unless said otherwise [as ?mode=]
    #[arg(long, value_name = "OCTAL")]
    mode: Option<String>,
    /// Owner, a name or a number [as ?owner=]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Group, a name or a number [as ?group=]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How many messages a POSIX queue holds [as ?max-messages=]
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<String>,
    /// The largest message, as 4096 or 64KiB [as ?max-message=]
    #[arg(long, value_name = "BYTES")]
    max_message: Option<String>,
    /// How many bytes a System V queue holds [as ?capacity=]
    #[arg(long, value_name = "BYTES")]
    capacity: Option<String>,
    /// The largest value of a state, as 4096 or 64KiB [as ?size=]
    #[arg(long, value_name = "BYTES")]
    size: Option<String>,
    /// The count that a semaphore starts with [as ?value=]
    #[arg(long, value_name = "COUNT")]
    value: Option<String>,
    /// Say what was created as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("create"));
    let schemes = endpoint::schemes(Transport::creates);
    with_examples(
        command
            .about("Create a FIFO, queue, semaphore, memory or log that outlives this command")
            .long_about(format!(
                "Create a FIFO, queue, semaphore, memory or log that outlives this command.\n\nOwner, \
                 group and mode are set before anybody can open it. An object that exists already is \
                 an error. There is something to create for {schemes}.",
            )),
        "  switchboard create fifo:/tmp/jobs --mode 0660 --group robots
  switchboard create mq:/jobs --max-messages 10 --max-message 4KiB
  switchboard create 'sysv:/etc/hostname#7?capacity=16KiB'
  switchboard create sem:/seats --value 3
  switchboard create posix-shm:/engine --size 64KiB --mode 0640",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let flags = [
        ("mode", &arguments.mode),
        ("owner", &arguments.owner),
        ("group", &arguments.group),
        ("max-messages", &arguments.max_messages),
        ("max-message", &arguments.max_message),
        ("capacity", &arguments.capacity),
        ("size", &arguments.size),
        ("value", &arguments.value),
    ];
    let text = flags.iter().fold(arguments.address.clone(), |text, (name, value)| match value {
        Some(value) => with_option(&text, &format!("{name}={value}")),
        None => text,
    });
    let address: Address = text.parse()?;
    // A large object takes a while to make: a signal meanwhile leaves it whole, not half made.
    let _interrupt = Interrupt::watch(None)?;
    object::create(&address)?;
    if arguments.json {
        print_json(&json!({ "address": address.as_str(), "created": true }))?;
    }
    Ok(Exit::Done)
}
