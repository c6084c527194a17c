//! Pseudo-terminals, on each side.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use super::stage::{idle, read_some, write_on};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "terminal",
        "a program waits for what somebody types",
        |stage| terminal(stage, read_some, |_| ()),
        &[("program", &["to read from pty:", "its only other end @terminal"])],
    ),
    one(
        "terminal-reads",
        "a terminal waits for what its program says",
        |stage| terminal(stage, |_| 0, |master| drop_result(read_some(master))),
        &[("terminal", &["to read from pty:", "/master", "its only other end @program"])],
    ),
    one(
        "terminal-full",
        "a program writes to a terminal that shows nothing",
        |stage| terminal(stage, writes, |_| ()),
        &[("program", &["to write to pty:", "its only other end @terminal"])],
    )
    .stuck(&["program"]),
    one(
        "terminal-stopped",
        "a program writes to a terminal that is stopped",
        |stage| terminal(stage, writes, stops),
        &[("program", &["to write to pty:", "its only other end @terminal is stopped (SIGSTOP)"])],
    )
    .stuck(&["program"]),
    one(
        "terminal-both-wait",
        "a terminal waits for what its program says, and that one for what is typed",
        |stage| terminal(stage, read_some, |master| drop_result(read_some(master))),
        &[
            ("program", &["to read from pty:", "its only other end @terminal is stuck itself"]),
            ("terminal", &["/master", "its only other end @program is stuck itself"]),
        ],
    )
    .deadlock(Sure::Probable, true, &["program", "terminal"]),
];

fn drop_result(_: isize) {}

fn writes(fd: i32) -> isize {
    write_on(fd, 4096);
    0
}

fn stops(_: i32) {
    // SAFETY: stops this process.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn terminal(stage: &mut Stage, program: fn(i32) -> isize, shows: fn(i32)) {
    let (mut master, mut slave) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: room for two descriptors; nothing else is asked for.
    let made =
        unsafe { libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast()) };
    assert_eq!(made, 0, "openpty");
    let (master, slave) = (stage.own(master), stage.own(slave));
    stage.actor("program", &[slave], |_| {
        program(slave);
        idle();
    });
    stage.actor("terminal", &[master], |_| {
        shows(master);
        idle();
    });
}
