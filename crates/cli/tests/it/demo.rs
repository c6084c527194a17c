//! `switchboard demo`: runs to its proof, leaves nothing, and does not prove what is not so.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use switchboard_kernel::pidfd;
use switchboard_kernel::posix_mq::{Access, MessageQueue};
use switchboard_kernel::process::Signal;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::run::binary;

/// The demo, with its folder under `scratch` so that leftovers can be seen.
fn demo(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments).env("TMPDIR", scratch.path());
    command
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}{}", parts[0], parts[1])
}

#[test]
fn it_runs_to_its_proof_and_leaves_nothing() {
    let (scratch, kept) = (Scratch::new(), Scratch::new());
    let keep = kept.path().display().to_string();
    let output = demo(&scratch, &["--seconds", "3", "--keep", &keep]).output().expect("the demo");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("killed (SIGKILL)"), "{said}");
    assert!(said.contains("processor started again"), "{said}");
    assert!(said.contains("redelivered, marked"), "{said}");
    for what in [
        "ledger",
        "nothing lost",
        "marked",
        "nothing invented",
        "checksums",
        "(mq)",
        "once each (shm)",
        "(fifo)",
        "(unix)",
        "nothing left (shm)",
    ] {
        let proven = |line: &str| line.starts_with("ok") && line.contains(what);
        assert!(said.lines().any(proven), "{what} is not proven:\n{said}");
    }
    assert!(!said.contains('\x1b'), "no control sequences in a pipe");
    assert_eq!(fs::read_dir(scratch.path()).expect("the folder").count(), 0, "a folder is left");
    nothing_else_is_proven(kept.path());
}

/// What is done to a file's text.
type Change = fn(&str) -> String;

/// The check on files that were changed: each change must be seen.
fn nothing_else_is_proven(kept: &Path) {
    let (holds, said) = check(kept);
    assert!(holds, "unchanged files: {said}");
    let recorded = |change: Change| ("recorded.txt", change);
    let changes: &[(&str, (&str, Change))] = &[
        ("nothing lost: FAILED", recorded(without_line_of_sequence_9)),
        ("checksums: FAILED", recorded(|text| text.replacen("cpu=", "cpv=", 1))),
        ("checksums: FAILED", recorded(|text| text.replacen("reading=first", "reading=again", 1))),
        ("checksums: FAILED", recorded(|text| text[..text.len() - 1].to_owned())),
        ("checksums: FAILED", recorded(|text| format!("{text}\u{0}\n"))),
        ("marked: FAILED", recorded(|text| format!("{text}{}\n", text.lines().next().unwrap()))),
        ("nothing lost: FAILED", recorded(|_| String::new())),
        (
            "ledger: FAILED",
            ("ledger.txt", |text| text.replacen("acknowledged 9 ", "acknowledged 7 ", 1)),
        ),
        (
            "nothing invented: FAILED",
            ("ledger.txt", |text| text.replacen("acknowledged 9 ", "9 ", 1)),
        ),
        ("ledger: FAILED", ("ledger.txt", |_| String::new())),
        ("(mq): FAILED", ("arrivals.txt", |text| repeat_line(text, "news"))),
        ("(mq): FAILED", ("arrivals.txt", |text| text.replacen(" 5 priority", " 6 priority", 1))),
        ("(fifo): FAILED", ("arrivals.txt", |text| repeat_line(text, "heartbeat"))),
        ("(fifo): FAILED", ("arrivals.txt", |text| text.replacen("heartbeat 3\n", "", 1))),
        ("each (shm): FAILED", ("arrivals.txt", |text| repeat_line(text, "tick"))),
        ("each (shm): FAILED", ("arrivals.txt", |text| text.replacen("tick 3\n", "", 1))),
        ("each (shm): FAILED", ("ledger.txt", |text| text.replacen("ticks ", "ticks 1", 1))),
        ("(unix): FAILED", ("arrivals.txt", |text| format!("{text}recorded 7\n"))),
    ];
    for (expected, (name, change)) in changes {
        let copy = Scratch::new();
        for name in ["recorded.txt", "ledger.txt", "arrivals.txt"] {
            fs::copy(kept.join(name), copy.join(name)).expect("a copy");
        }
        let before = fs::read_to_string(copy.join(name)).expect("the file");
        let after = change(&before);
        assert_ne!(before, after, "{expected}: the change changes nothing");
        fs::write(copy.join(name), after).expect("a changed file");
        let (holds, said) = check(copy.path());
        assert!(!holds, "{expected}: {said}");
        let (what, _) = expected.split_once(": ").expect("a statement");
        let seen = |line: &str| line.starts_with("FAILED") && line.contains(what);
        assert!(said.lines().any(seen), "{expected}:\n{said}");
    }
    let dead = kept.join("shm/readings/q.r.0123");
    fs::create_dir_all(dead.parent().expect("a folder")).expect("folders");
    fs::write(dead, "").expect("a name that is left");
    let (holds, said) = check(kept);
    assert!(!holds && said.contains("FAILED nothing left (shm)"), "{said}");
}

/// A lost record: both occurrences, if it came again.
fn without_line_of_sequence_9(text: &str) -> String {
    let others = text.split_inclusive('\n').filter(|line| !line.starts_with("sequence=9 "));
    others.collect()
}

fn repeat_line(text: &str, word: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(word)).expect("such a line");
    format!("{text}{line}\n")
}

/// Runs the check on files in a folder: its exit code, and its statements, a line each.
fn check(folder: &Path) -> (bool, String) {
    let output = Command::new(binary())
        .args(["demo", "--role", "check", "--folder"])
        .arg(folder)
        .output()
        .expect("the check");
    let said = text(&output);
    let report: serde_json::Value = serde_json::from_str(&said).expect(&said);
    let holds = output.status.code() == Some(0);
    assert_eq!(report["holds"], serde_json::Value::Bool(holds), "{said}");
    let lines = report["proof"].as_array().expect("a proof").iter().map(|line| {
        let word = if line["holds"] == serde_json::Value::Bool(true) { "ok" } else { "FAILED" };
        format!("{word} {}\n", line["text"].as_str().expect("a text"))
    });
    (holds, lines.collect())
}

#[test]
fn the_check_says_which_file_it_cannot_read() {
    let empty = Scratch::new();
    let output = Command::new(binary())
        .args(["demo", "--role", "check", "--folder"])
        .arg(empty.path())
        .output()
        .expect("the check");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("recorded.txt"), "{}", text(&output));
}

#[test]
fn the_report_is_one_json_object() {
    let scratch = Scratch::new();
    let output = demo(&scratch, &["--seconds", "2", "--json"]).output().expect("the demo");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["holds"], serde_json::Value::Bool(true));
    // A kill that came too late for anything to come again is followed by another.
    let kills = report["kills"].as_array().map_or(0, Vec::len);
    assert!((1..=3).contains(&kills), "{report}");
    assert_eq!(report["restarts"], kills);
    assert_eq!(report["kills"][0]["process"], "processor");
    assert!(report["counts"]["acknowledged"].as_u64() > Some(100), "{report}");
    assert_eq!(report["counts"]["missing"], 0);
}

#[test]
fn it_leaves_nothing_when_it_is_interrupted_or_loses_a_process() {
    let ends: &[fn(&Child, u32)] = &[
        |demo, _| send(demo.id(), Signal::INT),
        |demo, _| send(demo.id(), Signal::TERM),
        |demo, _| send(demo.id(), Signal::HUP),
        |_, sensor| send(sensor, Signal::KILL),
    ];
    for end in ends {
        let scratch = Scratch::new();
        let (mut child, processes) = started(&scratch);
        let queue = format!("/switchboard-demo-{}", child.id());
        assert!(MessageQueue::open(&queue, Access::Send).is_ok(), "no queue while it runs");
        assert!(processes.iter().all(|pid| is_running(*pid)));
        assert_eq!(fs::read_dir(scratch.path()).expect("the folder").count(), 1);
        end(&child, processes[3]);
        let status = child.wait();
        assert_eq!((status.code(), status.signal()), (Some(1), None));
        let left = processes.iter().find(|pid| is_running(**pid));
        assert_eq!(left, None, "a process is left");
        assert!(MessageQueue::open(&queue, Access::Send).is_err(), "the queue is left");
        assert_eq!(fs::read_dir(scratch.path()).expect("the folder").count(), 0);
    }
}

#[test]
fn its_processes_die_with_it_and_the_next_demo_removes_the_rest() {
    let scratch = Scratch::new();
    let (mut living, _) = started(&scratch);
    let (mut child, processes) = started(&scratch);
    child.kill();
    let until = Instant::now() + DEADLINE;
    while processes.iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < until, "a process outlives the demo");
        std::thread::sleep(Duration::from_millis(5));
    }
    let folder = |demo: &Child| scratch.join(&format!("switchboard-demo-{}", demo.id()));
    let queue = |demo: &Child| {
        MessageQueue::open(&format!("/switchboard-demo-{}", demo.id()), Access::Send).is_ok()
    };
    assert!(folder(&child).exists() && queue(&child), "nothing to remove");
    // Of the same kind of name, and not a demo's.
    let others = ["switchboard-demo-files", "switchboard-demo-1"].map(|name| scratch.join(name));
    others.iter().for_each(|other| fs::create_dir(other).expect("a folder"));
    let next = demo(&scratch, &["--json", "--seconds", "1"]).output().expect("the demo");
    let said = text(&next);
    assert_eq!(next.status.code(), Some(0), "{said}");
    assert!(!folder(&child).exists() && !queue(&child), "something is left: {said}");
    let removed = format!("mq:/switchboard-demo-{0}, {1}", child.id(), folder(&child).display());
    assert!(said.contains(&format!("removed what a killed demo left: {removed}")), "{said}");
    assert!(folder(&living).exists() && queue(&living), "a living demo was robbed");
    assert!(others.iter().all(|other| other.exists()), "somebody else's folder is gone");
    send(living.id(), Signal::INT);
    assert_eq!(living.wait().code(), Some(1));
}

/// A long demo whose four processes run, with their ids in the order of their start: the sensor is
/// the last.
fn started(scratch: &Scratch) -> (Child, Vec<u32>) {
    let mut child = Child::command(demo(scratch, &["--seconds", "30"]));
    let mut processes = Vec::new();
    while processes.len() < 4 {
        let line = child.line().expect("a line per process");
        let pid = line.split_once("started as process ").map(|(_, pid)| pid.parse::<u32>());
        processes.extend(pid.and_then(Result::ok));
    }
    (child, processes)
}

/// Whether a process is there and no zombie.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn send(pid: u32, signal: Signal) {
    let pidfd = pidfd::open(pid).expect("the process");
    pidfd::send_signal(pidfd, signal).expect("a signal");
}
