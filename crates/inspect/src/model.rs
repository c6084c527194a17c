//! What the inspector knows of a machine at one moment: objects, their ends, processes, and their waits.
//!
//! Source: docs/design/inspect.md. Everything here can be written as JSON and read again, so that each
//! analysis works on a recorded machine as on the live one. All text is escaped ([`crate::text`]).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use crate::details::Details;
use crate::kind::Kind;
pub use crate::times::Times;
pub use crate::traffic::{SocketUse, Traffic};

/// The layout of a snapshot as JSON; a reader refuses others.
pub const FORMAT: u32 = 1;

/// Everything that was seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    /// When, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// When the machine was started, by the same clock: from then on processes count theirs. None: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_unix_ms: Option<u64>,
    /// When, in milliseconds since the machine was started, by a clock that nobody sets; 0 where unknown.
    #[serde(default)]
    pub since_boot_ms: u64,
    /// The machine's name and its kernel.
    pub machine: String,
    /// Who looked.
    pub viewer: Viewer,
    /// How much could be seen.
    pub coverage: Coverage,
    /// By process id.
    pub processes: Vec<Process>,
    /// By kind, then id.
    pub objects: Vec<Object>,
    /// Limits in force, if they were asked for.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What the kernel can do, if that was asked for.
    #[serde(default)]
    pub features: Vec<Feature>,
}

/// A limit, and how near it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Of what.
    pub name: String,
    /// How much of it is used; none: that is unknown, or differs from object to object.
    pub used: Option<u64>,
    /// The limit.
    pub most: u64,
    /// What sets it.
    pub set_by: String,
    /// A command that raises it; none where the kernel allows no more.
    #[serde(default)]
    pub raise: Option<String>,
}

impl Limit {
    /// Whether nine tenths are used, or more.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let near = |used: u64| used.saturating_mul(10) >= self.most.saturating_mul(9);
        self.used.is_some_and(near) && self.most > 0
    }
}

/// Something that the kernel can do, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// What.
    pub name: String,
    /// Whether it is there, for this user.
    pub there: bool,
    /// What is missing without it, and how to get it.
    pub without: String,
}

/// Who looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Viewer {
    /// The effective user.
    pub uid: u32,
    /// The process.
    pub pid: u32,
    /// Its network namespace, in which addresses are written without a namespace.
    pub net: Option<u64>,
    /// Its IPC namespace, likewise.
    pub ipc: Option<u64>,
}

/// How much could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Processes that are no kernel threads.
    pub processes: u32,
    /// Those whose descriptors could be read.
    pub readable: u32,
    /// Those whose waits were asked for and could be read.
    pub waits_readable: u32,
    /// The kernel's own threads, which hold nothing.
    pub kernel_threads: u32,
    /// Kinds that were looked for; nothing is known of others.
    pub kinds: Vec<Kind>,
    /// Whether waits were looked for.
    pub waits: bool,
    /// What could not be seen, and why, a sentence each.
    pub missing: Vec<String>,
    /// Processes of others are hidden as a whole (`hidepid=`): that one is not there does not mean that it has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hides_processes: bool,
    /// Only processes of one PID namespace were seen, as in a container: others may live outside of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    /// Whether descriptors in flight in sockets were looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_flight: bool,
    /// Folders in which files of sockets and FIFOs were looked for, a phrase each; none: nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

impl Coverage {
    /// Whether everybody who could hold an end was seen: every process of the machine, with its descriptors.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.readable == self.processes && !self.hides_processes && !self.outside
    }
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id in the viewer's PID namespace.
    pub pid: u32,
    /// Its parent's; 0 for none, or one of another namespace.
    pub parent: u32,
    /// Its session, by the process that began it.
    pub session: u32,
    /// The name of its first thread.
    pub name: String,
    /// Its command line; empty if it was not asked for, or for a kernel thread.
    pub command: Vec<String>,
    /// The letter of `proc_pid_stat(5)`: `R`, `S`, `D`, `T`, `Z` …
    pub state: char,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// When it was started, in clock ticks since boot: with the id, its identity.
    pub started_ticks: u64,
    /// A thread of the kernel.
    pub kernel: bool,
    /// Its id in its own PID namespace, if that is another one.
    pub inner_pid: Option<u32>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// The path of its control group, escaped; empty if command lines were not asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// Signals that it handles, a bit each.
    pub caught_signals: u64,
    /// Whether its descriptors could be read.
    pub readable: bool,
    /// Descriptors it has open, of any kind; 0 if unreadable.
    pub descriptors: u32,
    /// The thread that traces its first one, as a debugger does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer: Option<u32>,
    /// It has an io_uring: what it waits for and does there cannot be seen.
    pub io_uring: bool,
    /// What its io_urings hold of which it could not be told what it is, if that was asked for.
    #[serde(default, skip_serializing_if = "Rings::is_clear")]
    pub rings: Rings,
    /// What it read and wrote, if that was asked for and may be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Traffic>,
    /// Its threads, if waits were asked for.
    pub threads: Vec<Thread>,
}

impl Process {
    /// Whether a signal stopped it, or a debugger.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Its name and id: `postgres[812]`. A name that could be taken for something else is in quotes.
    #[must_use]
    pub fn label(&self) -> String {
        let plain = |c: char| c.is_alphanumeric() || "._-+:/@~#%".contains(c);
        if !self.name.is_empty() && self.name.chars().all(plain) {
            format!("{}[{}]", self.name, self.pid)
        } else {
            format!("\"{}\"[{}]", self.name.replace('"', "\\\""), self.pid)
        }
    }

    /// Whether it ended and was not waited for.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// What a process's io_urings hold, and does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// Registered files, and rings as a whole, of which it could not be told what they are.
    pub unknown: u32,
    /// Rings in which requests may be under way: what these are about is not shown.
    pub busy: u32,
}

impl Rings {
    /// Whether all that they hold is known.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

/// Which namespaces a process is in, by inode; none where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespaces {
    /// System V objects and POSIX queues.
    pub ipc: Option<u64>,
    /// Sockets.
    pub net: Option<u64>,
    /// Process ids.
    pub pid: Option<u64>,
    /// Mounted file systems.
    pub mnt: Option<u64>,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id in the viewer's PID namespace.
    pub tid: u32,
    /// Its own name.
    pub name: String,
    /// Its id in its own PID namespace, if that is another one.
    pub inner_tid: Option<u32>,
    /// The letter of `proc_pid_stat(5)`.
    pub state: char,
    /// What it waits for; none while it runs, or where that is unreadable.
    pub wait: Option<Wait>,
}

/// Why a thread sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The system call, by name: `read`, `futex`.
    pub call: String,
    /// The kernel's function it sleeps in, if that could be read.
    pub channel: Option<String>,
    /// What ends it.
    pub on: WaitOn,
    /// It ends by itself, too.
    pub timed: bool,
    /// Why it may end by itself all the same: what decides that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// Whether it was found in the very same wait a while later; none: nobody looked twice.
    pub steady: Option<bool>,
    /// For how long, and how far that may be wrong; milliseconds.
    pub since_ms: Option<(u64, u64)>,
}

/// What ends a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitOn {
    /// Any one of these.
    Objects(Vec<Target>),
    /// The end of one of these children.
    Children(Vec<u32>),
    /// A signal.
    Signal,
    /// Time.
    Time,
    /// Another thread of its process, or the kernel: in words.
    Other(String),
}

/// What a thread wants of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The object's id.
    pub object: String,
    /// What has to happen.
    pub need: Need,
    /// The descriptor it was called with.
    pub fd: Option<i32>,
    /// The threads known to hold what is wanted, by thread id; for locks with an owner.
    pub owners: Vec<u32>,
    /// Whether the owners are certain, not just those who used it last.
    pub sure: bool,
    /// Whether there are several locks, each of which has to go.
    pub every: bool,
    /// Of several locks, of each those who have it: any of them can let go of that one. Empty: each owner has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<Vec<u32>>,
    /// The owner that is written in the lock is the id of no thread that is there.
    pub dead_owner: Option<u32>,
    /// More, in words: `index 2, wants -1`.
    pub detail: Option<String>,
}

/// What has to happen so that a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Something to read, or its end.
    Data,
    /// Room to write.
    Room,
    /// Somebody connects.
    Client,
    /// Somebody accepts.
    Acceptance,
    /// Who has it takes out what is there, so that there is room for what is sent to it.
    Delivery,
    /// Somebody opens the other end.
    Reader,
    /// Somebody opens the other end.
    Writer,
    /// Its holder lets go.
    Release,
    /// A semaphore's count grows, or shrinks to zero.
    Count,
    /// A word changes: a condition, a barrier, a private lock.
    Change,
}

/// One pipe, one socket, one segment, one lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name here, which every command takes: `pipe:4471`.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Paths, keys, addresses; escaped.
    pub names: Vec<String>,
    /// Who owns it.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// How much it holds at most, or its size: bytes, or messages for POSIX queues, or connections for listeners.
    pub size: Option<u64>,
    /// How much is in it, in the same unit.
    pub fill: Option<u64>,
    /// `listening`, `established`; none where there is nothing to say.
    pub state: Option<Cow<'static, str>>,
    /// The object at the other end, by id: sockets.
    pub peer: Option<String>,
    /// The namespace in which its name means something, if that is not the viewer's.
    pub namespace: Option<u64>,
    /// When it was made and used, where the kernel says.
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub times: Times,
    /// Of a socket: its memory and traffic, if details were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketUse>,
    /// More, by name.
    pub details: Details,
    /// Who has it.
    pub ends: Vec<End>,
    /// Of a file with locks: each.
    pub locks: Vec<Lock>,
}

impl Target {
    /// Something of an object, with nothing more known.
    #[must_use]
    pub fn new(object: impl Into<String>, need: Need) -> Self {
        Self {
            object: object.into(),
            need,
            fd: None,
            owners: Vec::new(),
            sure: false,
            every: false,
            locks: Vec::new(),
            dead_owner: None,
            detail: None,
        }
    }
}

impl Object {
    /// An object with nothing known of it yet.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind,
            names: Vec::new(),
            uid: None,
            gid: None,
            mode: None,
            size: None,
            fill: None,
            state: None,
            peer: None,
            namespace: None,
            times: Times::default(),
            socket: None,
            details: Details::default(),
            ends: Vec::new(),
            locks: Vec::new(),
        }
    }

    /// Whether connections come from it.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state.as_deref() == Some("listening")
    }

    /// Adds a name, once.
    pub fn add_name(&mut self, name: String) {
        if !name.is_empty() && !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

/// One hold of a process on an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct End {
    /// Who.
    pub pid: u32,
    /// How.
    pub via: Via,
    /// It can take out of it.
    pub reads: bool,
    /// It can put into it.
    pub writes: bool,
}

/// How a process has an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// An open descriptor.
    Fd(i32),
    /// Memory, at this address.
    Map(u64),
    /// Registered with the io_uring of this descriptor.
    Ring(i32),
    /// The last that used it, or its maker: it may do so again, as may others.
    Used,
    /// A thread of it waits for it.
    Waits,
}

/// A lock on a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Which of the kernel's.
    pub kind: LockKind,
    /// Alone, not shared.
    pub exclusive: bool,
    /// The process that took it; none: unknown, or of another namespace.
    pub taker: Option<u32>,
    /// Those who hold it now: forked children too.
    pub holders: Vec<u32>,
    /// The first byte.
    pub start: u64,
    /// The last byte; none: to the end of the file, however long.
    pub end: Option<u64>,
    /// Not had, but waited for.
    pub waiting: bool,
}

/// The kernel's kinds of file locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// `flock(2)`.
    Flock,
    /// `fcntl(F_SETLK)`, of a process.
    Posix,
    /// `fcntl(F_OFD_SETLK)`, of an open file description.
    OpenFile,
    /// A lease or a delegation.
    Lease,
}

impl Snapshot {
    /// The process of this id.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        let at = self.processes.binary_search_by_key(&pid, |process| process.pid).ok()?;
        self.processes.get(at)
    }

    /// The label of a process, also of one that is not there.
    #[must_use]
    pub fn label(&self, pid: u32) -> String {
        self.process(pid).map_or_else(|| format!("process {pid}"), Process::label)
    }

    /// The object of this id.
    #[must_use]
    pub fn object(&self, id: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.id == id)
    }

    /// Whether a process's parent ended before it. Its session is that of who made it, unless it began one; so a parent of another
    /// session is not who made it, but the first process of a PID namespace, or a subreaper, that took it over. Not told: one that began
    /// a session, as daemons do; one that was taken over by somebody of its own session.
    #[must_use]
    pub fn is_orphan(&self, process: &Process) -> bool {
        let Some(parent) = self.process(process.parent) else { return false };
        let began_one = process.session == process.pid;
        // One of a PID namespace beyond this one has no number here.
        let unknown = process.session == 0;
        !process.kernel
            && !parent.kernel
            && !began_one
            && !unknown
            && parent.session != process.session
    }

    /// The objects that a process holds.
    pub fn objects_of(&self, pid: u32) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.ends.iter().any(|end| end.pid == pid))
    }
}
