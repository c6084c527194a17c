//! The command.

#![forbid(unsafe_code)]

mod command;
mod demo;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = clap::Command::new("switchboard")
        .subcommand_required(true)
        .subcommand(command::demo::build())
        .get_matches();
    let Some(("demo", arguments)) = matches.subcommand() else { return ExitCode::from(2) };
    match command::demo::run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "switchboard: {error}");
            ExitCode::from(1)
        }
    }
}
