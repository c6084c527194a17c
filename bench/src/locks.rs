//! The objects of `switchboard_kernel::sync` against the C library's own, which do not survive deaths.

pub(crate) mod peer;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::{io, pipe};

use crate::figures::{median, median_ratio, table};
use crate::mechanism::Language;
use crate::scratch::Scratch;
use crate::syscalls::read_counts;
use crate::{Failure, LOCKS_PEER, load, two_cpus};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fewer and shorter rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Rounds; 11 unless said otherwise, 5 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this measurement (may be repeated)
    #[arg(long, value_name = "WHAT")]
    only: Vec<String>,
    /// Count the system calls of what one process does alone, instead of measuring; exit 1 if there are any
    #[arg(long)]
    syscalls: bool,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

/// Descriptor of the shared memory, and of the word to begin.
const MEMORY: i32 = 3;
const BEGIN: i32 = 4;
const MEMORY_BYTES: usize = 1 << 20;

/// A round is this many short runs of each contender, in turns, of which the median counts.
const SLICES: usize = 5;

/// One row.
struct Measurement {
    what: &'static str,
    processes: usize,
    /// More than one process: whether on one core or two.
    two_cores: bool,
    /// At most so many times the time of C's robust mutex, where something was promised.
    most: Option<f64>,
    /// Whether C's plain mutex is measured too.
    plain: bool,
    text: &'static str,
}

const fn alone(what: &'static str, text: &'static str) -> Measurement {
    Measurement { what, processes: 1, two_cores: false, most: None, plain: false, text }
}

const fn among(
    what: &'static str,
    processes: usize,
    two_cores: bool,
    text: &'static str,
) -> Measurement {
    Measurement { what, processes, two_cores, most: None, plain: false, text }
}

const TABLE: &[Measurement] = &[
    Measurement { most: Some(1.05), plain: true, ..alone("mutex", "lock and unlock") },
    alone("semaphore", "wait and post, count 1"),
    alone("permits", "acquire and release, 2 permits"),
    alone("read", "read and unlock"),
    alone("write", "write and unlock"),
    alone("notify", "notify_one, nobody waits"),
    alone("monitor", "with, 64 bytes, changed"),
    Measurement { most: Some(1.2), plain: true, ..among("hand-over", 2, false, "in turns") },
    Measurement { most: Some(1.2), plain: true, ..among("hand-over", 2, true, "in turns") },
    Measurement { plain: true, ..among("sum", 2, false, "lock, add, unlock") },
    Measurement { plain: true, ..among("sum", 2, true, "lock, add, unlock") },
    among("semaphore-turns", 2, false, "wait and post, in turns"),
    among("semaphore-turns", 2, true, "wait and post, in turns"),
    among("condition-turns", 2, false, "wait and notify, in turns"),
    among("condition-turns", 2, true, "wait and notify, in turns"),
    among("permits", 4, true, "4 processes, 2 permits"),
    among("read", 2, true, "2 readers"),
    among("read", 8, true, "8 readers"),
];

struct Case {
    measurement: &'static Measurement,
    count: u64,
    /// Nanoseconds each, by round: C's, ours, C's plain where there is one.
    rounds: Vec<Vec<f64>>,
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Robust,
    Ours,
    Plain,
}

use Contender::{Ours, Plain, Robust};

impl Case {
    fn contenders(&self) -> &'static [Contender] {
        if self.measurement.plain { &[Robust, Ours, Plain] } else { &[Robust, Ours] }
    }

    fn measure(&self, contender: Contender, cpus: (usize, usize)) -> Result<f64, Failure> {
        let took = run(self.measurement, contender, self.count, cpus, |words| words)?;
        Ok(took / self.count as f64)
    }

    fn calibrate(&mut self, target: Duration, cpus: (usize, usize)) -> Result<(), Failure> {
        self.count = 500;
        let each = self.measure(Robust, cpus)?.max(1.0);
        self.count = ((target.as_nanos() as f64 / each) as u64).clamp(500, 1 << 24);
        let each = self.measure(Robust, cpus)?.max(1.0);
        self.count = ((target.as_nanos() as f64 / each) as u64).clamp(500, 1 << 24);
        Ok(())
    }

    fn column(&self, contender: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[contender]).collect()
    }

    fn ratio(&self) -> f64 {
        median_ratio(&self.column(1), &self.column(0))
    }

    fn is_reached(&self) -> bool {
        self.measurement.most.is_none_or(|most| self.ratio() <= most)
    }
}

/// Whether everything promised is reached.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let names: Vec<&str> = TABLE.iter().map(|one| one.what).collect();
    if let Some(unknown) = arguments.only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("no measurement {unknown:?}; there are {names:?}").into());
    }
    let wanted = |what| arguments.only.is_empty() || arguments.only.iter().any(|one| one == what);
    let chosen: Vec<_> = TABLE.iter().filter(|one| wanted(one.what)).collect();
    if arguments.syscalls {
        return count_calls(&chosen);
    }
    let cpus = two_cpus()?;
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 5 } else { 11 });
    let target = Duration::from_millis(if arguments.quick { 8 } else { 24 });
    let case = |measurement| Case { measurement, count: 0, rounds: Vec::new() };
    let mut cases: Vec<Case> = chosen.into_iter().map(case).collect();
    for case in &mut cases {
        case.calibrate(target, cpus)?;
    }
    for round in 0..rounds {
        eprintln!("round {} of {rounds}, load {}", round + 1, load());
        for case in &mut cases {
            let contenders = case.contenders();
            let mut slices = vec![Vec::new(); contenders.len()];
            for slice in 0..SLICES {
                for place in 0..contenders.len() {
                    // Whoever goes first changes.
                    let which = (place + round + slice) % contenders.len();
                    slices[which].push(case.measure(contenders[which], cpus)?);
                }
            }
            case.rounds.push(slices.into_iter().map(median).collect());
        }
    }
    if arguments.json {
        println!("{:#}", as_json(&cases));
    } else {
        print(&cases);
    }
    Ok(cases.iter().all(Case::is_reached))
}

/// Runs all processes; the nanoseconds of the one that took longest.
fn run(
    measurement: &Measurement,
    contender: Contender,
    count: u64,
    (first, second): (usize, usize),
    around: impl Fn(Vec<String>) -> Vec<String>,
) -> Result<f64, Failure> {
    let memory = SharedWords::create(MEMORY_BYTES)?;
    let (begin, word) = pipe::pipe()?;
    let mut children: Vec<(Child, std::os::fd::OwnedFd)> = Vec::new();
    for index in 0..measurement.processes {
        let cpu = if measurement.two_cores && index % 2 == 1 { second } else { first };
        let mut words = match contender {
            Ours => {
                let mut words = Language::Rust.command()?;
                words.truncate(1);
                words.push(LOCKS_PEER.to_owned());
                words
            }
            Robust | Plain => vec![env!("LOCKS_C").to_owned()],
        };
        let plain = if contender == Plain { "-plain" } else { "" };
        words.push(format!("{}{plain}", measurement.what));
        words.extend([index.to_string(), count.to_string(), cpu.to_string()]);
        let words = around(words);
        let (reader, writer) = pipe::pipe()?;
        let child = Spawn::new(&words[0])
            .args(&words[1..])
            .stdout(writer)
            .descriptor(MEMORY, io::duplicate(&memory)?)
            .descriptor(BEGIN, io::duplicate(&begin)?)
            .die_with_parent()
            .spawn()?;
        // The first makes what the others open.
        let mut ready = [0; "ready\n".len()];
        if io::read_full(&reader, &mut ready)? != ready.len() {
            return Err(format!("{words:?} did not get ready").into());
        }
        children.push((child, reader));
    }
    io::write_all(&word, &vec![b'!'; measurement.processes])?;
    let mut longest = 0.0_f64;
    for (mut child, reader) in children {
        let mut printed = vec![0; 64];
        let len = io::read_full(&reader, &mut printed)?;
        longest = longest.max(String::from_utf8_lossy(&printed[..len]).trim().parse()?);
        let status = child.wait(io::Deadline::NEVER)?;
        if !status.is_some_and(|status| status.success()) {
            return Err(format!("{}: {status:?}", measurement.what).into());
        }
    }
    Ok(longest)
}

/// The calls that twice as many repetitions make more.
fn count_calls(chosen: &[&Measurement]) -> Result<bool, Failure> {
    const TIMES: u64 = 1000;
    let scratch = Scratch::new()?;
    let mut none = true;
    for measurement in chosen.iter().filter(|one| one.processes == 1) {
        for (contender, name) in [(Robust, "C"), (Ours, "Rust")] {
            let counted = |count| -> Result<BTreeMap<String, i64>, Failure> {
                let output = scratch.path("calls").to_string_lossy().into_owned();
                run(measurement, contender, count, two_cpus()?, |words| {
                    let strace = ["strace", "-f", "-c", "-U", "calls,name", "-o", &output, "--"];
                    strace.into_iter().map(str::to_owned).chain(words).collect()
                })?;
                read_counts(&scratch.path("calls"))
            };
            let (once, twice) = (counted(TIMES)?, counted(2 * TIMES)?);
            let same = once == twice;
            none &= same;
            let verdict = if same { "none" } else { "SOME" };
            println!("{}, {name}: {verdict} in {TIMES} times", measurement.what);
        }
    }
    Ok(none)
}

fn placement(measurement: &Measurement) -> &'static str {
    match (measurement.processes, measurement.two_cores) {
        (1, _) => "one process",
        (_, false) => "same core",
        (_, true) => "two cores",
    }
}

fn print(cases: &[Case]) {
    let row = |case: &Case| {
        let ns = |contender: usize| format!("{:.1}", median(case.column(contender)));
        let measurement = case.measurement;
        [
            format!("{}: {}", measurement.what, measurement.text),
            placement(measurement).to_owned(),
            ns(0),
            ns(1),
            if measurement.plain { ns(2) } else { String::new() },
            case.count.to_string(),
            format!("{:.3}", case.ratio()),
            measurement.most.map_or(String::new(), |most| most.to_string()),
        ]
    };
    let heads = ["what", "on", "C", "ours", "C, plain mutex", "per run", "ratio", "at most"];
    println!("Nanoseconds each; ratio of the times within a round, its median:\n");
    println!("{}\n", table(heads, &cases.iter().map(row).collect::<Vec<_>>()));
    for case in cases.iter().filter(|case| !case.is_reached()) {
        println!("over: {}, {}", case.measurement.what, placement(case.measurement));
    }
}

fn as_json(cases: &[Case]) -> Value {
    let case = |case: &Case| {
        json!({
            "what": case.measurement.what,
            "processes": case.measurement.processes,
            "placement": placement(case.measurement),
            "per_run": case.count,
            "c_ns": case.column(0),
            "ours_ns": case.column(1),
            "c_plain_ns": if case.measurement.plain { case.column(2) } else { Vec::new() },
            "ratio": case.ratio(),
            "at_most": case.measurement.most,
        })
    };
    json!({ "benchmark": "locks", "cases": cases.iter().map(case).collect::<Vec<_>>() })
}
