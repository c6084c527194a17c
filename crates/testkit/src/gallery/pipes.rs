//! Pipes and FIFOs.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use super::stage::{idle, read_some, write_on};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "pipe-empty",
        "a reader waits for a writer that has nothing to say",
        pipe_empty,
        &[("reader", &["to read from pipe:", "(empty, 0/65536)", "its only writer @writer"])],
    ),
    one(
        "pipe-full",
        "a writer waits for a reader that does not read",
        pipe_full,
        &[("writer", &["to write to pipe:", "(full, 65536/65536)", "its only reader @reader"])],
    )
    .stuck(&["writer"]),
    one(
        "pipe-stopped-reader",
        "the only reader of a full pipe is stopped",
        pipe_stopped,
        &[(
            "writer",
            &["to write to pipe:", "(full, ", "its only reader @reader is stopped (SIGSTOP)"],
        )],
    )
    .stuck(&["writer"]),
    one(
        "pipe-inherited-end",
        "a reader waits for the end of a pipe whose write end it has itself",
        inherited,
        &[("reader", &["to read from pipe:", "its only writer itself is stuck"])],
    )
    .deadlock(Sure::Certain, true, &["reader"]),
    one(
        "pipe-sibling-end",
        "the end of a pipe does not come: an idle sibling has the write end",
        sibling,
        &[("reader", &["to read from pipe:", "its only writer @sibling"])],
    ),
    one(
        "pipes-both-full",
        "two processes write to each other, and neither reads",
        both_full,
        &[
            ("left", &["to write to pipe:", "its only reader @right is stuck itself"]),
            ("right", &["to write to pipe:", "its only reader @left is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "pipes-in-a-ring",
        "three processes, each of which waits for the one before",
        ring,
        &[
            ("first", &["to read from pipe:", "its only writer @third is stuck itself"]),
            ("second", &["@first is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["first", "second", "third"]),
    one(
        "pipes-polled",
        "two processes poll for what the other one does not write",
        polled,
        &[("left", &["to read from pipe:", "its only writer @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "parent-waits-child-reads",
        "a parent waits for its child, which reads what only the parent could write",
        parent,
        &[("parent", &["for its child child[", " to end", "is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["parent", "child"]),
    one(
        "made-child-reads",
        "a process that makes a child waits until that one starts its program; the child reads what only its parent could write",
        |stage| made_child(stage, false),
        &[("parent", &["for its child child[", " to end or to start its program", "is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["parent", "child"]),
    one(
        "made-child-at-work",
        "the same, and the child is at work",
        |stage| made_child(stage, true),
        &[("parent", &["for its child child[", " to end or to start its program; its child child["])],
    ),
    one(
        "fifo-without-writer",
        "a FIFO is opened for reading, and nobody opens it for writing",
        fifo_reader,
        &[(
            "opener",
            &[
                "for somebody to open fifo:",
                "/jobs for writing",
                "anybody who opens it can end that",
            ],
        )],
    )
    .stuck(&["opener"]),
    one(
        "fifo-without-reader",
        "a FIFO is opened for writing, and nobody opens it for reading",
        fifo_writer,
        &[("opener", &["for somebody to open fifo:", "/jobs for reading"])],
    )
    .stuck(&["opener"]),
    one(
        "fifo-empty",
        "a reader of a FIFO waits for its writer",
        fifo_empty,
        &[("reader", &["to read from fifo:", "/jobs (empty, 0/65536)", "its only writer @writer"])],
    ),
    one(
        "fifos-both-full",
        "two processes write to each other through FIFOs",
        fifos,
        &[("left", &["to write to fifo:", "its only reader @right is stuck itself"])],
    )
    .deadlock(Sure::Probable, true, &["left", "right"]),
];

fn pipe_empty(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("reader", &[read], |_| {
        read_some(read);
    });
    stage.actor("writer", &[write], |_| idle());
}

fn pipe_full(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("writer", &[write], |_| write_on(write, 4096));
    stage.actor("reader", &[read], |_| idle());
}

fn pipe_stopped(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("writer", &[write], |_| write_on(write, 4096));
    stage.actor("reader", &[read], |_| {
        // SAFETY: stops this process.
        unsafe { libc::raise(libc::SIGSTOP) };
    });
}

fn inherited(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("reader", &[read, write], |_| {
        read_some(read);
    });
}

fn sibling(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("reader", &[read], |_| {
        read_some(read);
    });
    stage.brief("writer", &[write], |_| ());
    stage.actor("sibling", &[write], |_| idle());
}

fn both_full(stage: &mut Stage) {
    let ((a, to_a), (b, to_b)) = (stage.pipe(), stage.pipe());
    stage.actor("left", &[a, to_b], |_| write_on(to_b, 4096));
    stage.actor("right", &[b, to_a], |_| write_on(to_a, 4096));
}

fn ring(stage: &mut Stage) {
    let ends = [stage.pipe(), stage.pipe(), stage.pipe()];
    for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
        let (read, write) = (ends[at].0, ends[(at + 1) % 3].1);
        stage.actor(name, &[read, write], |_| {
            read_some(read);
        });
    }
}

fn polled(stage: &mut Stage) {
    let ((a, to_a), (b, to_b)) = (stage.pipe(), stage.pipe());
    for (name, read, write) in [("left", a, to_b), ("right", b, to_a)] {
        stage.actor(name, &[read, write], |_| {
            let mut entry = libc::pollfd { fd: read, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, as said.
            unsafe { libc::poll(&raw mut entry, 1, -1) };
        });
    }
}

fn parent(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("parent", &[read, write], |_| {
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("child");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            super::stage::close(write);
            read_some(read);
            idle();
        }
        let mut status = 0;
        // SAFETY: the child is this process's own.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
    });
}

fn made_child(stage: &mut Stage, works: bool) {
    let (read, write) = stage.pipe();
    stage.actor("parent", &[read, write], |_| {
        let flags = libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD);
        // SAFETY: as fork does it, with memory of its own; but this process waits.
        let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if child == 0 {
            super::stage::name("child");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            super::stage::close(write);
            if works {
                std::thread::sleep(std::time::Duration::from_secs(100_000));
            }
            read_some(read);
            idle();
        }
    });
}

fn fifo(stage: &Stage, name: &str) -> std::ffi::CString {
    let path = stage.path(name);
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo");
    path
}

fn open(path: &std::ffi::CStr, flags: i32) -> i32 {
    // SAFETY: the path is a C string.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }
}

fn fifo_reader(stage: &mut Stage) {
    let path = fifo(stage, "jobs");
    stage.actor("opener", &[], |_| {
        open(&path, libc::O_RDONLY);
    });
}

fn fifo_writer(stage: &mut Stage) {
    let path = fifo(stage, "jobs");
    stage.actor("opener", &[], |_| {
        open(&path, libc::O_WRONLY);
    });
}

fn fifo_empty(stage: &mut Stage) {
    let path = fifo(stage, "jobs");
    stage.actor("reader", &[], |_| {
        read_some(open(&path, libc::O_RDONLY));
    });
    stage.actor("writer", &[], |_| {
        open(&path, libc::O_WRONLY);
        idle();
    });
}

fn fifos(stage: &mut Stage) {
    let (a, b) = (fifo(stage, "a"), fifo(stage, "b"));
    for (name, from, to) in [("left", &a, &b), ("right", &b, &a)] {
        stage.actor(name, &[], |scene| {
            open(from, libc::O_RDONLY | libc::O_NONBLOCK);
            scene.meet(2);
            write_on(open(to, libc::O_WRONLY), 4096);
        });
    }
}
