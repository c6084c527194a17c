//! Ends of different users: asleep and woken, large messages, borrowed ones, one that holds another up; and in other
//! namespaces.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use switchboard::counters::look;
use switchboard::{Bytes, Options, Queue, RecvError, Topic};
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{Signal, effective_user_id};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::access::become_one;
use super::ends;
use super::proofs::Stalls;

const ALICE: &[u32] = &[2001, 2001];

/// A scope that all share, and an address in it that lets everybody in.
fn shared(scratch: &Scratch, name: &str) -> String {
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(scratch.path(), 0o755);
    let scope = scratch.join("scope");
    let _ = std::fs::create_dir(&scope);
    open(&scope, 0o1777);
    format!("shm:{name}?scope={}&mode=0666", scope.display())
}

/// Role: as another user, gives back what it receives: `echo`; or takes one message and then nothing: `sleepy`.
pub(crate) fn other(arguments: &[String]) {
    if arguments[0] != "same" {
        become_one(ALICE);
    }
    let (there, back) = (&arguments[2], arguments.get(3));
    match &*arguments[1] {
        "echo" => {
            let mut receiver =
                Queue::<Bytes>::open(there).and_then(|q| q.receiver()).expect("open");
            let mut sender = Queue::<Bytes>::open(back.expect("a way back"))
                .and_then(|q| q.sender())
                .expect("open");
            report("open");
            loop {
                match receiver.recv_timeout(DEADLINE) {
                    Ok(delivery) => {
                        sender.send(&delivery.message).expect("sent");
                        receiver.acknowledge(delivery).expect("settled");
                    }
                    Err(RecvError::Ended) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            sender.close().expect("closed");
        }
        "sleepy" => {
            let topic = Topic::<Bytes>::open(there).expect("a topic");
            let mut subscriber = topic.subscriber(switchboard::Start::New).expect("open");
            report("open");
            subscriber.recv().expect("a message");
            report("one");
            let _ = instruction();
            let mut count = 1;
            loop {
                match subscriber.recv_timeout(DEADLINE) {
                    Ok(_) => count += 1,
                    Err(RecvError::PeerRefused { problem, .. }) => {
                        report(format!("{count} {problem}"));
                        return;
                    }
                    Err(error) => return report(format!("{count} {error}")),
                }
            }
        }
        what => panic!("{what}"),
    }
}

/// The user under which the other side runs: another one, where this may be chosen.
fn whose() -> &'static str {
    if effective_user_id() == 0 { "another" } else { "same" }
}

#[test]
fn who_sleeps_is_woken_and_nothing_is_lost() {
    let scratch = Scratch::new();
    let (there, back) = (shared(&scratch, "there"), shared(&scratch, "back"));
    let mut other = Child::role("shm-other", &[whose(), "echo", &there, &back]);
    let mut receiver = Queue::<Bytes>::open(&back).and_then(|q| q.receiver()).expect("open");
    let mut sender = Queue::<Bytes>::open(&there).and_then(|q| q.sender()).expect("open");
    other.expect("open");
    let (begun, stalls) = (Instant::now(), Stalls::begin());
    for number in 1..=300_u64 {
        // Small ones and large ones, at once and after both sides have gone to sleep.
        let len = if number % 50 == 0 { 3 << 20 } else { 100 };
        let message = ends::message(9, number, len);
        sender.send(&Bytes(message.clone())).expect("sent");
        let delivery = receiver.recv_timeout(DEADLINE).expect("an answer");
        assert!(delivery.message.0 == message, "{number}");
        receiver.acknowledge(delivery).expect("settled");
        if number % 30 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // None waited for the backstop of a second.
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let mut late = 0;
    for address in [&there, &back] {
        let channel = look(&address.parse().expect("an address"), DEADLINE).expect("a channel");
        for end in &channel.ends {
            // An end of another user answers root alone.
            if let Ok(counts) = &end.answer {
                late += counts.late;
            }
        }
    }
    let excuse = stalls.excuse();
    // One more than that has been seen, of who was kept off the processor in the other process.
    assert!(late <= excuse + 1, "{late} sleeps that nobody ended, {excuse} may be of stalls");
    stalls.end();
    sender.close().expect("closed");
    assert!(other.wait().success());
}

#[test]
fn what_is_borrowed_of_another_user_is_a_copy() {
    let scratch = Scratch::new();
    let (there, back) = (shared(&scratch, "there"), shared(&scratch, "back"));
    let mut other = Child::role("shm-other", &[whose(), "echo", &there, &back]);
    let mut receiver = Queue::<Bytes>::open(&back).and_then(|q| q.receiver()).expect("open");
    let brief = Options::default().linger(Some(Duration::from_millis(10)));
    let mut sender =
        Queue::<Bytes>::open_with(&there, brief).and_then(|q| q.sender()).expect("open");
    other.expect("open");
    for (number, len) in [(1, 16), (2, 500), (3, 1 << 20)] {
        let message = ends::message(4, number, len);
        sender.send(&Bytes(message.clone())).expect("sent");
        let borrowed = receiver.borrow_timeout(DEADLINE).expect("a message");
        assert!(borrowed[..] == message[..]);
    }
    // It waits for what it sent to be settled, and goes with its test.
    drop(other);
}

#[test]
fn a_subscriber_of_another_user_holds_nobody_up_for_long() {
    if effective_user_id() != 0 {
        // Who is of the same user is waited for, as long as it lives.
        return;
    }
    let scratch = Scratch::new();
    let log = scratch.join("audit");
    let there = shared(&scratch, "held");
    let with_log = format!("{there}&audit={}", log.display());
    let topic = Topic::<Bytes>::open(&with_log).expect("a topic");
    let mut publisher = topic.publisher().expect("a publisher");
    let mut other = Child::role("shm-other", &[whose(), "sleepy", &there]);
    other.expect("open");
    publisher.send(&Bytes(vec![0; 1000])).expect("sent");
    other.expect("one");
    let process = pidfd::open(other.id()).expect("a child");
    pidfd::send_signal(&process, Signal::STOP).expect("stopped");
    let begun = Instant::now();
    for _ in 0..1000 {
        publisher.send_timeout(&Bytes(vec![1; 1000]), DEADLINE).expect("it was turned away");
    }
    let took = begun.elapsed();
    assert!((4..12).contains(&took.as_secs()), "{took:?}");
    assert_eq!(publisher.peers(), 0);
    pidfd::send_signal(&process, Signal::CONT).expect("going on");
    other.tell("go");
    let line = other.line().expect("what it was told");
    assert!(line.contains("has taken nothing for 5 seconds"), "{line}");
    let text = std::fs::read_to_string(&log).expect("a log");
    let record: serde_json::Value = serde_json::from_str(text.trim()).expect("a record");
    assert_eq!((&record["event"], &record["uid"]), (&"evicted".into(), &2001.into()));
    assert_eq!(record["pid"], other.id());
}

/// Whether a process can be started so.
fn can(starter: &[&str]) -> bool {
    let probe = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    probe.is_ok_and(|output| output.status.success())
}

#[test]
fn containers_that_share_a_folder_exchange_messages() {
    let test = "containers_that_share_a_folder_exchange_messages";
    let user = if effective_user_id() == 0 { "--map-root-user" } else { "--map-current-user" };
    let starters: [&[&str]; 4] = [
        &["unshare", "--user", user],
        &["unshare", "--user", user, "--pid", "--fork", "--kill-child"],
        &["unshare", "--user", user, "--mount", "--ipc", "--net", "--uts"],
        &[
            "unshare",
            "--user",
            user,
            "--pid",
            "--mount-proc",
            "--ipc",
            "--net",
            "--fork",
            "--kill-child",
        ],
    ];
    for starter in starters {
        if !can(starter) {
            skip(test, &format!("{} is not possible here", starter.join(" ")));
            continue;
        }
        let scratch = Scratch::new();
        let (there, back) = (shared(&scratch, "there"), shared(&scratch, "back"));
        let mut other = Child::role_under(starter, "shm-other", &["same", "echo", &there, &back]);
        let mut receiver = Queue::<Bytes>::open(&back).and_then(|q| q.receiver()).expect("open");
        let mut sender = Queue::<Bytes>::open(&there).and_then(|q| q.sender()).expect("open");
        for number in 1..=100_u64 {
            let message = ends::message(9, number, 200);
            sender.send_timeout(&Bytes(message.clone()), DEADLINE).expect("sent");
            let delivery = receiver.recv_timeout(DEADLINE);
            let delivery = delivery.unwrap_or_else(|error| panic!("{starter:?}: {error}"));
            assert!(delivery.message.0 == message, "{number}");
            receiver.acknowledge(delivery).expect("settled");
        }
        sender.close().expect("closed");
        other.expect("open");
        assert!(other.wait().success(), "{starter:?}");
    }
}
