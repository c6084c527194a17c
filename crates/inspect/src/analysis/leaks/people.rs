//! Who lives, who may use an object, and who could not be looked into.
//!
//! Source: docs/design/leaks.md, "Who lives". A process id can have gone to another process: what was started after the id was written
//! down is another one.

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::model::{Object, Process, Snapshot, WaitOn};

use super::super::wakers::Grade;
use super::Case;

/// System V times are whole seconds, and clocks are corrected: who was started so much later, or less, may be the same.
const SLACK_MS: u64 = 2_000;
/// Process starts are counted in these; the kernel's `USER_HZ`, the same on every machine that is supported.
const TICKS_PER_SECOND: u64 = 100;

/// The processes of a snapshot, as far as leaks are concerned.
#[derive(Debug)]
pub(super) struct People<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Those who could hold what is not seen.
    unreadable: Vec<&'a Process>,
    /// Objects for which some thread waits.
    waited_for: BTreeSet<&'a str>,
    /// Sockets with descriptors in flight of which it is not known what they are: the sockets' users.
    unknown_in_flight: BTreeSet<Option<u32>>,
}

/// What became of a process whose id the kernel wrote down.
#[derive(Debug)]
pub(super) enum Fate<'a> {
    /// It has ended.
    Gone,
    /// It has ended: its id is another one's.
    Reused(&'a Process),
    /// It lives.
    Lives(&'a Process),
    /// That cannot be told, and why.
    Unknown(&'static str),
}

impl<'a> People<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let processes = snapshot.processes.iter();
        let waits = processes.clone().flat_map(|one| &one.threads).filter_map(|t| t.wait.as_ref());
        let targets = waits.filter_map(|wait| match &wait.on {
            WaitOn::Objects(targets) => Some(targets),
            _ => None,
        });
        let waited_for = targets.flatten().map(|target| target.object.as_str()).collect();
        let flying = snapshot.objects.iter().filter(|o| o.details.get(UNKNOWN_IN_FLIGHT).is_some());
        Self {
            snapshot,
            unreadable: processes.filter(|one| !one.kernel && !one.readable).collect(),
            waited_for,
            unknown_in_flight: flying.map(|socket| socket.uid).collect(),
        }
    }

    /// What became of the process that had this id at this time, or before.
    pub(super) fn fate(&self, pid: u32, by_ms: Option<u64>) -> Fate<'a> {
        if pid == 0 {
            return Fate::Unknown("it is of a PID namespace that is not seen from here");
        }
        match self.snapshot.process(pid) {
            None if self.snapshot.coverage.hides_processes => {
                Fate::Unknown("processes of others are hidden here (hidepid=)")
            }
            None => Fate::Gone,
            // It cannot do anything any more.
            Some(process) if process.is_zombie() => Fate::Gone,
            Some(process) => match (self.started_ms(process), by_ms) {
                (Some(started), Some(by)) if started > by.saturating_add(SLACK_MS) => {
                    Fate::Reused(process)
                }
                _ => Fate::Lives(process),
            },
        }
    }

    /// When a process was started, by the clock.
    pub(super) fn started_ms(&self, process: &Process) -> Option<u64> {
        let since_boot = process.started_ticks.saturating_mul(1000 / TICKS_PER_SECOND);
        Some(self.snapshot.booted_unix_ms?.saturating_add(since_boot))
    }

    /// A process of the session that one that is gone began: a child of it, or a grandchild.
    pub(super) fn kin(&self, pid: u32) -> Option<&'a Process> {
        let mut all = self.living();
        all.find(|one| pid != 0 && one.session == pid && one.pid != pid)
    }

    /// Everybody who can do something, but the viewer.
    pub(super) fn living(&self) -> impl Iterator<Item = &'a Process> + use<'a> {
        let viewer = self.snapshot.viewer.pid;
        let all = self.snapshot.processes.iter();
        all.filter(move |one| !one.kernel && !one.is_zombie() && one.pid != viewer)
    }

    /// One that lives and has this on its command line: it was told the name, and may be about to use it. Who looks was told it to look, and so was
    /// who started that.
    pub(super) fn told(&self, name: &str) -> Option<&'a Process> {
        let mut lookers = BTreeSet::new();
        let mut next = Some(self.snapshot.viewer.pid);
        while let Some(pid) = next.filter(|pid| lookers.insert(*pid)) {
            next = self.snapshot.process(pid).map(|one| one.parent);
        }
        let mut all = self.living().filter(|one| !lookers.contains(&one.pid));
        all.find(|one| one.command.iter().any(|word| word.contains(name)))
    }

    /// Whether some thread waits for it.
    pub(super) fn is_waited_for(&self, object: &Object) -> bool {
        self.waited_for.contains(object.id.as_str())
    }

    /// One of those who may use a System V object by its id, and live in its namespace, or may.
    pub(super) fn candidate(&self, object: &Object) -> Option<&'a Process> {
        let namespace = object.namespace.or(self.snapshot.viewer.ipc);
        self.living().find(|one| {
            let is_here = one.namespaces.ipc.is_none_or(|ipc| Some(ipc) == namespace);
            is_here && may_use(object, one.uid, one.gid)
        })
    }

    /// What stands against an object that is held by descriptors and mappings, and of which none was seen.
    pub(super) fn unseen_holders(&self, case: &mut Case, object: &Object) {
        // The first process starts others, and shares with none.
        let may = |one: &&&Process| one.pid != 1 && may_use(object, one.uid, one.gid);
        let own = self.unreadable.iter().filter(may).count();
        let roots = self.unreadable.iter().filter(|one| one.uid == 0 || one.pid == 1).count();
        if own > 0 {
            let them = processes(own, "that may use it");
            let text = format!("what is held by {them}: not to be looked into");
            case.unknown(Grade::Possible, text);
        } else if roots > 0 {
            let text =
                format!("what is held by {}: not to be looked into", processes(roots, "of root"));
            case.unknown(Grade::Probable, text);
        }
        self.unseen_in_rings(case, object);
        if self.snapshot.coverage.outside {
            // A FIFO lies in folders that containers share; memory and queues do so where the IPC namespace is the machine's.
            let shared = object.kind == Kind::Fifo
                || self.snapshot.viewer.ipc.is_none_or(|ipc| ipc == FIRST_IPC);
            let most = if shared { Grade::Possible } else { Grade::Probable };
            case.unknown(most, OUTSIDE);
        }
        if !self.snapshot.coverage.in_flight {
            case.unknown(Grade::Probable, "whether a descriptor of it is in flight in a socket");
        }
        let mut senders = self.unknown_in_flight.iter();
        if senders.any(|uid| uid.is_none_or(|uid| uid == 0 || may_use(object, uid, u32::MAX))) {
            let text =
                "a descriptor of it may be in flight in a socket: which ones are could not be seen";
            case.unknown(Grade::Possible, text);
        }
    }

    /// What may be held by an io_uring alone.
    fn unseen_in_rings(&self, case: &mut Case, object: &Object) {
        let hide = self.living().filter(|one| one.rings.unknown > 0);
        let (own, others): (Vec<&Process>, Vec<&Process>) =
            hide.partition(|one| may_use(object, one.uid, one.gid));
        let text = |one: &Process| {
            format!("what is registered with io_urings of {}: that could not be told", one.label())
        };
        if let Some(one) = own.first() {
            case.unknown(Grade::Possible, text(one));
        } else if let Some(one) = others.first() {
            case.unknown(Grade::Probable, text(one));
        }
        if let Some(one) = self.living().find(|one| one.rings.busy > 0) {
            let text = format!(
                "what requests are about that may be under way in io_urings of {}",
                one.label()
            );
            case.unknown(Grade::Probable, text);
        }
    }
}

/// What is not known of a set whose last users have ended.
pub(super) const UNDO: &str = "whether one who used it before lives and has operations to undo (SEM_UNDO): the kernel shows only who used each semaphore last";

/// What is not known to who looks from within a container.
pub(super) const OUTSIDE: &str =
    "who lives outside of this PID namespace: they are not seen from here";
/// The number of the first IPC namespace, which never changes (`PROC_IPC_INIT_INO`).
const FIRST_IPC: u64 = 0xefff_ffff;

fn processes(count: usize, which: &str) -> String {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    format!("{} {which}", crate::text::counted(count, "process", "processes"))
}

/// The detail of a socket with descriptors in flight of which it is not known what they are.
pub(crate) const UNKNOWN_IN_FLIGHT: &str = "descriptors in flight, not identified";
/// The detail of what is held by a descriptor in flight.
pub(crate) const IN_FLIGHT: &str = "in flight";

/// Whether somebody may use it by owner and mode. Root may use everything, and counts where it is its own.
fn may_use(object: &Object, uid: u32, gid: u32) -> bool {
    let mode = object.mode.unwrap_or(0);
    let made_by = object.details.get("made by user").and_then(|text| text.parse().ok());
    object.uid.is_none_or(|owner| owner == uid)
        || made_by == Some(uid)
        || mode & 0o006 != 0
        || (mode & 0o060 != 0 && object.gid == Some(gid))
}
