//! The commands: one table, a row and a file each.
//!
//! A new command is a file here with `build` and `run`, a row in [`COMMANDS`], and a section in
//! docs/commands.md. Help, completions and man pages follow from the row.

mod call;
mod clean;
mod completions;
mod create;
mod deadlocks;
mod demo;
mod diff;
mod doctor;
mod get;
mod leaks;
mod list;
mod lock;
mod man;
mod map;
mod notify;
mod peek;
mod ps;
mod publish;
mod recv;
mod restore;
mod send;
mod serve;
mod set;
mod show;
mod snapshot;
mod subscribe;
mod top;
mod transports;
mod unlink;
mod wait;
mod watch;
mod web;
mod who;
mod why;

use clap::ArgMatches;
use clap::builder::Styles;

use crate::exit_code;
use crate::output::{Failure, Outcome};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Command {
    /// The word on the command line, and the file in this folder.
    name: &'static str,
    /// The heading it stands under in `--help`.
    group: &'static str,
    /// Its arguments, help and examples.
    build: fn() -> clap::Command,
    /// What it does.
    run: fn(&ArgMatches) -> Outcome,
}

/// Every command, in the order of `--help`.
const COMMANDS: &[Command] = &[
    Command { name: "demo", group: "Talk", build: demo::build, run: demo::run },
    Command { name: "send", group: "Talk", build: send::build, run: send::run },
    Command { name: "recv", group: "Talk", build: recv::build, run: recv::run },
    Command { name: "publish", group: "Talk", build: publish::build, run: publish::run },
    Command { name: "subscribe", group: "Talk", build: subscribe::build, run: subscribe::run },
    Command { name: "call", group: "Talk", build: call::build, run: call::run },
    Command { name: "serve", group: "Talk", build: serve::build, run: serve::run },
    Command { name: "notify", group: "Talk", build: notify::build, run: notify::run },
    Command { name: "wait", group: "Talk", build: wait::build, run: wait::run },
    Command { name: "set", group: "Talk", build: set::build, run: set::run },
    Command { name: "get", group: "Talk", build: get::build, run: get::run },
    Command { name: "watch", group: "Talk", build: watch::build, run: watch::run },
    Command { name: "lock", group: "Talk", build: lock::build, run: lock::run },
    Command { name: "create", group: "Objects", build: create::build, run: create::run },
    Command { name: "unlink", group: "Objects", build: unlink::build, run: unlink::run },
    Command { name: "list", group: "See", build: list::build, run: list::run },
    Command { name: "show", group: "See", build: show::build, run: show::run },
    Command { name: "who", group: "See", build: who::build, run: who::run },
    Command { name: "peek", group: "See", build: peek::build, run: peek::run },
    Command { name: "ps", group: "See", build: ps::build, run: ps::run },
    Command { name: "why", group: "See", build: why::build, run: why::run },
    Command { name: "deadlocks", group: "See", build: deadlocks::build, run: deadlocks::run },
    Command { name: "leaks", group: "See", build: leaks::build, run: leaks::run },
    Command { name: "map", group: "See", build: map::build, run: map::run },
    Command { name: "web", group: "See", build: web::build, run: web::run },
    Command { name: "top", group: "See", build: top::build, run: top::run },
    Command { name: "clean", group: "See", build: clean::build, run: clean::run },
    Command { name: "restore", group: "See", build: restore::build, run: restore::run },
    Command { name: "snapshot", group: "See", build: snapshot::build, run: snapshot::run },
    Command { name: "diff", group: "See", build: diff::build, run: diff::run },
    Command { name: "doctor", group: "See", build: doctor::build, run: doctor::run },
    Command { name: "transports", group: "About", build: transports::build, run: transports::run },
    Command {
        name: "completions",
        group: "About",
        build: completions::build,
        run: completions::run,
    },
    Command { name: "man", group: "About", build: man::build, run: man::run },
];

/// The whole command line.
pub(crate) fn root() -> clap::Command {
    let styles = Styles::styled();
    clap::Command::new("switchboard")
        .version(clap::crate_version!())
        .about("Every way for processes to talk, behind one address.")
        .long_about(ABOUT)
        .styles(styles.clone())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .help_template(template(&styles))
        .after_help(format!("{EXAMPLES}\nExit codes:\n{}", exit_code::HELP))
        .subcommands(COMMANDS.iter().map(|command| (command.build)()))
}

/// Runs what the command line asked for.
pub(crate) fn run(matches: &ArgMatches) -> Outcome {
    // clap lets through only what the table has.
    let found = matches.subcommand().and_then(|(name, arguments)| {
        let command = COMMANDS.iter().find(|command| command.name == name)?;
        Some((command, arguments))
    });
    match found {
        Some((command, arguments)) => (command.run)(arguments),
        None => Err(Failure::new(exit_code::Exit::Usage, "no such command")),
    }
}

const ABOUT: &str = "\
Every way for processes to talk, behind one address.

An address is scheme:rest, such as unix:./jobs.sock, fifo:/tmp/jobs, mq:/jobs or tcp:127.0.0.1:7000. \
`switchboard transports` lists what each can do. Either side may start first.";

const EXAMPLES: &str = "\
Examples:
  switchboard demo                                see it work in ten seconds
  switchboard recv unix:./jobs.sock               print each message as a line
  echo press | switchboard send unix:./jobs.sock  send each line as a message
  tar c src | switchboard send --raw unix:./x     and: switchboard recv --raw unix:./x | tar x
  switchboard recv mq:/jobs -- ./work             run a command for each message
  switchboard serve unix:./up -- tr a-z A-Z       and: switchboard call unix:./up hello
  switchboard wait sem:/ready                     until: switchboard notify sem:/ready
  switchboard set mmap:./speed 7                  and: switchboard get mmap:./speed
  switchboard lock backup -- ./backup             one at a time, whoever is killed
  switchboard who tcp:8080                        who is at the other end
  switchboard why 812                             on what a process waits, and who can wake it
";

/// Help with the commands under their groups' headings.
fn template(styles: &Styles) -> clap::builder::StyledStr {
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    let mut group = "";
    for command in COMMANDS {
        if command.group != group {
            group = command.group;
            text += &format!("\n{header}{group}:{header:#}\n");
        }
        let about = (command.build)().get_about().map(ToString::to_string).unwrap_or_default();
        text += &format!("  {literal}{:<12}{literal:#}  {about}\n", command.name);
    }
    text += &format!("\n{header}Options:{header:#}\n{{options}}{{after-help}}\n");
    text.into()
}

/// A command with its examples.
fn with_examples(command: clap::Command, examples: &'static str) -> clap::Command {
    command.after_help(format!("Examples:\n{examples}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        root().debug_assert();
        for command in COMMANDS {
            assert_eq!((command.build)().get_name(), command.name);
            assert!((command.build)().get_about().is_some(), "{}", command.name);
            assert!((command.build)().get_after_help().is_some(), "{}", command.name);
        }
    }
}
