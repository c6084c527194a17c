//! `switchboard snapshot FILE`: everything as JSON, for later.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard_inspect::Request;

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{GAP, say_missing};
use crate::new_file::NewFile;
use crate::output::{Failure, Outcome, counted, note, print_bytes, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// A file that is not there yet; - for standard output
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Say what was saved, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("snapshot"));
    with_examples(
        command.about("Save everything as JSON, for the other commands' --from, and for diff"),
        "  switchboard snapshot now.json
  switchboard why 812 --from now.json
  switchboard snapshot - | gzip > now.json.gz",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let to_output = arguments.file.as_os_str() == "-";
    if to_output && arguments.json {
        return Err(Failure::new(Exit::Usage, "standard output is either the snapshot or --json"));
    }
    // Whether it can be written is known before the machine is looked at.
    let file = match to_output {
        true => None,
        false => Some(NewFile::create(&arguments.file, arguments.force)?),
    };
    let snapshot = Request::everything().limits().leaks(&[]).twice(GAP).take();
    say_missing(&snapshot.coverage);
    let json = snapshot.to_json();
    let Some(file) = file else {
        print_bytes(&json)?;
        return Ok(Exit::Done);
    };
    file.write(&json)?;
    let (objects, processes) = (snapshot.objects.len(), snapshot.processes.len());
    if arguments.json {
        print_json(&json!({
            "file": arguments.file, "bytes": json.len(), "objects": objects, "processes": processes,
        }))?;
    } else {
        let count = |n| u64::try_from(n).unwrap_or(u64::MAX);
        let text = format!(
            "{} of {}",
            counted(count(objects), "object"),
            counted(count(processes), "task")
        );
        note(&format!("saved {text}, {} bytes", json.len()));
    }
    Ok(Exit::Done)
}
