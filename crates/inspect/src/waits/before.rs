//! What was seen of threads that sleep, for the next look: who was not given a processor since is where it was.
//!
//! Source: docs/design/inspect.md, "Waits"; the kernel's `Documentation/scheduler/sched-stats.rst`.

use std::collections::HashMap;

use super::{Looked, since_boot_ms};
use crate::collect::Found;
use crate::kept::Kept;
use crate::model::Process;
use crate::source::folder::Folder;
use crate::source::schedule::{self, Clocks, UNCERTAIN_MS};

/// What was seen at the last look; nothing before the first.
#[derive(Debug, Default)]
pub(crate) struct Before(Option<Seen>);

#[derive(Debug)]
struct Seen {
    /// Threads that slept, by thread id.
    slept: HashMap<u32, Slept>,
    /// Processes that did not run, by process id.
    kept: HashMap<u32, Kept>,
}

/// A thread that slept.
#[derive(Debug)]
pub(crate) struct Slept {
    /// When its process was started: with the id, its identity.
    started_ticks: u64,
    /// Its `syscall`.
    pub(super) line: Vec<u8>,
    /// Its `wchan`.
    pub(super) channel: Option<String>,
    /// How often it was given a processor.
    pub(super) runs: u64,
    /// Since when it sleeps, if that is known.
    since_boot_ms: Option<u64>,
}

impl Before {
    /// Whether there was a look.
    pub(crate) fn is_something(&self) -> bool {
        self.0.is_some()
    }

    /// What was kept of a process.
    pub(crate) fn kept(&self, pid: u32) -> Option<&Kept> {
        self.0.as_ref()?.kept.get(&pid)
    }

    /// What was seen of a thread of a process.
    pub(super) fn of(&self, process: &Process, tid: u32) -> Option<&Slept> {
        let slept = self.0.as_ref()?.slept.get(&tid)?;
        (slept.started_ticks == process.started_ticks).then_some(slept)
    }
}

impl Looked {
    /// As [`Looked::again`], by what was seen at the look before this one.
    pub(crate) fn compare(&mut self, found: &mut [Found], before: &Before) {
        let now_ms = since_boot_ms();
        let mut clocks = Clocks::default();
        let mut buffer = Vec::new();
        for entry in &self.entries {
            let one = &mut found[entry.at].process;
            let Some(tid) = one.threads.get(entry.thread).map(|thread| thread.tid) else {
                continue;
            };
            let slept = before.of(one, tid).filter(|slept| Some(slept.runs) == entry.runs);
            let pid = one.pid;
            let Some(wait) = one.threads[entry.thread].wait.as_mut() else { continue };
            wait.steady = Some(slept.is_some());
            let Some(slept) = slept else { continue };
            let since = slept.since_boot_ms.map(|then| now_ms.saturating_sub(then));
            let since = since.or_else(|| {
                let task = Folder::open(&format!("/proc/{pid}/task/{tid}")).ok()?;
                task.read_record(c"sched", &mut buffer).ok()?;
                clocks.since_ms(entry.processor, schedule::last_ran_ms(&buffer)?)
            });
            wait.since_ms = since.map(|since| (since, UNCERTAIN_MS));
        }
    }

    /// What the next look needs.
    pub(crate) fn remember(self, found: &mut [Found]) -> Before {
        let now_ms = since_boot_ms();
        let kept = found.iter_mut().filter_map(|one| Some((one.process.pid, one.kept.take()?)));
        let kept = kept.collect();
        let slept = self.entries.into_iter().filter_map(|entry| {
            let process = &found.get(entry.at)?.process;
            let thread = process.threads.get(entry.thread)?;
            let since = thread.wait.as_ref().and_then(|wait| wait.since_ms);
            let slept = Slept {
                started_ticks: process.started_ticks,
                line: entry.line,
                channel: entry.channel,
                runs: entry.runs?,
                since_boot_ms: since.map(|(ms, _)| now_ms.saturating_sub(ms)),
            };
            Some((thread.tid, slept))
        });
        Before(Some(Seen { slept: slept.collect(), kept }))
    }
}
