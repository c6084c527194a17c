//! `switchboard wait ADDRESS`: until something happens.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{Address, Event, Listener, Occurrence, Options, WaitError};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Failure, Outcome, print, print_json};
use crate::program;

#[derive(Args, Debug)]
struct Arguments {
    /// What to wait for, as unix:PATH, sem:/NAME, sysv-sem:PATH or signal:self/SIGUSR1
    address: String,
    /// Wait for so many notifications
    #[arg(long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "follow",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Wait for one event after the other
    #[arg(long)]
    follow: bool,
    /// Give up when nothing happens for so long, as 500ms or 2s (exit 3)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Fail at once when nothing happened yet (exit 3)
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// First print the address that notifiers use: signal:self has the number of this process
    #[arg(long)]
    announce: bool,
    /// Print each event as JSON on a line, with its value and its sender
    #[arg(long)]
    json: bool,
    /// Run this for each event
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("wait"));
    with_examples(
        command
            .about("Wait for an event, and run a command for it")
            .long_about(
                "Wait for an event, and run a command for it.\n\nOn semaphores each notification \
                 goes to one who waits; the semaphore is made if it is not there. Signals are those \
                 that are sent to this command: --announce prints its address. Over links and shm \
                 notifications of one id are merged and counted, until they are looked at. COMMAND finds \
                 SWITCHBOARD_ADDRESS, SWITCHBOARD_ID and SWITCHBOARD_COUNT in its environment, and \
                 SWITCHBOARD_VALUE and SWITCHBOARD_PID where they are known. A COMMAND that is not there is exit 2, before anything is \
                 taken.",
            ),
        "  switchboard wait --follow unix:/run/engine.sock -- ./work
  switchboard wait sem:/ready
  switchboard wait --follow sysv-sem:/etc/hostname#7 -- ./work
  switchboard wait --announce --json --timeout 5s signal:self/SIGRTMIN+1",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    // Before an event is taken that would be lost.
    program::must_be_there(&arguments.command)?;
    let interrupt =
        if arguments.json { Interrupt::watch_output()? } else { Interrupt::watch(None)? };
    let options =
        Options::default().wait_for_peer(!arguments.no_wait).cancel(Some(interrupt.cancel()));
    let mut listener = Event::at(address, options).listener()?;
    if arguments.announce {
        let local = listener.local_address();
        let local = local.as_deref().unwrap_or(&arguments.address);
        match arguments.json {
            true => print_json(&json!({ "address": local }))?,
            false => print(&format!("{local}\n"))?,
        }
    }
    let count = if arguments.follow { u64::MAX } else { arguments.count };
    let mut exit = Exit::Done;
    let (mut number, mut taken) = (0_u64, 0_u64);
    while taken < count {
        let occurrence = next(&mut listener, &arguments, &interrupt, taken)?;
        number += 1;
        taken = taken.saturating_add(occurrence.count);
        if arguments.json {
            print_json(&as_json(&occurrence))?;
        }
        if !arguments.command.is_empty() {
            let mut environment = vec![("SWITCHBOARD_ADDRESS", arguments.address.clone())];
            environment.push(("SWITCHBOARD_ID", occurrence.id.to_string()));
            environment.push(("SWITCHBOARD_COUNT", occurrence.count.to_string()));
            environment.extend(occurrence.value.map(|v| ("SWITCHBOARD_VALUE", v.to_string())));
            environment
                .extend(occurrence.from.map(|from| ("SWITCHBOARD_PID", from.pid.to_string())));
            let what = format!("event {number}");
            if program::run(&arguments.command, &environment, None, &interrupt, &what)?
                != Exit::Done
            {
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

fn next(
    listener: &mut Listener,
    arguments: &Arguments,
    interrupt: &Interrupt,
    taken: u64,
) -> Result<Occurrence, Failure> {
    let limit = if arguments.no_wait { Some(Duration::ZERO) } else { arguments.timeout };
    let result = match limit {
        Some(limit) => listener.wait_timeout(limit),
        None => listener.wait(),
    };
    let events = if taken == 1 { "event" } else { "events" };
    let account = format!("{taken} {events} taken");
    result.map_err(|error| match error {
        WaitError::TimedOut if arguments.no_wait => Failure::new(
            Exit::Nothing,
            format!("{}: nothing happened yet, and waiting was not wanted", arguments.address),
        ),
        WaitError::TimedOut => {
            let (address, limit) = (&arguments.address, limit.unwrap_or_default());
            let message = format!("{address}: nothing happened for {limit:?}; {account}");
            Failure::new(Exit::Nothing, message)
        }
        WaitError::Failed(error) => error.into(),
        _ => interrupt.failure(&account),
    })
}

fn as_json(occurrence: &Occurrence) -> serde_json::Value {
    let mut object = json!({
        "id": occurrence.id, "count": occurrence.count, "merged": occurrence.merged,
    });
    if let Some(value) = occurrence.value {
        object["value"] = value.into();
    }
    if let Some(from) = occurrence.from {
        object["from"] = json!({ "pid": from.pid, "uid": from.uid, "verified": from.verified });
    }
    object
}
