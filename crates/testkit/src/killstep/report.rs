//! What a run found.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use super::{Access, Boundary, Depth, How};
use crate::skip::say;

/// Findings shown by [`Report::expect_clean`]; the rest is counted.
const MOST_SHOWN: usize = 20;

/// One operation, and what became of the others after each kill.
#[derive(Debug)]
pub struct Report {
    /// [`super::Plan::name`].
    pub operation: String,
    /// What was done to the victim.
    pub how: How,
    /// At which boundaries.
    pub depth: Depth,
    /// All boundaries of the operation.
    pub boundaries: usize,
    /// Those at which a victim was killed or stopped.
    pub killed: usize,
    /// Whether the operation sleeps.
    pub sleeps: bool,
    /// Those that a victim did not come to: it ended sooner than the first one.
    pub missed: usize,
    /// Those at which a victim was at another instruction than the first one.
    pub strayed: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Where the world may have changed on the way of a victim that nobody killed.
    pub events: Vec<Boundary>,
    /// What that victim did to shared memory, in order.
    pub accesses: Vec<Access>,
    /// How many instructions were stepped in all.
    pub steps: u64,
    /// The longest [`super::Plan::check`] took.
    pub slowest_check: Duration,
    /// How long it took in all.
    pub elapsed: Duration,
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where the victim, or the survivor that was killed too, was.
    pub at: Option<Boundary>,
    /// In words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{at}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.how == How::Kill { "killed" } else { "stopped" };
        let (killed, boundaries) = (self.killed, self.boundaries);
        write!(f, "{}: {how} at {killed} of {boundaries} boundaries", self.operation)?;
        for (count, what) in [(self.missed, "missed"), (self.strayed, "strayed")] {
            if count > 0 {
                write!(f, ", {what} {count}")?;
            }
        }
        let (findings, slowest) = (self.findings.len(), self.slowest_check.as_secs_f64() * 1e3);
        let seconds = self.elapsed.as_secs_f64();
        write!(f, ", {findings} findings, slowest survivor {slowest:.1} ms, {seconds:.1} s")
    }
}

impl Report {
    /// The test: nothing is wrong.
    ///
    /// # Panics
    /// When something is, saying what; when nobody was killed, or many boundaries were missed.
    pub fn expect_clean(&self) {
        let shown: Vec<String> =
            self.findings.iter().take(MOST_SHOWN).map(ToString::to_string).collect();
        assert!(self.findings.is_empty(), "{self}\n{}", shown.join("\n"));
        assert!(self.is_complete(), "{self}");
    }

    /// Whether somebody was killed, and few boundaries were missed. What other threads and processes do at the
    /// same time may lead victims another way than the first one went.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        // Who sleeps for a while and looks again takes more or fewer turns, as the machine is busy.
        let one_in = match self.depth {
            _ if self.sleeps => 2,
            // Of few one counts for much.
            Depth::Sample(_) => 4,
            _ => 10,
        };
        self.killed > 0 && self.missed <= self.killed / one_in
    }

    /// Says it, and adds it to the file that `cargo xtask` names in `SWITCHBOARD_KILLS`: killed,
    /// boundaries, text.
    pub(super) fn publish(&self) {
        say(&format!("killstep: {self}"));
        append(&format!("{}\t{}\t{self}\n", self.killed, self.boundaries));
    }

    /// Says how far a long run is, in the same ways, as 0 of 0.
    pub(super) fn progress(&self, seconds: u64) {
        let (operation, killed) = (&self.operation, self.killed);
        let of = self.boundaries;
        let text = format!("{operation}: at {killed} of {of} boundaries so far, {seconds} s");
        say(&format!("killstep: {text}"));
        append(&format!("0\t0\t{text}\n"));
    }
}

fn append(line: &str) {
    let Some(path) = std::env::var_os("SWITCHBOARD_KILLS") else { return };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    if let Ok(mut file) = file {
        let _ = file.write_all(line.as_bytes());
    }
}
