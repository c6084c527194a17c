//! `switchboard watch ADDRESS`: each new value of a state.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use switchboard::pattern::state::Reader;
use switchboard::{Address, ErrorKind, Layout, Options, State, Value, WaitError};
use switchboard_kernel::io::{self, Deadline, Interest};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, print_bytes, print_json, system};
use crate::program;
use crate::value;

#[derive(Args, Debug)]
struct Arguments {
    /// What to watch, as unix:PATH, posix-shm:/NAME, sysv-shm:PATH or mmap:PATH
    address: String,
    /// Which of its values, where it has several (links, shm)
    #[arg(default_value = "", hide_default_value = true)]
    key: String,
    /// All of its values; --json says the key of each, and a command finds SWITCHBOARD_KEY
    #[arg(long, conflicts_with = "key")]
    all: bool,
    /// Stop after so many values
    #[arg(long, value_name = "NUMBER", default_value_t = u64::MAX, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Stop when nothing changed for so long, as 500ms or 2s (exit 3 if nothing did at all)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Begin with the value that is there
    #[arg(long)]
    initial: bool,
    /// Fail at once when it is not there (exit 3)
    #[arg(long)]
    no_wait: bool,
    /// Print each value and its version as JSON on a line
    #[arg(long)]
    json: bool,
    /// Run this for each value, with the value on its standard input
    #[arg(last = true, conflicts_with = "json")]
    command: Vec<OsString>,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("watch"));
    with_examples(
        command
            .about("Print each new value of a state, or run a command for it")
            .long_about(
                "Print each new value of a state, followed by a line feed, or run a command for \
                 it.\n\nWhat is set in quick succession may be seen as one change: the newest value \
                 counts. Writer and reader may start in any order. COMMAND finds SWITCHBOARD_ADDRESS \
                 and SWITCHBOARD_VERSION in its environment. A COMMAND that is not there is exit 2.",
            ),
        "  switchboard watch --all --json unix:/run/engine.sock
  switchboard watch mmap:./speed
  switchboard watch --initial --json posix-shm:/engine
  switchboard watch mmap:./settings -- systemctl reload engine",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    program::must_be_there(&arguments.command)?;
    let prints = arguments.json || arguments.command.is_empty();
    let interrupt = if prints { Interrupt::watch_output()? } else { Interrupt::watch(None)? };
    let options = Options::default().cancel(Some(interrupt.cancel()));
    let mut watching = Watching { arguments, interrupt: &interrupt, seen: 0, exit: Exit::Done };
    let state = State::at(address, options);
    state.check_key(&watching.arguments.key)?;
    let (mut reader, came) = watching.open(&state)?;
    if reader.has_writer().is_some() {
        watching.begin(&mut reader)?;
    } else if came || watching.arguments.initial {
        // One that was set while nobody could look yet is new, too.
        let value = reader.get()?;
        if value.version > 0 || state.layout() == Layout::Bare {
            watching.show(None, value)?;
        }
    }
    while watching.seen < watching.arguments.count {
        match watching.next(&mut reader)? {
            Some((key, value)) => watching.show(key, value)?,
            None => break,
        }
    }
    Ok(watching.exit)
}

struct Watching<'a> {
    arguments: Arguments,
    interrupt: &'a Interrupt,
    seen: u64,
    exit: Exit,
}

/// How often it is looked whether the memory is there.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Watching<'_> {
    /// A reader, and whether it had to be waited for.
    fn open(&self, state: &State) -> Result<(Reader, bool), Failure> {
        let deadline = Deadline::from_timeout(self.arguments.timeout);
        let (mut told, mut came) = (!output::is_watched(), false);
        loop {
            let error = match state.reader() {
                Err(error) if error.kind() == ErrorKind::NotFound && !self.arguments.no_wait => {
                    error
                }
                result => return Ok((result?, came)),
            };
            if deadline.passed() {
                return Err(error.into());
            }
            if !std::mem::replace(&mut told, true) {
                output::note(&format!("waiting for {}", self.arguments.address));
            }
            came = true;
            let pause = deadline.min(Deadline::after(LOOK_AGAIN));
            let cancelled = io::wait_for(self.interrupt.fd(), Interest::Readable, pause);
            if cancelled.map_err(|error| system("cannot wait", error))? {
                return Err(self.interrupt.failure(&self.account()));
            }
        }
    }

    /// Shows what is set already, where that was wished for and values live with their writer.
    fn begin(&mut self, reader: &mut Reader) -> Result<(), Failure> {
        if !self.arguments.initial {
            return Ok(());
        }
        match reader.wait_for_writer(self.arguments.timeout) {
            Err(WaitError::Failed(error)) => return Err(error.into()),
            Err(WaitError::Interrupted) => return Err(self.interrupt.failure(&self.account())),
            // Whoever sets something later is new.
            _ => {}
        }
        let keys =
            if self.arguments.all { reader.keys()? } else { vec![self.arguments.key.clone()] };
        for key in keys {
            if self.seen < self.arguments.count
                && let Some(value) = reader.get_key(&key)?
            {
                self.show(self.arguments.all.then_some(key), value)?;
            }
        }
        Ok(())
    }

    /// The next value, and its key if all are watched; `None` when nothing changed for long enough.
    fn next(&self, reader: &mut Reader) -> Result<Option<(Option<String>, Value)>, Failure> {
        let limit = self.arguments.timeout;
        let result = if self.arguments.all {
            reader.watch_any(limit).map(|(key, value)| (Some(key), value))
        } else {
            reader.watch_key(&self.arguments.key, limit).map(|value| (None, value))
        };
        match result {
            Ok(found) => Ok(Some(found)),
            Err(WaitError::Failed(error)) => Err(error.into()),
            // As in `recv`: silence after something is an end.
            Err(WaitError::TimedOut) if self.seen > 0 && self.arguments.count == u64::MAX => {
                Ok(None)
            }
            Err(WaitError::TimedOut) => {
                let limit = self.arguments.timeout.unwrap_or_default();
                let (address, account) = (&self.arguments.address, self.account());
                let message = format!("{address}: nothing changed for {limit:?}; {account}");
                Err(Failure::new(Exit::Nothing, message))
            }
            Err(_) => Err(self.interrupt.failure(&self.account())),
        }
    }

    fn show(&mut self, key: Option<String>, value: Value) -> Result<(), Failure> {
        self.seen += 1;
        if value.restored {
            output::warn(&format!("{}: {}", self.arguments.address, value::RESTORED));
            self.exit = Exit::Failed;
        }
        if self.arguments.json {
            let mut said = value::as_json(&value);
            if let Some(key) = key {
                said["key"] = key.into();
            }
            return print_json(&said);
        }
        let mut bytes = value.bytes;
        if self.arguments.command.is_empty() {
            bytes.push(b'\n');
            return print_bytes(&bytes);
        }
        let environment = [
            ("SWITCHBOARD_KEY", key.unwrap_or_else(|| self.arguments.key.clone())),
            ("SWITCHBOARD_ADDRESS", self.arguments.address.clone()),
            ("SWITCHBOARD_VERSION", value.version.to_string()),
        ];
        let what = format!("value {}", self.seen);
        let command = &self.arguments.command;
        if program::run(command, &environment, Some(bytes), self.interrupt, &what)? != Exit::Done {
            self.exit = Exit::Failed;
        }
        Ok(())
    }

    fn account(&self) -> String {
        let values = if self.seen == 1 { "value" } else { "values" };
        format!("{} {values} seen", self.seen)
    }
}
