//! Rounds: every contender of every case once, in an order that changes from round to round.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::contender::{Can, Contender};
use crate::figures::Spread;
use crate::job::{Case, Measure, Report};
use crate::load;
use crate::run::{Amount, Runner};

/// What is known about one contender in one case.
pub(crate) struct Row {
    pub(crate) contender: &'static Contender,
    pub(crate) case: Case,
    /// Per run.
    pub(crate) amount: Amount,
    /// One per round.
    pub(crate) rounds: Vec<Option<Report>>,
    /// Why it was not measured, or not in all rounds.
    pub(crate) why_not: Option<String>,
    /// Names that a run left behind.
    pub(crate) left: BTreeSet<String>,
}

impl Row {
    /// A figure of each round.
    pub(crate) fn column(&self, figure: &str) -> Vec<Option<f64>> {
        self.rounds.iter().map(|round| round.as_ref()?.get(figure).copied()).collect()
    }

    /// A figure over the rounds.
    pub(crate) fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(&self.column(figure).into_iter().flatten().collect::<Vec<_>>())
    }

    /// The figure that is compared, over that of another row, within each round.
    pub(crate) fn ratio(&self, other: &Self) -> Option<Spread> {
        let figure = self.case.measure.figure();
        let pairs = self.column(figure).into_iter().zip(other.column(figure));
        let ratios: Vec<f64> = pairs.filter_map(|(ours, theirs)| Some(ours? / theirs?)).collect();
        Spread::of(&ratios)
    }
}

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// How long runs take, compared to those of a measurement.
    pub(crate) share: f64,
}

/// Measures all cases with all contenders that can do them.
pub(crate) fn measure(
    runner: &Runner,
    cases: &[Case],
    contenders: &[&'static Contender],
    effort: Effort,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in cases {
        for contender in contenders {
            match (contender.can)(case) {
                Can::NotAsked => {}
                Can::No(why) => rows.push(row(contender, *case, Some(why.to_owned()))),
                Can::Yes => rows.push(row(contender, *case, None)),
            }
        }
    }
    for row in &mut rows {
        calibrate(runner, row, effort.share);
    }
    for round in 0..effort.rounds {
        eprintln!("round {} of {}, load {}", round + 1, effort.rounds, load());
        for case in cases {
            let mut at: Vec<usize> = (0..rows.len())
                .filter(|&at| rows[at].case == *case && rows[at].why_not.is_none())
                .collect();
            if at.is_empty() {
                continue;
            }
            // Whoever goes first moves on, and neighbours change sides.
            let first = round % at.len();
            at.rotate_left(first);
            if round % 2 == 1 {
                at.reverse();
            }
            for at in at {
                once(runner, &mut rows[at]);
            }
        }
    }
    rows
}

fn row(contender: &'static Contender, case: Case, why_not: Option<String>) -> Row {
    let amount = Amount { count: 0, warm_up: 0 };
    Row { contender, case, amount, rounds: Vec::new(), why_not, left: BTreeSet::new() }
}

/// One run, whose figures count.
fn once(runner: &Runner, row: &mut Row) {
    match runner.run(row.contender, row.case, row.amount) {
        Ok(ran) => {
            row.rounds.push(Some(ran.report));
            row.left.extend(ran.left);
        }
        Err(error) => {
            let why = format!("failed in round {}: {error}", row.rounds.len() + 1);
            eprintln!("{}, {}: {why}", row.contender.name, row.case.name());
            row.rounds.push(None);
            row.why_not = Some(why);
        }
    }
}

/// Finds out how many messages make a run of the wanted length; it warms the machine up too.
fn calibrate(runner: &Runner, row: &mut Row, share: f64) {
    let (first, run_ns, most) = match row.case.measure {
        Measure::Latency | Measure::Service => (1_000, 60e6, 1 << 19),
        Measure::Stream if row.case.bytes > 1024 => (1_000, 200e6, 1 << 20),
        Measure::Stream => (20_000, 200e6, 1 << 25),
        Measure::Publish => (2_000, 30e6, 1 << 22),
        Measure::Sleep => (500, 80e6, 1 << 19),
        Measure::Open => {
            row.amount = Amount { count: if share < 1.0 { 5 } else { 20 }, warm_up: 0 };
            return;
        }
    };
    if row.why_not.is_some() {
        return;
    }
    let amount = |count: usize| Amount { count, warm_up: (count / 10).max(50) };
    row.amount = amount(first);
    // The faster of two, for whoever shares the machine may hold one up for long.
    let mut each_ns = f64::INFINITY;
    for _ in 0..2 {
        match runner.run(row.contender, row.case, row.amount) {
            Ok(ran) => {
                let mean_ns = ran.report.get("mean_ns").copied().unwrap_or(0.0);
                each_ns = each_ns.min(ran.report.get("p50_ns").copied().unwrap_or(mean_ns));
            }
            Err(error) => {
                eprintln!("{}, {}: {error}", row.contender.name, row.case.name());
                row.why_not = Some(error.to_string());
                return;
            }
        }
    }
    row.amount = amount(((run_ns * share / each_ns.max(1.0)) as usize).clamp(200, most));
}

/// All rows, with the figures of every round.
pub(crate) fn as_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "contender": row.contender.name,
            "measure": row.case.measure,
            "case": row.case.name(),
            "bytes": row.case.bytes,
            "manner": row.case.manner,
            "messages_per_run": row.amount.count,
            "rounds": row.rounds,
            "why_not": row.why_not,
            "left_behind": row.left,
        })
    };
    rows.iter().map(row).collect()
}
