//! `switchboard notify ADDRESS`: says that something happened.

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{Address, Event, Options};

use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{Outcome, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Whom to notify, as signal:4711/SIGUSR1, sem:/NAME or sysv-sem:PATH
    address: String,
    /// A number to send with it, where the address carries one (signals)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    value: Option<i32>,
    /// Notify so many times
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Fail when the semaphore is not there, instead of making it (exit 3)
    #[arg(long)]
    no_wait: bool,
    /// Say what was done as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("notify"));
    with_examples(
        command.about("Notify those who wait for an event").long_about(
            "Notify those who wait for an event.\n\nIt never waits. On semaphores each notification \
             is counted, and kept until somebody takes it; the semaphore is made if it is not there. \
             A signal is pending in its process until it is taken; SIGRTMIN and above are queued, \
             the others are merged with one that is pending. A process that neither waits for a signal \
             nor handles it is ended by most of them.",
        ),
        "  switchboard notify sem:/ready
  switchboard notify --count 3 sysv-sem:/etc/hostname#7
  switchboard notify --value 42 signal:4711/SIGRTMIN+1",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    let options = Options::default().wait_for_peer(!arguments.no_wait);
    let mut notifier = Event::at(address, options).notifier()?;
    match arguments.value {
        Some(value) => {
            for _ in 0..arguments.count {
                notifier.notify_with(value)?;
            }
        }
        None => notifier.notify_many(arguments.count)?,
    }
    if arguments.json {
        print_json(&json!({ "address": arguments.address, "notified": arguments.count }))?;
    }
    Ok(Exit::Done)
}
