//! `switchboard top [PANE]`: a live full-screen view of all communication of the machine; text or JSON for scripts.
//!
//! Source: docs/design/top.md.

mod channels;
mod details;
mod draw;
mod keys;
mod limits;
mod live;
mod plain;
mod pressure;
mod processes;
mod rows;
mod sample;
mod sampler;
mod screen;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};

use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome};

#[derive(Args, Debug)]
struct Arguments {
    /// Begin with this pane; with --once, --count or --json, print this one alone
    #[arg(value_enum)]
    pane: Option<Pane>,
    /// From one look to the next
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// Print one table of each pane, of what happens in one interval
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Print so many times; without --json, tables
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print a JSON object on a line for each look
    #[arg(long)]
    json: bool,
    /// At most so many rows of each pane; 20 in tables, all in JSON, unless said
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Look for channels of shm: in this scope, too; may be repeated
    #[arg(long, value_name = "DIR")]
    scope: Vec<PathBuf>,
    /// Compare two saved snapshots instead, and print once
    #[arg(long, value_names = ["BEFORE", "AFTER"], num_args = 2, conflicts_with_all = ["interval", "count", "scope"])]
    from: Option<Vec<PathBuf>>,
}

/// What is shown at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pane {
    /// How full pipes, sockets and queues are
    Pressure,
    /// What processes wait for, and how much they read and write
    Processes,
    /// Channels of shm: rates and lag
    Channels,
    /// Limits and how near they are
    Limits,
}

impl Pane {
    const ALL: [Self; 4] = [Self::Pressure, Self::Processes, Self::Channels, Self::Limits];

    fn place(self) -> usize {
        self as usize
    }
}

/// More often than this, looking is most of what happens on the machine.
const SHORTEST: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::endpoint::duration(text)?;
    if interval < SHORTEST || interval > Duration::from_secs(86_400) {
        return Err("it has to be between 100ms and 24h".to_owned());
    }
    Ok(interval)
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("top"));
    with_examples(
        command
            .about("Watch what is full, who is blocked, rates, lag and limits, full-screen or as text and JSON"),
        "  switchboard top
  switchboard top processes --interval 5s
  switchboard top --once
  switchboard top pressure --json --count 10 | jq '.pressure[0]'
  switchboard top channels --scope /run/robots
  switchboard top --from before.json after.json",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    if arguments.json || arguments.once || arguments.count.is_some() || arguments.from.is_some() {
        return plain::run(&arguments);
    }
    let cannot_draw = if !std::io::stdout().is_terminal() {
        "standard output is no terminal"
    } else if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        "this terminal cannot be drawn on (TERM)"
    } else {
        return live::run(&arguments);
    };
    Err(Failure::new(Exit::Usage, cannot_draw)
        .hint("say --once for tables, or --json for a JSON object per look"))
}
