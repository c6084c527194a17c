//! Child processes: their descriptors, their end, and who is who.

pub(crate) mod tree;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, duplicate, write_all};
use switchboard_kernel::process::{
    Child, Signal, Spawn, command_name, effective_group_id, effective_user_id, file_limit,
    find_program, group_id_of_name, group_name_of_id, inherited_descriptor, set_file_limit,
    user_id_of_name, user_name_of_id,
};
use switchboard_kernel::{Error, pidfd};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe")
}

/// A pipe's reading end with a text in it.
fn holding(text: &str) -> OwnedFd {
    let (reader, writer) = pipe();
    write_all(&writer, text.as_bytes()).expect("room");
    reader
}

fn shell(script: &str) -> Spawn {
    Spawn::new("sh").args(["-c", script]).die_with_parent()
}

/// Runs it to its end; what it said.
fn output(spawn: Spawn) -> String {
    let (reader, writer) = pipe();
    let mut child = spawn.stdout(writer).spawn().expect("a child");
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).expect("its output");
    let status = child.wait(soon()).expect("its status").expect("its end");
    assert!(status.success(), "{status}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A shell that waits for its input to end, and has said that it does.
fn waiting_shell(script: &str) -> (Child, OwnedFd) {
    let ((input, held), (said, out)) = (pipe(), pipe());
    let script = format!("{script} echo ready; exec >&-; read line");
    let child = shell(&script).stdin(input).stdout(out).spawn().expect("a shell");
    let mut text = String::new();
    File::from(said).read_to_string(&mut text).expect("its output");
    assert_eq!(text, "ready\n");
    (child, held)
}

#[test]
fn a_child_has_the_chosen_descriptors_and_no_other() {
    let inheritable = holding("x");
    rustix::io::fcntl_setfd(&inheritable, rustix::io::FdFlags::empty()).expect("set");
    let spawn = shell("ls /proc/$$/fd; read a <&8; read b <&9; echo $a $b")
        .descriptor(8, holding("replaced\n"))
        .descriptor(9, holding("one\n"))
        .descriptor(8, holding("two\n"));
    assert_eq!(output(spawn), "0 1 2 8 9 two one");
    assert_eq!(output(shell("ls /proc/$$/fd; :")), "0 1 2");
}

#[test]
fn numbers_may_overlap_in_a_cycle() {
    let high = |text: &str| {
        rustix::io::fcntl_dupfd_cloexec(holding(text), 300).expect("a high descriptor")
    };
    let (a, b, c) = (high("a\n"), high("b\n"), high("c\n"));
    let (at_a, at_b, at_c) = (a.as_raw_fd(), b.as_raw_fd(), c.as_raw_fd());
    // Shells take only single digits after `<&`, so the numbers are looked up by path.
    let script = "for n do read x </proc/$$/fd/$n || x=?; echo $x; done";
    let numbers = [at_a, at_b, at_c].map(|number| number.to_string());
    let spawn = shell(script)
        .arg("sh")
        .args(numbers)
        .descriptor(at_b, a)
        .descriptor(at_a, b)
        .descriptor(at_c, c);
    assert_eq!(output(spawn), "b a c");
}

#[test]
fn low_numbers_do_not_disturb_the_report_of_a_failure() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Opens and closes descriptors under the very numbers that children are to have.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop((pipe(), pipe()));
            }
        });
        let outcomes: Vec<_> = (3..40)
            .map(|number| {
                let spawn = Spawn::new("/nonexistent/program");
                let refused = spawn.descriptor(number, holding("x")).spawn();
                refused.map(drop).map_err(|error| (error.call(), error.name()))
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(outcomes, vec![Err(("execve", "ENOENT")); 37]);
    });
}

#[test]
fn numbers_that_cannot_be() {
    let (soft, _) = file_limit();
    for number in [-1, 0, 2, i32::try_from(soft).unwrap_or(i32::MAX)] {
        let error = Spawn::new("true").descriptor(number, holding("x")).spawn().expect_err("no");
        assert_eq!(error.name(), "EINVAL", "{number}");
    }
    let error = Spawn::new("true").arg("a\0b").spawn().expect_err("no such argument");
    assert_eq!(error.name(), "EINVAL");
}

#[test]
fn environment_folder_and_input() {
    let scratch = Scratch::new();
    let folder = scratch.path().canonicalize().expect("a path");
    let spawn = Spawn::new("/bin/sh")
        .args(["-c", "read line; echo $line $WORD ${HOME-none}; pwd -P"])
        .env("GONE", "1")
        .env_clear()
        .env("WORD", "word")
        .current_dir(&folder)
        .stdin(holding("line\n"));
    assert_eq!(output(spawn), format!("line word none {}", folder.display()));
}

#[test]
fn a_group_of_its_own() {
    let (input, held) = pipe();
    let mut child = shell("read line").stdin(input).new_process_group().spawn().expect("a shell");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed());
    assert_eq!(rustix::process::getpgid(pid).ok(), pid);
    drop(held);
    child.wait(soon()).expect("its status").expect("its end");
}

#[test]
fn terminate_is_gentle_first() {
    let (mut child, _held) = waiting_shell("");
    let status = child.terminate(DEADLINE).expect("its end");
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    assert_eq!(child.terminate(DEADLINE), Ok(status));
    assert_eq!(child.wait(Deadline::NEVER), Ok(Some(status)));
    assert_eq!(child.signal(Signal::TERM).map_err(|error| error.name()), Err("ESRCH"));
}

#[test]
fn terminate_kills_who_ignores_it() {
    let (mut child, _held) = waiting_shell("trap '' TERM;");
    let (grace, start) = (Duration::from_millis(50), Instant::now());
    let status = child.terminate(grace).expect("its end");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert!(start.elapsed() >= grace);
}

#[test]
fn a_dropped_child_lives_on_or_is_reaped() {
    let (child, held) = waiting_shell("");
    let pidfd = duplicate(child.pidfd()).expect("a copy");
    drop(child);
    assert_eq!(pidfd::is_dead(&pidfd), Ok(false));
    drop(held);
    assert!(pidfd::wait(&pidfd, soon()).expect("its status").is_some());

    let ended = Spawn::new("true").spawn().expect("a child");
    let pidfd = duplicate(ended.pidfd()).expect("a copy");
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    drop(ended);
    let reaped = pidfd::wait(&pidfd, soon());
    assert_eq!(reaped.map_err(|error| error.name()), Err("ECHILD"));
}

/// Has a child that is to die with it.
pub(crate) fn parent(_: &[String]) {
    let (mut child, _held) = waiting_shell("");
    assert_eq!(child.wait(Deadline::after(Duration::ZERO)), Ok(None));
    report(child.id());
    let _ = instruction();
    let _ = child.kill();
}

#[test]
fn a_child_dies_with_its_parent() {
    let mut parent = switchboard_testkit::Child::role::<&str>("process_parent", &[]);
    let grandchild = parent.line().expect("a line").parse().expect("a process id");
    let pidfd = pidfd::open(grandchild).expect("a pidfd");
    assert_eq!(pidfd::is_dead(&pidfd), Ok(false));
    parent.kill();
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
}

#[test]
fn an_inherited_number_is_copied() {
    let counter = EventFd::new(9).expect("a counter");
    let number = rustix::fd::AsFd::as_fd(&counter).as_raw_fd();
    let copy = inherited_descriptor(number).expect("a copy");
    assert_ne!(copy.as_raw_fd(), number);
    assert!(rustix::io::fcntl_getfd(&copy).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(EventFd::from(copy).take(), Ok(9));
    for number in [-1, i32::MIN, i32::MAX] {
        assert_eq!(inherited_descriptor(number).map(drop).map_err(|e| e.name()), Err("EBADF"));
    }
}

/// Waits to be killed.
pub(crate) fn waiter(_: &[String]) {
    report("waiting");
    let _ = instruction();
}

/// Changes its limit, and reaches it.
pub(crate) fn file_limit_role(_: &[String]) {
    let (_, hard) = file_limit();
    set_file_limit(30).expect("lowered");
    report(file_limit() == (30, hard));
    let counters: Vec<_> = (0..30).map(|_| EventFd::new(0)).collect();
    let error = counters.into_iter().find_map(Result::err).expect("a limit");
    report(error.name());
    if let Some(above) = hard.checked_add(1) {
        report(set_file_limit(above).map_or_else(|error| error.name(), |()| "raised"));
    } else {
        report("EINVAL");
    }
}

#[test]
fn the_file_limit() {
    let mut child = switchboard_testkit::Child::role::<&str>("process_file_limit", &[]);
    child.expect("true");
    child.expect("EMFILE");
    child.expect("EINVAL");
}

#[test]
fn users_and_groups_have_names() {
    assert_eq!((user_id_of_name("root"), group_id_of_name("root")), (Ok(0), Ok(0)));
    assert_eq!((user_id_of_name("0"), group_id_of_name("4242")), (Ok(0), Ok(4242)));
    assert_eq!(user_name_of_id(0).as_deref(), Some("root"));
    assert_eq!(group_name_of_id(0).as_deref(), Some("root"));
    assert_eq!(user_name_of_id(4_000_000_123), None);
    for nobody in ["", "no such user", "-1", "+1", "4294967295", "99999999999"] {
        assert_eq!(user_id_of_name(nobody).map_err(|e| e.name()), Err("ENOENT"), "{nobody:?}");
        assert_eq!(group_id_of_name(nobody).map_err(|e| e.name()), Err("ENOENT"), "{nobody:?}");
    }
    assert_eq!(user_id_of_name("a\0b").map_err(|error| error.name()), Err("EINVAL"));
    assert_eq!(effective_user_id(), rustix::process::geteuid().as_raw());
    assert_eq!(effective_group_id(), rustix::process::getegid().as_raw());
}

/// Gives itself a name that would colour a terminal.
pub(crate) fn comm(_: &[String]) {
    std::fs::write("/proc/self/comm", "a\u{1b}[31m\u{202e}b\n").expect("a name");
    report("named");
    let _ = instruction();
}

#[test]
fn a_command_name_is_safe_to_print() {
    let mut child = switchboard_testkit::Child::role::<&str>("process_comm", &[]);
    child.expect("named");
    assert_eq!(command_name(child.id()).as_deref(), Some("a?[31m?b?"));
    assert_eq!(command_name(u32::MAX), None);
}

#[test]
fn a_program_is_found_as_it_would_be_run() {
    let scratch = Scratch::new();
    let found = find_program("sh".as_ref()).expect("sh");
    assert!(found.is_absolute() && found.is_file(), "{}", found.display());
    assert_eq!(find_program(found.as_os_str()), Ok(found));
    std::fs::write(scratch.join("text"), "").expect("a file");
    let refused = |name: &std::path::Path| find_program(name.as_os_str()).map_err(Error::name);
    assert_eq!(refused(&scratch.join("text")), Err("EACCES"));
    assert_eq!(refused(scratch.path()), Err("EACCES"));
    assert_eq!(refused(&scratch.join("nothing")), Err("ENOENT"));
    assert_eq!(refused("".as_ref()), Err("ENOENT"));
    assert_eq!(refused("switchboard-has-no-such-command".as_ref()), Err("ENOENT"));
}
