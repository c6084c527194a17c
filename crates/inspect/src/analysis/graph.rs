//! The graph of who talks to whom: processes, the channels between them, groups, and what is wrong in it.
//!
//! Source: docs/design/map.md. A channel is an object, or a socket with its peer; between two processes it is an edge, and an
//! object of its own where more share it. Who uses an end is told from who merely inherited it ([`evidence`]).

mod evidence;
mod groups;
mod reach;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

pub use evidence::{Hold, Party, Role};
pub use groups::{Group, Grouping, Key};

use super::deadlocks;
use super::peers::is_connected;
use super::wakers::{Grade, Index};
use super::{stuck, why};
use crate::kind::Kind;
use crate::model::{Object, Process, Snapshot, WaitOn};

/// How a snapshot becomes a graph.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What makes a group.
    pub grouping: Grouping,
    /// Objects that leak, by id, each with its reasons.
    pub leaks: HashMap<String, Vec<String>>,
    /// A process that is left out: the one that looked.
    pub without: Option<u32>,
}

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// By process id.
    pub processes: Vec<Node>,
    /// By kind, then id: those of two processes and more, and those that leak.
    pub channels: Vec<Channel>,
    /// In the order of their first processes.
    pub groups: Vec<Group>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its id.
    pub pid: u32,
    /// Its name and id.
    pub label: String,
    /// Its group, by number.
    pub group: usize,
    /// How far it is from the first process of its tree.
    pub depth: usize,
    /// A sentence for each of its threads that looks stuck.
    pub stuck: Vec<String>,
    /// It is in a deadlock, at least probably.
    pub deadlocked: bool,
    /// What else there is to say: `stopped`, `zombie`, `orphan`, `unreadable`.
    pub marks: Vec<&'static str>,
    /// Objects that it shares with nobody.
    pub alone: usize,
}

/// Something that processes talk through, or share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// The id of its object; of a connected socket, the lesser one of the two.
    pub id: String,
    /// That object, and its peer or listener if there is one.
    pub objects: Vec<String>,
    /// What it is.
    pub kind: Kind,
    /// The names of all its objects.
    pub names: Vec<String>,
    /// How full each of its objects is.
    pub fill: Vec<Option<u64>>,
    /// How much each of them holds at most.
    pub size: Vec<Option<u64>>,
    /// `listening`, `established`.
    pub state: Option<String>,
    /// Who has it, by process id.
    pub parties: Vec<Party>,
    /// Somebody who looks stuck waits for it.
    pub stuck: bool,
    /// Why nobody can use it any more.
    pub leak: Vec<String>,
}

/// What goes from one process to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Who puts in.
    pub from: u32,
    /// Who takes out.
    pub to: u32,
    /// How sure it is that both use it: the lesser of the two.
    pub hold: Hold,
}

impl Channel {
    /// Whether it is drawn as an object with a link to each process, rather than as a line between two.
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.parties.len() != 2
    }

    /// What goes through it, of one between two processes. Nothing: they share it, and neither hears the other through it.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        let [a, b] = &self.parties[..] else { return Vec::new() };
        let mut flows = Vec::new();
        for (from, to) in [(a, b), (b, a)] {
            // Who has the same socket as another hears nothing of him through it.
            let apart = self.objects.len() < 2 || from.side != to.side;
            if let (true, Some(out), Some(into)) =
                (apart && self.carries(), &from.writes, &to.reads)
                && (self.objects.len() < 2 || self.two_way() || from.side == 0)
            {
                flows.push(Flow { from: from.pid, to: to.pid, hold: out.hold.min(into.hold) });
            }
        }
        flows
    }

    /// Whether a process does something with it, or may: it does not merely hold it.
    #[must_use]
    pub fn is_used_by(&self, pid: u32) -> bool {
        self.parties.iter().any(|party| party.pid == pid && party.hold() > Hold::Held)
    }

    /// The best that is known of its use: of both its processes; of an object, of any.
    #[must_use]
    pub fn hold(&self) -> Hold {
        let each = self.parties.iter().map(Party::hold);
        let known = if self.is_node() { each.max() } else { each.min() };
        known.unwrap_or(Hold::Held)
    }

    /// Whether nine tenths of one of its objects are used.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.kind.is_memory()
            && self.fill.iter().zip(&self.size).any(|(fill, size)| match (fill, size) {
                (Some(fill), Some(size)) => {
                    *size > 0 && fill.saturating_mul(10) >= size.saturating_mul(9)
                }
                _ => false,
            })
    }

    /// A socket that others are connected to hears them, and has nobody's ear in turn.
    fn two_way(&self) -> bool {
        self.state.as_deref() != Some("one way")
    }

    /// Whether what one puts in, another can take out: not of a socket that several have and nobody is connected to.
    fn carries(&self) -> bool {
        self.objects.len() > 1 || !is_socket(self.kind)
    }
}

impl Graph {
    /// Of a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot, options: &Options) -> Self {
        let seen = Seen::new(snapshot, options);
        let mut channels = Vec::new();
        let mut alone: HashMap<u32, usize> = HashMap::new();
        for object in &snapshot.objects {
            let Some(channel) = seen.channel(object, options) else { continue };
            if channel.parties.len() > 1 || !channel.leak.is_empty() {
                channels.push(channel);
            } else if let [party] = &channel.parties[..] {
                *alone.entry(party.pid).or_insert(0) += 1;
            }
        }
        let mut graph = Self { processes: Vec::new(), channels, groups: Vec::new() };
        let depths = groups::depths(snapshot);
        for process in snapshot.processes.iter().filter(|process| seen.is_shown(process)) {
            graph.processes.push(Node {
                pid: process.pid,
                label: process.label(),
                group: 0,
                depth: depths.get(&process.pid).copied().unwrap_or(0),
                stuck: seen.stuck.get(&process.pid).cloned().unwrap_or_default(),
                deadlocked: seen.deadlocked.contains(&process.pid),
                marks: marks(snapshot, process),
                alone: alone.get(&process.pid).copied().unwrap_or(0),
            });
        }
        graph.group(snapshot, options.grouping);
        graph
    }

    /// The process of this id.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Node> {
        let at = self.processes.binary_search_by_key(&pid, |node| node.pid).ok()?;
        self.processes.get(at)
    }

    /// The channels of each process, by place.
    #[must_use]
    pub fn by_process(&self) -> BTreeMap<u32, Vec<usize>> {
        let mut all: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, channel) in self.channels.iter().enumerate() {
            for party in &channel.parties {
                all.entry(party.pid).or_default().push(at);
            }
        }
        all
    }
}

fn marks(snapshot: &Snapshot, process: &Process) -> Vec<&'static str> {
    let mut marks = Vec::new();
    if process.is_zombie() {
        marks.push("zombie");
    }
    if process.is_stopped() {
        marks.push("stopped");
    }
    if snapshot.is_orphan(process) {
        marks.push("orphan");
    }
    if !process.readable {
        marks.push("unreadable");
    }
    marks
}

fn is_socket(kind: Kind) -> bool {
    matches!(kind, Kind::Unix | Kind::Tcp | Kind::Udp | Kind::Socket)
}

/// A snapshot, with what is looked up for each object at hand.
struct Seen<'a> {
    snapshot: &'a Snapshot,
    without: Option<u32>,
    objects: HashMap<&'a str, &'a Object>,
    evidence: evidence::Known<'a>,
    stuck: HashMap<u32, Vec<String>>,
    deadlocked: BTreeSet<u32>,
    /// Objects that somebody who is stuck waits for.
    wanted: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn new(snapshot: &'a Snapshot, options: &Options) -> Self {
        let objects = snapshot.objects.iter().map(|object| (object.id.as_str(), object)).collect();
        let mut seen = Self {
            snapshot,
            without: options.without,
            objects,
            evidence: evidence::Known::new(snapshot),
            stuck: HashMap::new(),
            deadlocked: BTreeSet::new(),
            wanted: HashSet::new(),
        };
        seen.find_stuck();
        seen
    }

    fn find_stuck(&mut self) {
        let index = Index::new(self.snapshot);
        let set = stuck::set(&index);
        for process in &self.snapshot.processes {
            for thread in &process.threads {
                if !why::looks_stuck(&index, &set, process, thread, why::PATIENCE) {
                    continue;
                }
                let sentence = why::sentence(&index, &set, process, thread);
                self.stuck.entry(process.pid).or_default().push(sentence);
                if let Some(WaitOn::Objects(targets)) = thread.wait.as_ref().map(|wait| &wait.on) {
                    self.wanted.extend(targets.iter().map(|target| target.object.as_str()));
                }
            }
        }
        let found = deadlocks::find(self.snapshot);
        let sure = found.iter().filter(|deadlock| deadlock.grade > Grade::Possible);
        self.deadlocked = sure.flat_map(|deadlock| deadlock.processes.iter().copied()).collect();
    }

    fn is_shown(&self, process: &Process) -> bool {
        !process.kernel && Some(process.pid) != self.without
    }

    /// The channel that begins with an object; none where another one begins it, or it is none.
    fn channel(&self, object: &'a Object, options: &Options) -> Option<Channel> {
        // Who merely reads the same file as many others talks to nobody.
        if object.kind == Kind::Mapping && !object.ends.iter().any(|end| end.writes) {
            return None;
        }
        let mut objects = vec![object];
        let mut state = object.state.as_deref().map(str::to_owned);
        if is_connected(object)
            && let Some(peer) = object.peer.as_deref().and_then(|peer| self.objects.get(peer))
        {
            let mutual = peer.peer.as_deref() == Some(object.id.as_str());
            let listener = peer.details.get("listener").and_then(|id| self.objects.get(id));
            if let (true, Some(listener)) = (peer.ends.is_empty(), listener) {
                state = Some("not accepted yet".to_owned());
                objects.push(listener);
            } else if mutual
                && (peer.ends.is_empty(), &peer.id) < (object.ends.is_empty(), &object.id)
            {
                return None;
            } else {
                if !mutual {
                    state = Some("one way".to_owned());
                }
                objects.push(peer);
            }
        }
        let mut parties = self.evidence.parties(&objects);
        parties.retain(|party| {
            self.snapshot.process(party.pid).is_some_and(|process| self.is_shown(process))
        });
        let leaks = objects.iter().filter_map(|object| options.leaks.get(&object.id)).flatten();
        Some(Channel {
            id: object.id.clone(),
            objects: objects.iter().map(|object| object.id.clone()).collect(),
            kind: object.kind,
            names: objects.iter().flat_map(|object| object.names.iter().cloned()).collect(),
            fill: objects.iter().map(|object| object.fill).collect(),
            size: objects.iter().map(|object| object.size).collect(),
            state,
            parties,
            stuck: objects.iter().any(|object| self.wanted.contains(object.id.as_str())),
            leak: leaks.cloned().collect(),
        })
    }
}
