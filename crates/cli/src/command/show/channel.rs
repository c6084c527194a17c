//! `switchboard show shm:NAME`: what the ends of a channel have done, by their own counters.
//!
//! Source: docs/design/counters.md.

use std::time::Duration;

use serde_json::{Map, Value, json};
use switchboard::Address;
use switchboard::counters::{Channel, Counts, End, LinkCounts, look};

use super::prometheus;
use crate::columns::columns;
use crate::exit_code::Exit;
use crate::machine::Users;
use crate::output::{Outcome, note, print, print_json, shown};

/// How counters are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Table,
    Json,
    Prometheus,
}

/// Looks at channels and shows them.
///
/// # Errors
/// A word is no address, or nobody has one of the channels open.
pub(super) fn show(words: &[String], timeout: Duration, form: Form, users: &Users) -> Outcome {
    let mut channels = Vec::new();
    for word in words {
        let address: Address = word.parse()?;
        match look(&address, timeout) {
            Ok(channel) => channels.push((word.as_str(), channel)),
            // What is measured all the time comes and goes.
            Err(error) if form == Form::Prometheus && Exit::of(&error) == Exit::Nothing => {
                channels.push((word, Channel::default()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (word, channel) in &channels {
        if channel.left_out > 0 {
            let more = switchboard_inspect::text::counted(
                channel.left_out as u64,
                "end more is",
                "ends more are",
            );
            note(&format!("{word}: {more} not shown"));
        }
    }
    match form {
        Form::Prometheus => print(&prometheus::text(&channels, users))?,
        Form::Json => {
            let all: Vec<Value> =
                channels.iter().map(|(word, channel)| as_json(word, channel, users)).collect();
            print_json(&json!({ "channels": all }))?;
        }
        Form::Table => {
            let texts: Vec<String> =
                channels.iter().map(|(word, channel)| text(word, channel, users)).collect();
            print(&texts.join("\n"))?;
        }
    }
    Ok(Exit::Done)
}

/// The word for a user: a name, or the number.
pub(super) fn user(end: &End, users: &Users) -> String {
    end.uid.map_or_else(|| "-".to_owned(), |uid| users.name(uid))
}

const ENDS: &[&str] = &[
    "end", "id", "process", "user", "sent", "received", "dropped", "settled", "waiting", "waits",
    "wake-ups", "peers",
];
const LINKS: &[&str] = &["from", "to", "received", "dropped", "behind", "bytes behind"];

/// So much of an ID tells ends apart.
const SHORT: usize = 8;

/// All that its ends say.
pub(super) fn text(word: &str, channel: &Channel, users: &Users) -> String {
    let mut text = format!("{}\n", shown(word));
    let (mut ends, mut links, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for end in &channel.ends {
        let begin = [end.role.to_owned(), short(&end.id), process(end), user(end, users)];
        match &end.answer {
            Ok(counts) => {
                ends.push(begin.into_iter().chain(cells(counts)).collect());
                links.extend(counts.links.iter().map(|link| link_cells(end, link)));
            }
            Err(why) => {
                let blank = ENDS[begin.len()..].iter().map(|_| "-".to_owned());
                ends.push(begin.into_iter().chain(blank).collect());
                silent.push(format!("{} {} {}: {why}", end.role, short(&end.id), process(end)));
            }
        }
    }
    text += &columns(ENDS, &ends);
    if !links.is_empty() {
        text += "\n";
        text += &columns(LINKS, &links);
    }
    for one in silent {
        text += &format!("\n{one}\n");
    }
    text
}

fn short(id: &str) -> String {
    id.chars().take(SHORT).collect()
}

fn process(end: &End) -> String {
    let program = if end.program.is_empty() { "?" } else { &end.program };
    let pid = end.pid.map_or_else(|| "elsewhere".to_owned(), |pid| pid.to_string());
    shown(&format!("{program}[{pid}]"))
}

fn number(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn cells(counts: &Counts) -> Vec<String> {
    let some = |count: u64| count.to_string();
    vec![
        number(counts.sent),
        number(counts.received),
        number(counts.dropped),
        number(counts.acknowledged),
        number(counts.waiting),
        some(counts.waits),
        some(counts.wake_ups),
        counts.links.len().to_string(),
    ]
}

fn link_cells(end: &End, link: &LinkCounts) -> Vec<String> {
    vec![
        format!("{} {}", end.role, short(&end.id)),
        format!("{} {}", short(&link.peer), shown(&link.name)),
        number(link.received),
        number(link.dropped),
        number(link.behind),
        number(link.behind_bytes),
    ]
}

fn as_json(word: &str, channel: &Channel, users: &Users) -> Value {
    let ends: Vec<Value> = channel.ends.iter().map(|end| end_as_json(end, users)).collect();
    json!({ "channel": word, "left_out": channel.left_out, "ends": ends })
}

fn end_as_json(end: &End, users: &Users) -> Value {
    let mut object = Map::new();
    object.insert("role".into(), end.role.into());
    object.insert("pattern".into(), end.pattern.into());
    object.insert("id".into(), end.id.clone().into());
    object.insert("pid".into(), end.pid.into());
    object.insert("uid".into(), end.uid.into());
    object.insert("user".into(), user(end, users).into());
    object.insert("program".into(), end.program.clone().into());
    match &end.answer {
        Ok(counts) => {
            let counts = serde_json::to_value(counts).unwrap_or(Value::Null);
            object.insert("counters".into(), counts);
        }
        Err(why) => {
            object.insert("problem".into(), why.clone().into());
        }
    }
    object.into()
}
