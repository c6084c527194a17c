//! `switchboard get ADDRESS`: the value of a state on standard output.

use clap::{ArgMatches, Args, FromArgMatches};
use switchboard::{Address, Layout, Options, State};

use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{self, Failure, Outcome, print_bytes, print_json};
use crate::value;

#[derive(Args, Debug)]
struct Arguments {
    /// What to read, as posix-shm:/NAME, sysv-shm:PATH or mmap:PATH
    address: String,
    /// Print the value and its version as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("get"));
    with_examples(
        command.about("Print the value of a state").long_about(
            "Print the value of a state, byte for byte.\n\nIt does not wait, and does not keep the \
             writer from setting. With ?layout=bare it is all of the memory, for programs that are \
             not ours.",
        ),
        "  switchboard get mmap:./settings
  switchboard get --json posix-shm:/engine
  switchboard get 'posix-shm:/their-segment?layout=bare' | xxd",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    let state = State::at(address, Options::default());
    let value = state.reader()?.get()?;
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
