//! The pane of limits, as `doctor` knows them, the nearest first.
//!
//! Source: docs/design/top.md.

use serde_json::{Value, json};
use switchboard_inspect::Limit;

use super::rows::{Cell, Column, Key, Mark, Row};
use super::sample::Sample;

pub(super) const COLUMNS: &[Column] = &[
    Column { title: "USED", width: 5, right: true, spare: 0 },
    Column { title: "LIMIT", width: 50, right: false, spare: 0 },
    Column { title: "NOW", width: 9, right: true, spare: 2 },
    Column { title: "MOST", width: 9, right: true, spare: 3 },
    Column { title: "TO RAISE IT", width: 12, right: false, spare: 1 },
];

/// How much of it is used.
fn part(limit: &Limit) -> Option<f64> {
    let used = limit.used.filter(|_| limit.most > 0)?;
    Some(used as f64 / limit.most as f64)
}

fn sorted(sample: &Sample) -> Vec<&Limit> {
    let mut limits: Vec<&Limit> = sample.limits.iter().collect();
    let order = |limit: &Limit| part(limit).unwrap_or(-1.0);
    limits.sort_by(|a, b| order(b).total_cmp(&order(a)));
    limits
}

/// A command that raises it, or why there is none.
pub(super) fn raised(limit: &Limit) -> String {
    limit.raise.clone().unwrap_or_else(|| format!("no more is possible: {}", limit.set_by))
}

pub(super) fn rows(sample: &Sample) -> Vec<Row> {
    let row = |limit: &&Limit| Row {
        key: Key::Limit(limit.name.clone()),
        mark: if limit.is_near() { Mark::Near } else { Mark::Plain },
        cells: vec![
            Cell::percent(part(limit)),
            Cell::text(limit.name.clone()),
            Cell::number(limit.used),
            Cell::number(Some(limit.most)),
            Cell::text(raised(limit)),
        ],
    };
    sorted(sample).iter().map(row).collect()
}

pub(super) fn json(sample: &Sample, most: usize) -> Value {
    let row = |limit: &Limit| {
        json!({
            "name": limit.name, "used": limit.used, "most": limit.most, "part": part(limit),
            "near": limit.is_near(), "set_by": limit.set_by, "raise": limit.raise,
        })
    };
    sorted(sample).into_iter().take(most).map(row).collect()
}
