//! A thousand: channels of one process, and processes that subscribe to one topic (a hundred in short).

use std::time::Instant;

use rustix::process::{Resource, geteuid, getrlimit};
use switchboard::{Bytes, Options, Receiver, Sender};
use switchboard_kernel::process::{file_limit, set_file_limit};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::{say, skip};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};
use super::process;

const THOUSAND: u64 = 1000;
/// Descriptors of a topic's publisher and its only subscriber, together: what docs/transports.md says.
const PER_CHANNEL: u64 = 19;

type Channel = (Sender<Bytes>, Receiver<Bytes>);

fn open(scope: &str, name: u64) -> Channel {
    let address = format!("shm:channels/{name}?{scope}");
    let reader = ends::reader(Pattern::Topic, &address, Options::default()).expect("a subscriber");
    let writer = ends::writer(Pattern::Topic, &address, Options::default()).expect("a publisher");
    (writer, reader)
}

fn pass((writer, reader): &mut Channel, number: u64) {
    writer.wait_for_peers(1, Some(DEADLINE)).expect("met");
    writer.send_bytes(&ends::message(number, 1, 64)).expect("sent");
    let delivery = reader.recv_timeout(DEADLINE).expect("a message");
    assert_eq!(ends::read(&delivery.message.0), Some((number, 1)));
}

/// Role: opens channels, passes a message over each, and closes them when it is told to. Says how many descriptors
/// all took and how long that was, and what is left. Arguments: the scope, how many, from which number on.
pub(crate) fn channels(arguments: &[String]) {
    let scope = &arguments[0];
    let [count, first] = [1, 2].map(|at| arguments[at].parse::<u64>().expect("a number"));
    let (_, most) = file_limit();
    set_file_limit(most.min((THOUSAND + 10) * PER_CHANNEL)).expect("a limit");
    // The first one brings the thread, which stays.
    pass(&mut open(scope, first), 0);
    let before = (process::descriptors(), process::shared_mappings());
    let begun = Instant::now();
    let mut channels: Vec<Channel> = Vec::new();
    for name in 1..=count {
        channels.push(open(scope, first + name));
        if name.is_multiple_of(100) {
            // Where the processors are busy with something else, this takes its time.
            report("a hundred more");
        }
    }
    let opened = begun.elapsed();
    let descriptors = process::descriptors() - before.0;
    for (channel, number) in channels.iter_mut().zip(1..) {
        pass(channel, number);
    }
    let passed = begun.elapsed();
    report(format_args!("{descriptors} {} {}", opened.as_millis(), passed.as_millis()));
    assert_eq!(instruction().as_deref(), Some("close"));
    for (writer, reader) in channels {
        writer.close().expect("closed");
        drop(reader);
    }
    // The thread lets go of what was closed a moment later.
    let until = Instant::now() + DEADLINE / 2;
    let left = || (process::descriptors(), process::shared_mappings());
    // What was open for a moment at the beginning may be missing.
    let none = |left: (_, _)| left.0 <= before.0 && left.1 <= before.1;
    while !none(left()) && Instant::now() < until {
        std::thread::yield_now();
    }
    let after = left();
    report(format_args!("{after:?} left of {before:?}"));
    report(format_args!("{}", none(after)));
}

#[test]
fn a_thousand_channels_in_one_process() {
    const TEST: &str = "shm::thousand::a_thousand_channels_in_one_process";
    if file_limit().1 < (THOUSAND + 10) * PER_CHANNEL {
        return skip(TEST, "this user may not open 19,190 files: see ulimit -Hn");
    }
    let scratch = Scratch::new();
    let scope = format!("scope={}", scratch.join("scope").display());
    let mut child =
        Child::role("shm-thousand-channels", &[scope, THOUSAND.to_string(), "0".into()]);
    (0..THOUSAND / 100).for_each(|_| child.expect("a hundred more"));
    let said = child.line().expect("figures");
    let figures: Vec<u64> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let [descriptors, opened_ms, passed_ms] = figures[..] else { panic!("{said}") };
    say(&format!(
        "{descriptors} descriptors, open after {opened_ms} ms, passed after {passed_ms} ms"
    ));
    assert!(descriptors <= THOUSAND * PER_CHANNEL, "{said}");
    child.tell("close");
    let left = child.line().expect("what is left");
    assert_eq!(child.line().as_deref(), Some("true"), "{left}");
    assert!(child.wait().success());
    assert!(!scratch.join("scope/shm/channels%2F1").exists(), "a channel's folder is left");
}

/// Ten thousand channels at a time, of ten processes, each with a message; in short two hundred, of two.
#[test]
fn torture_of_a_machine_by_channels_each_of_which_works() {
    const TEST: &str = "shm::thousand::torture_of_a_machine_by_channels_each_of_which_works";
    let is_long = std::env::var_os("SWITCHBOARD_TORTURE_SECONDS").is_some();
    let (processes, each) = if is_long { (10, THOUSAND) } else { (2, THOUSAND / 10) };
    if file_limit().1 < (each + 10) * PER_CHANNEL {
        return skip(TEST, "this user may not open so many files: see ulimit -Hn");
    }
    let scratch = Scratch::new();
    let scope = format!("scope={}", scratch.join("scope").display());
    let begun = Instant::now();
    let mut children: Vec<Child> = (0..processes)
        .map(|process| {
            let first = process * (each + 1);
            let arguments = [scope.clone(), each.to_string(), first.to_string()];
            Child::role("shm-thousand-channels", &arguments)
        })
        .collect();
    let mut descriptors = 0;
    for child in &mut children {
        for _ in 0..each / 100 {
            assert_eq!(child.line_within(4 * DEADLINE).as_deref(), Some("a hundred more"));
        }
        let said = child.line_within(4 * DEADLINE).expect("figures");
        let first = said.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        descriptors += first.expect("a number");
    }
    say(&format!(
        "{} channels of {processes} processes at a time: {descriptors} descriptors, all with a message after {:.1} s",
        processes * each,
        begun.elapsed().as_secs_f64()
    ));
    assert!(descriptors <= processes * each * PER_CHANNEL, "{descriptors} descriptors");
    for child in &mut children {
        child.tell("close");
    }
    for child in &mut children {
        let left = child.line_within(4 * DEADLINE).expect("what is left");
        assert_eq!(child.line().as_deref(), Some("true"), "{left}");
        assert!(child.wait().success());
    }
}

/// How many messages each subscriber is to get: three rings full.
const MESSAGES: u64 = 100;
const LEN_BYTES: usize = 1000;

/// Role: gets all of them, in order, and says so.
pub(crate) fn subscriber(arguments: &[String]) {
    let mut reader =
        ends::reader(Pattern::Topic, &arguments[0], Options::default()).expect("a subscriber");
    for number in 1..=MESSAGES {
        let delivery = reader.recv_timeout(2 * DEADLINE).expect("a message");
        assert_eq!(ends::read(&delivery.message.0), Some((7, number)), "each once, in order");
        assert_eq!(delivery.lost_before, 0);
    }
    let end = reader.recv_timeout(DEADLINE);
    report(format_args!("all, {end:?}"));
}

/// Role: starts the others, publishes to them, and says how many got everything.
pub(crate) fn publisher(arguments: &[String]) {
    let (_, most) = file_limit();
    set_file_limit(most.min(FILES)).expect("a limit");
    let mut publisher =
        ends::writer(Pattern::Topic, &arguments[0], Options::default()).expect("a publisher");
    let begun = Instant::now();
    let count: u64 = arguments[1].parse().expect("a number");
    let mut subscribers: Vec<Child> =
        (0..count).map(|_| Child::role("shm-one-of-crowd", &[&arguments[0]])).collect();
    report("started");
    publisher.wait_for_peers(subscribers.len(), Some(2 * DEADLINE)).expect("all are there");
    let met = begun.elapsed().as_millis();
    report("met");
    for number in 1..=MESSAGES {
        let message = Bytes(ends::message(7, number, LEN_BYTES));
        publisher.send_timeout(&message, DEADLINE).expect("sent");
    }
    publisher.close().expect("closed");
    subscribers.iter_mut().for_each(|subscriber| subscriber.expect("all, Err(Ended)"));
    let done = begun.elapsed().as_millis();
    assert!(subscribers.iter_mut().all(|subscriber| subscriber.wait().success()));
    report(format_args!("met after {met} ms, all received after {done} ms"));
}

/// Descriptors of the publisher's process: two for each link, two for each child.
const FILES: u64 = 4 * THOUSAND + 100;
/// Processes, with the threads of each, and those that listen to them.
const TASKS: u64 = 4 * THOUSAND + 100;

/// In short a hundred: to start a thousand takes ten to thirty seconds, which `prove torture` has.
#[test]
fn torture_of_a_topic_by_a_crowd_each_of_whom_gets_every_message() {
    const TEST: &str = "shm::thousand::torture_of_a_topic_by_a_crowd";
    let is_long = std::env::var_os("SWITCHBOARD_TORTURE_SECONDS").is_some();
    let count = if is_long { THOUSAND } else { THOUSAND / 10 };
    let tasks = getrlimit(Resource::Nproc).current.unwrap_or(u64::MAX);
    if file_limit().1 < FILES || (tasks < TASKS && !geteuid().is_root()) {
        return skip(TEST, "this user may not have so many files or processes: see ulimit -Hn -u");
    }
    let scratch = Scratch::new();
    let address = format!("shm:crowd?scope={}", scratch.join("scope").display());
    let mut publisher = Child::role("shm-crowd-publisher", &[address, count.to_string()]);
    publisher.expect("started");
    publisher.expect("met");
    say(&format!("{count} {}", publisher.line().expect("that each got everything")));
    assert!(publisher.wait().success());
}
