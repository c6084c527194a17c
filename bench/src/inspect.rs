//! The inspector's `list` and `list pipe` against `lsof`, `lsfd` and a bare C loop that makes the same reads of /proc.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use clap::Args;
use serde_json::json;

use crate::figures::{median, median_ratio, ratio_range, table};
use crate::{Failure, command, load};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; 11 unless said otherwise, 3 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Leave out the crowds that show how it grows, up to 2,000 processes with 100,000 descriptors
    #[arg(long)]
    small: bool,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

/// How many processes, and how many descriptors each has.
type Size = (usize, usize);

const USUAL: Size = (200, 100);
/// How it grows: four times as many each time.
const GROWING: [Size; 3] = [(125, 50), (500, 50), (2000, 50)];
/// The largest crowd may cost so much more for each descriptor than the smallest.
const MOST_GROWTH: f64 = 1.25;
const LEAST_FASTER: f64 = 4.0;
const MOST_OF_BARE: f64 = 1.2;

/// One contender, with what was measured.
struct Contender {
    name: &'static str,
    words: Vec<String>,
    seconds: Vec<f64>,
    kib: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { name, words, seconds: Vec::new(), kib: Vec::new() }
    }

    fn run(&mut self, counts: bool) -> Result<(), Failure> {
        let output = Command::new(BARE).arg("run").args(&self.words).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = said.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(nanoseconds)), Some(Ok(kib))) = (numbers.next(), numbers.next()) else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {said}{why}", self.name).into());
        };
        if counts {
            self.seconds.push(nanoseconds / 1e9);
            self.kib.push(kib);
        }
        Ok(())
    }

    fn ms(&self) -> f64 {
        1000.0 * median(self.seconds.iter().copied())
    }

    fn mib(&self) -> f64 {
        median(self.kib.iter().copied()) / 1024.0
    }
}

const BARE: &str = env!("INSPECT_C");
const LIST: usize = 0;
const PIPES: usize = 1;
const LSOF: usize = 2;
const LSFD: usize = 3;
const BARE_LIST: usize = 4;
const BARE_PIPES: usize = 5;

/// A ratio of times within a round, and its bound.
struct Ratio {
    what: String,
    of: (usize, usize),
    at_least: bool,
    bound: f64,
}

const RATIOS: [(&str, usize, usize, bool, f64); 6] = [
    ("lsof -n / list", LSOF, LIST, true, LEAST_FASTER),
    ("lsfd / list", LSFD, LIST, true, LEAST_FASTER),
    ("list / the same reads in C", LIST, BARE_LIST, false, MOST_OF_BARE),
    ("lsof -n / list pipe", LSOF, PIPES, true, LEAST_FASTER),
    ("lsfd / list pipe", LSFD, PIPES, true, LEAST_FASTER),
    ("list pipe / the same reads in C", PIPES, BARE_PIPES, false, MOST_OF_BARE),
];

/// Whether the inspector is as fast as it should be.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 11 });
    let switchboard = command::switchboard()?.to_string_lossy().into_owned();
    let mut contenders = [
        Contender::new("switchboard list", &[&switchboard, "list"]),
        Contender::new("switchboard list pipe", &[&switchboard, "list", "pipe"]),
        Contender::new("lsof -n", &["lsof", "-n"]),
        Contender::new("lsfd", &["lsfd"]),
        Contender::new("C: the reads of list", &[BARE, "read", "list"]),
        Contender::new("C: the reads of list pipe", &[BARE, "read", "pipe"]),
    ];
    measure(USUAL, rounds, &mut contenders)?;
    let ratios = RATIOS.map(|(what, above, below, at_least, bound)| Ratio {
        what: what.to_owned(),
        of: (above, below),
        at_least,
        bound,
    });
    let mut good = true;
    let mut shown = Vec::new();
    for Ratio { what, of: (above, below), at_least, bound } in ratios {
        let (above, below) = (&contenders[above].seconds, &contenders[below].seconds);
        let (ratio, (low, high)) = (median_ratio(above, below), ratio_range(above, below));
        let reached = if at_least { ratio >= bound } else { ratio <= bound };
        good &= reached;
        let bound = format!("{} {bound}", if at_least { "at least" } else { "at most" });
        let mark = if reached { "" } else { " MISSED" };
        shown.push([what, format!("{ratio:.2} ({low:.2}-{high:.2}){mark}"), bound]);
    }
    let growth = if arguments.small { Vec::new() } else { grow(rounds, &switchboard)? };
    let linear = growth.is_empty() || growth_of(&growth) <= MOST_GROWTH;
    if arguments.json {
        let all = contenders.iter().map(|one| {
            json!({ "contender": one.name, "seconds": one.seconds, "kib": one.kib, "median_ms": one.ms() })
        });
        let growth = growth.iter().map(|(size, one)| {
            json!({ "processes": size.0, "descriptors": size.0 * size.1, "seconds": one.seconds, "kib": one.kib })
        });
        let (all, growth): (Vec<_>, Vec<_>) = (all.collect(), growth.collect());
        let ratios: Vec<_> =
            shown.iter().map(|[what, ratio, bound]| json!([what, ratio, bound])).collect();
        println!(
            "{:#}",
            json!({ "benchmark": "inspect", "contenders": all, "ratios": ratios, "growth": growth })
        );
    } else {
        print(&contenders, &shown, &growth);
    }
    Ok(good && linear)
}

fn print(contenders: &[Contender], ratios: &[[String; 3]], growth: &[(Size, Contender)]) {
    let (processes, each) = USUAL;
    println!("{processes} processes with {each} descriptors each, besides those of the machine:\n");
    let rows: Vec<[String; 3]> = contenders
        .iter()
        .map(|one| [one.name.to_owned(), format!("{:.1}", one.ms()), format!("{:.1}", one.mib())])
        .collect();
    println!("{}\n", table(["contender", "ms", "MiB"], &rows));
    println!("{}\n", table(["ratio of times", "median (range)", "to be reached"], ratios));
    if growth.is_empty() {
        return;
    }
    let rows: Vec<[String; 5]> = growth
        .iter()
        .map(|((processes, each), one)| {
            let descriptors = processes * each;
            [
                processes.to_string(),
                descriptors.to_string(),
                format!("{:.1}", one.ms()),
                format!("{:.1}", one.mib()),
                format!("{:.2}", 1000.0 * one.ms() / descriptors as f64),
            ]
        })
        .collect();
    println!("{}\n", table(["processes", "descriptors", "list, ms", "MiB", "µs each"], &rows));
    println!("the last over the first, each: {:.2}, at most {MOST_GROWTH}", growth_of(growth));
}

/// What a descriptor costs in the largest crowd over what it costs in the smallest, above what an empty crowd costs.
fn growth_of(growth: &[(Size, Contender)]) -> f64 {
    let each = |(size, one): &(Size, Contender)| one.ms() / (size.0 * size.1) as f64;
    match growth {
        [first, .., last] => each(last) / each(first),
        _ => 1.0,
    }
}

fn grow(rounds: usize, switchboard: &str) -> Result<Vec<(Size, Contender)>, Failure> {
    let mut all = Vec::new();
    for size in GROWING {
        let mut list = [Contender::new("switchboard list", &[switchboard, "list"])];
        measure(size, rounds, &mut list)?;
        all.extend(list.map(|one| (size, one)));
    }
    Ok(all)
}

/// Runs all contenders in turns before a crowd of this size.
fn measure(size: Size, rounds: usize, contenders: &mut [Contender]) -> Result<(), Failure> {
    let _crowd = Crowd::of(size)?;
    // Round 0 warms up and is not counted.
    for round in 0..=rounds {
        eprintln!("{} processes, round {round} of {rounds}, load {}", size.0, load());
        for step in 0..contenders.len() {
            // Whoever goes first moves on from round to round.
            let at = (round + step) % contenders.len();
            contenders[at].run(round > 0)?;
        }
    }
    Ok(())
}

/// Processes that have descriptors and sleep; gone when this is dropped.
struct Crowd(Child);

impl Crowd {
    fn of((processes, descriptors): Size) -> Result<Self, Failure> {
        let mut child = Command::new(BARE)
            .args(["crowd", &processes.to_string(), &descriptors.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let crowd = Self(child);
        if line.trim() == "ready" { Ok(crowd) } else { Err("the crowd did not come".into()) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The end of its input ends it, and it ends the others.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
