//! Counts the system calls that the C and the Rust program of `wrappers` make for the same messages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::figures::table;
use crate::mechanism::{Language, Operation, Run, TABLE, chosen};
use crate::peer::UDP_BURST;
use crate::scratch::Scratch;
use crate::{Failure, two_cpus};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Messages that are counted
    #[arg(long, default_value_t = 512)]
    messages: usize,
    /// Only this mechanism (may be repeated)
    #[arg(long, value_name = "MECHANISM")]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Calls by name.
pub(crate) type Counts = BTreeMap<String, i64>;

/// Whether the two languages make the same calls everywhere.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let messages = arguments.messages.next_multiple_of(UDP_BURST).max(UDP_BURST);
    let scratch = Scratch::new()?;
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    let mut same = true;
    let chosen = chosen(TABLE, &arguments.only)?;
    for &(mechanism, operations) in &chosen.rows {
        for operation in operations.iter().copied() {
            eprintln!("{mechanism}, {}", operation.name());
            let c = data_path(mechanism, operation, messages, Language::C, &scratch)?;
            let rust = data_path(mechanism, operation, messages, Language::Rust, &scratch)?;
            for (side, c) in &c {
                let rust = &rust[side];
                let equal = is_same(mechanism, operation, side, c, rust);
                same &= equal;
                let verdict = if equal { "same" } else { "DIFFERENT" };
                rows.push([
                    mechanism.to_owned(),
                    format!("{}, {side}", operation.name()),
                    shown(c),
                    shown(rust),
                    verdict.to_owned(),
                ]);
                entries.push(json!({
                    "mechanism": mechanism, "operation": operation.name(), "side": side,
                    "c": c, "rust": rust, "same": equal,
                }));
            }
        }
    }
    if arguments.json {
        let document = json!({ "benchmark": "syscalls", "messages": messages,
            "not_measured": chosen.left_out, "cases": entries });
        println!("{document:#}");
    } else {
        println!("System calls for {messages} messages, start-up not counted:\n");
        println!("{}", table(["mechanism", "what", "C", "Rust", ""], &rows));
        chosen.print_left_out();
    }
    Ok(same)
}

/// Whether the moment decides how many calls there are: a receiver of a byte stream finds a message
/// cut wherever a piece of it ended, and who waits sleeps only if it came first. There only the kinds
/// of calls are compared; what the second kind do alone, without sleeping, is compared exactly.
fn depends_on_the_moment(mechanism: &str, operation: Operation, side: &str) -> bool {
    match operation {
        Operation::OneWay => matches!((mechanism, side), ("tcp" | "pty", "far")),
        Operation::RoundTrip => {
            matches!(
                mechanism,
                "posix-sem"
                    | "posix-sem-named"
                    | "futex"
                    | "futex-waitv"
                    | "pthread"
                    | "signalfd"
                    | "pty"
            )
        }
        Operation::Alone => false,
    }
}

fn is_same(mechanism: &str, operation: Operation, side: &str, c: &Counts, rust: &Counts) -> bool {
    if depends_on_the_moment(mechanism, operation, side) {
        return c.keys().eq(rust.keys());
    }
    c == rust
}

/// The calls of each side for this many messages: those of a run with twice as many, less those of a
/// run with as many. What start-up and the end take is in both.
fn data_path(
    mechanism: &'static str,
    operation: Operation,
    messages: usize,
    language: Language,
    scratch: &Scratch,
) -> Result<BTreeMap<&'static str, Counts>, Failure> {
    let cpus = two_cpus()?;
    let counted = |count| -> Result<Vec<Counts>, Failure> {
        let run = Run { mechanism, operation, count, warm_up: 0, cpus };
        run.start(language, scratch, |side, words| {
            let output = scratch.path(side).to_string_lossy().into_owned();
            let strace = ["strace", "-f", "-c", "-U", "calls,name", "-o", &output, "--"];
            strace.into_iter().map(str::to_owned).chain(words).collect()
        })?;
        operation.sides().iter().map(|side| read_counts(&scratch.path(side))).collect()
    };
    let (once, twice) = (counted(messages)?, counted(2 * messages)?);
    let difference = |once: &Counts, twice: &Counts| {
        let names: BTreeSet<&String> = once.keys().chain(twice.keys()).collect();
        let of = |counts: &Counts, name| counts.get(name).copied().unwrap_or(0);
        names
            .into_iter()
            .map(|name| (name.clone(), of(twice, name) - of(once, name)))
            .filter(|(_, count)| *count != 0)
            .collect::<Counts>()
    };
    Ok(operation
        .sides()
        .iter()
        .copied()
        .zip(once.iter().zip(&twice))
        .map(|(side, (once, twice))| (side, difference(once, twice)))
        .collect())
}

/// What `strace -c -U calls,name` wrote.
pub(crate) fn read_counts(path: &Path) -> Result<Counts, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("strace wrote no {}: {error}", path.display()))?;
    Ok(parse_counts(&text))
}

fn parse_counts(text: &str) -> Counts {
    let counts = text.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim(), calls.parse::<i64>().ok()?))
    });
    let mut sums = Counts::new();
    for (name, calls) in counts.filter(|(name, _)| *name != "total") {
        let new = NEW_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        *sums.entry(new.to_owned()).or_default() += calls;
    }
    sums
}

/// Two names of the kernel's for one call: the C library takes the one, rustix the other.
const NEW_NAMES: [(&str, &str); 4] =
    [("open", "openat"), ("unlink", "unlinkat"), ("newfstatat", "fstat"), ("chmod", "fchmodat")];

fn shown(counts: &Counts) -> String {
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_strace() {
        let text = "    calls syscall\n--------- ----------------\n      512 write\n        3 \
                    open\n        1 openat\n--------- ----------------\n      516 total\n";
        let expected = [("write", 512), ("openat", 4)].map(|(name, n)| (name.to_owned(), n));
        assert_eq!(parse_counts(text), Counts::from(expected));
    }

    #[test]
    fn where_the_moment_decides() {
        let (a, b) = ([("recvfrom".to_owned(), 9)], [("recvfrom".to_owned(), 8)]);
        let (a, b) = (Counts::from(a), Counts::from(b));
        for (mechanism, operation, side, same) in [
            ("tcp", Operation::OneWay, "far", true),
            ("tcp", Operation::OneWay, "near", false),
            ("tcp", Operation::RoundTrip, "far", false),
            ("pipe", Operation::OneWay, "far", false),
            ("posix-sem", Operation::RoundTrip, "near", true),
            ("posix-sem", Operation::Alone, "near", false),
        ] {
            assert_eq!(is_same(mechanism, operation, side, &a, &b), same, "{mechanism} {side}");
        }
    }
}
