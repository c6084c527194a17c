//! A command with an end: its output is kept, and when its time is up its whole process group dies.
//!
//! Source: `setpgid(2)`, `pidfd_open(2)`, `kill(2)`.
//!
//! The output goes to a file, not to a pipe: a process that a test left behind would hold a pipe
//! open, and the reader with it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// None: its time was up, and it was killed.
    pub(crate) status: Option<ExitStatus>,
    /// Standard output and error, as they came.
    pub(crate) output: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// Ended in time, with exit code 0.
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, in words.
    pub(crate) fn ending(&self) -> String {
        self.status.map_or_else(
            || format!("still running after {} s, killed", self.elapsed.as_secs()),
            |status| status.to_string(),
        )
    }
}

/// Runs the command in a process group of its own, with nothing on standard input.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let file = tempfile::tempfile()?;
    // Tests open /dev/stderr, also when they run as another user.
    file.set_permissions(Permissions::from_mode(0o666))?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .process_group(0)
        .spawn()?;
    let pid = Pid::from_child(&child);
    let status = if exits_within(pid, limit)? {
        Some(child.wait()?)
    } else {
        kill_process_group(pid, Signal::KILL)?;
        child.wait()?;
        None
    };
    let elapsed = started.elapsed();
    Ok(Outcome { status, output: content(&file)?, elapsed })
}

fn exits_within(pid: Pid, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// The whole file, whoever shares its position.
fn content(file: &std::fs::File) -> io::Result<String> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        run(Command::new("sh").args(["-c", script]), limit).expect("a shell")
    }

    #[test]
    fn keeps_output_and_status() {
        let outcome = shell("echo out; echo err >&2; exit 3", Duration::from_secs(30));
        assert_eq!(outcome.output, "out\nerr\n");
        assert_eq!(outcome.status.and_then(|status| status.code()), Some(3));
        assert!(!outcome.success());
        assert!(shell("true", Duration::from_secs(30)).success());
    }

    #[test]
    fn does_not_wait_for_a_process_left_behind() {
        let outcome = shell("sleep 1000 & echo $!", Duration::from_secs(30));
        assert!(outcome.success() && outcome.elapsed < Duration::from_secs(20));
        let pid = outcome.output.trim().parse().expect("a process id");
        let pid = Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, Signal::KILL).expect("the process left behind");
    }

    #[test]
    fn kills_the_whole_group_in_time() {
        let outcome = shell("sleep 1000 & echo $!; sleep 1000", Duration::from_millis(300));
        assert!(outcome.status.is_none() && !outcome.success());
        assert!(outcome.ending().contains("still running"));
        let pid: i32 = outcome.output.trim().parse().expect("a process id");
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_running(pid) {
            assert!(Instant::now() < deadline, "process {pid} survived its group");
            std::thread::yield_now();
        }
    }

    /// A killed process may stay as a zombie for as long as its new parent likes.
    fn is_running(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }
}
