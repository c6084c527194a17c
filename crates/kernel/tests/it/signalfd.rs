//! Tests of `signalfd.rs`.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::process::Spawn;
use switchboard_kernel::signal::{self, Code, Signal, SignalSet};
use switchboard_kernel::signalfd::{BATCH, SignalFd};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use crate::c_program::compile;
use crate::hand_over;
use crate::signal::{SENDER, from_here, role_blocking, rt, text};

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

fn is_readable(signals: &SignalFd) -> bool {
    wait_for(signals, Interest::Readable, now()).unwrap()
}

fn mine() -> SignalSet {
    SignalSet::from([Signal::TERM, Signal::USR1, rt(1)])
}

/// A process that waits in an epoll with a signalfd in it.
fn ready_taker() -> Child {
    let mut child = role_blocking("TERM,USR1,RTMIN+1", "signalfd-taker", &[""; 0]);
    child.expect("ready");
    child
}

/// Role: says what its epoll and its signalfd find; `SIGTERM` ends it.
pub(crate) fn taker(_: &[String]) {
    let _blocked = signal::block(&mine()).unwrap();
    let signals = SignalFd::new(&mine()).unwrap();
    let epoll = Epoll::new().unwrap();
    epoll.add(&signals, 5, Interest::Readable).unwrap();
    let mut events = Events::with_capacity(2);
    report("ready");
    loop {
        assert_eq!(epoll.wait(&mut events, soon()), Ok(1));
        let received = signals.try_next().unwrap().unwrap();
        report(text(received));
        if received.signal == Signal::TERM {
            assert_eq!(signals.try_next(), Ok(None));
            return;
        }
    }
}

#[test]
fn signals_of_another_process_wake_an_epoll() {
    let mut child = ready_taker();
    signal::queue(child.id(), rt(1), -77).unwrap();
    child.expect(&from_here(rt(1), Code::Queue, Some(-77)));
    signal::send(child.id(), Signal::USR1).unwrap();
    child.expect(&from_here(Signal::USR1, Code::Kill, None));
    signal::send(child.id(), Signal::TERM).unwrap();
    child.expect(&from_here(Signal::TERM, Code::Kill, None));
    assert!(child.wait().success());
}

#[test]
fn a_killed_reader_and_a_killed_sender() {
    let mut child = ready_taker();
    let mut sender = Child::role("signal-sender", &[child.id()]);
    sender.expect("sent");
    sender.kill();
    let line = child.line().unwrap();
    let pid = format!("{:?}", Some(sender.id()));
    assert!(line.contains(&pid) && line.ends_with("Some(99)"), "{line}");

    let pidfd = switchboard_kernel::pidfd::open(child.id()).unwrap();
    child.kill();
    let late = signal::queue_pidfd(pidfd, rt(1), 1);
    assert_eq!(late.map_err(|error| error.name()), Err("ESRCH"));
}

#[test]
fn a_batch_takes_all_and_leaves_nothing() {
    let set = SignalSet::from([Signal::USR1, rt(10)]);
    let _blocked = signal::block(&set).unwrap();
    let signals = SignalFd::new(&set).unwrap();
    let (process, thread) = (std::process::id(), signal::thread_id());
    let mut taken = Vec::new();
    assert_eq!(signals.read_batch(&mut taken), Ok(0));
    for value in 0..40 {
        signal::queue_thread(process, thread, rt(10), value).unwrap();
        signal::send_thread(process, thread, Signal::USR1).unwrap();
    }
    assert!(is_readable(&signals));
    assert_eq!(signals.read_batch(&mut taken), Ok(BATCH));
    assert_eq!(signals.read_batch(&mut taken), Ok(41 - BATCH));
    assert_eq!(signals.read_batch(&mut taken), Ok(0));
    assert!(!is_readable(&signals));

    assert_eq!((taken[0].signal, taken[0].code), (Signal::USR1, Code::Thread));
    let values: Vec<_> = taken[1..].iter().filter_map(|received| received.value).collect();
    assert_eq!(values, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_wait_ends_with_a_signal_or_at_its_deadline() {
    let (said, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let set = SignalSet::from(rt(11));
        let _blocked = signal::block(&set).unwrap();
        let signals = SignalFd::new(&set).unwrap();
        assert_eq!(signals.next(now()), Ok(None));
        assert_eq!(signals.next(Deadline::after(Duration::from_millis(5))), Ok(None));
        said.send(signal::thread_id()).unwrap();
        signals.next(soon()).unwrap().unwrap()
    });
    let id = told.recv().unwrap();
    signal::queue_thread(std::process::id(), id, rt(11), 4).unwrap();
    assert_eq!(thread.join().unwrap().value, Some(4));
}

#[test]
fn only_what_is_in_the_set_is_read() {
    let both = SignalSet::from([rt(12), rt(13)]);
    let _blocked = signal::block(&both).unwrap();
    let signals = SignalFd::new(&SignalSet::from(rt(12))).unwrap();
    let send = |signal| {
        signal::send_thread(std::process::id(), signal::thread_id(), signal).unwrap();
    };
    send(rt(13));
    assert_eq!(signals.try_next(), Ok(None));
    signals.set(&SignalSet::from(rt(13))).unwrap();
    assert_eq!(signals.try_next().unwrap().unwrap().signal, rt(13));
    send(rt(12));
    assert_eq!(signals.try_next(), Ok(None));
    assert_eq!(signal::wait(&both, now()).unwrap().unwrap().signal, rt(12));
}

#[test]
fn a_copy_in_another_process_shows_that_ones_signals() {
    let set = SignalSet::from(rt(14));
    let _blocked = signal::block(&set).unwrap();
    let signals = SignalFd::new(&set).unwrap();
    let mut child = hand_over::start("signalfd-copy", &[], &[std::os::fd::AsFd::as_fd(&signals)]);
    child.expect("ready");
    signal::send_thread(std::process::id(), signal::thread_id(), rt(14)).unwrap();
    assert!(is_readable(&signals));
    child.tell("look");
    child.expect("nothing");
    let thread = child.line().unwrap().parse().unwrap();
    signal::send_thread(child.id(), thread, rt(14)).unwrap();
    child.tell("look");
    child.expect("readable");
    assert_eq!(signals.try_next().unwrap().unwrap().pid, Some(std::process::id()));
}

/// Role: looks whether a descriptor that it was given is readable.
pub(crate) fn copy(arguments: &[String]) {
    let (fds, _) = hand_over::take(arguments);
    signal::block(&SignalSet::from(rt(14))).unwrap().keep();
    report("ready");
    while instruction().is_some() {
        let readable = wait_for(&fds[0], Interest::Readable, now()).unwrap();
        report(if readable { "readable" } else { "nothing" });
        report(signal::thread_id());
    }
}

#[test]
fn the_mask_is_inherited_unless_it_is_emptied() {
    let _blocked = signal::block(&mine()).unwrap();
    let mut child = Spawn::new("sleep").arg("1000").die_with_parent().spawn().unwrap();
    signal::send_pidfd(child.pidfd(), Signal::TERM).unwrap();
    let status = child.wait(soon()).unwrap().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM));

    // What the kernel does by itself, and the standard library leaves at that.
    let status = std::process::Command::new("sh").args(["-c", "kill $$; exit 5"]).status();
    assert_eq!(status.unwrap().code(), Some(5));
}

#[test]
fn descriptors_run_out() {
    let mut child = Child::role("signalfd-out-of-descriptors", &[""; 0]);
    child.expect("EMFILE");
}

/// Role: asks for one descriptor too many.
pub(crate) fn out_of_descriptors(_: &[String]) {
    switchboard_kernel::process::set_file_limit(3).unwrap();
    report(SignalFd::new(&mine()).unwrap_err().name());
}

const C_READER: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>
int main(void) {
    sigset_t set;
    struct signalfd_siginfo info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    puts("ready");
    fflush(stdout);
    while (read(fd, &info, sizeof info) == sizeof info) {
        int number = info.ssi_signo == SIGUSR1 ? -1 : (int)info.ssi_signo - SIGRTMIN;
        printf("%d %u %d\n", number, info.ssi_pid, info.ssi_int);
        fflush(stdout);
    }
    return 1;
}
"#;

#[test]
fn a_c_program_reads_what_we_send_and_sends_what_we_read() {
    let test = "a_c_program_reads_what_we_send_and_sends_what_we_read";
    let (Some(reader), Some(sender)) = (compile(test, C_READER), compile(test, SENDER)) else {
        return;
    };
    let mut reader = reader.start(&[]);
    reader.expect("ready");
    let pidfd = switchboard_kernel::pidfd::open(reader.id()).unwrap();
    signal::queue_pidfd(&pidfd, rt(1), -77).unwrap();
    reader.expect(&format!("1 {} -77", std::process::id()));
    let mut ours = Child::role("signal-sender", &[reader.id()]);
    ours.expect("sent");
    ours.kill();
    reader.expect(&format!("1 {} 99", ours.id()));
    signal::send_pidfd(&pidfd, Signal::USR1).unwrap();
    reader.expect(&format!("-1 {} 0", std::process::id()));
    reader.kill();
    assert_eq!(signal::send_pidfd(&pidfd, Signal::USR1).unwrap_err().name(), "ESRCH");

    let mut taker = ready_taker();
    let mut sender = sender.start(&[&taker.id().to_string()]);
    assert!(sender.wait().success());
    let uid = rustix::process::getuid().as_raw();
    taker.expect(&format!("SIGRTMIN+1 Queue {:?} {:?} Some(17)", Some(sender.id()), Some(uid)));
    taker.expect("SIGRTMIN+1 Queue Some(1) Some(4711) Some(18)");
}
