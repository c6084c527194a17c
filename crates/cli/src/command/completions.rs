//! `switchboard completions SHELL`: a completion script on standard output.

use clap::{ArgMatches, Args, FromArgMatches};
use clap_complete::Shell;

use super::{root, with_examples};
use crate::exit_code::Exit;
use crate::output::{Outcome, print_bytes};

#[derive(Args, Debug)]
struct Arguments {
    /// The shell to write it for
    shell: Shell,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("completions"));
    with_examples(
        command.about("Write a shell's completion script to standard output"),
        "  switchboard completions bash > ~/.local/share/bash-completion/completions/switchboard
  switchboard completions zsh > ~/.zfunc/_switchboard
  switchboard completions fish > ~/.config/fish/completions/switchboard.fish",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root(), "switchboard", &mut script);
    print_bytes(&script)?;
    Ok(Exit::Done)
}
