//! What only signals have: numbers, senders, merging, and a process as the meeting place.

use switchboard_testkit::Child;

use super::{ask, listening, notifying};

#[test]
fn numbers_and_senders_arrive_in_order() {
    let (mut listener, address) = listening("signal:self/SIGRTMIN+1");
    assert_eq!(address, format!("signal:{}/SIGRTMIN+1", listener.id()));
    let mut notifier = notifying(&address);
    for value in [7, -1, i32::MIN, i32::MAX] {
        assert_eq!(ask(&mut notifier, &format!("value {value}")), "done");
    }
    let pid = notifier.id();
    for value in [7, -1, i32::MIN, i32::MAX] {
        let expected = format!("event merged=false value=Some({value}) from=Some(({pid}, false))");
        assert_eq!(ask(&mut listener, "wait 15000"), expected);
    }
}

#[test]
fn standard_signals_are_merged() {
    let (mut listener, address) = listening("signal:self/SIGUSR1");
    let mut notifier = notifying(&address);
    assert_eq!(ask(&mut notifier, "many 10"), "done");
    let pid = notifier.id();
    let expected = format!("event merged=true value=None from=Some(({pid}, true))");
    assert_eq!(ask(&mut listener, "wait 15000"), expected);
    assert_eq!(ask(&mut listener, "try"), "none");
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    let (mut listener, address) = listening("signal:self/SIGUSR2");
    let mut notifier = notifying(&address);
    assert_eq!(ask(&mut notifier, "notify"), "done");
    listener.kill();
    let answer = ask(&mut notifier, "notify");
    assert!(answer.starts_with("error NotFound") && answer.contains("no process"), "{answer}");
    let mut late = Child::role("notifier", &[&address]);
    let answer = late.line().expect("an answer");
    assert!(answer.starts_with("error NotFound") && answer.contains("no process"), "{answer}");
}

#[test]
fn only_own_signals_can_be_listened_to() {
    for (address, problem) in [
        (format!("signal:{}/SIGUSR1", std::process::id()), "signal:self/SIGUSR1"),
        ("signal:self/SIGSEGV".to_owned(), "SIGUSR2"),
        ("signal:self/SIGBUS".to_owned(), "SIGUSR2"),
    ] {
        let mut child = Child::role("listener", &[&address]);
        let answer = child.line().expect("an answer");
        assert!(answer.starts_with("error NotSupported"), "{answer}");
        assert!(answer.contains(problem), "{answer}");
    }
}
