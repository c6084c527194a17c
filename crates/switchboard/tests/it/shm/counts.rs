//! What it costs where nobody measures time: system calls while both sides are busy, processor time while
//! they sleep, memory of a link that nothing uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use switchboard::{Bytes, CallError, Options, Receiver, RecvError, SendError, Service};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::{say, skip};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};
use super::process;

const MESSAGES: u64 = 100_000;
const LEN_BYTES: usize = 64;
const POLLS: usize = 5_000;

fn address(scratch: &Scratch, name: &str) -> String {
    format!("shm:{name}?scope={}", scratch.join("scope").display())
}

/// Role: sends messages, polling where there is no room, and says when it began and was done.
pub(crate) fn busy_writer(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let mut sender = ends::writer(pattern, &arguments[1], Options::default()).expect("a writer");
    sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
    let message = Bytes(ends::message(1, 1, LEN_BYTES));
    for part in ["warm", "counted"] {
        report(format_args!("begins {part}"));
        let mut refused = 0;
        for _ in 0..MESSAGES {
            loop {
                match sender.try_send(&message) {
                    Ok(()) => break,
                    Err(SendError::Full) => {}
                    Err(SendError::Slow { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                std::thread::yield_now();
            }
        }
        report(format_args!("ended {part} {refused}"));
    }
    assert_eq!(instruction().as_deref(), Some("close"));
    sender.close().expect("closed");
}

/// Role: takes as many, polling where there is nothing.
pub(crate) fn busy_reader(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let mut receiver = ends::reader(pattern, &arguments[1], Options::default()).expect("a reader");
    for part in ["warm", "counted"] {
        report(format_args!("begins {part}"));
        for _ in 0..MESSAGES {
            loop {
                match receiver.try_recv() {
                    Ok(delivery) => {
                        receiver.acknowledge(delivery).expect("acknowledged");
                        break;
                    }
                    Err(RecvError::Empty) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        report(format_args!("ended {part} 0"));
    }
}

/// Role: calls again and again, polling for each reply.
pub(crate) fn busy_client(arguments: &[String]) {
    let service = Service::<u64, u64>::open(&arguments[0]).expect("a service");
    let client = service.client().expect("a client");
    client.wait_for_peers(1, Some(DEADLINE)).expect("a server");
    for part in ["warm", "counted"] {
        report(format_args!("begins {part}"));
        for number in 0..MESSAGES {
            let mut call = client.start(&number).expect("a call");
            let reply = loop {
                match call.try_wait() {
                    Err(CallError::Full) => std::thread::yield_now(),
                    reply => break reply.expect("a reply"),
                }
            };
            assert_eq!(reply, !number);
        }
        report(format_args!("ended {part} 0"));
    }
    assert_eq!(instruction().as_deref(), Some("close"));
}

/// Role: answers as many calls, polling where there is none.
pub(crate) fn busy_server(arguments: &[String]) {
    let service = Service::<u64, u64>::open(&arguments[0]).expect("a service");
    let server = service.server().expect("a server");
    for part in ["warm", "counted"] {
        report(format_args!("begins {part}"));
        for _ in 0..MESSAGES {
            loop {
                match server.try_recv_call() {
                    Ok(call) => {
                        let reply = !call.request;
                        call.reply(&reply).expect("replied");
                        break;
                    }
                    Err(RecvError::Empty) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        report(format_args!("ended {part} 0"));
    }
    // Its going is not to be seen before the client has said its end.
    assert_eq!(instruction().as_deref(), Some("close"));
}

/// Role: polls so often where nobody is.
pub(crate) fn lonely_reader(arguments: &[String]) {
    let mut receiver =
        ends::reader(Pattern::Topic, &arguments[0], Options::default()).expect("a reader");
    report("begins polls");
    for _ in 0..POLLS {
        let polled = receiver.try_recv();
        assert!(matches!(polled, Err(RecvError::Empty)), "{polled:?}");
    }
    report("ended polls");
}

/// The system calls that a traced process made between two lines that it said, but for those by which the
/// test itself polls.
fn calls_between(trace: &Path, begin: &str, end: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(trace).expect("what strace wrote");
    let mut lines = text.lines().skip_while(|line| !line.contains(begin)).skip(1).peekable();
    assert!(lines.peek().is_some(), "nothing of {begin} in {}", trace.display());
    let mut counts = BTreeMap::new();
    for line in lines.take_while(|line| !line.contains(end)) {
        // `4711 futex(…`; how calls that are under way go on, and signals, are no calls.
        let name = line.split_whitespace().nth(1).and_then(|word| word.split_once('('));
        if let Some((name, _)) = name
            && name != "sched_yield"
        {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// A process of this role, and where its system calls are written down.
fn start_traced(scratch: &Scratch, role: &str, arguments: &[&str]) -> (Child, PathBuf) {
    let trace = scratch.join(role);
    let file = trace.to_str().expect("a path");
    let starter = ["strace", "-f", "-qq", "-s", "64", "-o", file];
    (Child::role_under(&starter, role, arguments), trace)
}

fn may_trace(scratch: &Scratch) -> bool {
    let file = scratch.join("may-trace");
    let output = Command::new("strace").arg("-f").arg("-o").arg(&file).arg("true").output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn no_system_call_for_a_message_while_both_sides_are_busy() {
    const TEST: &str = "shm::counts::no_system_call_for_a_message";
    for pattern in [Pattern::Topic, Pattern::Queue] {
        let scratch = Scratch::new();
        if !may_trace(&scratch) {
            return skip(TEST, "no strace, or it may not trace here");
        }
        let address = address(&scratch, "busy");
        let start = |role: &str| start_traced(&scratch, role, &[pattern.name(), &address]);
        let (mut writer, of_writer) = start("shm-busy-writer");
        let (mut reader, of_reader) = start("shm-busy-reader");
        let refused = [&mut writer, &mut reader].map(|child| {
            child.expect("begins warm");
            child.line().expect("the warm-up's end");
            child.expect("begins counted");
            let said = child.line().expect("the end");
            let refused = said.strip_prefix("ended counted ").expect("how many were refused");
            refused.parse::<u64>().expect("a number")
        });
        writer.tell("close");
        assert!(writer.wait().success() && reader.wait().success());
        for (trace, refused) in [of_writer, of_reader].into_iter().zip(refused) {
            let mut calls = calls_between(&trace, "begins counted", "ended counted");
            say(&format!("{pattern:?}, {}: {calls:?}, {refused} refused", trace.display()));
            // A refusal says who is slow, and asks for that by a call.
            if let Some(asked) = calls.get_mut("membarrier") {
                *asked = asked.saturating_sub(refused);
            }
            let sum: u64 = calls.values().sum();
            assert!(sum <= MOST_CALLS, "{pattern:?}, {}: {calls:?}", trace.display());
        }
    }
}

#[test]
fn no_system_call_for_a_call_while_both_sides_are_busy() {
    const TEST: &str = "shm::counts::no_system_call_for_a_call";
    let scratch = Scratch::new();
    if !may_trace(&scratch) {
        return skip(TEST, "no strace, or it may not trace here");
    }
    let address = address(&scratch, "busy");
    let start = |role: &str| start_traced(&scratch, role, &[&address]);
    let (mut server, of_server) = start("shm-busy-server");
    let (mut client, of_client) = start("shm-busy-client");
    for child in [&mut client, &mut server] {
        child.expect("begins warm");
        child.expect("ended warm 0");
        child.expect("begins counted");
        child.expect("ended counted 0");
    }
    client.tell("close");
    server.tell("close");
    assert!(client.wait().success() && server.wait().success());
    for trace in [of_client, of_server] {
        let calls = calls_between(&trace, "begins counted", "ended counted");
        say(&format!("{}: {calls:?}", trace.display()));
        assert!(calls.values().sum::<u64>() <= MOST_CALLS, "{}: {calls:?}", trace.display());
    }
}

/// System calls for all messages together: the I/O thread's, and what the test says.
const MOST_CALLS: u64 = 20;

/// Role: an end that waits for something that does not come for a while. Says how much processor time all
/// its threads took for it, in microseconds, and how often they slept.
pub(crate) fn idle(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let options = Options::default().io_thread(arguments[2] == "thread");
    if arguments[3] == "writer" {
        let mut sender = ends::writer(pattern, &arguments[1], options).expect("a writer");
        sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
        let message = Bytes(ends::message(1, 1, 1000));
        while sender.try_send(&message).is_ok() {}
        waits(|| sender.send(&message).expect("sent after all"));
        sender.finish().ok();
    } else {
        let mut receiver = ends::reader(pattern, &arguments[1], options).expect("a reader");
        next(&mut receiver);
        waits(|| next(&mut receiver));
    }
}

fn next(receiver: &mut Receiver<Bytes>) {
    let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
    receiver.acknowledge(delivery).expect("acknowledged");
}

fn waits(wait: impl FnOnce()) {
    let (cpu_us, sleeps, begun) = (cpu_us(), process::sleeps("self"), Instant::now());
    report("waits");
    wait();
    let cpu_us = self::cpu_us() - cpu_us;
    let sleeps = process::sleeps("self") - sleeps;
    report(format_args!("{cpu_us} {sleeps} {}", begun.elapsed().as_millis()));
    let _ = instruction();
}

/// Of all threads of this process, finished ones too.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

/// How long nothing comes.
const IDLE: Duration = Duration::from_millis(3500);

#[test]
fn who_waits_takes_no_processor_time() {
    let (topic, queue) = (Pattern::Topic, Pattern::Queue);
    let cases = [(topic, "reader"), (queue, "reader"), (topic, "writer"), (queue, "writer")];
    let all: Vec<_> =
        cases.into_iter().flat_map(|case| [(case, "thread"), (case, "caller")]).collect();
    // All at once: each waits for as long.
    std::thread::scope(|scope| {
        for ((pattern, end), driven) in all {
            scope.spawn(move || idle_case(pattern, end, driven));
        }
    });
}

fn idle_case(pattern: Pattern, end: &str, driven: &str) {
    let scratch = Scratch::new();
    let address = address(&scratch, "idle");
    let mut child = Child::role("shm-idle", &[pattern.name(), &address, driven, end]);
    if end == "writer" {
        let mut reader = ends::reader(pattern, &address, Options::default()).expect("a reader");
        child.expect("waits");
        std::thread::sleep(IDLE);
        for _ in 0..8 {
            next(&mut reader);
        }
        check_idle(&mut child, &format!("{pattern:?} {end} {driven}"));
    } else {
        let mut writer = ends::writer(pattern, &address, Options::default()).expect("a writer");
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
        writer.send_bytes(&ends::message(1, 1, LEN_BYTES)).expect("sent");
        child.expect("waits");
        std::thread::sleep(IDLE);
        writer.send_bytes(&ends::message(1, 2, LEN_BYTES)).expect("sent");
        check_idle(&mut child, &format!("{pattern:?} {end} {driven}"));
    }
}

fn check_idle(child: &mut Child, what: &str) {
    let said = child.line().expect("figures");
    let figures: Vec<u64> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let [cpu_us, sleeps, waited_ms] = figures[..] else { panic!("{said}") };
    say(&format!("{what}: {cpu_us} µs of processor time, {sleeps} sleeps in {waited_ms} ms"));
    assert!(u128::from(waited_ms) >= IDLE.as_millis(), "{what}: it did not wait: {said}");
    // One sleep a second, which looks whether all is well, and what it takes to go to sleep and to wake.
    let seconds = waited_ms / 1000 + 1;
    assert!(sleeps <= 4 * seconds + 8, "{what}: {said}");
    // Who looks again and again uses seconds.
    assert!(cpu_us <= 50_000, "{what}: {said}");
}

/// Role: many idle links; says what each adds to the memory that is charged to this process, in bytes: the
/// memory that both ends share, and what else it has.
pub(crate) fn idle_links(arguments: &[String]) {
    const LINKS: u64 = 64;
    let pattern = Pattern::parse(&arguments[0]);
    let mut held = Vec::new();
    let mut open = |name: &str| {
        let address = format!("shm:{name}?{}", arguments[1]);
        let reader = ends::reader(pattern, &address, Options::default()).expect("a reader");
        let mut writer = ends::writer(pattern, &address, Options::default()).expect("a writer");
        writer.wait_for_peers(1, Some(DEADLINE)).expect("met");
        held.push((writer, reader));
    };
    // The first ones bring the thread, and what it needs.
    (0..8).for_each(|n| open(&format!("first-{n}")));
    let (shared, own) = (process::shared_bytes(), process::own_bytes());
    (0..LINKS).for_each(|n| open(&format!("idle-{n}")));
    let shared = process::shared_bytes() - shared;
    let own = process::own_bytes().saturating_sub(own);
    report(format_args!("{} {}", shared / LINKS, own / LINKS));
}

#[test]
fn an_idle_link_is_charged_less_than_64_kib() {
    for pattern in [Pattern::Topic, Pattern::Queue] {
        let scratch = Scratch::new();
        let scope = format!("scope={}", scratch.join("scope").display());
        let mut child = Child::role("shm-idle-links", &[pattern.name(), &scope]);
        let said = child.line().expect("figures");
        let (shared, own) = said.split_once(' ').expect("two figures");
        let [shared, own] = [shared, own].map(|word| word.parse::<u64>().expect("a number"));
        say(&format!(
            "{pattern:?}: {shared} bytes of shared memory, {own} of its own for each link"
        ));
        assert_eq!(shared, 44 * 1024, "{pattern:?}: what docs/design/shm.md says");
        assert!(shared + own < 64 * 1024, "{pattern:?}: {own} bytes beside {shared}");
        assert!(child.wait().success());
    }
}

/// A timer that each look set anew would never run out, and who polls would never dial.
#[test]
fn who_polls_over_a_socket_sets_the_timer_once_for_each_dial() {
    const TEST: &str = "shm::counts::who_polls_over_a_socket";
    let scratch = Scratch::new();
    if !may_trace(&scratch) {
        return skip(TEST, "no strace, or it may not trace here");
    }
    let address = format!("unix:{}", scratch.join("nobody").display());
    let (mut reader, trace) = start_traced(&scratch, "lonely-reader", &[&address]);
    reader.expect("begins polls");
    reader.expect("ended polls");
    assert!(reader.wait().success());
    let calls = calls_between(&trace, "begins polls", "ended polls");
    let [dials, timers] = ["connect", "timerfd_settime"].map(|name| calls.get(name).copied());
    let (dials, timers) = (dials.unwrap_or(0), timers.unwrap_or(0));
    assert!(dials >= 2 && timers <= dials + 1, "{calls:?}");
}
