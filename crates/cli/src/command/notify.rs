//! `switchboard notify ADDRESS`: says that something happened.

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{Address, Event, Options, WaitError};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Failure, Outcome, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Whom to notify, as unix:PATH, signal:4711/SIGUSR1, sem:/NAME or sysv-sem:PATH
    address: String,
    /// A number to send with it, where the address carries one (signals)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    value: Option<i32>,
    /// Which event, where the address carries several (links, shm)
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "value")]
    id: u64,
    /// Notify so many times
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Give up when no listener comes for so long, as 500ms or 2s (links, shm; exit 3)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Fail when the semaphore, or a listener, is not there (exit 3)
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
            "Notify those who wait for an event.\n\nOn semaphores and signals it never waits. On semaphores each notification \
             is counted, and kept until somebody takes it; the semaphore is made if it is not there. \
             Over links and shm every listener is told how many times what happened; the first \
             one is waited for.

A signal is pending in its process until it is taken; SIGRTMIN and above are queued, \
             the others are merged with one that is pending. A process that neither waits for a signal \
             nor handles it is ended by most of them.",
        ),
        "  switchboard notify --id 7 unix:/run/engine.sock
  switchboard notify sem:/ready
  switchboard notify --count 3 sysv-sem:/etc/hostname#7
  switchboard notify --value 42 signal:4711/SIGRTMIN+1",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    let interrupt = Interrupt::watch(None)?;
    let options =
        Options::default().wait_for_peer(!arguments.no_wait).cancel(Some(interrupt.cancel()));
    let mut notifier = Event::at(address, options).notifier()?;
    match arguments.value {
        Some(value) => {
            for _ in 0..arguments.count {
                notifier.notify_with(value)?;
            }
        }
        None => notifier.notify_many_of(arguments.id, arguments.count.into())?,
    }
    match notifier.close(arguments.timeout) {
        Ok(()) => {}
        Err(WaitError::TimedOut) => {
            let limit = arguments.timeout.unwrap_or_default();
            let message = format!("{}: nobody listened for {limit:?}", arguments.address);
            return Err(Failure::new(Exit::Nothing, message));
        }
        Err(WaitError::Failed(error)) => return Err(error.into()),
        Err(_) => return Err(interrupt.failure("nobody was notified")),
    }
    if arguments.json {
        print_json(&json!({ "address": arguments.address, "notified": arguments.count }))?;
    }
    Ok(Exit::Done)
}
