//! What a run of a program left behind, from a look before and one after.
//!
//! Source: docs/design/leaks.md, "`leaks -- COMMAND`". The kernel keeps the maker of few objects; of the others it is told by time and user.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::leaks::{IN_FLIGHT, KINDS, NO_SOCKET};
use crate::kind::Kind;
use crate::model::{Object, Snapshot, Via};

/// Whose run it was.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The processes that are known to have been part of it: those that ended, too.
    pub processes: BTreeSet<u32>,
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
}

/// An object that a run left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its id.
    pub object: String,
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub names: Vec<String>,
    /// A process of the run is known to have made or used it; else it is told by its time and user.
    pub sure: bool,
    /// How it is known to be of the run, a sentence each.
    pub reasons: Vec<String>,
    /// The processes of the run that still have it.
    pub held_by: Vec<u32>,
}

/// Whole seconds, and clocks that are corrected.
const SLACK_MS: u64 = 2_000;

/// The objects that are there after a run, and were not before, and that nobody but the run had to do with.
#[must_use]
pub fn left(before: &Snapshot, after: &Snapshot, run: &Run) -> Vec<Left> {
    let known: BTreeMap<&str, Option<u64>> =
        before.objects.iter().map(|one| (one.id.as_str(), one.times.made_ms)).collect();
    // The file of a socket that somebody had then, and has no more.
    let files: BTreeSet<&str> =
        before.objects.iter().filter_map(|one| one.details.get("file")).collect();
    let new = after.objects.iter().filter(|one| {
        stays(one)
            && match (known.get(one.id.as_str()), one.times.made_ms) {
                // A number of a file goes to another one, once it is removed. Each has its own time, by a clock that goes in steps: it
                // may be a little before the look, and the file was made after.
                (Some(Some(then)), Some(now)) => *then != now,
                // Somebody held one that was removed already, of which no time is known.
                (Some(None), Some(now)) => now > before.taken_unix_ms,
                (Some(_), _) => false,
                (None, made) => {
                    let file = one.details.get("file").is_some_and(|file| files.contains(file));
                    !file || made.is_some_and(|made| made > before.taken_unix_ms)
                }
            }
    });
    new.filter_map(|object| of_run(before, after, run, object)).collect()
}

/// Whether it does not go with its last holder.
fn stays(object: &Object) -> bool {
    let has_name = || object.names.iter().any(|name| !name.ends_with(" (deleted)"));
    KINDS.contains(&object.kind)
        && match object.kind {
            Kind::SysvShm | Kind::SysvSem | Kind::SysvMsg => true,
            Kind::Unix => object.state.as_deref() == Some(NO_SOCKET),
            _ => has_name(),
        }
}

fn of_run(before: &Snapshot, after: &Snapshot, run: &Run, object: &Object) -> Option<Left> {
    let is_own = |pid: &u32| run.processes.contains(pid);
    let mut holders: Vec<u32> =
        object.ends.iter().filter(|end| end.via != Via::Used).map(|end| end.pid).collect();
    holders.dedup();
    if !holders.iter().all(is_own) {
        // Others have it now.
        return None;
    }
    let since = run.began_unix_ms.saturating_sub(SLACK_MS);
    let times = object.times;
    if times.made_ms.or(times.changed_ms).is_some_and(|at| at < since) {
        // It was there, and not seen.
        return None;
    }
    let makers: Vec<u32> = match object.kind {
        Kind::SysvShm => ["made by", "last attached or detached by"]
            .iter()
            .filter_map(|name| object.details.get(name)?.parse().ok())
            .filter(|&pid| pid != 0)
            .collect(),
        _ => object.ends.iter().filter(|e| e.via == Via::Used).map(|end| end.pid).collect(),
    };
    let mut reasons = Vec::new();
    if let Some(pid) = makers.iter().copied().find(|pid| is_own(pid)) {
        let did = if object.kind == Kind::SysvShm { "made it or attached it" } else { "used it" };
        reasons.push(format!("process {pid} of the run {did}"));
    }
    for &pid in &holders {
        reasons.push(format!("{}, which still runs, has it", after.label(pid)));
    }
    let sure = !reasons.is_empty();
    if !sure {
        // Somebody who was there before, or is there now, and is not of the run.
        let other = |pid: &u32| before.process(*pid).is_some() || after.process(*pid).is_some();
        if makers.iter().any(other) || object.uid != Some(after.viewer.uid) {
            return None;
        }
        reasons.push("it was made while the command ran, by this user".to_owned());
        if let Some(pid) = makers.first() {
            reasons.push(format!("process {pid}, which used it, has ended"));
        }
    }
    if let Some(place) = object.details.get(IN_FLIGHT) {
        reasons.push(format!("a descriptor of it is in flight {place}"));
    }
    Some(Left {
        object: object.id.clone(),
        kind: object.kind,
        names: object.names.clone(),
        sure,
        reasons,
        held_by: holders,
    })
}
