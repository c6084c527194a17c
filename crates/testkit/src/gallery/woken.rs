//! Processes that wait for each other, and are woken by something else all the same: a time limit, a signal that they handle, a
//! child. None of that stands in the call in which they sleep. And, beside these, two that nothing of the kind helps.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::time::Duration;

use super::locks::{Mutex, lock_file, mutex, takes_both};
use super::queues::operate;
use super::sockets::two;
use super::stage::{idle, read_some, write_on};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "receive-timeout",
        "two processes wait for each other's answer over a socket on which receiving takes a while at most",
        |stage| limited(stage, false),
        &[("left", &["to read from unix:", "until its timeout"])],
    ),
    one(
        "send-timeout",
        "two processes send to each other over a socket on which sending takes a while at most",
        |stage| limited(stage, true),
        &[("left", &["to write to unix:", "until its timeout"])],
    ),
    one(
        "alarm",
        "two processes wait for each other's answer, each with an alarm that interrupts it",
        alarm,
        &[("left", &["its only other end @right may be stuck itself"])],
    ),
    one(
        "alarm-limits-a-lock",
        "two processes lock two files, each the other's first, and an alarm makes them give up",
        alarm_limits_a_lock,
        &[("left", &["(flock, exclusive)", "its owner @right may be stuck itself"])],
    )
    .stuck_after_a_while(&["left", "right"]),
    one(
        "timer-interrupts",
        "a process waits for another one's answer; a timer of the kernel sends it a signal that it handles",
        timer,
        &[],
    ),
    one(
        "signal-pipe-of-a-server",
        "a server waits for its own pipe, to which its signal handlers write; its worker lives as long as a pipe of the server's",
        signal_pipe,
        &[],
    ),
    one(
        "parent-stops-child-when-told",
        "a parent waits for its child, and closes what that one reads from when it is told to stop",
        lifeline,
        &[("parent", &["for its child worker["])],
    ),
    one(
        "event-loop-watches-child",
        "an event loop waits for its child, a filter that has nothing to read, and for signals through a pair of sockets",
        event_loop,
        &[],
    ),
    one(
        "child-will-end",
        "a process waits for data from itself; its child sleeps, and its end will be told by a signal",
        child_will_end,
        &[],
    ),
    one(
        "semaphores-counted",
        "two consumers wait for what a sleeping producer will make, each for what the other one had last",
        consumers,
        &[("one", &["semaphore 0, wants 1, count 0"])],
    ),
    one(
        "keyboard-handled",
        "two processes wait for each other's answer; both handle only what comes from a keyboard",
        keyboard,
        &[("left", &["its only other end @right is stuck itself"])],
    )
    .deadlock(Sure::Probable, true, &["left", "right"]),
    one(
        "mutexes-crossed-signals-handled",
        "two processes take two mutexes, each the other's first; that they handle a signal does not help",
        mutexes,
        &[("left", &["(robust mutex)", "its owner @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, false, &["left", "right"]),
];

const LONG_S: u32 = 100_000;

extern "C" fn nothing(_: libc::c_int) {}

fn handle(signals: &[i32]) {
    let handler = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for &signal in signals {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Calls `first` in a child that ends with its parent; gives its id.
fn fork(name: &str, first: impl FnOnce()) -> i32 {
    // SAFETY: the child uses what it copied, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        super::stage::name(name);
        // SAFETY: concerns this process alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // What its parent handles, it does not.
        for signal in [libc::SIGTERM, libc::SIGCHLD, libc::SIGALRM] {
            // SAFETY: what the kernel does by default.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        first();
        idle();
    }
    child
}

fn wait_for(child: i32) {
    let mut status = 0;
    // SAFETY: the child is this process's own.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
}

fn poll(fds: &[i32]) {
    let entry = |&fd: &i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = fds.iter().map(entry).collect();
    // SAFETY: so many entries.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
}

fn limited(stage: &mut Stage, sends: bool) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    let limit = libc::timeval { tv_sec: LONG_S.into(), tv_usec: 0 };
    let option = if sends { libc::SO_SNDTIMEO } else { libc::SO_RCVTIMEO };
    for fd in [a, b] {
        let size = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the socket is open, the limit whole.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const limit).cast(), size)
        };
        assert_eq!(set, 0, "setsockopt");
    }
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| {
            if sends {
                write_on(end, 4096);
            } else {
                read_some(end);
            }
        });
    }
}

fn alarm(stage: &mut Stage) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| {
            handle(&[libc::SIGALRM]);
            // SAFETY: concerns this process alone.
            unsafe { libc::alarm(LONG_S) };
            read_some(end);
        });
    }
}

fn alarm_limits_a_lock(stage: &mut Stage) {
    let paths = [stage.path("a"), stage.path("b")];
    for (name, first, second) in [("left", 0, 1), ("right", 1, 0)] {
        stage.actor(name, &[], |scene| {
            lock_file(&paths[first], true);
            scene.meet(2);
            handle(&[libc::SIGALRM]);
            // SAFETY: concerns this process alone.
            unsafe { libc::alarm(LONG_S) };
            lock_file(&paths[second], true);
        });
    }
}

fn timer(stage: &mut Stage) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    stage.actor("here", &[a], |_| {
        handle(&[libc::SIGUSR1]);
        // SAFETY: integers and pointers; all zeroes is a valid value of each.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, libc::SIGUSR1);
            let mut timer: libc::timer_t = std::mem::zeroed();
            assert_eq!(
                libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer),
                0
            );
            let mut setting: libc::itimerspec = std::mem::zeroed();
            setting.it_value.tv_sec = LONG_S.into();
            assert_eq!(libc::timer_settime(timer, 0, &raw const setting, std::ptr::null_mut()), 0);
        }
        read_some(a);
    });
    stage.actor("there", &[b], |_| {
        read_some(b);
    });
}

fn signal_pipe(stage: &mut Stage) {
    let ((signals, to_signals), (life, keeps)) = (stage.pipe(), stage.pipe());
    stage.actor("server", &[signals, to_signals, life, keeps], |_| {
        handle(&[libc::SIGTERM, libc::SIGCHLD, libc::SIGUSR1]);
        fork("worker", || {
            super::stage::close(keeps);
            read_some(life);
        });
        super::stage::close(life);
        poll(&[signals]);
    });
}

fn lifeline(stage: &mut Stage) {
    let (life, keeps) = stage.pipe();
    stage.actor("parent", &[life, keeps], |_| {
        handle(&[libc::SIGTERM]);
        let child = fork("worker", || {
            super::stage::close(keeps);
            read_some(life);
        });
        super::stage::close(life);
        wait_for(child);
    });
}

fn event_loop(stage: &mut Stage) {
    let (input, to_filter) = stage.pipe();
    let (signals, to_signals) = two(stage, libc::SOCK_STREAM);
    stage.actor("loop", &[input, to_filter, signals, to_signals], |_| {
        handle(&[libc::SIGINT, libc::SIGTERM]);
        let child = fork("filter", || {
            super::stage::close(to_filter);
            super::stage::close(signals);
            super::stage::close(to_signals);
            read_some(input);
        });
        super::stage::close(input);
        // SAFETY: makes a descriptor.
        let child = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
        poll(&[signals, i32::try_from(child).unwrap_or(-1)]);
    });
}

fn child_will_end(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("parent", &[read, write], |_| {
        handle(&[libc::SIGCHLD]);
        fork("child", || {
            super::stage::close(read);
            super::stage::close(write);
            std::thread::sleep(Duration::from_secs(LONG_S.into()));
        });
        read_some(read);
    });
}

fn consumers(stage: &mut Stage) {
    let id = stage.semaphores(&[0, 0]);
    stage.actor("producer", &[], |scene| {
        operate(id, 0, 1);
        operate(id, 1, 1);
        scene.meet(3);
        std::thread::sleep(Duration::from_secs(LONG_S.into()));
    });
    for (name, had, wants) in [("one", 1, 0), ("other", 0, 1)] {
        stage.actor(name, &[], |scene| {
            operate(id, had, -1);
            scene.meet(3);
            operate(id, wants, -1);
        });
    }
}

fn keyboard(stage: &mut Stage) {
    let (a, b) = two(stage, libc::SOCK_STREAM);
    for (name, end) in [("left", a), ("right", b)] {
        stage.actor(name, &[end], |_| {
            handle(&[libc::SIGINT]);
            read_some(end);
        });
    }
}

fn mutexes(stage: &mut Stage) {
    let (a, b) = (mutex(stage, Mutex::Robust), mutex(stage, Mutex::Robust));
    for (name, of) in [("left", [a, b]), ("right", [b, a])] {
        stage.actor(name, &[], |scene| {
            handle(&[libc::SIGTERM, libc::SIGALRM]);
            takes_both(scene, 2, of);
        });
    }
}
