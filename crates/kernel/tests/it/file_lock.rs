//! Tests of `file_lock.rs`: each through all three kinds of locks, unless it is about one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::file_lock::{Converted, Guard, Lock, Mode, Range};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::signal::{self, Action, Handler, Signal};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::c_program::compile;
use crate::privileges::wait_until_blocked_in;
use crate::{hand_over, python};

const KINDS: [&str; 3] = ["flock", "process", "open-file"];

fn lock(kind: &str, mode: Mode) -> Lock {
    match kind {
        "flock" => Lock::flock(mode),
        "process" => Lock::process(mode),
        _ => Lock::open_file(mode),
    }
}

/// The system call that takes locks of a kind.
fn call(kind: &str) -> libc::c_long {
    if kind == "flock" { libc::SYS_flock } else { libc::SYS_fcntl }
}

fn open(path: &Path) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

fn file(scratch: &Scratch) -> (PathBuf, File) {
    let path = scratch.join("file");
    let file = open(&path);
    (path, file)
}

fn bytes(start: u64, len_bytes: u64) -> Range {
    Range { start, len_bytes }
}

/// Role: opens a file and locks, as it is told: `KIND MODE HOW START LENGTH`, `release`.
pub(crate) fn locker(arguments: &[String]) {
    let file = open(Path::new(&arguments[0]));
    let _handler = Handler::install_interrupting(Signal::USR1, Action::Wake).unwrap();
    let mut guards = Vec::new();
    report(signal::thread_id());
    while let Some(order) = instruction() {
        let words: Vec<&str> = order.split(' ').collect();
        let &[kind, mode, how, start, len] = &words[..] else {
            guards.clear();
            report("released");
            continue;
        };
        let mode = if mode == "shared" { Mode::Shared } else { Mode::Exclusive };
        let range = bytes(start.parse().unwrap(), len.parse().unwrap());
        let lock = lock(kind, mode).range(range);
        let guard = match how {
            "lock" => lock.lock(&file).map(Some),
            "interruptible" => lock.lock_interruptible(&file).map(Some),
            "until" => lock.lock_until(&file, Deadline::after(DEADLINE)),
            _ => lock.try_lock(&file),
        };
        match guard {
            Ok(Some(guard)) => {
                guards.push(guard);
                report("held");
            }
            Ok(None) => report("taken by another"),
            Err(error) => report(error.name()),
        }
    }
}

/// Another process that opened the file, and the id of the thread in which it locks.
fn other(path: &Path) -> (Child, u32) {
    let mut child = Child::role("file-locker", &[path.display()]);
    let thread = child.line().unwrap().parse().unwrap();
    (child, thread)
}

fn told(child: &mut Child, order: &str) -> String {
    child.tell(order);
    child.line().expect("an answer")
}

#[test]
fn two_processes_keep_each_other_out() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        let tried = |mode| lock(kind, mode).try_lock(&file).unwrap().is_some();

        assert_eq!(told(&mut child, &format!("{kind} exclusive try 0 0")), "held");
        assert_eq!((tried(Mode::Exclusive), tried(Mode::Shared)), (false, false), "{kind}");
        assert_eq!(told(&mut child, "release"), "released");

        assert_eq!(told(&mut child, &format!("{kind} shared try 0 0")), "held");
        assert_eq!((tried(Mode::Exclusive), tried(Mode::Shared)), (false, true), "{kind}");
        assert_eq!(told(&mut child, "release"), "released");

        let guard = lock(kind, Mode::Exclusive).try_lock(&file).unwrap().unwrap();
        assert_eq!(guard.lock(), lock(kind, Mode::Exclusive));
        assert_eq!(told(&mut child, &format!("{kind} shared try 0 0")), "taken by another");
        guard.unlock().unwrap();
        assert_eq!(told(&mut child, &format!("{kind} exclusive try 0 0")), "held");
    }
}

#[test]
fn who_waits_gets_it_when_the_holder_lets_go() {
    for (kind, how) in KINDS.iter().flat_map(|kind| [(kind, "lock"), (kind, "until")]) {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        let guard = lock(kind, Mode::Exclusive).lock(&file).unwrap();
        child.tell(&format!("{kind} exclusive {how} 0 0"));
        let call = if how == "lock" { call(kind) } else { libc::SYS_clock_nanosleep };
        wait_until_blocked_in(child.id(), call);
        drop(guard);
        child.expect("held");
        assert!(lock(kind, Mode::Shared).try_lock(&file).unwrap().is_none(), "{kind}");
    }
}

#[test]
fn a_killed_holder_lets_go_and_a_killed_waiter_waits_no_more() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut holder, _) = other(&path);
        let (mut waiter, _) = other(&path);
        assert_eq!(told(&mut holder, &format!("{kind} exclusive try 0 0")), "held");
        waiter.tell(&format!("{kind} exclusive lock 0 0"));
        wait_until_blocked_in(waiter.id(), call(kind));
        waiter.kill();
        holder.kill();
        assert!(lock(kind, Mode::Exclusive).try_lock(&file).unwrap().is_some(), "{kind}");
    }
}

#[test]
fn a_deadline_passes() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        assert_eq!(told(&mut child, &format!("{kind} shared try 0 0")), "held");
        for timeout in [Duration::ZERO, Duration::from_millis(10)] {
            let since = std::time::Instant::now();
            let exclusive = lock(kind, Mode::Exclusive);
            assert!(exclusive.lock_until(&file, Deadline::after(timeout)).unwrap().is_none());
            assert!(since.elapsed() >= timeout);
        }
        let shared = lock(kind, Mode::Shared).lock_until(&file, Deadline::NEVER);
        assert!(shared.unwrap().is_some());
    }
}

#[test]
fn a_signal_ends_a_wait_only_where_asked() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, thread) = other(&path);
        let guard = lock(kind, Mode::Exclusive).lock(&file).unwrap();
        let poke = |child: &Child| {
            wait_until_blocked_in(child.id(), call(kind));
            signal::send_thread(child.id(), thread, Signal::USR1).unwrap();
        };
        child.tell(&format!("{kind} shared interruptible 0 0"));
        poke(&child);
        child.expect("EINTR");

        child.tell(&format!("{kind} shared lock 0 0"));
        poke(&child);
        assert_eq!(child.line_within(Duration::from_millis(20)), None);
        wait_until_blocked_in(child.id(), call(kind));
        drop(guard);
        child.expect("held");
    }
}

#[test]
fn the_holder_is_told_where_the_kernel_knows_it() {
    let scratch = Scratch::new();
    let (path, file) = file(&scratch);
    let (mut child, _) = other(&path);
    let exclusive = [Lock::process(Mode::Exclusive), Lock::open_file(Mode::Exclusive)];
    for ask in exclusive {
        assert_eq!(ask.holder(&file), Ok(None));
        assert_eq!(told(&mut child, "process shared try 5 7"), "held");
        let holder = ask.holder(&file).unwrap().unwrap();
        assert_eq!((holder.mode, holder.range), (Mode::Shared, bytes(5, 7)));
        assert_eq!(holder.pid, Some(child.id()));
        assert_eq!(ask.range(bytes(12, 0)).holder(&file), Ok(None));
        assert_eq!(told(&mut child, "release"), "released");

        assert_eq!(told(&mut child, "open-file exclusive try 9 0"), "held");
        let holder = ask.holder(&file).unwrap().unwrap();
        assert_eq!((holder.mode, holder.range), (Mode::Exclusive, bytes(9, 0)));
        assert_eq!(holder.pid, None);
        assert_eq!(told(&mut child, "release"), "released");
    }
    let error = Lock::flock(Mode::Shared).holder(&file).unwrap_err();
    assert_eq!(error.name(), "EINVAL");
}

#[test]
fn ranges_apart_do_not_meet() {
    for kind in ["process", "open-file"] {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        let first = lock(kind, Mode::Exclusive).range(bytes(0, 10));
        let _first = first.try_lock(&file).unwrap().unwrap();
        let _far = first.range(bytes(1 << 40, 1)).try_lock(&file).unwrap().unwrap();
        let mut tries = |range: &str| told(&mut child, &format!("{kind} shared try {range}"));
        assert_eq!(tries("10 5"), "held");
        assert_eq!(tries("9 1"), "taken by another");
        assert_eq!(tries("20 0"), "taken by another");
        assert_eq!(tries("1099511627777 0"), "held");
    }
}

#[test]
fn a_circle_of_process_locks_is_refused() {
    let scratch = Scratch::new();
    let (path, file) = file(&scratch);
    let (mut child, _) = other(&path);
    let byte = |start| Lock::process(Mode::Exclusive).range(bytes(start, 1));
    let zero = byte(0).lock(&file).unwrap();
    assert_eq!(told(&mut child, "process exclusive lock 1 1"), "held");
    child.tell("process exclusive lock 0 1");
    wait_until_blocked_in(child.id(), libc::SYS_fcntl);
    assert_eq!(byte(1).lock(&file).unwrap_err().name(), "EDEADLK");
    drop(zero);
    child.expect("held");
}

#[test]
fn closing_another_descriptor_drops_process_locks_only() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        let _guard = lock(kind, Mode::Exclusive).lock(&file).unwrap();
        let order = format!("{kind} exclusive try 0 0");
        assert_eq!(told(&mut child, &order), "taken by another");
        // As a library would that only looks into the file.
        std::fs::read(&path).unwrap();
        let expected = if kind == "process" { "held" } else { "taken by another" };
        assert_eq!(told(&mut child, &order), expected, "{kind}");
    }
}

#[test]
fn two_threads_exclude_each_other_by_their_open_files_only() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, mine) = file(&scratch);
        let _guard = lock(kind, Mode::Exclusive).lock(&mine).unwrap();
        let (theirs, copy) = (open(&path), mine.try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Kept: giving back would give back the first.
                let tried = |file: &File| {
                    let guard = lock(kind, Mode::Exclusive).try_lock(file).unwrap();
                    guard.map(Guard::keep).is_some()
                };
                assert_eq!(tried(&theirs), kind == "process");
                assert!(tried(&copy));
            });
        });
    }
}

#[test]
fn a_lock_of_the_open_file_lasts_as_long_as_any_copy() {
    for kind in ["flock", "open-file"] {
        let scratch = Scratch::new();
        let (path, mine) = file(&scratch);
        let fd = std::os::fd::AsFd::as_fd(&mine);
        let mut child = hand_over::start("hand-over-holder", &[], &[fd]);
        child.expect("holding");
        lock(kind, Mode::Exclusive).lock(&mine).unwrap().keep();
        drop(mine);
        let again = open(&path);
        assert!(lock(kind, Mode::Shared).try_lock(&again).unwrap().is_none(), "{kind}");
        child.kill();
        // Not at once: a child that another test starts may have a copy for a moment.
        let locked = lock(kind, Mode::Shared).lock_until(&again, Deadline::after(DEADLINE));
        assert!(locked.unwrap().is_some(), "{kind}");
    }
}

#[test]
fn conversion() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut child, _) = other(&path);
        let order = format!("{kind} shared try 0 0");
        let mut guard = lock(kind, Mode::Exclusive).lock(&file).unwrap();
        assert_eq!(told(&mut child, &order), "taken by another");
        guard.convert(Mode::Shared).unwrap();
        assert_eq!(told(&mut child, &order), "held");
        assert_eq!(guard.lock(), lock(kind, Mode::Shared));

        let converted = guard.try_convert(Mode::Exclusive).unwrap();
        let lost = kind == "flock";
        assert_eq!(converted, if lost { Converted::Lost } else { Converted::Kept }, "{kind}");
        assert_eq!(told(&mut child, "release"), "released");
        let order = format!("{kind} exclusive try 0 0");
        assert_eq!(told(&mut child, &order), if lost { "held" } else { "taken by another" });
        assert_eq!(told(&mut child, "release"), "released");
        assert_eq!(guard.try_convert(Mode::Exclusive), Ok(Converted::Done));
        assert_eq!(told(&mut child, &order), "taken by another");
    }
}

#[test]
fn two_that_are_shared_and_both_convert() {
    let scratch = Scratch::new();
    let (path, file) = file(&scratch);
    let (mut child, _) = other(&path);
    let mut guard = Lock::process(Mode::Shared).lock(&file).unwrap();
    assert_eq!(told(&mut child, "process shared try 0 0"), "held");
    // A further lock of the same process on the same bytes is a conversion.
    child.tell("process exclusive lock 0 0");
    wait_until_blocked_in(child.id(), libc::SYS_fcntl);
    assert_eq!(guard.convert(Mode::Exclusive).unwrap_err().name(), "EDEADLK");
    assert_eq!(guard.lock(), Lock::process(Mode::Shared));
    drop(guard);
    child.expect("held");
}

#[test]
fn what_cannot_be_locked() {
    let scratch = Scratch::new();
    let (path, file) = file(&scratch);
    let name = |lock: Lock, file: &File| lock.try_lock(file).unwrap_err().name();
    let reader = File::open(&path).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    for kind in ["process", "open-file"] {
        assert_eq!(name(lock(kind, Mode::Exclusive), &reader), "EBADF");
        assert_eq!(name(lock(kind, Mode::Shared), &writer), "EBADF");
        let ranged = |start, len| lock(kind, Mode::Shared).range(bytes(start, len));
        assert_eq!(name(ranged(u64::MAX, 1), &file), "EINVAL");
        assert_eq!(name(ranged(0, u64::MAX), &file), "EINVAL");
        assert_eq!(name(ranged(i64::MAX as u64, 2), &file), "EOVERFLOW");
        assert!(ranged(i64::MAX as u64, 1).try_lock(&file).unwrap().is_some());
        assert!(ranged(u64::MAX, 1).holder(&file).is_err());
    }
    assert!(Lock::flock(Mode::Exclusive).try_lock(&reader).unwrap().is_some());
    assert_eq!(name(Lock::flock(Mode::Shared).range(bytes(0, 1)), &file), "EINVAL");
}

const PYTHON: &str = r#"
import fcntl, struct
file = open(sys.argv[1], "r+b")
kind = sys.argv[2]
if kind == "flock":
    fcntl.flock(file, fcntl.LOCK_EX)
elif kind == "process":
    fcntl.lockf(file, fcntl.LOCK_EX, 4, 2)
else:
    # struct flock as C lays it out; F_OFD_SETLK.
    fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2, 4, 0))
say("held")
told()
"#;

#[test]
fn python_keeps_us_out_until_it_dies() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let arguments = [path.to_str().unwrap(), kind];
        let test = "python_keeps_us_out_until_it_dies";
        let Some(mut child) = python::start(test, "fcntl", PYTHON, &arguments) else { return };
        child.expect("held");
        let exclusive = lock(kind, Mode::Exclusive);
        assert!(exclusive.try_lock(&file).unwrap().is_none(), "{kind}");
        if kind != "flock" {
            let holder = exclusive.holder(&file).unwrap().unwrap();
            assert_eq!(holder.range, bytes(2, 4));
            assert_eq!(holder.pid, (kind == "process").then(|| child.id()));
            assert!(exclusive.range(bytes(0, 2)).try_lock(&file).unwrap().is_some());
        }
        child.kill();
        assert!(exclusive.try_lock(&file).unwrap().is_some(), "{kind}");
    }
}

/// Says who holds the file, if the kernel knows it, then waits for the lock, and stays.
const C_WAITER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
int main(int count, char **arguments) {
    int fd = open(arguments[1], O_RDWR | O_CLOEXEC), result;
    struct flock asked = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 4};
    struct flock wanted = asked;
    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &asked)) return 1;
    printf("%d\n", asked.l_type == F_UNLCK ? 0 : (int)asked.l_pid);
    fflush(stdout);
    if (!strcmp(arguments[2], "flock"))
        result = flock(fd, LOCK_EX);
    else
        result = fcntl(fd, strcmp(arguments[2], "process") ? F_OFD_SETLKW : F_SETLKW, &wanted);
    puts(result ? "failed" : "held");
    fflush(stdout);
    return pause();
}
"#;

#[test]
fn a_c_program_waits_until_we_die() {
    let Some(program) = compile("a_c_program_waits_until_we_die", C_WAITER) else { return };
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = file(&scratch);
        let (mut ours, _) = other(&path);
        let range = if kind == "flock" { "0 0" } else { "5 1" };
        assert_eq!(told(&mut ours, &format!("{kind} exclusive try {range}")), "held");
        let mut c = program.start(&[path.to_str().unwrap(), kind]);
        c.expect(&match kind {
            "flock" => "0".to_owned(),
            "process" => ours.id().to_string(),
            _ => "-1".to_owned(),
        });
        wait_until_blocked_in(c.id(), call(kind));
        ours.kill();
        c.expect("held");
        assert!(lock(kind, Mode::Shared).try_lock(&file).unwrap().is_none(), "{kind}");
        c.kill();
        assert!(lock(kind, Mode::Shared).try_lock(&file).unwrap().is_some(), "{kind}");
    }
}
