//! What `switchboard lock` leaves to the next one when it, its command, or both are killed.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{Signal, children};
use switchboard_testkit::{DEADLINE, Scratch, unique};

use super::{Lock, gone};
use crate::run::{Ended, Run, binary, eventually};

/// The one process that the tool has started.
pub(super) fn command_of(tool: &Run) -> u32 {
    let found = children(tool.id()).expect("its children");
    let ids: Vec<u32> = found.iter().map(|child| child.id).collect();
    let [id] = ids[..] else { panic!("one child, not {ids:?}") };
    id
}

/// Runs for as long as it is let: writes its number again and again into a file.
const WRITE: &str = "echo in; while :; do echo $$ >> log; done";

/// A holder with that script, and one who waits and then writes `next` into the same file.
fn holder_and_waiter(lock: &Lock, options: &[&str]) -> (Run, Run) {
    let holder = lock.start(options, &["sh", "-c", WRITE]);
    holder.wait_stdout("a start", |out| out == b"in\n");
    let waiter = lock.start(options, &["sh", "-c", "echo next >> log; sleep 0.05"]);
    eventually("a waiter", || is_asleep(&waiter));
    (holder, waiter)
}

/// Whether it waits for the lock: its two threads are there, and sleep.
pub(super) fn is_asleep(waiter: &Run) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", waiter.id())).into_iter().flatten();
    let calls: Vec<String> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("syscall")).ok())
        .collect();
    // `running` is no number.
    calls.len() == 2 && calls.iter().all(|call| call.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whatever the killed command wrote, it wrote before the next one began.
#[track_caller]
fn in_turn(lock: &Lock) {
    let log = std::fs::read_to_string(lock.join("log")).expect("a log");
    let after = log.split_once("next\n").expect("a next one").1;
    assert_eq!(after, "", "the killed holder's command still ran");
}

/// How long the next one waits for the command of a killed holder.
const PATIENCE: Duration = Duration::from_secs(1);

/// A command, from just before its holder is killed.
struct Watched {
    killed: Instant,
    died: JoinHandle<Instant>,
}

impl Watched {
    fn of(holder: &Run) -> Self {
        let command = pidfd::open(command_of(holder)).expect("the command");
        let died = std::thread::spawn(move || {
            let deadline = Deadline::after(DEADLINE);
            assert!(pidfd::wait_dead(command, deadline).expect("a wait"), "it was not killed");
            Instant::now()
        });
        Self { killed: Instant::now(), died }
    }

    /// Whether the next one went on without it, as it may on a machine that is very busy: then it lived for longer
    /// than it is waited for.
    #[track_caller]
    fn outlived(self, next: &Ended) -> bool {
        let lived = self.died.join().expect("it dies").duration_since(self.killed);
        let is_given_up = next.stderr.contains("it is waited for no longer");
        assert!(!is_given_up || lived >= PATIENCE, "it lived for {lived:?}: {next}");
        is_given_up
    }
}

#[test]
fn the_tool_alone_is_killed() {
    for options in [&[][..], &["--slots", "1"]] {
        let lock = Lock::new();
        let (mut holder, waiter) = holder_and_waiter(&lock, options);
        let command = pidfd::open(command_of(&holder)).expect("the command");
        let watched = Watched::of(&holder);
        holder.kill();
        let ended = waiter.end().code(0);
        let is_dead = pidfd::is_dead(&command).expect("a look");
        if watched.outlived(&ended) {
            continue;
        }
        if options.is_empty() {
            ended.says("the last holder was killed while it had the lock");
        } else {
            assert_eq!(ended.stderr, "", "{ended}");
        }
        assert!(is_dead);
        in_turn(&lock);
        gone(&lock);
    }
}

#[test]
fn the_tool_of_a_reader_is_killed() {
    let lock = Lock::new();
    let mut reader = lock.start(&["--shared"], &["sh", "-c", WRITE]);
    reader.wait_stdout("a start", |out| out == b"in\n");
    let writer = lock.start(&[], &["sh", "-c", "echo next >> log; sleep 0.05"]);
    eventually("a waiter", || is_asleep(&writer));
    let watched = Watched::of(&reader);
    reader.kill();
    let ended = writer.end().code(0);
    if !watched.outlived(&ended) {
        assert_eq!(ended.stderr, "", "a reader leaves nothing half done: {ended}");
        in_turn(&lock);
    }

    // And a reader after a writer: it puts the lock right itself.
    let mut writer = lock.start(&[], &["sh", "-c", "echo in; read line || :"]);
    writer.wait_stdout("a start", |out| out == b"in\n");
    let readers = [(); 2].map(|()| lock.start(&["--shared"], &["true"]));
    eventually("waiters", || readers.iter().all(is_asleep));
    writer.kill();
    let said: String = readers.map(|reader| reader.end().code(0).stderr).concat();
    assert_eq!(said.matches("the last holder was killed").count(), 1, "{said}");
    gone(&lock);
}

#[test]
fn a_command_that_takes_long_to_die_is_waited_for() {
    let slot: &[&str] = &["--slots", "1"];
    let shared: &[&str] = &["--shared"];
    for (first, second) in [(&[][..], &[][..]), (&[], shared), (shared, &[]), (slot, slot)] {
        let lock = Lock::new();
        let script = "echo in; while [ ! -e killed ]; do sleep 0.005; done; sleep 0.1; \
                      echo last >> log";
        let command = ["setpriv", "--pdeathsig", "clear", "sh", "-c", script];
        let mut holder = lock.start(first, &command);
        holder.wait_stdout("a start", |out| out == b"in\n");
        let next = lock.start(second, &["sh", "-c", "echo next >> log"]);
        eventually("a waiter", || is_asleep(&next));
        holder.kill();
        std::fs::write(lock.join("killed"), "").expect("a file");
        let ended = next.end().code(0);
        // On a machine that is very busy, a second may be too short.
        if !ended.stderr.contains("it is waited for no longer") {
            let log = std::fs::read_to_string(lock.join("log")).expect("a log");
            assert_eq!(log, "last\nnext\n", "{ended}");
            gone(&lock);
        }
    }
}

#[test]
fn the_command_alone_is_killed() {
    let lock = Lock::new();
    let (holder, waiter) = holder_and_waiter(&lock, &[]);
    let command = pidfd::open(command_of(&holder)).expect("the command");
    pidfd::send_signal(&command, Signal::KILL).expect("killed");
    holder.end().code(128 + 9);
    let ended = waiter.end().code(0);
    assert_eq!(ended.stderr, "", "{ended}");
    in_turn(&lock);
    gone(&lock);
}

#[test]
fn both_are_killed_at_once() {
    let lock = Lock::new();
    let mut command = Command::new(binary());
    command.args(lock.arguments(&[], &["sh", "-c", WRITE])).current_dir(lock.scratch.path());
    command.process_group(0);
    let holder = Run::command(command);
    holder.wait_stdout("a start", |out| out == b"in\n");
    let waiter = lock.start(&[], &["sh", "-c", "echo next >> log; sleep 0.05"]);
    eventually("a waiter", || is_asleep(&waiter));
    let watched = Watched::of(&holder);
    switchboard_kernel::signal::send_group(holder.id(), Signal::KILL).expect("killed");
    let ended = waiter.end().code(0).says("the last holder was killed");
    drop(holder);
    if !watched.outlived(&ended) {
        in_turn(&lock);
        gone(&lock);
    }
}

#[test]
fn what_a_command_leaves_behind_does_not_keep_the_lock() {
    let lock = Lock::new();
    // The one that is left has all descriptors of the command.
    let script = "sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!";
    let first = lock.run(&[], &["sh", "-c", script]).code(0).text();
    // Who waits for it says so.
    let ended = lock.run(&["--no-wait"], &["true"]).code(0);
    assert_eq!(ended.stderr, "", "{ended}");
    gone(&lock);
    end_process(first.trim());

    // After a kill it is waited for, but not for ever.
    let mut holder = lock.start(&[], &["sh", "-c", &format!("{script}; read line")]);
    holder.wait_stdout("a process id", |out| out.ends_with(b"\n"));
    let left = holder.stdout_so_far();
    holder.kill();
    let ended = lock.run(&[], &["true"]).code(0);
    ended.says("the last holder was killed").says("it is waited for no longer");
    end_process(left.trim());
    lock.run(&[], &["true"]).code(0);
    gone(&lock);
}

fn end_process(id: &str) {
    let process = pidfd::open(id.parse().expect("a process id")).expect("a process");
    pidfd::send_signal(&process, Signal::KILL).expect("killed");
    assert!(pidfd::wait_dead(process.as_fd(), Deadline::after(DEADLINE)).expect("a wait"));
}

#[test]
fn a_name_that_killed_ones_left_is_used_again() {
    for options in [&[][..], &["--shared"], &["--slots", "1"]] {
        // No plain name: others who come sweep what is left of those.
        let lock = Lock { name: format!("/dev/shm/{}", unique("left")), scratch: Scratch::new() };
        let killed = || {
            let mut holder = lock.hold(options);
            let command = pidfd::open(command_of(&holder)).expect("the command");
            holder.kill();
            assert!(pidfd::wait_dead(&command, Deadline::after(DEADLINE)).expect("a wait"));
        };
        killed();
        assert!(!lock.is_gone(), "nobody was there to remove it");
        lock.run(options, &["true"]).code(0);
        gone(&lock);
        // And by others, with other options.
        killed();
        let ended = lock.run(&["--slots", "7"], &["true"]).code(0);
        assert_eq!(ended.stderr, "", "{ended}");
        gone(&lock);
    }
}
