//! Measures messages between processes: Switchboard, other libraries, what the system offers, and bare
//! memory. `../README.md` says how.

mod bounds;
mod clock;
mod contender;
mod control;
mod document;
mod figures;
mod job;
mod leftovers;
mod pattern;
mod plot;
mod rounds;
mod run;
mod side;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use contender::{Contender, TABLE};
use document::Outcome;
use job::{Case, Measure};
use rounds::Effort;
use run::Runner;

/// Whatever ends a measurement early.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// First argument of a process that is one side of a measurement.
pub(crate) const SIDE: &str = "side";
/// First argument of the process that removes what is left.
pub(crate) const CLEANER: &str = "cleaner";

#[derive(Parser)]
#[command(about = "Measures messages between processes: Switchboard, others, and bare memory.")]
struct Arguments {
    /// Fewer and shorter rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Rounds; 11 unless said otherwise, 3 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// How often the bare programs run alone before all others; 10 unless said otherwise, 3 with --quick
    #[arg(long)]
    bare_rounds: Option<usize>,
    /// Only contenders whose name contains this (may be repeated); the bare programs stay
    #[arg(long, value_name = "CONTENDER")]
    only: Vec<String>,
    /// Only this (may be repeated)
    #[arg(long, value_enum)]
    measure: Vec<Measure>,
    /// How many processes subscribe where publishing is measured
    #[arg(long, value_delimiter = ',', default_value = "1,32")]
    subscribers: Vec<usize>,
    /// What the bare programs cycle through, in KiB: as much as the ring of a topic
    #[arg(long, default_value_t = 32)]
    footprint_kib: usize,
    /// The same for messages of more than a quarter of that: as much as the first blocks of a topic
    #[arg(long, default_value_t = 4096)]
    large_footprint_kib: usize,
    /// Write speed.md and speed.svg into this folder
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // This program is also the other processes of its measurements.
    let result = match words.split_first() {
        Some((word, [job])) if word == SIDE => side::main(job).map(|()| true),
        Some((word, rest)) if word == CLEANER => leftovers::cleaner(rest).map(|()| true),
        _ => measure(&Arguments::parse()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every bound is kept.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let effort = Effort {
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 11 }),
        share: if arguments.quick { 0.2 } else { 1.0 },
    };
    let bare_rounds = arguments.bare_rounds.unwrap_or(if arguments.quick { 3 } else { 10 });
    let chosen =
        |measure: &Measure| arguments.measure.is_empty() || arguments.measure.contains(measure);
    let measures: Vec<Measure> = Measure::ALL.into_iter().filter(chosen).collect();
    let contenders = contenders(&arguments.only)?;
    let bare: Vec<&'static Contender> =
        contenders.iter().copied().filter(|contender| contender.bare).collect();
    let runner = Runner::new((arguments.footprint_kib << 10, arguments.large_footprint_kib << 10))?;
    let load_before = load();

    let all: Vec<Case> =
        measures.iter().flat_map(|&measure| Case::all(measure, &arguments.subscribers)).collect();
    eprintln!("the bare programs alone");
    let first = rounds::measure(&runner, &all, &bare, Effort { rounds: bare_rounds, ..effort });
    let mut rows = Vec::new();
    for &measure in &measures {
        eprintln!("{measure:?}");
        let cases = Case::all(measure, &arguments.subscribers);
        rows.extend(rounds::measure(&runner, &cases, &contenders, effort));
    }
    drop(runner);

    let outcome = Outcome {
        bare_alone: &first,
        rows: &rows,
        rounds: effort.rounds,
        footprint_kib: arguments.footprint_kib,
        large_footprint_kib: arguments.large_footprint_kib,
        load: [load_before, load()],
    };
    if let Some(folder) = &arguments.into {
        std::fs::write(folder.join("speed.md"), outcome.document())?;
        std::fs::write(folder.join("speed.svg"), plot::draw(&rows))?;
    }
    if arguments.json {
        let load = &outcome.load;
        println!(
            "{:#}",
            json!({
                "bare_alone": rounds::as_json(&first),
                "rows": rounds::as_json(&rows),
                "load": load,
            })
        );
    } else if arguments.into.is_none() {
        println!("{}", outcome.document());
    }
    Ok(bounds::verdicts(&rows).iter().all(|verdict| verdict.kept != Some(false)))
}

/// Those whose name contains one of the words; the bare programs always.
fn contenders(only: &[String]) -> Result<Vec<&'static Contender>, Failure> {
    if let Some(word) =
        only.iter().find(|word| !TABLE.iter().any(|row| row.name.contains(word.as_str())))
    {
        let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        return Err(format!("no contender {word:?}; there are: {}", names.join(", ")).into());
    }
    let wanted = |contender: &&Contender| {
        contender.bare
            || only.is_empty()
            || only.iter().any(|word| contender.name.contains(word.as_str()))
    };
    Ok(TABLE.iter().filter(wanted).collect())
}

/// `sched_setaffinity(0, {cpu})`.
pub(crate) fn pin(cpu: usize) -> Result<(), Failure> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &cpus)?)
}

/// The first two processors that this program may use: the same one twice if there is only one.
pub(crate) fn two_cpus() -> Result<(usize, usize), Failure> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let mut usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let first = usable.next().ok_or("no processor is usable")?;
    Ok((first, usable.next().unwrap_or(first)))
}

/// The system's load, as `/proc/loadavg` says it: other work spoils figures.
pub(crate) fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
