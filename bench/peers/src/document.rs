//! The tables, in Markdown.

use std::fmt::Write;

use crate::bounds;
use crate::contender::{FUTEX, HAND_OVER, LINE, SHM_MANY, SHM_MANY_WIDE, STREAM};
use crate::figures::{Spread, show};
use crate::job::{Case, Measure};
use crate::rounds::Row;

/// Everything that was found out.
pub(crate) struct Outcome<'a> {
    /// The bare programs, before all others.
    pub(crate) bare_alone: &'a [Row],
    pub(crate) rows: &'a [Row],
    pub(crate) rounds: usize,
    pub(crate) footprint_kib: usize,
    pub(crate) large_footprint_kib: usize,
    /// Of the machine, before and after.
    pub(crate) load: [String; 2],
}

/// A table: its columns, and a row for each contender.
struct Table<'a> {
    rows: &'a [Row],
    measure: Measure,
}

impl Table<'_> {
    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for row in self.rows.iter().filter(|row| row.case.measure == self.measure) {
            if !cases.contains(&row.case) {
                cases.push(row.case);
            }
        }
        cases
    }

    fn contenders(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.case.measure == self.measure) {
            if !names.contains(&row.contender.name) {
                names.push(row.contender.name);
            }
        }
        names
    }

    fn row(&self, contender: &str, case: &Case) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender.name == contender && row.case == *case)
    }

    /// Nothing, if no cell would say anything.
    fn write(&self, title: &str, cell: impl Fn(&Row) -> Option<String>) -> String {
        let cases = self.cases();
        let mut lines = String::new();
        for contender in self.contenders() {
            let cells: Vec<String> = cases
                .iter()
                .map(|case| self.row(contender, case).and_then(&cell).unwrap_or_default())
                .collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                let _ = writeln!(lines, "| {contender} | {} |", cells.join(" | "));
            }
        }
        if lines.is_empty() {
            return lines;
        }
        let heads: Vec<String> = cases.iter().map(Case::name).collect();
        let rule = "--:|".repeat(cases.len());
        format!("{title}\n\n| | {} |\n|---|{rule}\n{lines}\n", heads.join(" | "))
    }

    fn figures(&self, title: &str, figure: &str) -> String {
        self.write(title, |row| Some(show(row.spread(figure)?.median)))
    }

    fn ratios(&self, title: &str) -> String {
        self.write(title, |row| {
            let other = self.row(baseline(&row.case)?, &row.case)?;
            if row.contender.name == other.contender.name {
                return None;
            }
            row.ratio(other).map(ratio)
        })
    }
}

/// Whom the others are compared with.
fn baseline(case: &Case) -> Option<&'static str> {
    match case.measure {
        Measure::Latency if case.bytes == 8 => Some(LINE),
        Measure::Latency => Some(HAND_OVER),
        Measure::Service => Some(LINE),
        Measure::Stream => Some(STREAM),
        Measure::Sleep => Some(FUTEX),
        Measure::Publish | Measure::Open => None,
    }
}

fn ratio(spread: Spread) -> String {
    format!("{} ({}–{})", show(spread.median), show(spread.low), show(spread.high))
}

impl Outcome<'_> {
    /// The whole text.
    pub(crate) fn document(&self) -> String {
        let mut text = self.opening();
        for measure in Measure::ALL {
            let table = Table { rows: self.rows, measure };
            if !table.cases().is_empty() {
                text += &section(&table);
            }
        }
        text += &self.bounds();
        text += &self.bare_alone();
        text += &self.not_measured();
        text
    }

    fn opening(&self) -> String {
        let Self { rounds, footprint_kib, large_footprint_kib, load, .. } = self;
        format!(
            "# Speed\n\n\
             Two processes on two processors exchange messages; the sender writes every byte, the \
             receiver reads every byte\nand checks it. Medians of {rounds} rounds, in each of which \
             everybody ran once, in changing order; in parentheses the lowest\nand highest round. \
             Ratios are taken within a round. [How it is measured](../bench/README.md).\n\n\
             Made by `cd bench/peers && cargo run --release -- --into ../../docs`, on {}, {}.\n\
             Load before: {}; after: {}. The bare programs cycle through {footprint_kib} KiB, with \
             messages of more than a quarter of that through {large_footprint_kib} KiB.\n\n\
             ![Latency by size, and messages a second](speed.svg)\n\n",
            processor(),
            kernel(),
            load[0],
            load[1],
        )
    }

    fn bounds(&self) -> String {
        let verdicts = bounds::verdicts(self.rows);
        if verdicts.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "## To be reached\n\nBy `{}`; streams of 64 B by `{SHM_MANY}`, and against others by `{SHM_MANY_WIDE}`.\n\n| what | found | wanted | |\n|---|--:|---|---|\n",
            bounds::SUBJECT
        );
        for verdict in verdicts {
            let found = verdict.found.map(show).unwrap_or_default();
            let kept = match verdict.kept {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "not measured",
            };
            let _ = writeln!(text, "| {} | {found} | {} | {kept} |", verdict.what, verdict.wanted);
        }
        text + "\n"
    }

    fn bare_alone(&self) -> String {
        let mut text = String::new();
        for measure in Measure::ALL {
            let table = Table { rows: self.bare_alone, measure };
            let title = match measure {
                Measure::Latency => "Half of a round trip, p50, nanoseconds:",
                Measure::Service => "Round trip, p50, nanoseconds:",
                Measure::Stream => "Messages a second:",
                Measure::Sleep => "Asleep, half of a round trip, p50, nanoseconds:",
                Measure::Publish | Measure::Open => continue,
            };
            text += &table.write(title, |row| row.spread(measure.figure()).map(ratio));
        }
        if text.is_empty() {
            return text;
        }
        let runs = self.bare_alone.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
        format!(
            "## The bare programs alone\n\n{runs} runs before all others, and how far apart they are.\n\n{text}"
        )
    }

    fn not_measured(&self) -> String {
        let mut lines: Vec<(&str, &str, Vec<String>)> = Vec::new();
        for row in self.rows {
            let Some(why) = &row.why_not else { continue };
            let case = format!("{} {}", title(row.case.measure).to_lowercase(), row.case.name());
            match lines
                .iter_mut()
                .find(|(name, said, _)| *name == row.contender.name && said == why)
            {
                Some((_, _, cases)) => cases.push(case),
                None => lines.push((row.contender.name, why, vec![case])),
            }
        }
        let mut text = "## Not measured\n\n".to_owned();
        for (name, why, cases) in lines {
            let _ = writeln!(text, "- `{name}`: {}: {why}", cases.join(", "));
        }
        text += "- Anything between machines, between users, or in containers.\n\
                 - Libraries that need a process of their own, as message brokers do.\n";
        let mut left: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| !row.left.is_empty()) {
            if !left.contains(&row.contender.name) {
                left.push(row.contender.name);
            }
        }
        if !left.is_empty() {
            let _ = writeln!(
                text,
                "\nNames in shared memory were left behind, after ending in order, by: {}.",
                left.join(", ")
            );
        }
        text
    }
}

fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::Latency => "Latency",
        Measure::Service => "Service",
        Measure::Stream => "Stream",
        Measure::Publish => "Publishing",
        Measure::Sleep => "Waking",
        Measure::Open => "Opening",
    }
}

fn section(table: &Table<'_>) -> String {
    let mut text = format!("## {}\n\n", title(table.measure));
    match table.measure {
        Measure::Latency => {
            text += "One way: half of a round trip, both sides polling.\n\n";
            for (title, figure) in [
                ("p50, nanoseconds:", "p50_ns"),
                ("p99, nanoseconds:", "p99_ns"),
                ("p99.9, nanoseconds:", "p99.9_ns"),
            ] {
                text += &table.figures(title, figure);
            }
            text += &table.ratios("p50, times that of the bare programs:");
        }
        Measure::Service => {
            text += "A call and its reply: the whole round trip, with so many bytes each way, both sides polling.\n\n";
            for (title, figure) in
                [("p50, nanoseconds:", "p50_ns"), ("p99, nanoseconds:", "p99_ns")]
            {
                text += &table.figures(title, figure);
            }
            text += &table.ratios("p50, times that of the bare line:");
        }
        Measure::Stream => {
            text += "One way, all of them received, in order.\n\n";
            text += &table.figures("Messages a second:", "per_second");
            text += &table.ratios("Share of the bare stream's rate:");
        }
        Measure::Publish => {
            text += "64 bytes, to processes that subscribe and do not read.\n\n";
            text += &table.figures("Nanoseconds each:", "each_ns");
            text += &table.write("Times that with one subscriber:", |row| {
                let one = table.row(row.contender.name, &Case { subscribers: 1, ..row.case })?;
                if row.case == one.case { None } else { row.ratio(one).map(ratio) }
            });
        }
        Measure::Sleep => {
            text += "64 bytes, half of a round trip; who waits sleeps.\n\n";
            for (title, figure) in
                [("p50, nanoseconds:", "p50_ns"), ("p99, nanoseconds:", "p99_ns")]
            {
                text += &table.figures(title, figure);
            }
            text += &table.ratios("p50, times that of the bare futex:");
        }
        Measure::Open => {
            text += "From the sender's opening, the receiver waiting already, until the first \
                     message is received.\n\n";
            text += &table.write(
                "Microseconds, median; in parentheses the first in a process:",
                |row| {
                    let (usual, first) = (row.spread("p50_us")?, row.spread("first_us")?);
                    Some(format!("{} ({})", show(usual.median), show(first.median)))
                },
            );
        }
    }
    text
}

/// `/proc/cpuinfo`
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, name)| name);
    format!("{name} ({count} processors)")
}

fn kernel() -> String {
    let name = rustix::system::uname();
    format!("Linux {}", name.release().to_string_lossy())
}
