//! Rows of a pane: cells to show and to sort by, and what is looked for in them.
//!
//! Source: docs/design/top.md.

use std::cmp::Ordering;

use super::sample::Sample;
use super::{Pane, channels, limits, pressure, processes};
use crate::machine::Users;

/// A column of a pane.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// As wide as this on the screen; the last one takes the rest.
    pub(super) width: u16,
    /// Numbers.
    pub(super) right: bool,
    /// Where there is no room for all, those with a larger number go first; 0 stays.
    pub(super) spare: u8,
}

/// What a row is about; it stays the same from look to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Object(String),
    /// A process, and when it was started.
    Process(u32, u64),
    Channel(String),
    Limit(String),
}

/// Whether a row is something to worry about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Plain,
    Near,
    Bad,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) mark: Mark,
    pub(super) cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    /// What it is sorted by; none: by its text.
    pub(super) number: Option<f64>,
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: None }
    }

    /// A number in short, or a dash.
    pub(super) fn number(number: Option<u64>) -> Self {
        match number {
            Some(number) => Self { text: short(number), number: Some(number as f64) },
            None => Self::unknown(),
        }
    }

    /// What is not known: a dash, behind everything that is.
    pub(super) fn unknown() -> Self {
        Self { text: "-".to_owned(), number: Some(f64::NEG_INFINITY) }
    }

    /// A part of a whole.
    pub(super) fn percent(part: Option<f64>) -> Self {
        match part {
            Some(part) => Self { text: percent(part), number: Some(part) },
            None => Self::unknown(),
        }
    }
}

/// `99.6 %` is not yet full: only what is has 100.
pub(super) fn percent(part: f64) -> String {
    let hundredths = (part * 100.0).round();
    let shown = if part < 1.0 { hundredths.min(99.0) } else { hundredths };
    format!("{shown:.0}%")
}

/// A number in few digits: `9999`, `12.3K`, `4.1M`; by powers of 1024.
pub(super) fn short(number: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if number < 10_000 {
        return number.to_string();
    }
    let (mut value, mut unit) = (number as f64 / 1024.0, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 100.0);
    format!("{value:.digits$}{}", UNITS[unit])
}

/// As [`short`], with a sign.
pub(super) fn short_signed(number: i64) -> String {
    let sign = match number {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", short(number.unsigned_abs()))
}

/// The columns of a pane.
pub(super) fn columns(pane: Pane) -> &'static [Column] {
    match pane {
        Pane::Pressure => pressure::COLUMNS,
        Pane::Processes => processes::COLUMNS,
        Pane::Channels => channels::COLUMNS,
        Pane::Limits => limits::COLUMNS,
    }
}

/// All rows of a pane, the most important first.
pub(super) fn rows(pane: Pane, sample: &Sample, users: &Users) -> Vec<Row> {
    match pane {
        Pane::Pressure => pressure::rows(sample),
        Pane::Processes => processes::rows(sample, users),
        Pane::Channels => channels::rows(sample),
        Pane::Limits => limits::rows(sample),
    }
}

/// Keeps the rows in which a text is, whatever its case.
pub(super) fn filter(rows: &mut Vec<Row>, text: &str) {
    if text.is_empty() {
        return;
    }
    let wanted = text.to_lowercase();
    rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted)));
}

/// Sorts by a column: numbers the largest first, text from A on; or the other way round.
pub(super) fn sort(rows: &mut [Row], column: usize, turned: bool) {
    rows.sort_by(|a, b| {
        let (Some(a), Some(b)) = (a.cells.get(column), b.cells.get(column)) else {
            return Ordering::Equal;
        };
        let order = match (a.number, b.number) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            _ => a.text.cmp(&b.text),
        };
        if turned { order.reverse() } else { order }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_short() {
        for (number, expected) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "9.8K"),
            (65_536, "64.0K"),
            (1_000_000, "977K"),
            (1_048_576_000, "1.0G"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(short(number), expected, "{number}");
        }
        for (number, expected) in [(0, "0"), (5, "+5"), (-20_480, "-20.0K"), (i64::MIN, "-8.0E")] {
            assert_eq!(short_signed(number), expected);
        }
        for (part, expected) in [(0.0, "0%"), (0.004, "0%"), (0.996, "99%"), (1.0, "100%")] {
            assert_eq!(percent(part), expected);
        }
    }

    fn row(id: &str, number: Option<u64>) -> Row {
        let cells = vec![Cell::text(id), Cell::number(number)];
        let key = Key::Object(id.to_owned());
        Row { key, mark: Mark::Plain, cells }
    }

    #[test]
    fn sorted_and_filtered() {
        let all = || vec![row("pipe:2", Some(5)), row("unix:Ab", None), row("mq:1", Some(70_000))];
        let ids = |rows: &[Row]| -> Vec<String> {
            rows.iter().map(|row| row.cells[0].text.clone()).collect()
        };
        for (column, turned, expected) in [
            (0, false, ["mq:1", "pipe:2", "unix:Ab"]),
            (0, true, ["unix:Ab", "pipe:2", "mq:1"]),
            (1, false, ["mq:1", "pipe:2", "unix:Ab"]),
            (1, true, ["unix:Ab", "pipe:2", "mq:1"]),
            (9, false, ["pipe:2", "unix:Ab", "mq:1"]),
        ] {
            let mut rows = all();
            sort(&mut rows, column, turned);
            assert_eq!(ids(&rows), expected, "by {column}, {turned}");
        }
        for (text, expected) in [("", 3), ("aB", 1), ("68.4k", 1), (":", 3), ("zz", 0)] {
            let mut rows = all();
            filter(&mut rows, text);
            assert_eq!(rows.len(), expected, "{text}");
        }
    }
}
