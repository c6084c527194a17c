//! What `top` costs: time of a processor, and memory, with 150 processes to look at.
//!
//! `cargo xtask prove top --release` does this for ten minutes: `SWITCHBOARD_PROOF_SECONDS`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_testkit::skip::say;
use switchboard_testkit::tmux::Tmux;

use crate::run::{binary, eventually};

const PROCESSES: usize = 150;

/// Shells that wait, with some pipes and a socket each.
pub(crate) struct Crowd(Vec<(Child, UnixStream)>);

impl Crowd {
    pub(crate) fn new(processes: usize) -> Self {
        let one = |_| {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            let mut command = Command::new("sh");
            command.args(["-c", "exec 3<&0 4>&1; read line"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(OwnedFd::from(theirs));
            (command.spawn().expect("a shell"), ours)
        };
        Self((0..processes).map(one).collect())
    }

    /// Ends one of them.
    pub(crate) fn end(&mut self, at: usize) {
        let child = &mut self.0[at].0;
        child.kill().expect("killed");
        child.wait().expect("an end");
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.0.iter().map(|(child, _)| child.id()).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process with a crowd, for as long as it lives.
pub(crate) fn crowd(_: &[String]) {
    let _crowd = Crowd::new(PROCESSES);
    loop {
        std::thread::park();
    }
}

/// Starts `top` with a crowd to look at: for root on a machine of their own, so that nothing else is measured; its process.
fn start(tmux: &Tmux) -> (u32, Option<Crowd>) {
    let top = format!("exec {} top", Path::new(&binary()).display());
    if !rustix::process::geteuid().is_root() {
        let crowd = Crowd::new(PROCESSES);
        tmux.line(&top);
        return (tmux.shell(), Some(crowd));
    }
    let own = std::env::current_exe().expect("a path");
    let role = "SWITCHBOARD_TEST_ROLE=crowd SWITCHBOARD_TEST_ARGUMENTS= ";
    let script = format!(
        "{role}{} --exact child_process --nocapture > /dev/null 2>&1 &\n{top}\n",
        own.display()
    );
    let place = tmux.state("#{pane_current_path}");
    std::fs::write(Path::new(&place).join("scene"), script).expect("written");
    tmux.line("exec unshare --pid --fork --kill-child --mount-proc --net --ipc sh scene");
    let outside = tmux.shell();
    let children = format!("/proc/{outside}/task/{outside}/children");
    let child = || std::fs::read_to_string(&children).unwrap_or_default().trim().parse().ok();
    eventually("its start", || child().is_some());
    (child().expect("a process"), None)
}

/// Clock ticks that a process has used, and the memory that it has.
fn used(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split_whitespace().collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    (number(11) + number(12), kib.expect("KiB"))
}

/// Two looks may not be as far apart as they should be, so this much is always allowed.
const LEAST_SECONDS: u64 = 10;

#[test]
fn proof_top_costs_little_and_grows_not() {
    let asked = std::env::var("SWITCHBOARD_PROOF_SECONDS").ok();
    let asked: Option<u64> = asked.and_then(|seconds| seconds.parse().ok());
    let seconds = asked.unwrap_or(LEAST_SECONDS).max(LEAST_SECONDS);
    // Not optimised, and beside other tests, it needs more; a loop that does not wait would need all.
    let is_proof = asked.is_some() && !cfg!(debug_assertions);
    let (most_percent, most_growth_kib) = if is_proof { (3.0, 1024) } else { (60.0, 8192) };
    let Some(tmux) = Tmux::new("top: cost", (120, 40), &[]) else { return };
    let (pid, _crowd) = start(&tmux);
    tmux.wait("all of the crowd", |screen| {
        let head = screen.lines().next().unwrap_or_default();
        let words = head.split(" of ").nth(1).and_then(|rest| rest.split(' ').next());
        let count = words.and_then(|count| count.parse::<usize>().ok());
        screen.contains("BETWEEN") && count.is_some_and(|count| count >= PROCESSES)
    });
    // What it needs once is there after some looks.
    std::thread::sleep(Duration::from_secs(if is_proof { 20 } else { 4 }));
    let (ticks, kib) = used(pid);
    let (begin, mut most_kib) = (Instant::now(), kib);
    let mut minutes = vec![(begin, ticks)];
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(500));
        let (now, kib) = used(pid);
        most_kib = most_kib.max(kib);
        if minutes.last().is_some_and(|last| last.0.elapsed() >= Duration::from_secs(60)) {
            minutes.push((Instant::now(), now));
        }
    }
    let (end_ticks, end_kib) = used(pid);
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let percent =
        |ticks: u64, time: Duration| 100.0 * ticks as f64 / per_second / time.as_secs_f64();
    let all = percent(end_ticks - ticks, begin.elapsed());
    let mut each: Vec<f64> = minutes
        .windows(2)
        .map(|pair| percent(pair[1].1 - pair[0].1, pair[1].0.duration_since(pair[0].0)))
        .collect();
    each.sort_by(f64::total_cmp);
    let median = each.get(each.len() / 2).copied().unwrap_or(all);
    say(&format!(
        "top, {PROCESSES} processes, one look a second, {seconds} s: {all:.2} % of a processor, median of {} minutes \
         {median:.2} %; memory {kib} KiB at the beginning, {most_kib} at most, {end_kib} at the end",
        each.len()
    ));
    assert!(median <= most_percent, "{median:.2} % of a processor, not {most_percent}");
    assert!(
        most_kib <= kib + most_growth_kib,
        "from {kib} KiB to {most_kib}, {end_kib} at the end"
    );
    // It is still there, and answers.
    tmux.press(&["?"]);
    tmux.wait("the help", |screen| screen.contains("sort by the next column"));
}
