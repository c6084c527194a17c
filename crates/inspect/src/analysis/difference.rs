//! What changed between two snapshots.
//!
//! Source: docs/design/inspect.md, "Snapshots". An object is the same if its id is; a process, if its id and the time it was started are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::leaks::NO_SOCKET;
use super::peers::via;
use crate::kind::Kind;
use crate::model::{Object, Process, Snapshot, Via};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Processes that are new, by their labels.
    pub started: Vec<String>,
    /// Processes that are gone.
    pub ended: Vec<String>,
    /// Objects that are new.
    pub appeared: Vec<Object>,
    /// Objects that are gone.
    pub vanished: Vec<Object>,
    /// Objects that are not as they were.
    pub changed: Vec<Changed>,
}

/// An object that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Which.
    pub id: String,
    /// How, a phrase each: `fill 0 -> 512`.
    pub how: Vec<String>,
}

impl Difference {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// From the first to the second. Kinds that were not looked for in both are left out, and what the lookers have themselves.
#[must_use]
pub fn between(before: &Snapshot, after: &Snapshot) -> Difference {
    let lookers = [before.viewer.pid, after.viewer.pid];
    let identity = |process: &Process| (process.pid, process.started_ticks);
    let processes = |snapshot: &Snapshot| -> BTreeMap<(u32, u64), String> {
        let all =
            snapshot.processes.iter().filter(|one| !lookers.contains(&one.pid) && !one.kernel);
        all.map(|one| (identity(one), one.label())).collect()
    };
    let (old, new) = (processes(before), processes(after));
    let only = |here: &BTreeMap<(u32, u64), String>, there: &BTreeMap<(u32, u64), String>| {
        here.iter()
            .filter(|(id, _)| !there.contains_key(id))
            .map(|(_, label)| label.clone())
            .collect()
    };
    let mut difference =
        Difference { started: only(&new, &old), ended: only(&old, &new), ..Difference::default() };
    let both = |object: &&Object| {
        before.coverage.kinds.contains(&object.kind) && after.coverage.kinds.contains(&object.kind)
    };
    // Files that nobody has open were looked for in both in the same folders, or do not count.
    let same_places = before.coverage.places == after.coverage.places;
    let unheld = |object: &Object| match object.kind {
        Kind::Fifo => object.ends.is_empty(),
        Kind::Unix => object.state.as_deref() == Some(NO_SOCKET),
        _ => false,
    };
    let looked_for = |object: &&Object| same_places || !unheld(object);
    let of_others = |object: &&Object| {
        object.ends.is_empty() || !object.ends.iter().all(|end| lookers.contains(&end.pid))
    };
    let objects = |snapshot: &'_ Snapshot| -> BTreeMap<String, Object> {
        let all = snapshot.objects.iter().filter(both).filter(looked_for).filter(of_others);
        all.map(|object| (object.id.clone(), object.clone())).collect()
    };
    let (old, new) = (objects(before), objects(after));
    for (id, object) in &new {
        match old.get(id) {
            None => difference.appeared.push(object.clone()),
            Some(was) => {
                let how = how(was, object, lookers);
                if !how.is_empty() {
                    difference.changed.push(Changed { id: id.clone(), how });
                }
            }
        }
    }
    let gone = old.into_iter().filter(|(id, _)| !new.contains_key(id));
    difference.vanished = gone.map(|(_, object)| object).collect();
    difference
}

fn how(was: &Object, is: &Object, lookers: [u32; 2]) -> Vec<String> {
    let mut how = Vec::new();
    let shown = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let text = |value: Option<&str>| value.unwrap_or("none").to_owned();
    if was.fill != is.fill {
        how.push(format!("fill {} -> {}", shown(was.fill), shown(is.fill)));
    }
    if was.size != is.size {
        how.push(format!("size {} -> {}", shown(was.size), shown(is.size)));
    }
    if was.state != is.state {
        how.push(format!("state {} -> {}", text(was.state.as_deref()), text(is.state.as_deref())));
    }
    if was.peer != is.peer {
        how.push(format!("peer {} -> {}", text(was.peer.as_deref()), text(is.peer.as_deref())));
    }
    if (was.uid, was.gid, was.mode) != (is.uid, is.gid, is.mode) {
        how.push("owner or mode".to_owned());
    }
    // Addresses of mappings and waits come and go; who has it counts.
    let ends = |object: &Object| -> BTreeSet<String> {
        let lasts = |via| matches!(via, Via::Fd(_) | Via::Map(_) | Via::Ring(_));
        let lasting = object.ends.iter().filter(|end| lasts(end.via));
        let others = lasting.filter(|end| !lookers.contains(&end.pid));
        others.map(|end| format!("pid:{}/{}", end.pid, via(end))).collect()
    };
    let (old, new) = (ends(was), ends(is));
    how.extend(new.difference(&old).map(|end| format!("+{end}")));
    how.extend(old.difference(&new).map(|end| format!("-{end}")));
    how
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::End;

    #[test]
    fn what_came_went_and_changed() {
        let snapshot = |ids: &[(&str, u64)], started| {
            let mut snapshot = Snapshot::default();
            snapshot.coverage.kinds = vec![Kind::Pipe];
            for (id, fill) in ids {
                let mut object = Object::new(Kind::Pipe, *id);
                object.fill = Some(*fill);
                object.ends.push(End { pid: 7, via: Via::Fd(1), reads: true, writes: false });
                snapshot.objects.push(object);
            }
            snapshot.processes.push(Process {
                pid: 7,
                name: "x".to_owned(),
                started_ticks: started,
                ..Process::default()
            });
            snapshot
        };
        let before = snapshot(&[("pipe:1", 0), ("pipe:2", 0)], 1);
        let after = snapshot(&[("pipe:2", 5), ("pipe:3", 0)], 2);
        let found = between(&before, &after);
        assert_eq!(found.appeared[0].id, "pipe:3");
        assert_eq!(found.vanished[0].id, "pipe:1");
        assert_eq!(
            found.changed,
            [Changed { id: "pipe:2".into(), how: vec!["fill 0 -> 5".into()] }]
        );
        assert_eq!(
            (found.started.len(), found.ended.len()),
            (1, 1),
            "the id went to another process"
        );
        assert!(between(&before, &before).is_empty());
    }

    #[test]
    fn files_count_where_both_looked() {
        let mut before = Snapshot::default();
        before.coverage.kinds = vec![Kind::Fifo];
        before.coverage.places = vec!["/run".to_owned()];
        let mut after = before.clone();
        before.objects.push(Object::new(Kind::Fifo, "fifo:0:1:2"));
        assert_eq!(between(&before, &after).vanished.len(), 1);
        after.coverage.places.clear();
        assert!(between(&before, &after).is_empty());
    }
}
