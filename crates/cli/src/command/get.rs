//! `switchboard get ADDRESS`: the value of a state on standard output.

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{Address, Layout, Options, State, WaitError};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, print, print_bytes, print_json};
use crate::value;

#[derive(Args, Debug)]
struct Arguments {
    /// What to read, as unix:PATH, posix-shm:/NAME, sysv-shm:PATH or mmap:PATH
    address: String,
    /// Which of its values, where it has several (links, shm)
    #[arg(default_value = "", hide_default_value = true)]
    key: String,
    /// Give up when no writer comes for so long, as 500ms or 2s (links, shm; exit 3)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Fail at once when there is no writer (exit 3)
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Print the keys that have a value, one on a line; with --json all of them
    #[arg(long, conflicts_with = "key")]
    keys: bool,
    /// Print the value and its version as JSON
    #[arg(long)]
    json: bool,
}

/// How long a writer that is there may take to say what is set, where nobody is waited for.
const MEETS_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("get"));
    with_examples(
        command.about("Print the value of a state").long_about(
            "Print the value of a state, byte for byte.\n\nIt does not keep the writer from setting, and \
             waits for nothing but, over links and shm, for the writer with which values live. With ?layout=bare it is all of the memory, for programs that are \
             not ours.",
        ),
        "  switchboard get unix:/run/engine.sock speed
  switchboard get mmap:./settings
  switchboard get --json posix-shm:/engine
  switchboard get 'posix-shm:/their-segment?layout=bare' | xxd",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    let interrupt = Interrupt::watch(None)?;
    let options =
        Options::default().wait_for_peer(!arguments.no_wait).cancel(Some(interrupt.cancel()));
    let state = State::at(address, options);
    state.check_key(&arguments.key)?;
    let mut reader = state.reader()?;
    let limit = if arguments.no_wait { Some(MEETS_WITHIN) } else { arguments.timeout };
    match reader.wait_for_writer(limit) {
        Ok(()) => {}
        Err(WaitError::TimedOut) => {
            let limit = limit.unwrap_or_default();
            let message = format!("{}: no writer for {limit:?}", arguments.address);
            return Err(Failure::new(Exit::Nothing, message));
        }
        Err(WaitError::Failed(error)) => return Err(error.into()),
        Err(_) => return Err(interrupt.failure("nothing was read")),
    }
    if arguments.keys {
        let mut keys = reader.keys()?;
        keys.sort();
        if arguments.json {
            print_json(&json!({ "address": arguments.address, "keys": keys }))?;
            return Ok(Exit::Done);
        }
        for key in keys {
            print(&format!("{key}\n"))?;
        }
        return Ok(Exit::Done);
    }
    let value = match arguments.key.as_str() {
        "" => reader.get()?,
        key => match reader.get_key(key)? {
            Some(value) => value,
            None => {
                let message = format!("{}: no value of {key:?} was set", arguments.address);
                return Err(Failure::new(Exit::Nothing, message));
            }
        },
    };
    if value.version == 0 && state.layout() == Layout::Slots {
        let message = format!("{}: nothing was set yet", arguments.address);
        return Err(Failure::new(Exit::Nothing, message));
    }
    if arguments.json {
        print_json(&value::as_json(&value))?;
    } else {
        print_bytes(&value.bytes)?;
    }
    if value.restored {
        output::warn(&format!("{}: {}", arguments.address, value::RESTORED));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}
