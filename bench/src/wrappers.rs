//! Every wrapper of the kernel crate that has a hot path, against the same system calls in C; and the
//! patterns against what they are made of.

use std::time::Duration;

use serde_json::{Value, json};

use crate::figures::{median, median_ratio, table};
use crate::mechanism::{Chosen, Language, Operation, PATTERNS, Run, TABLE, Table, chosen};
use crate::peer::{MOST_SAMPLES, UDP_BURST};
use crate::scratch::Scratch;
use crate::{Failure, load, two_cpus};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fewer and shorter rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Rounds; 11 unless said otherwise, 5 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this mechanism (may be repeated)
    #[arg(long, value_name = "MECHANISM")]
    only: Vec<String>,
    /// Run the C program as both contenders: what the ratio is when nothing differs
    #[arg(long)]
    control: bool,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

/// How much slower than C a wrapper may be.
const MOST_RATIO: f64 = 1.03;

/// A round is this many short runs of each contender, in turns, of which the median counts: across
/// two processors a stream falls into one of several rhythms, anew in each run.
const SLICES: usize = 5;

/// The most repetitions of one run: of a few nanoseconds each.
const MOST_ALONE: usize = 1 << 24;

/// What is measured in one row of the table.
struct Case {
    mechanism: &'static str,
    operation: Operation,
    placement: &'static str,
    cpus: (usize, usize),
    count: usize,
    /// One per round: C's and Rust's.
    rounds: Vec<[Sample; 2]>,
}

/// Nanoseconds per message, and percentiles of round trips.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    each: f64,
    percentiles: [f64; 4],
}

impl Sample {
    fn median(slices: &[Self]) -> Self {
        let percentile = |at: usize| median(slices.iter().map(|slice| slice.percentiles[at]));
        Self {
            each: median(slices.iter().map(|slice| slice.each)),
            percentiles: std::array::from_fn(percentile),
        }
    }

    /// The figure that is compared: of round trips the median, of a stream the time per message.
    fn compared(&self, operation: Operation) -> f64 {
        match operation {
            Operation::RoundTrip => self.percentiles[0],
            Operation::OneWay | Operation::Alone => self.each,
        }
    }
}

impl Case {
    fn measure(&self, language: Language, scratch: &Scratch) -> Result<Sample, Failure> {
        let warm_up = (self.count / 10).max(UDP_BURST).next_multiple_of(UDP_BURST);
        let run = Run {
            mechanism: self.mechanism,
            operation: self.operation,
            count: self.count,
            warm_up,
            cpus: self.cpus,
        };
        let printed = run.start(language, scratch, |_, words| words)?;
        let numbers: Vec<f64> =
            printed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [total, percentiles @ ..] = &numbers[..] else {
            return Err(format!("{run:?} printed {printed:?}").into());
        };
        let percentiles = percentiles.try_into()?;
        Ok(Sample { each: total / self.count as f64, percentiles })
    }

    /// Chooses how many messages a run has, so that it takes about this long.
    fn calibrate(&mut self, target: Duration, scratch: &Scratch) -> Result<(), Failure> {
        self.count = 32 * UDP_BURST;
        let each = self.measure(Language::C, scratch)?.each.max(1.0);
        let count = (target.as_nanos() as f64 / each) as usize;
        let most = if self.operation == Operation::Alone { MOST_ALONE } else { MOST_SAMPLES };
        self.count = count.clamp(4 * UDP_BURST, most - UDP_BURST);
        self.count = self.count.next_multiple_of(UDP_BURST);
        Ok(())
    }

    /// The figures of one contender, round by round.
    fn column(&self, contender: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[contender].compared(self.operation)).collect()
    }

    fn ratio(&self) -> f64 {
        median_ratio(&self.column(1), &self.column(0))
    }

    fn percentile(&self, contender: usize, which: usize) -> f64 {
        median(self.rounds.iter().map(|round| round[contender].percentiles[which]))
    }
}

/// Whether every wrapper is as fast as it should be.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    compare("wrappers", TABLE, Some(MOST_RATIO), arguments)
}

/// What the patterns cost: they do more than C does, so there is no bound.
pub(crate) fn patterns(arguments: &Arguments) -> Result<bool, Failure> {
    compare("patterns", PATTERNS, None, arguments)
}

fn compare(
    benchmark: &str,
    table: &'static Table,
    most_ratio: Option<f64>,
    arguments: &Arguments,
) -> Result<bool, Failure> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 5 } else { 11 });
    let target = Duration::from_millis(if arguments.quick { 8 } else { 24 });
    let scratch = Scratch::new()?;
    let chosen = chosen(table, &arguments.only)?;
    let mut cases = cases(&chosen)?;
    for case in &mut cases {
        case.calibrate(target, &scratch)?;
    }
    let second = if arguments.control { Language::C } else { Language::Rust };
    for round in 0..rounds {
        eprintln!("round {} of {rounds}, load {}", round + 1, load());
        for case in &mut cases {
            let mut slices = [Vec::new(), Vec::new()];
            for slice in 0..SLICES {
                // Whoever goes first alternates too.
                let order = if (round + slice) % 2 == 0 { [0, 1] } else { [1, 0] };
                for contender in order {
                    let language = [Language::C, second][contender];
                    slices[contender].push(case.measure(language, &scratch)?);
                }
            }
            let samples = slices.map(|slices| Sample::median(&slices));
            case.rounds.push(samples);
        }
    }
    if arguments.json {
        println!("{:#}", as_json(benchmark, &chosen, &cases, second));
    } else {
        print(&cases, second);
        chosen.print_left_out();
    }
    let Some(most) = most_ratio else { return Ok(true) };
    if !arguments.json {
        print_over(&cases, most);
    }
    Ok(arguments.control || cases.iter().all(|case| case.ratio() <= most))
}

fn cases(chosen: &Chosen) -> Result<Vec<Case>, Failure> {
    let (first, second) = two_cpus()?;
    let mut placements = vec![("same core", (first, first))];
    if first == second {
        eprintln!("only one processor is usable: nothing is measured across two");
    } else {
        placements.push(("two cores", (first, second)));
    }
    let mut cases = Vec::new();
    for operation in Operation::ALL {
        for (mechanism, _) in
            chosen.rows.iter().filter(|(_, measured)| measured.contains(&operation))
        {
            let alone = [("one process", (first, first))];
            let placements = if operation == Operation::Alone { &alone } else { &placements[..] };
            for (placement, cpus) in placements.iter().copied() {
                let rounds = Vec::new();
                cases.push(Case { mechanism, operation, placement, cpus, count: 0, rounds });
            }
        }
    }
    Ok(cases)
}

fn print(cases: &[Case], second: Language) {
    let other = if second == Language::C { "C again" } else { "Rust" };
    for operation in Operation::ALL {
        let of: Vec<&Case> = cases.iter().filter(|case| case.operation == operation).collect();
        match operation {
            _ if of.is_empty() => {}
            Operation::RoundTrip => print_round_trips(&of, other),
            Operation::OneWay => print_streams(&of, other),
            Operation::Alone => print_alone(&of, other),
        }
    }
}

fn print_over(cases: &[Case], most: f64) {
    let over: Vec<_> = cases.iter().filter(|case| case.ratio() > most).collect();
    println!(
        "{} of {} at most {most}; median of all ratios {:.3}",
        cases.len() - over.len(),
        cases.len(),
        median(cases.iter().map(Case::ratio))
    );
    for case in over {
        let (what, on) = (case.operation.name(), case.placement);
        println!("over: {} {what}, {on}: {:.3}", case.mechanism, case.ratio());
    }
}

fn print_round_trips(cases: &[&Case], other: &str) {
    println!("64-byte round trips, microseconds; ratio of the p50 within a round, its median:\n");
    let row = |case: &&Case| {
        let us = |contender, which| format!("{:.2}", case.percentile(contender, which) / 1e3);
        [
            case.mechanism.to_owned(),
            case.placement.to_owned(),
            us(0, 0),
            us(1, 0),
            us(0, 2),
            us(1, 2),
            case.count.to_string(),
            format!("{:.3}", case.ratio()),
        ]
    };
    let (p50, p99) = (format!("{other} p50"), format!("{other} p99"));
    let heads = ["mechanism", "on", "C p50", &p50, "C p99", &p99, "per run", "ratio"];
    println!("{}\n", table(heads, &cases.iter().map(row).collect::<Vec<_>>()));
}

fn print_streams(cases: &[&Case], other: &str) {
    println!("64-byte messages one way, thousands a second; ratio of the times, its median:\n");
    let row = |case: &&Case| {
        let rate = |contender| format!("{:.0}", 1e6 / median(case.column(contender)));
        [
            case.mechanism.to_owned(),
            case.placement.to_owned(),
            rate(0),
            rate(1),
            case.count.to_string(),
            format!("{:.3}", case.ratio()),
        ]
    };
    let heads = ["mechanism", "on", "C", other, "per run", "ratio"];
    println!("{}\n", table(heads, &cases.iter().map(row).collect::<Vec<_>>()));
}

fn print_alone(cases: &[&Case], other: &str) {
    println!("In one process, nanoseconds; ratio of the times, its median:\n");
    let row = |case: &&Case| {
        let ns = |contender| format!("{:.1}", median(case.column(contender)));
        [
            case.mechanism.to_owned(),
            ns(0),
            ns(1),
            case.count.to_string(),
            format!("{:.3}", case.ratio()),
        ]
    };
    let heads = ["mechanism", "C", other, "per run", "ratio"];
    println!("{}\n", table(heads, &cases.iter().map(row).collect::<Vec<_>>()));
}

fn as_json(benchmark: &str, chosen: &Chosen, cases: &[Case], second: Language) -> Value {
    let contender = |case: &Case, which: usize| {
        let round = |round: &[Sample; 2]| {
            let Sample { each, percentiles: [p50, p90, p99, p999] } = round[which];
            match case.operation {
                Operation::RoundTrip => json!({
                    "mean_ns": each, "p50_ns": p50, "p90_ns": p90, "p99_ns": p99, "p99.9_ns": p999
                }),
                Operation::OneWay | Operation::Alone => json!({ "mean_ns": each }),
            }
        };
        case.rounds.iter().map(round).collect::<Vec<_>>()
    };
    let case = |case: &Case| {
        json!({
            "mechanism": case.mechanism,
            "operation": case.operation.name(),
            "placement": case.placement,
            "messages_per_run": case.count,
            "first": contender(case, 0),
            "second": contender(case, 1),
            "ratio": case.ratio(),
        })
    };
    json!({
        "benchmark": benchmark,
        "first": Language::C.name(),
        "second": second.name(),
        "not_measured": chosen.left_out,
        "cases": cases.iter().map(case).collect::<Vec<_>>(),
    })
}
