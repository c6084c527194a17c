//! Who uses an end of a channel, and who merely has it because it was inherited.
//!
//! Source: docs/design/map.md, "Used and held". A snapshot is one moment: what somebody did before, and left no trace of, is not seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::analysis::peers::{is_connected, via};
use crate::kind::Kind;
use crate::model::{Need, Object, Process, Snapshot, Via, WaitOn};

/// What is known of the use of an end. In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Inherited; another one of its family uses it, and this one was seen doing something else.
    Held,
    /// It has it as others of its family do; which of them use it cannot be seen.
    Perhaps,
    /// It uses it.
    Used,
}

impl Hold {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Perhaps => "may use",
            Self::Used => "used",
        }
    }
}

/// A process at one direction of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    /// What is known of its use.
    pub hold: Hold,
    /// The evidence.
    pub why: String,
}

/// A process that has a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    /// The process.
    pub pid: u32,
    /// Which of the channel's objects it has: 0 or 1; of both, the first.
    pub side: usize,
    /// It has it so: `fd:3`.
    pub ends: Vec<String>,
    /// It can take out.
    pub reads: Option<Role>,
    /// It can put in.
    pub writes: Option<Role>,
}

impl Party {
    /// What is known of its use, in the direction of which most is known.
    #[must_use]
    pub fn hold(&self) -> Hold {
        let roles = self.reads.iter().chain(&self.writes);
        roles.map(|role| role.hold).max().unwrap_or(Hold::Held)
    }

    /// The evidence for that.
    #[must_use]
    pub fn why(&self) -> &str {
        let roles = self.reads.iter().chain(&self.writes);
        roles.max_by_key(|role| role.hold).map_or("", |role| role.why.as_str())
    }
}

/// What the processes of a snapshot were seen doing.
pub(super) struct Known<'a> {
    snapshot: &'a Snapshot,
    /// The call in which a process waits for an object, to read and to write.
    waits: HashMap<(u32, &'a str), [Option<&'a str>; 2]>,
    /// The first process of each one's tree below the machine's first.
    families: HashMap<u32, u32>,
}

/// Directions.
const READS: usize = 0;
const WRITES: usize = 1;

/// A process at one side of a channel.
#[derive(Default)]
struct Entry {
    ends: Vec<String>,
    can: [bool; 2],
    descriptors: HashSet<i32>,
    used: bool,
    mapped: bool,
    waits: [Option<String>; 2],
}

impl<'a> Known<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut waits: HashMap<(u32, &str), [Option<&str>; 2]> = HashMap::new();
        for process in &snapshot.processes {
            for wait in process.threads.iter().filter_map(|thread| thread.wait.as_ref()) {
                let WaitOn::Objects(targets) = &wait.on else { continue };
                for target in targets {
                    let calls = waits.entry((process.pid, target.object.as_str())).or_default();
                    for direction in directions(target.need) {
                        calls[*direction] = Some(&wait.call);
                    }
                }
            }
        }
        Self { snapshot, waits, families: super::groups::roots(snapshot) }
    }

    /// Everybody who has a channel of these objects: one, or two that are connected.
    pub(super) fn parties(&self, objects: &[&Object]) -> Vec<Party> {
        let mut all: BTreeMap<u32, Party> = BTreeMap::new();
        for (side, object) in objects.iter().enumerate() {
            let entries = self.entries(object);
            let [reads, writes] = [READS, WRITES].map(|way| self.roles(object, &entries, way));
            for (&pid, entry) in &entries {
                let party = all.entry(pid).or_insert_with(|| Party {
                    pid,
                    side,
                    ends: Vec::new(),
                    reads: None,
                    writes: None,
                });
                party.ends.extend(entry.ends.iter().cloned());
                better(&mut party.reads, reads.get(&pid));
                better(&mut party.writes, writes.get(&pid));
            }
        }
        all.into_values().collect()
    }

    fn entries(&self, object: &Object) -> BTreeMap<u32, Entry> {
        let mut entries: BTreeMap<u32, Entry> = BTreeMap::new();
        // Both ways go through one descriptor.
        let both = is_connected(object);
        for end in &object.ends {
            let entry = entries.entry(end.pid).or_default();
            let words = via(end);
            if !entry.ends.contains(&words) {
                entry.ends.push(words);
            }
            entry.can[READS] |= end.reads || both;
            entry.can[WRITES] |= end.writes || both;
            match end.via {
                Via::Fd(fd) => {
                    entry.descriptors.insert(fd);
                }
                Via::Map(_) => entry.mapped = true,
                // Whether it is used through the ring is not shown.
                Via::Ring(_) => {}
                Via::Used => entry.used = true,
                Via::Waits => {
                    for way in [READS, WRITES] {
                        let can = if way == READS { end.reads } else { end.writes };
                        if can && entry.waits[way].is_none() {
                            entry.waits[way] = Some("a call".to_owned());
                        }
                    }
                }
            }
        }
        for lock in object.locks.iter().filter(|lock| !lock.waiting) {
            for pid in lock.holders.iter().chain(&lock.taker) {
                if let Some(entry) = entries.get_mut(pid) {
                    entry.used = true;
                }
            }
        }
        for (&pid, entry) in &mut entries {
            let Some(calls) = self.waits.get(&(pid, object.id.as_str())) else { continue };
            for way in [READS, WRITES] {
                if both || entry.can[way] {
                    let call = calls[way].or(calls[1 - way].filter(|_| both));
                    entry.waits[way] = call.map(str::to_owned).or(entry.waits[way].take());
                }
            }
        }
        entries
    }

    /// What is known of everybody in one direction.
    fn roles(
        &self,
        object: &Object,
        entries: &BTreeMap<u32, Entry>,
        way: usize,
    ) -> HashMap<u32, Role> {
        let here: BTreeMap<u32, &Entry> =
            entries.iter().filter(|(_, e)| e.can[way]).map(|(&pid, e)| (pid, e)).collect();
        let mut members: HashMap<u32, usize> = HashMap::new();
        for &pid in here.keys() {
            *members.entry(self.family(pid)).or_insert(0) += 1;
        }
        let mut roles = HashMap::new();
        let mut rest = Vec::new();
        for (&pid, entry) in &here {
            let alone = here.len() == 1;
            let kin = members.get(&self.family(pid)).is_some_and(|&n| n > 1);
            match self.sign_of_use(pid, entry, way, entries, alone, kin) {
                Some(why) => {
                    roles.insert(pid, Role { hold: Hold::Used, why });
                }
                None => rest.push((pid, *entry)),
            }
        }
        let mut users: HashMap<u32, u32> =
            roles.keys().map(|&pid| (self.family(pid), pid)).collect();
        // Who waits at the other end of a pipe is not who is to end that wait.
        if matches!(object.kind, Kind::Pipe | Kind::Fifo) {
            let waits = |entry: &Entry| entry.waits[1 - way].is_some();
            let (there, left): (Vec<_>, Vec<_>) =
                rest.iter().copied().partition(|(_, entry)| waits(entry));
            if let (false, [(pid, _)], true) = (there.is_empty(), &left[..], roles.is_empty()) {
                let why = "whoever else has this end waits at the other one".to_owned();
                roles.insert(*pid, Role { hold: Hold::Used, why });
                users.insert(self.family(*pid), *pid);
                rest = there;
            }
        }
        for (pid, entry) in rest {
            let user = users.get(&self.family(pid)).copied();
            roles.insert(pid, self.inherited(object, pid, entry, &here, user));
        }
        roles
    }

    /// Why it is taken to use it.
    fn sign_of_use(
        &self,
        pid: u32,
        entry: &Entry,
        way: usize,
        entries: &BTreeMap<u32, Entry>,
        alone: bool,
        kin: bool,
    ) -> Option<String> {
        if let Some(call) = &entry.waits[way] {
            return Some(format!("waits for it in {call}"));
        }
        if entry.used {
            return Some("made it, used it last, or has locked it".to_owned());
        }
        if entry.mapped {
            return Some("maps it".to_owned());
        }
        if alone {
            return Some("nobody else has this end".to_owned());
        }
        let parent = self.process(pid).and_then(|process| entries.get(&process.parent));
        if let Some(parent) = parent
            && parent.can[way]
            && !parent.descriptors.is_empty()
            && entry.descriptors.is_disjoint(&parent.descriptors)
        {
            return Some("has it under a number of its own, not its parent's".to_owned());
        }
        (!kin).then(|| "nobody of its family has this end: it was not inherited".to_owned())
    }

    /// One that has the end as others of its family do.
    fn inherited(
        &self,
        object: &Object,
        pid: u32,
        entry: &Entry,
        here: &BTreeMap<u32, &Entry>,
        user: Option<u32>,
    ) -> Role {
        let perhaps = |why: &str| Role { hold: Hold::Perhaps, why: why.to_owned() };
        let Some(process) = self.process(pid) else { return perhaps("it has ended") };
        if entry.descriptors.iter().any(|fd| (0..=2).contains(fd)) {
            return perhaps("one of its standard streams, which it shares with others");
        }
        if !is_idle(process) {
            return perhaps("shared with its family; what it does could not be seen");
        }
        let named = matches!(object.kind, Kind::Fifo | Kind::Mq | Kind::PosixShm | Kind::Mapping);
        let family = self.family(pid);
        let same_number = here.iter().any(|(&other, theirs)| {
            other != pid
                && self.family(other) == family
                && !entry.descriptors.is_disjoint(&theirs.descriptors)
        });
        if named && !same_number {
            return perhaps("it may have opened it by its name");
        }
        match user {
            Some(user) => Role {
                hold: Hold::Held,
                why: format!(
                    "inherited: {} uses it, and this one waits elsewhere",
                    self.snapshot.label(user)
                ),
            },
            None => perhaps("shared with its family, none of which was seen using it"),
        }
    }

    fn process(&self, pid: u32) -> Option<&'a Process> {
        self.snapshot.process(pid)
    }

    fn family(&self, pid: u32) -> u32 {
        self.families.get(&pid).copied().unwrap_or(pid)
    }
}

/// Which way a wait goes.
fn directions(need: Need) -> &'static [usize] {
    match need {
        Need::Data | Need::Client | Need::Writer => &[READS],
        Need::Room | Need::Acceptance | Need::Delivery | Need::Reader => &[WRITES],
        Need::Release | Need::Count | Need::Change => &[READS, WRITES],
    }
}

/// Whether each of its threads was seen in a wait: then it does nothing else.
fn is_idle(process: &Process) -> bool {
    !process.threads.is_empty()
        && process.threads.iter().all(|thread| thread.wait.is_some() && thread.state != 'R')
}

fn better(known: &mut Option<Role>, more: Option<&Role>) {
    if let Some(more) = more
        && known.as_ref().is_none_or(|known| known.hold < more.hold)
    {
        *known = Some(more.clone());
    }
}
