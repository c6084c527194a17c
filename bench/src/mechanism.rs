//! What is measured, and how its processes are started.
//!
//! The objects are made here and inherited ([`objects`](crate::objects)), so that the C and the Rust
//! program use the very same ones and differ only in how they use them.

use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::{io, pipe};

use crate::huge_pages::HugePages;
use crate::objects::Objects;
use crate::peer::{IN, OUT};
use crate::scratch::Scratch;
use crate::{Failure, PEER};

use Operation::{Alone, OneWay, RoundTrip};

/// Every mechanism that is measured, and what is done with it.
pub(crate) const TABLE: &Table = &[
    ("pipe", &[RoundTrip, OneWay]),
    ("fifo", &[RoundTrip, OneWay]),
    ("unix-stream", &[RoundTrip, OneWay]),
    ("unix-dgram", &[RoundTrip, OneWay]),
    ("unix-seqpacket", &[RoundTrip, OneWay]),
    ("posix-mq", &[RoundTrip, OneWay]),
    ("sysv-msg", &[RoundTrip, OneWay]),
    ("tcp", &[RoundTrip, OneWay]),
    ("udp", &[RoundTrip, OneWay]),
    ("pty", &[RoundTrip, OneWay]),
    ("eventfd", &[RoundTrip, OneWay]),
    // These say that something happened, and carry no bytes.
    ("posix-sem", &[RoundTrip, Alone]),
    ("posix-sem-named", &[RoundTrip, Alone]),
    ("sysv-sem", &[RoundTrip, Alone]),
    ("futex", &[RoundTrip, Alone]),
    ("futex-waitv", &[RoundTrip, Alone]),
    ("pthread", &[RoundTrip, Alone]),
    ("signal", &[RoundTrip, Alone]),
    ("signalfd", &[RoundTrip, Alone]),
    // What one process does for itself.
    ("sysv-sem-undo", &[Alone]),
    ("sysv-sem-several", &[Alone]),
    ("timerfd", &[Alone]),
    ("timerfd-idle", &[Alone]),
    ("epoll", &[Alone]),
    ("epoll-add", &[Alone]),
    ("signal-handler", &[Alone]),
    ("pthread-mutex", &[Alone]),
    ("flock", &[Alone]),
    ("process-lock", &[Alone]),
    ("open-file-lock", &[Alone]),
    ("inotify", &[Alone]),
    ("splice", &[Alone]),
    ("tee", &[Alone]),
    ("vmsplice", &[Alone]),
    ("memory-in-64", &[Alone]),
    ("memory-out-64", &[Alone]),
    ("memory-in-4096", &[Alone]),
    ("memory-out-4096", &[Alone]),
    ("watched-in-64", &[Alone]),
    ("watched-out-64", &[Alone]),
    ("watched-in-4096", &[Alone]),
    ("watched-out-4096", &[Alone]),
    ("mmap-made", &[Alone]),
    ("mmap-grow", &[Alone]),
    ("mmap-private", &[Alone]),
    ("mmap-advice", &[Alone]),
    ("msync", &[Alone]),
    ("memfd", &[Alone]),
    ("memfd-sealed", &[Alone]),
    (HUGE, &[Alone]),
    ("posix-shm", &[Alone]),
    ("posix-shm-open", &[Alone]),
    ("sysv-shm", &[Alone]),
    ("sysv-shm-attach", &[Alone]),
    ("sysv-key", &[Alone]),
    ("posix-sem-made", &[Alone]),
    ("posix-sem-open", &[Alone]),
    ("pty-made", &[Alone]),
    ("pidfd", &[Alone]),
    ("process-stat", &[Alone]),
    ("spawn", &[Alone]),
    ("orphan", &[Alone]),
];

/// Every pattern that is measured against what it is made of. `event-signal` is `signal:` and so on;
/// states are over `posix-shm:`.
pub(crate) const PATTERNS: &Table = &[
    ("event-sem", &[RoundTrip, Alone]),
    ("event-sysv-sem", &[RoundTrip, Alone]),
    ("event-signal", &[RoundTrip, Alone]),
    ("state-watch", &[RoundTrip]),
    ("state-set-64", &[Alone]),
    ("state-get-64", &[Alone]),
    ("state-set-4096", &[Alone]),
    ("state-get-4096", &[Alone]),
];

/// Needs what not every machine has.
const HUGE: &str = "memfd-huge";

/// What is measured, and what is done with it.
pub(crate) type Row = (&'static str, &'static [Operation]);
pub(crate) type Table = [Row];

/// Rows that are to be measured.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) rows: Vec<Row>,
    /// What this machine cannot do, and why.
    pub(crate) left_out: Vec<(&'static str, String)>,
    /// Held until all is measured.
    _pages: Option<HugePages>,
}

impl Chosen {
    /// Says what is missing, in words.
    pub(crate) fn print_left_out(&self) {
        for (mechanism, why) in &self.left_out {
            println!("not measured: {mechanism}: {why}");
        }
    }
}

/// The rows of a table with these names, all if there are none.
pub(crate) fn chosen(table: &'static Table, only: &[String]) -> Result<Chosen, Failure> {
    if let Some(unknown) = only.iter().find(|name| table.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        return Err(format!("no mechanism {unknown:?}; there are {known:?}").into());
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let rows = table.iter().filter(|(name, _)| wanted(name)).copied().collect();
    let mut chosen = Chosen { rows, left_out: Vec::new(), _pages: None };
    if chosen.rows.iter().any(|(name, _)| *name == HUGE) {
        match HugePages::set_aside() {
            Ok(pages) => chosen._pages = Some(pages),
            Err(why) => {
                chosen.rows.retain(|(name, _)| *name != HUGE);
                chosen.left_out.push((HUGE, why));
            }
        }
    }
    Ok(chosen)
}

/// Which program is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Rust,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Rust => "Rust",
        }
    }

    /// The program and its first arguments.
    pub(crate) fn command(self) -> Result<Vec<String>, Failure> {
        Ok(match self {
            Self::C => vec![env!("PEER_C").to_owned()],
            Self::Rust => {
                let own = std::env::current_exe()?;
                vec![own.to_string_lossy().into_owned(), PEER.to_owned()]
            }
        })
    }
}

/// What is done over a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    RoundTrip,
    OneWay,
    /// The near side only, which does both halves itself.
    Alone,
}

impl Operation {
    pub(crate) const ALL: [Self; 3] = [RoundTrip, OneWay, Alone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            RoundTrip => "round-trip",
            OneWay => "one-way",
            Alone => "alone",
        }
    }

    /// The processes it takes, in the order in which they are started.
    pub(crate) fn sides(self) -> &'static [&'static str] {
        if self == Alone { &["near"] } else { &["far", "near"] }
    }
}

/// A run of two processes, or of one alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) mechanism: &'static str,
    pub(crate) operation: Operation,
    pub(crate) count: usize,
    pub(crate) warm_up: usize,
    /// Where the near and the far side run.
    pub(crate) cpus: (usize, usize),
}

impl Run {
    /// Runs all sides, and gives what the side that measures printed. `around` may put another
    /// program around a side's: it gets the side's name and its words.
    pub(crate) fn start(
        &self,
        language: Language,
        scratch: &Scratch,
        around: impl Fn(&str, Vec<String>) -> Vec<String>,
    ) -> Result<String, Failure> {
        let mut objects = Objects::new(self, scratch)?;
        let (reader, writer) = pipe::pipe()?;
        let mut children: Vec<Child> = Vec::new();
        for side in self.operation.sides() {
            let (end, cpu) = match *side {
                "far" => (&mut objects.far, self.cpus.1),
                _ => (&mut objects.near, self.cpus.0),
            };
            let mut words = language.command()?;
            let numbers = [self.count, self.warm_up, cpu].map(|number| number.to_string());
            let ids = [end.out_id, end.in_id].map(|id| id.to_string());
            words.extend([self.mechanism, self.operation.name(), side].map(str::to_owned));
            words.extend(numbers);
            words.extend(ids);
            let words = around(side, words);
            let mut spawn = Spawn::new(&words[0])
                .args(&words[1..])
                .stdout(io::duplicate(&writer)?)
                .die_with_parent();
            for (number, fd) in [(OUT, end.out.take()), (IN, end.from.take())] {
                if let Some(fd) = fd {
                    spawn = spawn.descriptor(number, fd);
                }
            }
            children.push(spawn.spawn()?);
        }
        drop(writer);
        let mut printed = vec![0; 4096];
        let len = io::read_full(&reader, &mut printed)?;
        for mut child in children {
            let status = child.wait(io::Deadline::NEVER)?;
            if !status.is_some_and(|status| status.success()) {
                return Err(format!("{self:?} in {}: {status:?}", language.name()).into());
            }
        }
        Ok(String::from_utf8_lossy(&printed[..len]).trim().to_owned())
    }
}
