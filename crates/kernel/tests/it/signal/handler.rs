//! Handlers: what each action does, in which thread, and what is left when they go.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest, bytes_waiting};
use switchboard_kernel::pipe;
use switchboard_kernel::signal::{self, Action, Code, Handler, Signal};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use super::{error_of, from_here, rt, text};

fn to_this_thread(signal: Signal) {
    signal::send_thread(std::process::id(), signal::thread_id(), signal).unwrap();
}

#[test]
fn a_flag_is_set_and_a_count_goes_up() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let _flag = Handler::install(rt(6), Action::Flag(&FLAG)).unwrap();
    let _count = Handler::install(rt(7), Action::Count(&COUNT)).unwrap();
    assert!(!FLAG.load(Ordering::Acquire));
    to_this_thread(rt(6));
    for _ in 0..3 {
        to_this_thread(rt(7));
    }
    assert!(FLAG.load(Ordering::Acquire));
    assert_eq!(COUNT.load(Ordering::Acquire), 3);
}

#[test]
fn another_process_wakes_an_epoll() {
    let mut child = Child::role("signal-waker", &[""; 0]);
    child.expect("ready");
    signal::send(child.id(), Signal::TERM).unwrap();
    child.expect("woken by 1");
    signal::send(child.id(), Signal::TERM).unwrap();
    child.expect("woken by 1");
    child.tell("end");
    assert!(child.wait().success());
}

/// Role: waits in an epoll until SIGTERM comes, twice.
pub(crate) fn waker(_: &[String]) {
    let handler = Handler::install(Signal::TERM, Action::Wake).unwrap();
    let epoll = Epoll::new().unwrap();
    epoll.add(handler.descriptor().unwrap(), 1, Interest::Readable).unwrap();
    let mut events = Events::with_capacity(4);
    report("ready");
    for _ in 0..2 {
        assert_eq!(epoll.wait(&mut events, Deadline::after(DEADLINE)), Ok(1));
        report(format_args!("woken by {}", handler.wakes().unwrap()));
    }
    assert_eq!(handler.wakes(), Ok(0));
    assert_eq!(handler.next_record(), Ok(None));
    let _ = instruction();
}

#[test]
fn records_say_who_sent_what() {
    let mut child = Child::role("signal-recorder", &[""; 0]);
    child.expect("ready");
    signal::queue(child.id(), rt(1), -5).unwrap();
    child.expect(&from_here(rt(1), Code::Queue, Some(-5)));
    signal::send(child.id(), rt(1)).unwrap();
    child.expect(&from_here(rt(1), Code::Kill, None));
}

/// Role: prints what comes, in a program with threads that block nothing.
pub(crate) fn recorder(_: &[String]) {
    let handler = Handler::install(rt(1), Action::Record).unwrap();
    for _ in 0..3 {
        std::thread::spawn(std::thread::park);
    }
    report("ready");
    for _ in 0..2 {
        crate::hand_over::ready(handler.descriptor().unwrap());
        let received = handler.next_record().unwrap().unwrap();
        assert_eq!(handler.next_record(), Ok(None));
        assert_eq!((handler.wakes(), handler.lost()), (Ok(0), 0));
        report(text(received));
    }
}

#[test]
fn records_that_do_not_fit_are_counted() {
    const SENT: u64 = 6000;
    let handler = Handler::install(rt(8), Action::Record).unwrap();
    for value in 0..SENT {
        let value = i32::try_from(value).unwrap();
        signal::queue_thread(std::process::id(), signal::thread_id(), rt(8), value).unwrap();
    }
    let mut kept = 0;
    while let Some(received) = handler.next_record().unwrap() {
        assert_eq!(received.value, i32::try_from(kept).ok());
        kept += 1;
    }
    assert!((2500..SENT).contains(&kept), "{kept}");
    assert_eq!(handler.lost(), SENT - kept);
    to_this_thread(rt(8));
    assert!(handler.next_record().unwrap().is_some(), "there is room again");
}

#[test]
fn one_handler_per_signal() {
    let first = Handler::install(rt(9), Action::Wake).unwrap();
    assert_eq!(error_of(Handler::install(rt(9), Action::Ignore)), "EBUSY");
    assert_eq!(first.signal(), rt(9));
    drop(first);
    drop(Handler::install(rt(9), Action::Ignore).unwrap());
}

#[test]
fn some_signals_cannot_be_handled() {
    for signal in [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL]
    {
        // Twice: a refusal leaves nothing behind.
        assert_eq!(error_of(Handler::install(signal, Action::Wake)), "EINVAL");
        assert_eq!(error_of(Handler::install(signal, Action::Ignore)), "EINVAL");
    }
}

#[test]
fn what_it_did_before_it_does_again() {
    let mut child = Child::role("signal-restorer", &[""; 0]);
    child.expect("handled, then ignored");
    child.tell("end by it");
    assert_eq!(child.wait().signal(), Some(libc::SIGUSR1));
}

/// Role: handles a signal, ignores it, and then dies by it.
pub(crate) fn restorer(_: &[String]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let handler = Handler::install(Signal::USR1, Action::Count(&COUNT)).unwrap();
    to_this_thread(Signal::USR1);
    drop(handler);
    let ignored = Handler::install(Signal::USR1, Action::Ignore).unwrap();
    to_this_thread(Signal::USR1);
    assert_eq!(COUNT.load(Ordering::Acquire), 1);
    assert!(ignored.descriptor().is_none());
    report("handled, then ignored");
    let _ = instruction();
    drop(ignored);
    to_this_thread(Signal::USR1);
    report("not reached");
}

#[test]
fn a_handler_that_goes_writes_to_no_other_descriptor() {
    // By default, SIGURG does nothing.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let (said, told) = std::sync::mpsc::channel();
        scope.spawn(|| {
            let said = said;
            said.send(signal::thread_id()).unwrap();
            while !stop.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
        let (thread, stop) = (told.recv().unwrap(), &stop);
        scope.spawn(move || {
            let process = std::process::id();
            while !stop.load(Ordering::Acquire)
                && signal::send_thread(process, thread, Signal::URG).is_ok()
            {}
        });
        for _ in 0..100 {
            let handler = Handler::install(Signal::URG, Action::Record).unwrap();
            crate::hand_over::ready(handler.descriptor().unwrap());
            drop(handler);
            // These get the numbers of the handler's pipe, or of others just closed.
            let (reader, writer) = pipe::pipe_nonblocking().unwrap();
            std::thread::yield_now();
            assert_eq!(bytes_waiting(reader.as_fd()), Ok(0));
            drop(writer);
        }
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
