//! `switchboard demo`: see it work. The processes themselves are in the folder `demo`.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, value_parser};
use switchboard_kernel as kernel;

use super::with_examples;
use crate::demo::{self, Places, Role, Settings};
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome};
use crate::standard_streams::require_stdout;

#[derive(Args, Debug)]
struct Arguments {
    /// How long messages flow, in seconds
    #[arg(long, value_name = "N", default_value = "8", value_parser = value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Print nothing but the final report, as one JSON object
    #[arg(long)]
    json: bool,
    /// Leave the recorder's file, the sensor's ledger and the dashboard's log there
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// One of the demo's own processes, and where it finds the others.
    #[arg(long, hide = true, requires = "folder", value_parser = role)]
    role: Option<Role>,
    #[arg(long, hide = true, requires = "role")]
    folder: Option<PathBuf>,
    #[arg(long, hide = true, requires = "role", default_value = "")]
    queue: String,
    #[arg(long, hide = true, requires = "role")]
    recorder: Option<String>,
}

fn role(name: &str) -> Result<Role, String> {
    Role::parse(name).ok_or_else(|| "the demo has no such role".to_owned())
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("demo"));
    with_examples(
        command.about("See it work: processes, five transports, a kill, and a proof").long_about(
            "See it work: processes, five transports, a kill, and a proof.\n\nA sensor that reads how \
             busy this machine is, a processor, a dashboard and a recorder talk in shared memory (a \
             queue and a topic) and over TCP, a POSIX queue, a FIFO and a Unix socket. The processor is \
             killed with SIGKILL while messages flow, and started again. At the end another process reads the files that they wrote, and \
             proves that every acknowledged message arrived, and none twice without a mark.",
        ),
        "  switchboard demo
  switchboard demo --seconds 15 --keep ./demo-files
  switchboard demo --json | jq .counts",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    require_stdout()?;
    let result = match (arguments.role, arguments.folder) {
        (Some(role), Some(folder)) => {
            let (queue, recorder) = (arguments.queue, arguments.recorder);
            demo::play(role, &Places { folder, queue, recorder })
        }
        _ => demo::run(&Settings {
            duration: Duration::from_secs(arguments.seconds.into()),
            json: arguments.json,
            keep: arguments.keep,
        }),
    };
    match result {
        Ok(true) => Ok(Exit::Done),
        Ok(false) => Ok(Exit::Failed),
        Err(error) => Err(failure(error)),
    }
}

fn failure(error: Box<dyn Error>) -> Failure {
    match error.downcast::<switchboard::Error>() {
        Ok(error) => Failure::from(*error),
        // Nobody reads the output any more: nobody is left to tell.
        Err(error) if is_broken_pipe(&*error) => Failure::quiet(),
        Err(error) => {
            let failure = Failure::new(Exit::Failed, error.to_string());
            match advice(&*error) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
    }
}

/// What to do about the system's error, if that is what it is.
fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let number = |error: &io::Error| kernel::Error::from_raw("", error.raw_os_error().unwrap_or(0));
    let system = error.downcast_ref::<kernel::Error>().copied();
    system.or_else(|| error.downcast_ref().map(number))?.advice()
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
