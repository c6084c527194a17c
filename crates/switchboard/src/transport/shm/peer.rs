//! The process at the other end of a connection, as the kernel knows it.
//!
//! Source: `unix(7)`, `socket(7)` (`SO_PEERCRED`, `SO_PEERPIDFD`), `pid_namespaces(7)`.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use switchboard_kernel as kernel;
use switchboard_kernel::{pidfd, process, unix_socket};

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its process; none if that has no id in this process's PID namespace.
    pub(crate) pid: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The name of its program, by the kernel's word; else by its own, or none.
    pub(crate) program: String,
}

impl Peer {
    /// Who connected, or who listens.
    ///
    /// # Errors
    /// `ENOTCONN`: the peer is gone.
    pub(super) fn of(socket: BorrowedFd<'_>) -> kernel::Result<Self> {
        let credentials = unix_socket::peer_credentials(socket)?;
        let program = credentials.pid.and_then(process::command_name).unwrap_or_default();
        Ok(Self { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid, program })
    }

    /// Whether it may see what this process counts: it could read all its memory as well.
    pub(super) fn may_look(&self) -> bool {
        self.uid == 0 || self.uid == process::effective_user_id()
    }

    /// Takes the name that it says it has, where the kernel says none.
    pub(super) fn named(mut self, program: &str) -> Self {
        if self.program.is_empty() {
            program.clone_into(&mut self.program);
        }
        self
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => f.write_str("a process of another PID namespace")?,
        }
        if self.program.is_empty() { Ok(()) } else { write!(f, " ({})", self.program) }
    }
}

/// The process that listens or connected, as a descriptor.
#[derive(Debug)]
pub(super) enum Process {
    /// It lives, and its descriptor becomes readable when it dies.
    Alive(OwnedFd),
    /// It cannot be watched.
    Unknown,
    /// For certain.
    Dead,
}

/// Looks for the process of a peer.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`: there is no descriptor for it.
pub(super) fn process_of(socket: BorrowedFd<'_>, peer: &Peer) -> kernel::Result<Process> {
    use kernel::ErrorKind as K;
    match unix_socket::peer_process(socket) {
        Ok(process) if pidfd::is_dead(&process)? => Ok(Process::Dead),
        Ok(process) => Ok(Process::Alive(process)),
        Err(error) => match error.kind() {
            K::TooManyFiles | K::TooManyFilesInSystem | K::OutOfMemory => Err(error),
            K::Gone if is_gone(peer.pid) => Ok(Process::Dead),
            // In another PID namespace; or what the kernel knows of it does not suffice (before 6.5):
            // the end of the connection has to do.
            _ => Ok(Process::Unknown),
        },
    }
}

/// Whether there is no process of this id.
fn is_gone(pid: Option<u32>) -> bool {
    let opened = pid.map(pidfd::open);
    opened.is_some_and(|opened| opened.is_err_and(|error| error.name() == "ESRCH"))
}
