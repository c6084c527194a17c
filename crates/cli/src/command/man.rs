//! `switchboard man [--dir DIR]`: the manual, as man pages.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};

use super::{root, with_examples};
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome, print_bytes};

#[derive(Args, Debug)]
struct Arguments {
    /// Write switchboard.1 and a page per command into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("man"));
    with_examples(
        command.about("Write the manual as man pages"),
        "  switchboard man | man -l -
  switchboard man --dir ~/.local/share/man/man1",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let Some(dir) = arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(root()).render(&mut page).map_err(|error| failed(&error))?;
        print_bytes(&page)?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(&dir)
        .and_then(|()| clap_mangen::generate_to(root(), &dir))
        .map_err(|error| failed(&error).hint(format!("is {} writable?", dir.display())))?;
    Ok(Exit::Done)
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write the man pages: {error}"))
}
