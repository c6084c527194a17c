//! A thread of a library's own: no signal of the program runs in it, and it is bound to no processor.

use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use switchboard_kernel::background;
use switchboard_kernel::signal::{Signal, blocked};
use switchboard_testkit::DEADLINE;

#[test]
fn signals_are_blocked_and_processors_are_free() {
    let all = sched_getaffinity(None).expect("the processors");
    let (say, heard) = channel();
    let bound = std::thread::spawn(move || {
        let mut one = CpuSet::new();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("a processor");
        one.set(first);
        sched_setaffinity(None, &one).expect("bound");
        let before = blocked().contains(Signal::TERM);
        background::spawn("helper", move || {
            let name = std::thread::current().name().map(str::to_owned);
            let masked = [Signal::TERM, Signal::INT, Signal::USR1].map(|s| blocked().contains(s));
            let free = sched_getaffinity(None).expect("the processors");
            let _ = say.send((name, masked, free == all));
        })
        .expect("a thread");
        assert_eq!(blocked().contains(Signal::TERM), before, "the caller's mask is as it was");
    });
    bound.join().expect("no panic");
    let (name, masked, free) = heard.recv_timeout(DEADLINE).expect("it runs");
    assert_eq!((name.as_deref(), masked, free), (Some("helper"), [true; 3], true));
    assert!(heard.recv_timeout(Duration::from_millis(1)).is_err(), "it has ended");
}
