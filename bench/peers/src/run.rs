//! Starts the processes of one run, waits for them, and reads what they found out.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open, setrlimit};
use switchboard_kernel::unix_socket::{Kind, pair};

use crate::contender::Contender;
use crate::control::{hear, say};
use crate::job::{Case, Job, Measure, Report, Side};
use crate::leftovers::Leftovers;
use crate::{Failure, SIDE, two_cpus};

/// No run takes this long, unless it hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// What a side may take to end after the other one failed.
const GRACE: Duration = Duration::from_secs(1);

/// Beyond the processes that subscribe.
const OTHER_FILES: u64 = 64;

/// Runs contenders.
pub(crate) struct Runner {
    leftovers: Leftovers,
    cpus: (usize, usize),
    footprints_bytes: (usize, usize),
    next: Cell<u64>,
}

/// How much one run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) count: usize,
    pub(crate) warm_up: usize,
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) report: Report,
    /// Names that the contender left behind.
    pub(crate) left: Vec<String>,
}

impl Runner {
    /// Two processors, and a folder.
    pub(crate) fn new(footprints_bytes: (usize, usize)) -> Result<Self, Failure> {
        let cpus = two_cpus()?;
        if cpus.0 == cpus.1 {
            return Err("two processors are needed".into());
        }
        let leftovers = Leftovers::new()?;
        Ok(Self { leftovers, cpus, footprints_bytes, next: Cell::new(1) })
    }

    /// Runs one contender once.
    pub(crate) fn run(
        &self,
        contender: &Contender,
        case: Case,
        amount: Amount,
    ) -> Result<Ran, Failure> {
        let run = self.next.get();
        self.next.set(run + 1);
        let result = if case.measure == Measure::Publish {
            self.publish(contender, case, amount, run)
        } else {
            self.pair(contender, case, amount, run)
        };
        let left = self.leftovers.sweep();
        result.map(|report| Ran { report, left })
    }

    fn pair(
        &self,
        contender: &Contender,
        case: Case,
        amount: Amount,
        run: u64,
    ) -> Result<Report, Failure> {
        let far_cpu = if case.same_core { self.cpus.0 } else { self.cpus.1 };
        let (near_end, far_end) = pair(Kind::Seqpacket)?;
        let job = |side, cpu| self.job(contender, case, amount, run, side, Some(cpu));
        let far = self.start(&job(Side::Far, far_cpu), far_end)?;
        let near = self.start(&job(Side::Near, self.cpus.0), near_end)?;
        wait([far, near], Instant::now() + LONGEST)
    }

    fn publish(
        &self,
        contender: &Contender,
        case: Case,
        amount: Amount,
        run: u64,
    ) -> Result<Report, Failure> {
        allow_files(case.subscribers as u64 + OTHER_FILES)?;
        let deadline =
            Instant::now() + LONGEST + Duration::from_millis(100) * case.subscribers as u32;
        let (control, end) = pair(Kind::Seqpacket)?;
        let job = |side, cpu| self.job(contender, case, amount, run, side, cpu);
        let near = self.start(&job(Side::Near, Some(self.cpus.0)), end)?;
        if let Err(error) = hear_until(&control, deadline) {
            return wait([near], Instant::now() + GRACE).and(Err(error));
        }
        let (mut subscribers, mut controls) = (Vec::new(), Vec::new());
        for _ in 0..case.subscribers {
            let (control, end) = pair(Kind::Seqpacket)?;
            let subscriber = self.start(&job(Side::Idle, None), end)?;
            // One after the other: a thousand at once would only measure how they are started.
            if let Err(error) = hear_until(&control, deadline) {
                return wait([subscriber], Instant::now() + GRACE).and(Err(error));
            }
            subscribers.push(subscriber);
            controls.push(control);
        }
        say(&control, "go")?;
        let report = wait([near], deadline)?;
        drop(controls);
        wait(subscribers, deadline)?;
        Ok(report)
    }

    fn job(
        &self,
        contender: &Contender,
        case: Case,
        amount: Amount,
        run: u64,
        side: Side,
        cpu: Option<usize>,
    ) -> Job {
        Job {
            contender: contender.name.to_owned(),
            case,
            side,
            count: amount.count,
            warm_up: amount.warm_up,
            cpu,
            parent: std::process::id().cast_signed(),
            prefix: self.leftovers.prefix().to_owned(),
            run,
            folder: self.leftovers.folder().to_owned(),
            footprints_bytes: self.footprints_bytes,
        }
    }

    fn start(&self, job: &Job, control: OwnedFd) -> Result<Running, Failure> {
        let folder = self.leftovers.folder();
        let output = |what: &str| File::create_new(folder.join(what));
        let (out, errors) = (output("out"), output("errors"));
        // The names go at once: a file is read through the descriptor that was kept.
        for what in ["out", "errors"] {
            std::fs::remove_file(folder.join(what))?;
        }
        let (out, errors) = (out?, errors?);
        let child = Command::new("/proc/self/exe")
            .arg(SIDE)
            .arg(serde_json::to_string(job)?)
            .env("TMPDIR", folder)
            .env("CROSSBAR_REGISTRY", folder.join("registry"))
            .stdin(control)
            .stdout(Stdio::from(out.try_clone()?))
            .stderr(Stdio::from(errors.try_clone()?))
            .spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Running {
            child,
            gone: pidfd_open(pid, PidfdFlags::empty())?,
            side: job.side,
            out,
            errors,
        })
    }
}

/// A process that does not outlive its run.
struct Running {
    child: Child,
    /// Readable when the process has ended.
    gone: OwnedFd,
    side: Side,
    out: File,
    errors: File,
}

impl Running {
    /// What it found out; `None` while it runs.
    fn ended(&mut self) -> Result<Option<Report>, Failure> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        if status.success() {
            return Ok(Some(serde_json::from_str(&whole(&self.out)?)?));
        }
        let errors = whole(&self.errors)?;
        let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(format!("the {:?} side: {status} {last}", self.side).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// All of a file, whose descriptor stands at its end.
fn whole(file: &File) -> Result<String, Failure> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until all have ended, and puts together what they found out. Those left running at the deadline, or
/// a little after another one failed, are killed.
fn wait(
    running: impl IntoIterator<Item = Running>,
    mut deadline: Instant,
) -> Result<Report, Failure> {
    let mut running: Vec<Running> = running.into_iter().collect();
    let mut report = Report::new();
    let mut failures: Vec<String> = Vec::new();
    while !running.is_empty() {
        let mut at = 0;
        while at < running.len() {
            match running[at].ended() {
                Ok(None) => {
                    at += 1;
                    continue;
                }
                Ok(Some(found)) => report.extend(found),
                Err(error) => {
                    failures.push(error.to_string());
                    deadline = deadline.min(Instant::now() + GRACE);
                }
            }
            running.swap_remove(at);
        }
        if running.is_empty() {
            break;
        }
        let mut ends: Vec<PollFd<'_>> =
            running.iter().map(|running| PollFd::new(&running.gone, PollFlags::IN)).collect();
        if !poll_until(&mut ends, deadline)? {
            failures.push("it hangs".to_owned());
            break;
        }
    }
    if failures.is_empty() { Ok(report) } else { Err(failures.join("; ").into()) }
}

/// Whether something became ready before the deadline.
fn poll_until(ends: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout =
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    match poll(ends, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(true),
        result => Ok(result? > 0),
    }
}

fn hear_until(control: &OwnedFd, deadline: Instant) -> Result<String, Failure> {
    let mut ends = [PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN)];
    if poll_until(&mut ends, deadline)? { hear(control) } else { Err("it hangs".into()) }
}

/// Raises the limit on descriptors to what is needed, or as far as it goes.
fn allow_files(files: u64) -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < 4 * files) {
        limit.current = Some(limit.maximum.map_or(4 * files, |most| most.min(4 * files)));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}
