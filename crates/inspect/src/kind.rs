//! The kinds of objects: one table, a row each.
//!
//! Source: docs/design/inspect.md, "Kinds and identities".

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An anonymous pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A Unix-domain socket.
    Unix,
    /// A TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
    /// A socket of another family.
    Socket,
    /// A POSIX message queue.
    Mq,
    /// A System V message queue.
    SysvMsg,
    /// A set of System V semaphores.
    SysvSem,
    /// A System V shared memory segment.
    SysvShm,
    /// POSIX shared memory, a file in `/dev/shm`.
    PosixShm,
    /// A POSIX named semaphore.
    PosixSem,
    /// Memory without a name.
    Memfd,
    /// Memory shared with forked children.
    #[serde(rename = "anon")]
    Anonymous,
    /// A file that is mapped and shared.
    Mapping,
    /// An eventfd.
    Eventfd,
    /// A signalfd.
    Signalfd,
    /// A timer as a descriptor.
    Timerfd,
    /// An epoll instance.
    Epoll,
    /// A watch on files.
    Inotify,
    /// A process as a descriptor.
    Pidfd,
    /// A pseudo-terminal.
    Pty,
    /// A file with locks.
    Lock,
    /// A word that threads sleep on: a lock, a condition.
    Futex,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// Its word on the command line, and the beginning of its ids.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    /// What identifies one.
    pub identity: &'static str,
    /// What of it cannot be seen.
    pub hidden: &'static str,
}

/// Every kind, in the order of lists.
pub const TABLE: &[Row] = &[
    row(Kind::Pipe, "pipe", "anonymous pipe", "pipe:INODE", ""),
    row(
        Kind::Fifo,
        "fifo",
        "named pipe that somebody has open or opens",
        "fifo:MAJOR:MINOR:INODE",
        "FIFOs that nobody has open",
    ),
    row(
        Kind::Unix,
        "unix",
        "Unix-domain socket",
        "unix:INODE, or unix:MAJOR:MINOR:INODE of a file without a socket",
        "how many datagrams wait",
    ),
    row(Kind::Tcp, "tcp", "TCP socket", "tcp:INODE, or its addresses once it is closed", ""),
    row(Kind::Udp, "udp", "UDP socket", "udp:INODE", "how many datagrams wait"),
    row(Kind::Socket, "socket", "socket of another family", "socket:INODE", "its addresses"),
    row(Kind::Mq, "mq", "POSIX message queue", "mq:MAJOR:MINOR:INODE", "what is in it"),
    row(
        Kind::SysvMsg,
        "sysv-msg",
        "System V message queue",
        "sysv-msg:ID",
        "who waits, without the right to trace it",
    ),
    row(
        Kind::SysvSem,
        "sysv-sem",
        "set of System V semaphores",
        "sysv-sem:ID",
        "who holds a count",
    ),
    row(Kind::SysvShm, "sysv-shm", "System V shared memory", "sysv-shm:ID", ""),
    row(Kind::PosixShm, "posix-shm", "POSIX shared memory", "posix-shm:MAJOR:MINOR:INODE", ""),
    row(
        Kind::PosixSem,
        "posix-sem",
        "POSIX named semaphore",
        "posix-sem:MAJOR:MINOR:INODE",
        "who holds a count",
    ),
    row(Kind::Memfd, "memfd", "memory without a name", "memfd:INODE", ""),
    row(Kind::Anonymous, "anon", "memory shared with forked children", "anon:INODE", ""),
    row(Kind::Mapping, "mapping", "mapped and shared file", "mapping:MAJOR:MINOR:INODE", ""),
    row(Kind::Eventfd, "eventfd", "event counter", "eventfd:NUMBER", ""),
    row(
        Kind::Signalfd,
        "signalfd",
        "signals as a descriptor",
        "signalfd:PID/FD",
        "which processes share one",
    ),
    row(
        Kind::Timerfd,
        "timerfd",
        "timer as a descriptor",
        "timerfd:PID/FD",
        "which processes share one",
    ),
    row(Kind::Epoll, "epoll", "epoll instance", "epoll:PID/FD", "which processes share one"),
    row(Kind::Inotify, "inotify", "watch on files", "inotify:PID/FD", "which processes share one"),
    row(Kind::Pidfd, "pidfd", "process as a descriptor", "pidfd:INODE", ""),
    row(
        Kind::Pty,
        "pty",
        "pseudo-terminal",
        "pty:NUMBER, its master's side pty:NUMBER/master",
        "what is typed and not read; which mount of devpts it is of",
    ),
    row(
        Kind::Lock,
        "lock",
        "file with locks on it",
        "lock:MAJOR:MINOR:INODE",
        "locks of other machines on a shared file system",
    ),
    row(
        Kind::Futex,
        "futex",
        "lock or condition in memory on which a thread sleeps",
        "futex:MAJOR:MINOR:INODE+OFFSET, or futex:PID+ADDRESS if private",
        "those on which nobody sleeps; locks that are not the C library's have no owner",
    ),
];

const fn row(
    kind: Kind,
    name: &'static str,
    what: &'static str,
    identity: &'static str,
    hidden: &'static str,
) -> Row {
    Row { kind, name, what, identity, hidden }
}

impl Kind {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.kind == self).unwrap_or(&TABLE[0])
    }

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The kind of this word.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.kind)
    }

    /// Memory that processes have in common.
    #[must_use]
    pub fn is_memory(self) -> bool {
        matches!(
            self,
            Self::SysvShm
                | Self::PosixShm
                | Self::PosixSem
                | Self::Memfd
                | Self::Anonymous
                | Self::Mapping
        )
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// Whether it is one of them.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether one of them is.
    #[must_use]
    pub fn has_any(self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|&kind| self.has(kind))
    }

    /// With one more.
    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// Each.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        TABLE.iter().map(|row| row.kind).filter(move |&kind| self.has(kind))
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for row in TABLE {
            assert_eq!(Kind::named(row.name), Some(row.kind));
            assert!(row.identity.starts_with(&format!("{}:", row.name)), "{}", row.name);
            let json = serde_json::to_string(&row.kind).expect("JSON");
            assert!(serde_json::from_str::<Kind>(&json).expect("a kind") == row.kind);
        }
        assert_eq!(Kinds::ALL.iter().count(), TABLE.len());
        assert!(Kinds::NONE.with(Kind::Futex).has(Kind::Futex));
    }
}
