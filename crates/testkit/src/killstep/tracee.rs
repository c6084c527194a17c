//! One thread of another process, under this thread's control.
//!
//! Source: `ptrace(2)` (`PTRACE_SEIZE`, `PTRACE_SINGLESTEP`, `PTRACE_O_EXITKILL`), `waitpid(2)` (`__WALL`),
//! `proc_pid_stat(5)`, `proc_pid_mem(5)`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::libc::{self, user_regs_struct as Registers};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use crate::{DEADLINE, skip};

/// `PTRACE_EVENT_STOP`.
const EVENT_STOP: i32 = 128;

/// Asleep for so long in a system call, it waits for somebody.
const ASLEEP: Duration = Duration::from_millis(1);

/// Why a tracee stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// After an instruction.
    Step,
    /// At the begin or the end of a system call.
    SystemCall,
    /// Because it was interrupted, or by SIGSTOP.
    Interrupted,
    /// Before it gets a signal.
    Signal(i32),
    /// For good; how, in words.
    Gone(String),
}

/// A thread that is traced. Killed with its process when the tracing thread ends.
#[derive(Debug)]
pub(super) struct Tracee {
    thread: Pid,
    memory: File,
    status: File,
}

/// Whether `ptrace` is refused here; then the test is counted as skipped ([`skip::skip`]) and should
/// return.
///
/// # Panics
/// With `CI=true` in the environment, where nothing may be skipped.
#[must_use]
pub fn refused(test: &str) -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| try_it().err().map(|error| format!("ptrace: {error}")));
    if let Some(reason) = reason {
        skip::skip(test, reason);
    }
    reason.is_some()
}

fn try_it() -> io::Result<()> {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let outcome = Tracee::seize(child.id(), child.id().cast_signed()).map(drop);
    let _ = child.kill();
    child.wait()?;
    outcome
}

impl Tracee {
    /// Begins to trace a thread of a process, which does not stop for it.
    pub(super) fn seize(process: u32, thread: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(thread);
        let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACESYSGOOD;
        ptrace::seize(pid, options)?;
        Ok(Self {
            thread: pid,
            memory: File::open(format!("/proc/{process}/mem"))?,
            status: File::open(format!("/proc/{process}/task/{thread}/stat"))?,
        })
    }

    /// Its address space, as a file.
    pub(super) fn memory(&self) -> &File {
        &self.memory
    }

    pub(super) fn registers(&self) -> io::Result<Registers> {
        Ok(ptrace::getregs(self.thread)?)
    }

    /// Stops it, wherever it is.
    pub(super) fn interrupt(&self) -> io::Result<()> {
        Ok(ptrace::interrupt(self.thread)?)
    }

    /// One instruction, with a signal that it was stopped before.
    pub(super) fn step(&self, signal: Option<i32>) -> io::Result<()> {
        Ok(ptrace::step(self.thread, named(signal)?)?)
    }

    /// Until the next begin or end of a system call.
    pub(super) fn to_system_call(&self, signal: Option<i32>) -> io::Result<()> {
        Ok(ptrace::syscall(self.thread, named(signal)?)?)
    }

    /// It stops before it executes the instruction at this address, from now on: a debug register of
    /// the processor, so the code stays as it is.
    pub(super) fn break_at(&self, address: Option<u64>) -> io::Result<()> {
        const ENABLE_FIRST: libc::c_long = 1;
        self.set_debug_register(7, 0)?;
        if let Some(address) = address {
            self.set_debug_register(0, address.cast_signed())?;
            self.set_debug_register(7, ENABLE_FIRST)?;
        }
        Ok(())
    }

    fn set_debug_register(&self, which: usize, value: libc::c_long) -> io::Result<()> {
        let first = std::mem::offset_of!(libc::user, u_debugreg);
        let offset = std::ptr::without_provenance_mut(first + which * size_of::<libc::c_long>());
        Ok(ptrace::write_user(self.thread, offset, value)?)
    }

    /// Lets go of it.
    pub(super) fn detach(&self) -> io::Result<()> {
        Ok(ptrace::detach(self.thread, None)?)
    }

    /// Waits until it stops.
    pub(super) fn wait(&self) -> io::Result<Stop> {
        self.wait_with(WaitOptions::empty())?.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    /// Waits until it stops, in a system call that may sleep. None: it sleeps.
    pub(super) fn wait_in_system_call(&self) -> io::Result<Option<Stop>> {
        let mut asleep_since = None;
        loop {
            if let Some(stop) = self.wait_with(WaitOptions::NOHANG)? {
                return Ok(Some(stop));
            }
            if !self.sleeps() {
                asleep_since = None;
            } else if asleep_since.get_or_insert_with(Instant::now).elapsed() >= ASLEEP {
                return Ok(None);
            }
            std::thread::yield_now();
        }
    }

    /// Waits until it stops; none after [`DEADLINE`].
    pub(super) fn wait_within_deadline(&self) -> io::Result<Option<Stop>> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if let Some(stop) = self.wait_with(WaitOptions::NOHANG)? {
                return Ok(Some(stop));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(None)
    }

    /// Waits until it is gone, after SIGKILL. Who is reaped by others is gone too.
    pub(super) fn wait_gone(&self) {
        while let Ok(stop) = self.wait() {
            if matches!(stop, Stop::Gone(_)) {
                return;
            }
        }
    }

    fn wait_with(&self, options: WaitOptions) -> io::Result<Option<Stop>> {
        let wall = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let thread = rustix::process::Pid::from_raw(self.thread.as_raw());
        let found = rustix::io::retry_on_intr(|| waitpid(thread, options | wall))?;
        Ok(found.map(|(_, status)| meaning(status.as_raw())))
    }

    fn sleeps(&self) -> bool {
        let mut line = [0; 64];
        let len = self.status.read_at(&mut line, 0).unwrap_or(0);
        // PID (NAME) STATE: the name may have anything in it, but no more than 15 bytes.
        let after_name = line[..len].iter().rposition(|&byte| byte == b')');
        after_name.is_some_and(|end| line.get(end + 2) == Some(&b'S'))
    }
}

/// `nix` has no names for real-time signals.
fn named(signal: Option<i32>) -> io::Result<Option<Signal>> {
    Ok(signal.map(Signal::try_from).transpose()?)
}

fn meaning(status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Gone(format!("exit code {}", libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Gone(format!("signal {}", libc::WTERMSIG(status)));
    }
    match (libc::WSTOPSIG(status), status >> 16) {
        (_, EVENT_STOP) => Stop::Interrupted,
        (signal, _) if signal == libc::SIGTRAP | 0x80 => Stop::SystemCall,
        (libc::SIGTRAP, _) => Stop::Step,
        (signal, _) => Stop::Signal(signal),
    }
}

/// The text before the first zero byte at an address, 16 bytes at most: a thread's name.
pub(super) fn name_at(memory: &File, address: u64) -> Vec<u8> {
    let mut bytes = [0; 16];
    let len = memory.read_at(&mut bytes, address).unwrap_or(0);
    let text = bytes[..len].split(|&byte| byte == 0).next();
    text.unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        for (status, expected) in [
            (0x0300, Stop::Gone("exit code 3".to_owned())),
            (9, Stop::Gone("signal 9".to_owned())),
            (0x057f, Stop::Step),
            (0x857f, Stop::SystemCall),
            (0x80_057f, Stop::Interrupted),
            (0x80_137f, Stop::Interrupted),
            (0x0e7f, Stop::Signal(14)),
        ] {
            assert_eq!(meaning(status), expected, "{status:#x}");
        }
    }
}
