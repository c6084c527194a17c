//! `switchboard unlink ADDRESS...`: removes names.

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{Address, object};

use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// What to remove
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Say what was removed as JSON, a line per address
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("unlink"));
    with_examples(
        command
            .about("Remove FIFOs, queues, semaphores, memory, logs, and sockets of dead processes")
            .long_about(
                "Remove FIFOs, queues, semaphores, memory, logs, and sockets of dead processes.\n\nWho \
                 has the object open keeps it, except for System V queues and semaphores, which are gone \
                 at once, and logs, whose messages are removed with them: a recv that waits for one ends \
                 with an error. A socket that somebody listens on, and a log that somebody writes to, \
                 are not removed, nor are a file that holds no state and a folder that holds more \
                 than a log. With several addresses, an error does not keep the others.",
            ),
        "  switchboard unlink mq:/jobs fifo:/tmp/jobs
  switchboard unlink sysv:0x5b01
  switchboard unlink sem:/ready posix-shm:/engine file:/var/tmp/jobs",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let mut exit = Exit::Done;
    for text in &arguments.addresses {
        let result = unlink(text);
        if arguments.json {
            print_json(&json!({ "address": text, "unlinked": result.is_ok() }))?;
        }
        if let Err(failure) = result {
            failure.report();
            if exit == Exit::Done {
                exit = failure.exit();
            }
        }
    }
    Ok(exit)
}

fn unlink(text: &str) -> Result<(), Failure> {
    let address: Address = text.parse()?;
    Ok(object::unlink(&address)?)
}
