//! Without a screen: tables, or a JSON object on a line for each look.
//!
//! Source: docs/commands.md, `switchboard top`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use switchboard_kernel::io::{Deadline, Interest, wait_for};

use super::rows::{self, columns};
use super::sample::Sample;
use super::sampler::{Sampler, Wanted};
use super::{Arguments, Pane, channels, limits, pressure, processes};
use crate::columns::columns as laid_out;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::{Users, load, say_missing};
use crate::output::{Failure, Outcome, counted, note, print, print_json, system};

/// Rows of a table, unless the command line says how many.
const ROWS: usize = 20;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if let Some([before, after]) = arguments.from.as_deref() {
        let sample = saved(before, after)?;
        let now = sample.now.taken_unix_ms;
        say_missing(&sample.now.coverage);
        if sample.rates().elapsed.is_none() {
            note(
                "no rates: the second snapshot is not later than the first, or of another machine",
            );
        }
        return show(arguments, &sample, &Users::default(), now).map(|()| Exit::Done);
    }
    let interrupt = Interrupt::watch_output()?;
    let shown = |pane| arguments.pane.is_none_or(|wanted| wanted == pane);
    let wanted = Wanted { channels: shown(Pane::Channels), limits: shown(Pane::Limits) };
    let times = if arguments.once { 1 } else { arguments.count.unwrap_or(u64::MAX) };
    let users = Users::of_this_machine();
    let mut sampler = Sampler::new(arguments.scope.clone());
    // What is shown of an interval needs a look at its beginning, too.
    let first = sampler.look(wanted);
    say_missing(&first.now.coverage);
    drop(first);
    for _ in 0..times {
        let next = Deadline::after(arguments.interval);
        let ended = wait_for(interrupt.fd(), Interest::Readable, next);
        if ended.map_err(|error| system("cannot wait", error))? {
            return Err(Failure::quiet());
        }
        let sample = sampler.look(wanted);
        show(arguments, &sample, &users, sample.now.taken_unix_ms)?;
    }
    Ok(Exit::Done)
}

/// Two saved snapshots as a look and the one before.
fn saved(before: &Path, after: &Path) -> Result<Sample, Failure> {
    let (before, after) = (load(before)?, load(after)?);
    Ok(Sample { before: Some(Arc::new(before)), ..Sample::of(after) })
}

fn show(arguments: &Arguments, sample: &Sample, users: &Users, at: u64) -> Result<(), Failure> {
    let panes = arguments.pane.map_or(&Pane::ALL[..], |pane| match pane {
        Pane::Pressure => &Pane::ALL[..1],
        Pane::Processes => &Pane::ALL[1..2],
        Pane::Channels => &Pane::ALL[2..3],
        Pane::Limits => &Pane::ALL[3..],
    });
    if arguments.json {
        return print_json(&as_json(panes, sample, arguments.rows.unwrap_or(usize::MAX)));
    }
    let (blocked, near) = pressure::summary(sample);
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(at.min(MOST_MS)));
    let time =
        time.map_or_else(String::new, |time| humantime::format_rfc3339_seconds(time).to_string());
    let mut text = format!(
        "{time}  {}; {} with somebody blocked; {} near\n",
        sample.coverage(),
        counted(blocked as u64, "object"),
        counted(near as u64, "limit")
    );
    for pane in panes {
        text += "\n";
        text += &table(*pane, sample, users, arguments.rows.unwrap_or(ROWS));
    }
    text += "\n";
    print(&text)
}

/// The end of the year 9999, which is the last that can be written.
const MOST_MS: u64 = 253_402_300_799_000;

fn table(pane: Pane, sample: &Sample, users: &Users, most: usize) -> String {
    let all = rows::rows(pane, sample, users);
    let titles: Vec<&str> = columns(pane).iter().map(|column| column.title).collect();
    let shown: Vec<Vec<String>> = (all.iter().take(most))
        .map(|row| {
            let or_blank =
                |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
            row.cells.iter().map(|cell| or_blank(&cell.text)).collect()
        })
        .collect();
    let mut text = laid_out(&titles, &shown);
    if all.len() > shown.len() {
        let more = all.len() - shown.len();
        text += &format!(
            "{}: say --rows\n",
            switchboard_inspect::text::counted(more as u64, "more row", "more rows")
        );
    }
    if pane == Pane::Channels {
        let elsewhere = sample.ends_elsewhere();
        if elsewhere > 0 {
            text += &format!("{} elsewhere: say --scope DIR\n", counted(elsewhere as u64, "end"));
        }
        if let Some(channels) = &sample.channels {
            text.extend(channels.around.not_seen.iter().map(|one| format!("not seen: {one}\n")));
        }
    }
    text
}

fn as_json(panes: &[Pane], sample: &Sample, most: usize) -> Value {
    let mut all = Map::new();
    let elapsed = sample.rates().elapsed;
    all.insert("taken_unix_ms".to_owned(), sample.now.taken_unix_ms.into());
    all.insert("elapsed_ms".to_owned(), json!(elapsed.map(|elapsed| elapsed.as_millis() as u64)));
    all.insert("took_ms".to_owned(), json!(sample.took.as_millis() as u64));
    all.insert("coverage".to_owned(), json!(sample.now.coverage));
    for pane in panes {
        match pane {
            Pane::Pressure => all.insert("pressure".to_owned(), pressure::json(sample, most)),
            Pane::Processes => all.insert("processes".to_owned(), processes::json(sample, most)),
            Pane::Channels => {
                all.insert("ends_elsewhere".to_owned(), sample.ends_elsewhere().into());
                let not_seen = sample.channels.iter().flat_map(|one| &one.around.not_seen);
                all.insert("channels_not_seen".to_owned(), not_seen.cloned().collect());
                all.insert("channels".to_owned(), channels::json(sample, most))
            }
            Pane::Limits => all.insert("limits".to_owned(), limits::json(sample, most)),
        };
    }
    all.into()
}
