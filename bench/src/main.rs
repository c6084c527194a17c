//! Measures Switchboard: the kernel crate's wrappers and the patterns against plain C, and the command
//! against `cat` and `socat`. README.md says how, and what came out.

mod command;
mod consumer;
mod figures;
mod huge_pages;
mod inspect;
mod lines;
mod locks;
mod log;
mod mechanism;
mod objects;
mod peer;
mod raw;
mod scratch;
mod syscalls;
mod transfer;
mod wrappers;

use clap::{Parser, Subcommand};

/// Whatever ends a measurement early.
pub(crate) type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(about = "Measures Switchboard against plain C, cat and socat.")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Every wrapper with a hot path against the same system calls in plain C
    Wrappers(wrappers::Arguments),
    /// Events and states against the mechanisms beneath them in plain C
    Patterns(wrappers::Arguments),
    /// How many system calls the C and the Rust program of `wrappers` make; exit 1 if they differ
    Syscalls(syscalls::Arguments),
    /// `send --raw` and `recv --raw` of a large file against cat and socat
    Raw(raw::Arguments),
    /// `send` and `recv` of 64-byte lines against socat without boundaries
    Lines(lines::Arguments),
    /// `file:`, the log on disk, against a POSIX queue, and synced against write and fdatasync
    Log(log::Arguments),
    /// The locks of `switchboard_kernel::sync` against the C library's own
    Locks(locks::Arguments),
    /// `list` and `list pipe` of the inspector against lsof, lsfd and the same reads in plain C
    Inspect(inspect::Arguments),
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // This program is also the other processes of its measurements.
    match words.split_first() {
        Some((word, rest)) if word == PEER => return peer::main(rest),
        Some((word, rest)) if word == LOCKS_PEER => return locks::peer::main(rest),
        Some((word, rest)) if word == LOG_PEER => return log::peer(rest),
        Some((word, [])) if word == CONSUME => return consumer::main(),
        _ => {}
    }
    let good = match Arguments::parse().benchmark {
        Benchmark::Wrappers(arguments) => wrappers::main(&arguments)?,
        Benchmark::Patterns(arguments) => wrappers::patterns(&arguments)?,
        Benchmark::Syscalls(arguments) => syscalls::main(&arguments)?,
        Benchmark::Raw(arguments) => raw::main(&arguments)?,
        Benchmark::Lines(arguments) => lines::main(&arguments)?,
        Benchmark::Log(arguments) => log::main(&arguments)?,
        Benchmark::Locks(arguments) => locks::main(&arguments)?,
        Benchmark::Inspect(arguments) => inspect::main(&arguments)?,
    };
    std::process::exit(i32::from(!good));
}

/// First argument of a process that is one side of a wrapper measurement.
pub(crate) const PEER: &str = "peer";
/// First argument of a process of a measurement of locks.
pub(crate) const LOCKS_PEER: &str = "locks-peer";
/// First argument of a process that is one side of a log measurement.
pub(crate) const LOG_PEER: &str = "log-peer";
/// First argument of a process that counts and checks the bytes of its standard input.
pub(crate) const CONSUME: &str = "consume";

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
