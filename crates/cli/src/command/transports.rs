//! `switchboard transports [SCHEME]`: what each transport can do, from the library's table.

use std::io::IsTerminal;

use clap::{ArgMatches, Args, FromArgMatches};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use switchboard::address::OPTIONS;
use switchboard::transport::{Capabilities, TABLE, Transport};

use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Show this one in detail, with its options
    scheme: Option<String>,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("transports"));
    with_examples(
        command.about("List the transports and what each can do"),
        "  switchboard transports
  switchboard transports mq
  switchboard transports --json | jq -r '.[] | select(.capabilities.redelivers) | .scheme'",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let Some(scheme) = &arguments.scheme else {
        if arguments.json {
            print_json(&TABLE.iter().map(as_json).collect())?;
        } else {
            print(&table())?;
        }
        return Ok(Exit::Done);
    };
    let scheme = scheme.trim_end_matches(':');
    let Some(row) = TABLE.iter().find(|row| row.scheme == scheme) else {
        let known: Vec<&str> = TABLE.iter().map(|row| row.scheme).collect();
        let message = format!("no transport {scheme}; there are {}", known.join(", "));
        return Err(Failure::new(Exit::Nothing, message));
    };
    if arguments.json {
        print_json(&as_json(row))?;
    } else {
        print(&details(row))?;
    }
    Ok(Exit::Done)
}

/// What can be said of a transport with yes or no: the name in JSON, in words, and where it stands.
type Trait = (&'static str, &'static str, fn(&Capabilities) -> bool);

const TRAITS: &[Trait] = &[
    ("ordered", "messages of one sender stay in order", |c| c.ordered),
    ("reliable", "what was accepted arrives while both sides live", |c| c.reliable),
    ("redelivers", "a dead receiver's messages go to another, marked", |c| c.redelivers),
    ("says_end", "a receiver knows when every sender has ended", |c| c.says_end),
    ("priorities", "urgent messages overtake others", |c| c.priorities),
    ("zero_copy", "payload is built and read in place", |c| c.zero_copy),
    ("bidirectional", "one connection carries messages both ways", |c| c.bidirectional),
    ("peer_identity", "the kernel says who the peer is", |c| c.peer_identity),
    ("encrypted", "nobody on the way can read it", |c| c.encrypted),
    ("outlives_processes", "messages outlive the processes", |c| c.outlives_processes),
    ("outlives_reboot", "messages outlive a reboot", |c| c.outlives_reboot),
    ("crosses_hosts", "works between machines", |c| c.crosses_hosts),
    ("needs_server", "a server has to run", |c| c.needs_server),
    ("many_senders", "several senders at a time", |c| c.many_senders),
];

/// The traits that have a column of their own in the table.
const COLUMNS: &[(&str, &str)] = &[
    ("redelivers", "redelivers"),
    ("priorities", "priorities"),
    ("peer_identity", "identifies"),
    ("outlives_processes", "outlives"),
    ("crosses_hosts", "networks"),
];

/// What every terminal is wide.
const TERMINAL_COLUMNS: u16 = 80;

fn has(row: &Transport, name: &str) -> bool {
    TRAITS.iter().any(|(key, _, of)| *key == name && of(&row.capabilities))
}

/// A row per transport: in a box that fits a terminal, or in columns for other programs.
fn table() -> String {
    let mut table = Table::new();
    if std::io::stdout().is_terminal() {
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(TERMINAL_COLUMNS);
        table.set_header(["scheme", "largest", "can", "what it is"]);
        for row in TABLE {
            let can = COLUMNS.iter().filter(|(name, _)| has(row, name)).map(|(_, title)| *title);
            let can = can.collect::<Vec<_>>().join(", ");
            table.add_row([row.scheme, &largest(row), &can, row.summary]);
        }
    } else {
        table.load_preset(presets::NOTHING);
        let titles = COLUMNS.iter().map(|(_, title)| *title);
        table.set_header(
            ["scheme", "example", "largest"].into_iter().chain(titles).chain(["what it is"]),
        );
        for row in TABLE {
            let mut cells = vec![row.scheme.to_owned(), row.example.to_owned(), largest(row)];
            let mark = |name| if has(row, name) { "yes" } else { "-" };
            cells.extend(COLUMNS.iter().map(|(name, _)| mark(name).to_owned()));
            cells.push(row.summary.to_owned());
            table.add_row(cells);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

fn largest(row: &Transport) -> String {
    match row.capabilities.largest_message_bytes {
        // An event has no bytes.
        0 => "-".to_owned(),
        bytes => BinaryBytes(bytes.into()).to_string(),
    }
}

fn details(row: &Transport) -> String {
    let mut text = format!("{}: {}\n\n", row.scheme, row.summary);
    text += &format!("  example          {}\n", row.example);
    text += &format!("  patterns         {}\n", row.patterns().join(", "));
    let bytes = row.capabilities.largest_message_bytes;
    if bytes > 0 {
        text += &format!("  largest message  {bytes} bytes\n");
    }
    if let Some(framing) = row.framing {
        text += &format!("  framing          {framing}, unless ?framing= says otherwise\n");
    }
    text += &format!("  delivery         {}\n\n", row.delivery);
    for (_, words, of) in TRAITS {
        let mark = if of(&row.capabilities) { "yes" } else { "no " };
        text += &format!("  {mark}  {words}\n");
    }
    text += "\nOptions:\n";
    for (name, takes, meaning) in OPTIONS.iter().filter(|(name, ..)| row.options.contains(name)) {
        let form = if takes.is_empty() { format!("?{name}") } else { format!("?{name}={takes}") };
        text += &format!("  {form:<32}  {meaning}\n");
    }
    text
}

fn as_json(row: &Transport) -> Value {
    let mut capabilities = serde_json::Map::new();
    let bytes = row.capabilities.largest_message_bytes;
    capabilities.insert("largest_message_bytes".into(), bytes.into());
    for (name, _, of) in TRAITS {
        capabilities.insert((*name).into(), of(&row.capabilities).into());
    }
    let options = OPTIONS.iter().filter(|(name, ..)| row.options.contains(name));
    let options: Vec<Value> = options
        .map(|(name, takes, meaning)| json!({ "name": name, "takes": takes, "meaning": meaning }))
        .collect();
    json!({
        "scheme": row.scheme,
        "summary": row.summary,
        "example": row.example,
        "patterns": row.patterns(),
        "framing": row.framing.map(switchboard::Framing::name),
        "delivery": row.delivery,
        "capabilities": capabilities,
        "options": options,
    })
}
