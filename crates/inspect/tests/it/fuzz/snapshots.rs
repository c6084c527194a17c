//! Files that say they are snapshots, and names of objects.

use std::time::Duration;

use serde_json::Value;
use switchboard_inspect::analysis::graph::{self, Graph};
use switchboard_inspect::analysis::leaks::{LeakOptions, leaks};
use switchboard_inspect::analysis::left::{Run, left};
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{deadlocks, difference, peers, pressure, rates, stuck, why};
use switchboard_inspect::{Need, Request, Snapshot, Target, Wait, WaitOn};

use super::noise::Noise;
use super::parsers::safe;

/// Reads a file as a snapshot, and concludes from it whatever it says.
pub(super) fn snapshot(text: &[u8]) -> (bool, usize, usize) {
    let Ok(snapshot) = Snapshot::from_json(text) else { return (false, 0, 0) };
    let index = Index::new(&snapshot);
    let set = stuck::set(&index);
    let found = deadlocks::find(&snapshot);
    for process in &snapshot.processes {
        safe(&process.label());
        for thread in &process.threads {
            safe(&why::sentence(&index, &set, process, thread));
            let _ = why::looks_stuck(&index, &set, process, thread, Duration::ZERO);
        }
    }
    let changes = own_snapshot(|own| {
        let run = Run { processes: [std::process::id(), 1].into(), began_unix_ms: 1 };
        left(own, &snapshot, &run).len()
            + usize::from(rates::between(own, &snapshot).process(1).is_some())
            + difference::between(own, &snapshot).changed.len()
            + difference::between(&snapshot, own).changed.len()
    });
    let others = more(&snapshot);
    (true, found.len().min(9), (changes + others).min(9))
}

/// The other conclusions that commands draw.
fn more(snapshot: &Snapshot) -> usize {
    let leaks = leaks(snapshot, &LeakOptions::default());
    leaks
        .iter()
        .flat_map(|leak| leak.reasons.iter().chain(&leak.doubts))
        .for_each(|text| safe(text));
    let mut graph = Graph::new(snapshot, &graph::Options::default());
    graph.keep_reached(&[1, std::process::id()], Some(3));
    for process in &snapshot.processes {
        let _ = snapshot.is_orphan(process);
        for object in snapshot.objects_of(process.pid).take(20) {
            let _ = peers::others(snapshot, object, process.pid);
        }
    }
    leaks.len() + pressure::all(snapshot).len() + graph.channels.len()
}

/// A small one of this process, with a deadlock written into it.
pub(super) fn own_snapshot<T>(with: impl FnOnce(&Snapshot) -> T) -> T {
    thread_local!(static OWN: Snapshot = small_snapshot());
    OWN.with(with)
}

pub(super) fn small_snapshot() -> Snapshot {
    let (read, write) = switchboard_kernel::pipe::pipe().expect("a pipe");
    let mut snapshot = Request::everything().twice(Duration::from_millis(1)).take();
    let own = std::process::id();
    snapshot.processes.retain(|process| process.pid == own || process.pid == 1);
    snapshot.objects.retain(|object| object.ends.iter().any(|end| end.pid == own));
    snapshot.objects.truncate(12);
    // Who waits for itself, for a lock it has, and for a child.
    let ids: Vec<String> = snapshot.objects.iter().map(|object| object.id.clone()).collect();
    for process in &mut snapshot.processes {
        let pid = process.pid;
        for (thread, id) in process.threads.iter_mut().zip(ids.iter().cycle()) {
            let mut target = Target::new(id.clone(), Need::Data);
            (target.owners, target.sure) = (vec![pid], true);
            thread.wait = Some(Wait {
                call: "read".to_owned(),
                channel: None,
                on: WaitOn::Objects(vec![target]),
                timed: false,
                doubt: None,
                steady: Some(true),
                since_ms: Some((1, 1)),
            });
        }
    }
    drop((read, write));
    snapshot
}

pub(super) fn snapshot_seed() -> Vec<u8> {
    own_snapshot(Snapshot::to_json)
}

/// A snapshot in which values stand in places of others of their kind: ids, numbers of processes, states.
pub(super) fn changed_snapshot(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    thread_local!(static SEED: Value = serde_json::from_slice(&snapshot_seed()).expect("a snapshot"));
    let mut value = SEED.with(Value::clone);
    for _ in 0..=noise.below(12) {
        let mut other = place(&mut noise, &mut value).clone();
        let here = place(&mut noise, &mut value);
        match (&mut *here, &mut other) {
            (Value::Array(all), _) if noise.below(3) == 0 => all.push(other),
            (Value::Array(all), Value::Array(more)) => all.append(more),
            (Value::Number(_), _) if noise.below(3) == 0 => {
                *here = [0, 1, u64::MAX, 1 << 32][noise.below(4)].into();
            }
            (Value::Null | Value::Bool(_), _)
            | (Value::Number(_), Value::Number(_))
            | (Value::String(_), Value::String(_))
            | (Value::Object(_), Value::Object(_)) => *here = other,
            _ => {}
        }
    }
    serde_json::to_vec(&value).expect("JSON")
}

/// Somewhere in a value.
pub(super) fn place<'a>(noise: &mut Noise, mut value: &'a mut Value) -> &'a mut Value {
    loop {
        let inside = match value {
            Value::Array(all) => all.len(),
            Value::Object(all) => all.len(),
            _ => 0,
        };
        if inside == 0 || noise.below(12) == 0 {
            return value;
        }
        let at = noise.below(inside);
        value = match value {
            Value::Array(all) => &mut all[at],
            Value::Object(all) => all.values_mut().nth(at).expect("a value"),
            leaf => return leaf,
        };
    }
}

pub(super) fn name_seeds() -> Vec<Vec<u8>> {
    let words =
        ["pid:1", "pid:1/fd:3", "tcp:8080", "0xbeef", "unix:@x", "mq:/q", "[::1]:80", "4471"];
    let own = own_snapshot(|snapshot| {
        snapshot.objects.iter().map(|object| object.id.clone().into_bytes()).collect::<Vec<_>>()
    });
    words.iter().map(|word| word.as_bytes().to_vec()).chain(own).collect()
}
