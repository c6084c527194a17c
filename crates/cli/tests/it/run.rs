//! Starts the real binary, feeds it, watches what it says, and waits for its end.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::Signal;
use switchboard_testkit::DEADLINE;
pub(crate) use switchboard_testkit::free_port;

/// The binary under test. Tests also run as copies, next to a copy of it.
pub(crate) fn binary() -> OsString {
    std::env::var_os("SWITCHBOARD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_switchboard").into())
}

/// A process whose output is collected; killed on drop.
pub(crate) struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Collected>,
    stderr: Arc<Collected>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

#[derive(Default)]
struct Collected {
    state: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Run {
    /// `switchboard ARGUMENTS` in a folder. Its standard input is open until it is closed.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder);
        Self::command(command)
    }

    /// Any program.
    pub(crate) fn command(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = collect(child.stdout.take().expect("a pipe"));
        let stderr = collect(child.stderr.take().expect("a pipe"));
        Self { child, stdin, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input, which stays open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("an open standard input");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("written");
    }

    /// Writes to its standard input and closes it, without waiting for that.
    pub(crate) fn feed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        let (mut stdin, bytes) = (self.stdin.take().expect("an open standard input"), bytes.into());
        std::thread::spawn(move || {
            // Who ends early reads no more.
            let _ = stdin.write_all(&bytes);
        });
        self
    }

    /// Closes its standard input.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits until its standard output satisfies a condition.
    pub(crate) fn wait_stdout(&self, what: &str, holds: impl Fn(&[u8]) -> bool) {
        self.wait_collected(&self.stdout, what, holds);
    }

    /// Its standard output so far.
    pub(crate) fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.state.lock().expect("a lock").0).into_owned()
    }

    /// Waits until its standard error contains a text.
    pub(crate) fn wait_stderr(&self, text: &str) {
        let holds = |said: &[u8]| String::from_utf8_lossy(said).contains(text);
        self.wait_collected(&self.stderr, text, holds);
    }

    fn wait_collected(&self, from: &Collected, what: &str, holds: impl Fn(&[u8]) -> bool) {
        let until = Instant::now() + DEADLINE;
        let mut state = from.state.lock().expect("a lock");
        while !holds(&state.0) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!state.1 && !left.is_zero(), "no {what}; it said {}", self.said());
            state = from.changed.wait_timeout(state, left).expect("a lock").0;
        }
    }

    /// What it said on standard error so far; for messages of failed tests.
    fn said(&self) -> String {
        let state = self.stderr.state.try_lock();
        state.map(|state| String::from_utf8_lossy(&state.0).into_owned()).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = pidfd::open(self.id()).expect("a running process");
        pidfd::send_signal(process, signal).expect("a signal");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Closes its standard input, and waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        self.close();
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        if self.child.try_wait().expect("a status").is_none() {
            let process = pidfd::open(self.id()).expect("a child");
            let over = pidfd::wait_dead(process, Deadline::after(DEADLINE)).expect("a wait");
            assert!(over, "it did not end; it said {}", self.said());
        }
        let code = self.child.wait().expect("a status").code();
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Ended { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Collected {
    /// Everything, once it was closed.
    fn all(&self) -> Vec<u8> {
        let state = self.state.lock().expect("a lock");
        let state = self.changed.wait_timeout_while(state, DEADLINE, |state| !state.1);
        state.expect("a lock").0.0.clone()
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Arc<Collected> {
    let collected = Arc::new(Collected::default());
    let shared = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut block = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut block).unwrap_or(0);
            let mut state = shared.state.lock().expect("a lock");
            state.0.extend_from_slice(&block[..n]);
            state.1 = n == 0;
            shared.changed.notify_all();
            if n == 0 {
                return;
            }
        }
    });
    collected
}

impl Ended {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Checks that standard error contains a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in: {self}");
        self
    }

    /// Checks standard output.
    #[track_caller]
    pub(crate) fn prints(self, expected: impl AsRef<[u8]>) -> Self {
        let expected = expected.as_ref();
        // Large outputs would drown the message.
        assert!(
            self.stdout == expected,
            "{} bytes, not the {} expected: {self}",
            self.stdout.len(),
            expected.len()
        );
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.stdout[..self.stdout.len().min(400)];
        write!(f, "exit {:?}, out {:?}, err {}", self.code, shown.escape_ascii(), self.stderr)
            .map(drop)
    }
}

/// Runs `switchboard ARGUMENTS` with this input to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str], input: &str) -> Ended {
    Run::start(folder, arguments).feed(input).wait()
}

/// Waits until a condition holds that nothing announces: a path appears.
#[track_caller]
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
