//! The pane of this product's own channels: what goes through, and how far readers are behind.
//!
//! Source: docs/design/top.md, "Channels"; docs/design/counters.md.

use serde_json::{Value, json};
use switchboard::counters::{Counts, End, Nearby};
use switchboard_inspect::analysis::rates::per_s;

use super::rows::{Cell, Column, Key, Mark, Row};
use super::sample::Sample;

pub(super) const COLUMNS: &[Column] = &[
    Column { title: "CHANNEL", width: 24, right: false, spare: 0 },
    Column { title: "PATTERN", width: 7, right: false, spare: 4 },
    Column { title: "ENDS", width: 7, right: false, spare: 3 },
    Column { title: "SENT/s", width: 7, right: true, spare: 0 },
    Column { title: "BYTES/s", width: 7, right: true, spare: 2 },
    Column { title: "READ/s", width: 7, right: true, spare: 1 },
    Column { title: "LAG", width: 7, right: true, spare: 0 },
    Column { title: "LAG B", width: 7, right: true, spare: 5 },
    Column { title: "DROPPED", width: 7, right: true, spare: 2 },
    Column { title: "PROBLEM", width: 10, right: false, spare: 1 },
];

/// What its ends say together.
struct Total {
    writers: usize,
    readers: usize,
    sent_per_s: Option<u64>,
    bytes_per_s: Option<u64>,
    received_per_s: Option<u64>,
    /// Of the reader that is furthest behind, in messages and bytes.
    lag: Option<u64>,
    lag_bytes: Option<u64>,
    dropped: Option<u64>,
    dropped_per_s: Option<u64>,
    /// Of ends that do not answer: why.
    problems: Vec<String>,
}

impl Total {
    fn of(sample: &Sample, channel: &Nearby) -> Self {
        let ends = &channel.channel.ends;
        let is_writer = |end: &&End| ["publisher", "sender", "client"].contains(&end.role);
        let (writers, readers): (Vec<&End>, Vec<&End>) = ends.iter().partition(is_writer);
        let rate = |ends: &[&End], of: fn(&Counts) -> Option<u64>| {
            // An end that is new has no rate, yet.
            let each = ends.iter().filter_map(|end| {
                let (before, elapsed) = sample.end_before(end)?;
                per_s(of(before)?, of(end.answer.as_ref().ok()?)?, elapsed)
            });
            each.reduce(u64::saturating_add)
        };
        // Writers know how far each reader is; of one that does not answer, in bytes alone.
        let links = || {
            let counts = writers.iter().filter_map(|end| end.answer.as_ref().ok());
            counts.flat_map(|counts| &counts.links)
        };
        let lag = links().map(|link| link.behind).collect::<Option<Vec<u64>>>();
        let counts = ends.iter().filter_map(|end| end.answer.as_ref().ok());
        let problems = ends.iter().filter_map(|end| {
            let why = end.answer.as_ref().err()?;
            let pid = end.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            Some(format!("{} {}[{pid}]: {why}", end.role, end.program))
        });
        Self {
            sent_per_s: rate(&writers, |counts| counts.sent),
            bytes_per_s: rate(&writers, |counts| counts.sent_bytes),
            received_per_s: rate(&readers, |counts| counts.received),
            dropped_per_s: rate(&readers, |counts| counts.dropped),
            lag: lag.and_then(|all| all.into_iter().max()),
            lag_bytes: links().filter_map(|link| link.behind_bytes).max(),
            dropped: counts.filter_map(|counts| counts.dropped).reduce(u64::saturating_add),
            problems: problems.collect(),
            writers: writers.len(),
            readers: readers.len(),
        }
    }
}

/// The pattern of its ends.
fn pattern(channel: &Nearby) -> &'static str {
    channel.channel.ends.first().map_or("", |end| end.pattern)
}

pub(super) fn rows(sample: &Sample) -> Vec<Row> {
    let Some(channels) = &sample.channels else { return Vec::new() };
    let row = |channel: &Nearby| {
        let total = Total::of(sample, channel);
        let mark = if !total.problems.is_empty() {
            Mark::Bad
        } else if total.dropped_per_s.is_some_and(|rate| rate > 0) {
            Mark::Near
        } else {
            Mark::Plain
        };
        let ends = total.writers + total.readers;
        Row {
            key: Key::Channel(channel.address.clone()),
            mark,
            cells: vec![
                Cell::text(channel.address.clone()),
                Cell::text(pattern(channel)),
                Cell {
                    text: format!("{}>{}", total.writers, total.readers),
                    number: Some(ends as f64),
                },
                Cell::number(total.sent_per_s),
                Cell::number(total.bytes_per_s),
                Cell::number(total.received_per_s),
                Cell::number(total.lag),
                Cell::number(total.lag_bytes),
                Cell::number(total.dropped),
                Cell::text(total.problems.join("; ")),
            ],
        }
    };
    let mut rows: Vec<Row> = channels.around.channels.iter().map(row).collect();
    // Problems first, then who is furthest behind.
    let order = |row: &Row| (row.mark == Mark::Bad, row.cells[6].number.unwrap_or(0.0));
    rows.sort_by(|a, b| {
        let ((a_bad, a_lag), (b_bad, b_lag)) = (order(a), order(b));
        b_bad.cmp(&a_bad).then(b_lag.total_cmp(&a_lag))
    });
    rows
}

pub(super) fn json(sample: &Sample, most: usize) -> Value {
    let channels = sample.channels.iter().flat_map(|channels| &channels.around.channels);
    let row = |channel: &Nearby| {
        let total = Total::of(sample, channel);
        json!({
            "channel": channel.address, "folder": channel.folder.display().to_string(),
            "pattern": pattern(channel), "writers": total.writers, "readers": total.readers,
            "sent_per_s": total.sent_per_s, "sent_bytes_per_s": total.bytes_per_s,
            "received_per_s": total.received_per_s, "lag": total.lag,
            "lag_bytes": total.lag_bytes, "dropped": total.dropped,
            "dropped_per_s": total.dropped_per_s, "problems": total.problems,
        })
    };
    channels.take(most).map(row).collect()
}
