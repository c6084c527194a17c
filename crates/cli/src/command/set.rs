//! `switchboard set ADDRESS [VALUE]`: gives a state a new value.

mod live;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::pattern::state::Writer;
use switchboard::{Address, ErrorKind, Options, State};
use switchboard_kernel::io::{self, Deadline, Interest};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::{Interrupt, wait_for};
use crate::output::{self, Failure, Outcome, print_json, system};
use crate::standard_streams::require_stdin;

#[derive(Args, Debug)]
struct Arguments {
    /// What to set, as unix:PATH, posix-shm:/NAME, sysv-shm:PATH or mmap:PATH
    address: String,
    /// The value; standard input if there is none
    value: Option<OsString>,
    /// Which of its values, where it has several (links, shm)
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Set a value for each line of standard input, KEY=VALUE, when it comes (links, shm)
    #[arg(long, conflicts_with_all = ["value", "key"])]
    pairs: bool,
    /// Stay for so long, as 500ms or 2s, and not until a signal comes (links, shm)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    stay: Option<Duration>,
    /// Wait until it is on the disk (mmap)
    #[arg(long)]
    sync: bool,
    /// Give up when another process is its writer for so long, as 500ms or 2s (exit 3)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Fail at once when it is not there (exit 3) or another process is its writer
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Say what was set as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("set"));
    with_examples(
        command.about("Give a state a new value").long_about(
            "Give a state a new value.\n\nThe memory is made if it is not there, for values of up to \
             ?size= bytes (4 KiB; at most 1 GiB). Readers have the old value or the new one, never a part of each; \
             with ?layout=bare, for programs that are not ours, that is not sure. One process sets at \
             a time: set waits for another that is doing so.\n\nOver links and shm a value lives as long \
             as its writer: set stays until a signal ends it, or for --stay.",
        ),
        "  switchboard set --key speed unix:/run/engine.sock 7 &
  sensors | switchboard set --pairs unix:/run/engine.sock
  switchboard set mmap:./speed 7
  switchboard set 'posix-shm:/engine?size=64KiB' < engine.json
  switchboard set --sync mmap:/var/lib/app/settings < settings",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    let interrupt = Interrupt::watch(None)?;
    if endpoint::lives_with_writer(&address) {
        return live::run(&arguments, &address, &interrupt);
    }
    if arguments.pairs || !arguments.key.is_empty() || arguments.stay.is_some() {
        let message = format!("{address}: its value needs no writer to stay, and it has no keys");
        return Err(Failure::new(Exit::Usage, message));
    }
    let value = match &arguments.value {
        Some(value) => value.clone().into_vec(),
        None => read_all(&address, &interrupt, "a value", "nothing was set")?,
    };
    let mut writer = open(&address, value.len(), &arguments, &interrupt)?;
    writer.set(&value)?;
    if arguments.sync {
        writer.sync()?;
    }
    if arguments.json {
        let mut said = json!({ "address": arguments.address, "len_bytes": value.len() });
        if let Some(version) = writer.version() {
            said["version"] = version.into();
        }
        print_json(&said)?;
    }
    Ok(Exit::Done)
}

/// How often it is looked whether the other writer has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

fn open(
    address: &Address,
    len_bytes: usize,
    arguments: &Arguments,
    interrupt: &Interrupt,
) -> Result<Writer, Failure> {
    // Memory that is too small for the value is not made for it.
    let most = State::at(address.clone(), Options::default()).new_capacity_bytes();
    let fits = len_bytes <= most;
    let options = Options::default()
        .wait_for_peer(fits && !arguments.no_wait)
        .cancel(Some(interrupt.cancel()));
    let state = State::at(address.clone(), options);
    let deadline = Deadline::from_timeout(arguments.timeout);
    let mut told = !output::is_watched();
    loop {
        let error = match state.writer() {
            Err(error) if error.kind() == ErrorKind::AddressInUse && !arguments.no_wait => error,
            Err(error) if error.kind() == ErrorKind::NotFound && !fits && !arguments.no_wait => {
                let message = format!(
                    "{address}: it is not there, and would be made for values of up to {most} bytes; \
                     this one has {len_bytes}; nothing was made"
                );
                let hint = format!("say how large values get: ?size={len_bytes}");
                return Err(Failure::new(Exit::Failed, message).hint(hint));
            }
            result if is_over(interrupt) => {
                drop(result);
                return Err(interrupt.failure("nothing was set"));
            }
            result => return Ok(result?),
        };
        if deadline.passed() {
            let message = format!("{error}, for {:?}", arguments.timeout.unwrap_or_default());
            return Err(Failure::new(Exit::Nothing, message));
        }
        if !std::mem::replace(&mut told, true) {
            output::note(&format!("waiting for the writer: {error}"));
        }
        let pause = deadline.min(Deadline::after(LOOK_AGAIN));
        let cancelled = io::wait_for(interrupt.fd(), Interest::Readable, pause);
        if cancelled.map_err(|error| system("cannot wait", error))? {
            return Err(interrupt.failure("nothing was set"));
        }
    }
}

/// Whether a signal came that ends this.
fn is_over(interrupt: &Interrupt) -> bool {
    let now = Deadline::after(Duration::ZERO);
    io::wait_for(interrupt.fd(), Interest::Readable, now).unwrap_or(false)
}

/// All of standard input, if it is not more than this transport takes. `what` it is and its `fate` if
/// this is interrupted are for messages.
pub(super) fn read_all(
    address: &Address,
    interrupt: &Interrupt,
    what: &str,
    fate: &str,
) -> Result<Vec<u8>, Failure> {
    require_stdin()?;
    let most = address.transport().capabilities.largest_message_bytes as usize;
    let cannot_read = |error| system("cannot read standard input", error);
    let stdin = std::io::stdin();
    let mut value = Vec::new();
    let mut block = vec![0; 64 << 10];
    loop {
        if !wait_for(stdin.as_fd(), Interest::Readable, interrupt).map_err(cannot_read)? {
            return Err(interrupt.failure(fate));
        }
        match io::read(&stdin, &mut block).map_err(cannot_read)? {
            0 => return Ok(value),
            n => value.extend_from_slice(&block[..n]),
        }
        if value.len() > most {
            let message = format!("{address}: {what} has {most} bytes at most");
            return Err(Failure::new(Exit::Failed, message));
        }
    }
}
