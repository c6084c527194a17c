//! Counters shared with a shell and with Python, which know nothing of this crate.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use switchboard_kernel::error::ErrorKind;
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, Interest, duplicate, set_nonblocking, wait_for};
use switchboard_kernel::process::{Child, Spawn};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{instruction, report};

use crate::privileges::wait_until_blocked_in;
use crate::{hand_over, python};

/// A shell with the counter as its descriptor 7, and its output.
fn shell(counter: &EventFd, script: &str) -> (Child, std::fs::File) {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let child = Spawn::new("sh")
        .args(["-c", script])
        .descriptor(7, duplicate(counter).expect("a copy"))
        .stdout(writer)
        .die_with_parent()
        .spawn()
        .expect("a shell");
    (child, std::fs::File::from(reader))
}

fn succeeds(mut child: Child) {
    let status = child.wait(Deadline::after(DEADLINE)).expect("its status").expect("its end");
    assert!(status.success(), "{status}");
}

#[test]
fn another_process_adds() {
    let counter = EventFd::new(2).expect("a counter");
    let (child, _output) = shell(&counter, r"printf '\005\0\0\0\0\0\0\0' >&7");
    succeeds(child);
    assert_eq!(counter.take(), Ok(7));
    assert_eq!(counter.try_take(), Ok(None));
}

#[test]
fn a_blocked_process_is_woken() {
    let counter = EventFd::new(0).expect("a counter");
    let (child, mut output) = shell(&counter, "exec od -An -tu8 -N8 <&7");
    wait_until_blocked_in(child.id(), libc::SYS_read);
    counter.add(41).expect("room");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    assert_eq!(text.trim(), "41");
    succeeds(child);
}

#[test]
fn a_dead_process_leaves_the_count() {
    let counter = EventFd::new(0).expect("a counter");
    let (mut child, _output) = shell(&counter, r"printf '\001\0\0\0\0\0\0\0' >&7; kill -KILL $$");
    child.wait(Deadline::after(DEADLINE)).expect("its status").expect("its end");
    assert_eq!(counter.try_take(), Ok(Some(1)));
}

#[test]
fn a_semaphore_gives_one_at_a_time() {
    let permits = EventFd::semaphore(2).expect("a semaphore");
    assert_eq!(permits.take(), Ok(1));
    assert_eq!(permits.try_take(), Ok(Some(1)));
    assert_eq!(permits.try_take(), Ok(None));
    let soon = Deadline::after(Duration::ZERO);
    assert_eq!(wait_for(&permits, Interest::Readable, soon), Ok(false));
}

#[test]
fn the_count_is_bounded() {
    let counter = EventFd::new(0).expect("a counter");
    counter.add(u64::MAX - 1).expect("just room");
    assert_eq!(counter.add(u64::MAX).map_err(|error| error.errno()), Err(libc::EINVAL));
    set_nonblocking(&counter, true).expect("set");
    assert_eq!(counter.add(1).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    assert_eq!(counter.take(), Ok(u64::MAX - 1));
}

#[test]
fn a_descriptor_of_another_kind_is_refused() {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    rustix::io::write(&writer, b"short").expect("room");
    let not_a_counter = EventFd::from(reader);
    assert_eq!(not_a_counter.try_take().map_err(|error| error.errno()), Err(libc::EINVAL));
    let _: OwnedFd = not_a_counter.into();
}

/// Role: adds 5, and stays.
pub(crate) fn adder(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    EventFd::from(fds.remove(0)).add(5).expect("room");
    report("added");
    let _ = instruction();
}

const PYTHON_HAS_EVENTFD: &str = "os; os.eventfd";

#[test]
fn python_waits_and_adds_and_either_is_killed() {
    let counter = EventFd::new(0).expect("a counter");
    let program = "say(os.eventfd_read(fds[0]))\n\
                   os.eventfd_write(fds[0], 3)\n\
                   told()\n\
                   os.eventfd_read(fds[0])";
    let test = "python_waits_and_adds_and_either_is_killed";
    let Some(mut python) =
        python::start_with(test, PYTHON_HAS_EVENTFD, program, &[counter.as_fd()])
    else {
        return;
    };
    wait_until_blocked_in(python.id(), libc::SYS_read);
    let mut adder = hand_over::start("eventfd-adder", &[], &[counter.as_fd()]);
    adder.expect("added");
    adder.kill();
    python.expect("5");
    assert_eq!(counter.take(), Ok(3));

    python.tell("wait again");
    wait_until_blocked_in(python.id(), libc::SYS_read);
    python.kill();
    counter.add(1).expect("room");
    assert_eq!(counter.try_take(), Ok(Some(1)), "the dead took nothing along");
}

#[test]
fn a_counter_of_python_outlives_it() {
    let program = "give(meet(), os.eventfd(7, os.EFD_CLOEXEC))\ntold()";
    let test = "a_counter_of_python_outlives_it";
    let Some((mut python, connection)) = python::meet(test, PYTHON_HAS_EVENTFD, program, &[])
    else {
        return;
    };
    let counter = EventFd::from(hand_over::given(&connection));
    python.kill();
    assert_eq!((counter.take(), counter.try_take()), (Ok(7), Ok(None)));
}
