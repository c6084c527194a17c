//! Cycles and knots: processes that wait for each other for ever, and waits for the dead.
//!
//! Source: docs/design/inspect.md, "Who waits for ever"; Tarjan, "Depth-first search and linear graph algorithms" (1972).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::stuck::{self, Set};
use super::wakers::{Grade, Index};
use super::why;
use crate::kind::Kind;
use crate::model::{Snapshot, Target, WaitOn};

/// A deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deadlock {
    /// How sure it is.
    pub grade: Grade,
    /// What it looks like.
    pub shape: Shape,
    /// The threads in it, by thread id.
    pub threads: Vec<u32>,
    /// Their processes.
    pub processes: Vec<u32>,
    /// A sentence for each thread.
    pub evidence: Vec<String>,
    /// What could end it all the same, a sentence each.
    pub doubts: Vec<String>,
    /// Threads outside it that wait for it.
    pub behind: Vec<u32>,
    /// A sentence for each of those.
    pub consequences: Vec<String>,
    /// What would end it.
    pub way_out: String,
}

/// What a deadlock looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Each waits for the next one.
    Cycle,
    /// Some wait for any of several, all of whom are in it.
    Knot,
    /// A thread waits for itself.
    Itself,
    /// Who should end the wait is gone.
    Orphaned,
}

impl Shape {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Cycle => "cycle",
            Self::Knot => "knot",
            Self::Itself => "waits for itself",
            Self::Orphaned => "waits for the dead",
        }
    }
}

/// All of a snapshot, the surest first.
#[must_use]
pub fn find(snapshot: &Snapshot) -> Vec<Deadlock> {
    let index = Index::new(snapshot);
    let set = stuck::set(&index);
    let edges: BTreeMap<u32, BTreeSet<u32>> =
        set.iter().map(|(&tid, stuck)| (tid, stuck::waits_for(&index, &set, stuck))).collect();
    let mut found = Vec::new();
    let mut inside = BTreeSet::new();
    for component in components(&edges) {
        let first = component[0];
        let shape = if component.len() > 1 {
            let single = |tid: &u32| edges[tid].len() == 1;
            if component.iter().all(single) { Shape::Cycle } else { Shape::Knot }
        } else if edges[&first].contains(&first) {
            Shape::Itself
        } else if edges[&first].is_empty() {
            Shape::Orphaned
        } else {
            // It leads into one, and is in none.
            continue;
        };
        inside.extend(component.iter().copied());
        found.push(deadlock(&index, &set, &edges, shape, component));
    }
    for (tid, lead) in lead_into(&edges, &inside) {
        if let Some(deadlock) = found.iter_mut().find(|deadlock| deadlock.threads.contains(&lead)) {
            deadlock.behind.push(tid);
            let stuck = &set[&tid];
            deadlock.consequences.push(why::sentence(&index, &set, stuck.process, stuck.thread));
        }
    }
    found.sort_by_key(|deadlock| (std::cmp::Reverse(deadlock.grade), deadlock.threads.clone()));
    found
}

fn deadlock(
    index: &Index<'_>,
    set: &Set<'_>,
    edges: &BTreeMap<u32, BTreeSet<u32>>,
    shape: Shape,
    mut threads: Vec<u32>,
) -> Deadlock {
    threads.sort_unstable();
    let members: Vec<_> = threads.iter().filter_map(|tid| set.get(tid)).collect();
    let grade = members.iter().map(|stuck| stuck.wakers.grade).min().unwrap_or(Grade::Possible);
    let processes: BTreeSet<u32> = members.iter().map(|stuck| stuck.process.pid).collect();
    let evidence =
        members.iter().map(|stuck| why::sentence(index, set, stuck.process, stuck.thread));
    let evidence = evidence.collect();
    let all = reachable(edges, &threads);
    let doubts = all.iter().filter_map(|tid| set.get(tid)).flat_map(|stuck| &stuck.doubts);
    let doubts: BTreeSet<String> = doubts.map(|doubt| doubt.text.clone()).collect();
    let names: Vec<String> = processes.iter().map(|&pid| index.snapshot.label(pid)).collect();
    let stays_locked = members.iter().any(|stuck| match &stuck.wait.on {
        WaitOn::Objects(targets) => targets.iter().any(|target| outlives_its_owner(index, target)),
        _ => false,
    });
    let mut way_out = match shape {
        Shape::Orphaned => {
            format!("end {} and start it again; nobody else can free it", names.join(", "))
        }
        Shape::Itself => format!("end {}; it cannot go on by itself", names.join(", ")),
        Shape::Cycle | Shape::Knot => format!("end one of {}", names.join(", ")),
    };
    if stays_locked && shape != Shape::Orphaned {
        way_out +=
            "; a lock in shared memory that is not robust stays locked, so end all that use it";
    }
    Deadlock {
        grade,
        shape,
        processes: processes.into_iter().collect(),
        threads,
        evidence,
        doubts: doubts.into_iter().collect(),
        behind: Vec::new(),
        consequences: Vec::new(),
        way_out,
    }
}

/// These, and all on whom it rests that they wait for ever.
fn reachable(edges: &BTreeMap<u32, BTreeSet<u32>>, from: &[u32]) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = from.iter().copied().collect();
    let mut left: Vec<u32> = from.to_vec();
    while let Some(tid) = left.pop() {
        let next = edges.get(&tid).into_iter().flatten().copied();
        left.extend(next.filter(|&next| found.insert(next)));
    }
    found
}

/// Whether others than its owner find a lock locked when that one has ended: one in memory that several processes share, which is neither robust
/// nor handed on by the kernel. Of a semaphore, a condition and the end of a thread there is no owner.
fn outlives_its_owner(index: &Index<'_>, target: &Target) -> bool {
    let lasting = ["mutex", "read-write lock"];
    let is_lock = target.detail.as_deref().is_some_and(|detail| {
        lasting.iter().any(|lock| detail == *lock || detail.starts_with(&format!("{lock},")))
    });
    let object = index.object(&target.object).filter(|object| object.kind == Kind::Futex);
    is_lock
        && object.is_some_and(|object| {
            let first = object.ends.first().map(|end| end.pid);
            object.ends.iter().any(|end| Some(end.pid) != first)
        })
}

/// Threads outside that lead into one, with a thread inside that they lead to.
fn lead_into(edges: &BTreeMap<u32, BTreeSet<u32>>, inside: &BTreeSet<u32>) -> BTreeMap<u32, u32> {
    let mut leads: BTreeMap<u32, u32> = inside.iter().map(|&tid| (tid, tid)).collect();
    loop {
        let mut more = Vec::new();
        for (tid, next) in edges.iter().filter(|(tid, _)| !leads.contains_key(tid)) {
            if let Some(lead) = next.iter().find_map(|next| leads.get(next)) {
                more.push((*tid, *lead));
            }
        }
        if more.is_empty() {
            leads.retain(|tid, _| !inside.contains(tid));
            return leads;
        }
        leads.extend(more);
    }
}

/// Strongly connected components, without recursion: how deep it goes, others decide.
fn components(edges: &BTreeMap<u32, BTreeSet<u32>>) -> Vec<Vec<u32>> {
    let mut state = Tarjan::default();
    for &start in edges.keys() {
        if state.number.contains_key(&start) {
            continue;
        }
        let mut path = vec![(start, edges[&start].iter())];
        state.enter(start);
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            match next.next() {
                Some(to) if !state.number.contains_key(to) => {
                    if let Some(onward) = edges.get(to) {
                        state.enter(*to);
                        path.push((*to, onward.iter()));
                    }
                }
                Some(to) => {
                    if state.on_stack.contains(to) {
                        let low = state.low[&at].min(state.number[to]);
                        state.low.insert(at, low);
                    }
                }
                None => {
                    path.pop();
                    state.leave(at, path.last().map(|(parent, _)| *parent));
                }
            }
        }
    }
    state.components
}

#[derive(Default)]
struct Tarjan {
    number: HashMap<u32, usize>,
    low: HashMap<u32, usize>,
    stack: Vec<u32>,
    on_stack: BTreeSet<u32>,
    components: Vec<Vec<u32>>,
}

impl Tarjan {
    fn enter(&mut self, node: u32) {
        let number = self.number.len();
        self.number.insert(node, number);
        self.low.insert(node, number);
        self.stack.push(node);
        self.on_stack.insert(node);
    }

    fn leave(&mut self, node: u32, parent: Option<u32>) {
        let low = self.low[&node];
        if let Some(parent) = parent {
            let lower = self.low[&parent].min(low);
            self.low.insert(parent, lower);
        }
        if low == self.number[&node] {
            let mut component = Vec::new();
            while let Some(top) = self.stack.pop() {
                self.on_stack.remove(&top);
                component.push(top);
                if top == node {
                    break;
                }
            }
            self.components.push(component);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_components() {
        let edges = |pairs: &[(u32, &[u32])]| {
            pairs.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect()
        };
        let graph = edges(&[(1, &[2]), (2, &[3]), (3, &[1]), (4, &[1]), (5, &[5]), (6, &[])]);
        let mut found: Vec<Vec<u32>> = components(&graph)
            .into_iter()
            .map(|mut one| {
                one.sort_unstable();
                one
            })
            .collect();
        found.sort();
        assert_eq!(found, [vec![1, 2, 3], vec![4], vec![5], vec![6]]);
        let inside = [1, 2, 3].into();
        assert_eq!(lead_into(&graph, &inside).keys().copied().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let graph = (0..200_000).map(|n| (n, [(n + 1) % 200_000].into())).collect();
        assert_eq!(components(&graph).len(), 1);
    }
}
