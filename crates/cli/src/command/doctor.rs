//! `switchboard doctor`: limits and how near they are, what the kernel can do, and what this user cannot see.

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard_inspect::{Limit, Request, Snapshot, text as words};

use super::with_examples;
use crate::columns::{columns, terminal_width, wrapped};
use crate::exit_code::Exit;
use crate::machine::Source;
use crate::output::{Outcome, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("doctor"));
    with_examples(
        command.about(
            "Show limits and how near they are, and what cannot be seen; exit 4 near a limit",
        ),
        "  switchboard doctor
  switchboard doctor --json | jq '.limits[] | select(.near)'",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let snapshot = arguments.source.snapshot(&Request::everything().limits())?;
    let near = snapshot.limits.iter().any(Limit::is_near);
    if arguments.source.json {
        let limits = snapshot.limits.iter().map(|limit| {
            json!({
                "name": limit.name, "used": limit.used, "most": limit.most,
                "set_by": limit.set_by, "raise": limit.raise, "near": limit.is_near(),
            })
        });
        let limits: Vec<_> = limits.collect();
        print_json(&json!({
            "coverage": snapshot.coverage, "limits": limits, "features": snapshot.features, "near": near,
        }))?;
    } else {
        let text = text(&snapshot);
        print(&terminal_width().map_or(text.clone(), |width| wrapped(&text, width)))?;
    }
    Ok(if near { Exit::Found } else { Exit::Done })
}

fn text(snapshot: &Snapshot) -> String {
    let coverage = &snapshot.coverage;
    let mut text = format!(
        "{}, as user {}\n\nSeen: descriptors of {} of {}, waits of {}.\n",
        snapshot.machine,
        snapshot.viewer.uid,
        coverage.readable,
        words::counted(coverage.processes.into(), "process", "processes"),
        coverage.waits_readable
    );
    for missing in &coverage.missing {
        text += &format!("  not seen: {missing}\n");
    }
    if !coverage.is_whole() {
        text += if coverage.outside && !coverage.hides_processes {
            "  to see the whole machine: run it outside of the container, or in the host's PID namespace\n"
        } else if snapshot.viewer.uid == 0 {
            "  they may not be traced by this root either: they have capabilities that it lacks\n"
        } else {
            "  to see more: run it as root, or give it the capabilities: setcap \
             cap_sys_ptrace,cap_dac_read_search,cap_sys_admin+ep switchboard\n"
        };
    }
    text += "\nKernel:\n";
    for feature in &snapshot.features {
        if feature.there {
            text += &format!("  yes  {}\n", feature.name);
        } else {
            text += &format!("  no   {}: {}\n", feature.name, feature.without);
        }
    }
    text += "\nLimits:\n";
    let row = |limit: &Limit| {
        let used = limit.used.map_or_else(|| "-".to_owned(), |used| used.to_string());
        let mark = if limit.is_near() { "NEAR" } else { "" };
        vec![
            format!("  {}", limit.name),
            used,
            limit.most.to_string(),
            mark.to_owned(),
            limit.raise.clone().unwrap_or_else(|| format!("no more is possible: {}", limit.set_by)),
        ]
    };
    let rows: Vec<Vec<String>> = snapshot.limits.iter().map(row).collect();
    text += &columns(&["  of", "most used", "limit", "", "to raise it"], &rows);
    text
}
