//! Child processes that play a role of the test binary.
//!
//! An integration test binary lists its roles once:
//!
//! ```text
//! const ROLES: &[(&str, testkit::child::Role)] = &[("writer", fifo::writer)];
//! #[test]
//! fn child_process() { testkit::child::enter(ROLES); }
//! ```
//!
//! and a test starts one with [`Child::role`]. In the child, `child_process` finds its role in the
//! environment, runs it and exits; in an ordinary run it finds none and passes. A child says things
//! with [`report`] and is told things with [`instruction`]. Children die with the test that started
//! them.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a child runs: it gets the arguments given to [`Child::role`].
pub type Role = fn(&[String]);

const ROLE: &str = "SWITCHBOARD_TEST_ROLE";
const ARGUMENTS: &str = "SWITCHBOARD_TEST_ARGUMENTS";
/// Set in a child that the kill harness steps.
pub(crate) const SUBJECT: &str = "SWITCHBOARD_TEST_SUBJECT";
thread_local! {
    static STARTS_SUBJECTS: Cell<bool> = const { Cell::new(false) };
}

/// Starts children with [`SUBJECT`] set.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn as_subject<T>(start: impl FnOnce() -> T) -> T {
    STARTS_SUBJECTS.set(true);
    let started = start();
    STARTS_SUBJECTS.set(false);
    started
}

/// Starts the lines that a child means; all else on its output is the test harness's.
const MARK: &str = "@@ ";

/// Runs the role this process was started for, and exits; returns at once if there is none.
pub fn enter(roles: &[(&str, Role)]) {
    let Ok(name) = std::env::var(ROLE) else { return };
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let arguments: Vec<String> = std::env::var(ARGUMENTS)
        .map(|joined| joined.split('\u{1f}').map(str::to_owned).collect())
        .unwrap_or_default();
    let (_, role) = roles.iter().find(|(role, _)| *role == name).expect("a role of this name");
    role(&arguments);
    let _ = std::io::stdout().flush();
    // Not by `exit`: now and then that ends in a segmentation fault where a thread changed the user of all threads.
    crate::fork::end(true);
}

/// In a child: says a line to the test.
#[allow(clippy::print_stdout)]
pub fn report(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\n{MARK}{line}");
    let _ = out.flush();
}

/// In a child: waits for the test's next line; `None` when the test closed its end.
#[must_use]
pub fn instruction() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}

/// A child process; killed and reaped on drop.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    /// Starts the test binary again in a role. Arguments may not contain U+001F.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn role<A: ToString>(name: &str, arguments: &[A]) -> Self {
        Self::role_under(&[], name, arguments)
    }

    /// As [`Child::role`], started by another program: `&["unshare", "--ipc"]`.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn role_under<A: ToString>(starter: &[&str], name: &str, arguments: &[A]) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        let mut command = match starter {
            [] => Command::new(program),
            [starter, options @ ..] => {
                let mut command = Command::new(starter);
                command.args(options).arg(program);
                command
            }
        };
        let joined: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        command
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, name)
            .env(ARGUMENTS, joined.join("\u{1f}"));
        if arguments.is_empty() {
            command.env_remove(ARGUMENTS);
        }
        if STARTS_SUBJECTS.get() {
            command.env(SUBJECT, "1");
        } else {
            command.env_remove(SUBJECT);
        }
        Self::start(command, true)
    }

    /// Starts any program; every line of its standard output counts as said.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn command(command: Command) -> Self {
        Self::start(command, false)
    }

    fn start(mut command: Command, marked: bool) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("a piped output");
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let meant = if marked { line.strip_prefix(MARK) } else { Some(line.as_str()) };
                if let Some(meant) = meant
                    && said.send(meant.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { process, stdin, lines }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line the child says; `None` when its output ended.
    ///
    /// # Panics
    /// When nothing is said within [`DEADLINE`].
    #[must_use]
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("child {} said nothing in time", self.id()),
        }
    }

    /// The next line, if one is said within the time.
    #[must_use]
    pub fn line_within(&mut self, timeout: Duration) -> Option<String> {
        self.lines.recv_timeout(timeout).ok()
    }

    /// All lines until the output ends.
    #[must_use]
    pub fn remaining_lines(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }

    /// Waits for exactly this line.
    ///
    /// # Panics
    /// When another line comes, or none.
    pub fn expect(&mut self, expected: &str) {
        assert_eq!(self.line().as_deref(), Some(expected), "child {}", self.id());
    }

    /// Tells the child a line, for its [`instruction`].
    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}");
            let _ = stdin.flush();
        }
    }

    /// The child's standard input, to write bytes or to close it by dropping it.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("a signal to a child");
    }

    /// Stops it (`SIGSTOP`), and waits until all its threads have.
    ///
    /// # Panics
    /// When there is no such process, or it ends meanwhile.
    pub fn stop(&self) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        self.signal(Signal::STOP);
        let how = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let told = waitid(WaitId::Pid(self.pid()), how).expect("a child to wait for");
        assert!(told.is_some_and(|told| told.stopped()), "child {} has ended", self.id());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.id()).expect("a process id")).expect("a process id")
    }

    /// Waits until it has exited.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`].
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(DEADLINE)
            .unwrap_or_else(|| panic!("child {} did not exit in time", self.id()))
    }

    /// Waits until it has exited, or for this long.
    ///
    /// # Panics
    /// When somebody else reaped it.
    pub fn wait_within(&mut self, timeout: Duration) -> Option<ExitStatus> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        self.stdin = None;
        if let Ok(Some(status)) = self.process.try_wait() {
            return Some(status);
        }
        if let Ok(pidfd) = rustix::process::pidfd_open(self.pid(), PidfdFlags::empty()) {
            let until = Instant::now() + timeout;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let left = Timespec {
                    tv_sec: left.as_secs().cast_signed(),
                    tv_nsec: left.subsec_nanos().into(),
                };
                let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
                match poll(&mut fds, Some(&left)) {
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(0) => return None,
                    _ => break,
                }
            }
        }
        Some(self.process.wait().expect("a child's status"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
