//! `publish` and `subscribe` over connections: `unix:`, `unix-seqpacket:` and `tcp:`.

use switchboard::transport::TABLE;
use switchboard_kernel::process::Signal;
use switchboard_testkit::Scratch;

use crate::run::{Run, eventually, free_port, run};
use crate::send_recv::is_listening;

/// Addresses in a scratch folder, or on a port, one of each row that carries topics over connections.
fn addresses() -> impl Iterator<Item = String> {
    let live =
        TABLE.iter().filter(|row| row.patterns().contains(&"topic") && row.framing.is_some());
    live.map(|row| match row.scheme {
        "tcp" => format!("tcp:127.0.0.1:{}", free_port()),
        scheme => format!("{scheme}:./t"),
    })
}

/// Whether a publisher can be found.
fn is_bound(scratch: &Scratch, address: &str) -> bool {
    if address.starts_with("tcp:") { is_listening(address) } else { scratch.join("t").exists() }
}

fn lines(count: usize) -> String {
    (1..=count).map(|n| format!("{n}\n")).collect()
}

/// A publisher that waits for its input, and has been found by a subscriber that got a first line.
fn meet(scratch: &Scratch, publish: &str, subscribe: &str) -> (Run, Run) {
    let mut publisher = Run::start(scratch.path(), &["publish", publish]);
    let subscriber = Run::start(scratch.path(), &["subscribe", subscribe]);
    publisher.write(b"first\n");
    subscriber.wait_stdout("a first line", |out| out == b"first\n");
    (publisher, subscriber)
}

#[test]
fn every_subscriber_prints_everything_whoever_starts_first() {
    for address in addresses() {
        let scratch = Scratch::new();
        let subscribe = || Run::start(scratch.path(), &["subscribe", &address]);
        let publish = || Run::start(scratch.path(), &["publish", &address]);
        let expected = lines(20_000);
        // The publisher waits for its first subscriber.
        let publisher = publish().feed(expected.clone());
        eventually("a name", || is_bound(&scratch, &address));
        subscribe().wait().code(0).prints(&expected);
        publisher.wait().code(0);
        let (mut publisher, subscribers) = (publish(), [subscribe(), subscribe(), subscribe()]);
        // All three are there once they have the first line.
        for n in 0.. {
            publisher.write(format!("hello {n}\n").as_bytes());
            let greeted = |run: &Run| run.stdout_so_far().contains("hello");
            if subscribers.iter().all(greeted) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        publisher.feed(expected.clone()).wait().code(0);
        for subscriber in subscribers {
            let text = subscriber.wait().code(0).text();
            assert!(text.ends_with(&expected), "{} bytes", text.len());
        }
        assert!(!is_bound(&scratch, &address));
    }
}

#[test]
fn json_raw_and_messages_of_the_command_line() {
    let scratch = Scratch::new();
    let subscribe = |options: &[&str]| {
        let arguments: Vec<&str> =
            ["subscribe"].into_iter().chain(options.iter().copied()).chain(["unix:./t"]).collect();
        Run::start(scratch.path(), &arguments)
    };
    let subscriber = subscribe(&["--json"]);
    run(scratch.path(), &["publish", "--json", "unix:./t"], "{\"a\": 1}\n[2,\n3]").code(0);
    subscriber.wait().code(0).prints("{\"a\":1}\n[2,3]\n");
    let subscriber = subscribe(&["--raw"]);
    let bytes = "no line feed at the end".repeat(30_000);
    run(scratch.path(), &["publish", "--raw", "unix:./t"], &bytes).code(0);
    subscriber.wait().code(0).prints(bytes);
    let subscriber = subscribe(&["--count", "2"]);
    run(scratch.path(), &["publish", "unix:./t", "-m", "one", "-m", "two"], "").code(0);
    subscriber.wait().code(0).prints("one\ntwo\n");
}

#[test]
fn late_subscribers_print_the_history() {
    let scratch = Scratch::new();
    let (mut publisher, early) = meet(&scratch, "unix:./t?history=2", "unix:./t");
    publisher.write(b"second\nthird\n");
    early.wait_stdout("three lines", |out| out.ends_with(b"third\n"));
    let late = Run::start(scratch.path(), &["subscribe", "unix:./t"]);
    late.wait_stdout("the history", |out| out == b"second\nthird\n");
    publisher.write(b"fourth\n");
    publisher.end().code(0);
    early.wait().code(0).prints("first\nsecond\nthird\nfourth\n");
    late.wait().code(0).prints("second\nthird\nfourth\n");
}

#[test]
fn several_publishers_join_a_subscriber_that_binds() {
    for address in addresses() {
        let scratch = Scratch::new();
        // One may have ended before the next one joins.
        let bind = format!("{address}?bind");
        let arguments = ["subscribe", "--follow", "--count", "3000", &bind];
        let subscriber = Run::start(scratch.path(), &arguments);
        let publish = |_| {
            let arguments = ["publish", &format!("{address}?connect")];
            Run::start(scratch.path(), &arguments).feed(lines(1000))
        };
        for publisher in (0..3).map(publish).collect::<Vec<_>>() {
            publisher.wait().code(0);
        }
        let text = subscriber.wait().code(0).text();
        let mut numbers: Vec<u32> =
            text.lines().map(|line| line.parse().expect("a number")).collect();
        numbers.sort_unstable();
        assert!(numbers.chunks(3).zip(1..).all(|(three, n)| three == [n; 3]));
    }
}

#[test]
fn a_command_runs_for_each_message() {
    let scratch = Scratch::new();
    let each = ["subscribe", "unix:./t", "--", "sh", "-c", "read m; echo got $m; test $m != two"];
    let subscriber = Run::start(scratch.path(), &each);
    run(scratch.path(), &["publish", "unix:./t"], "one\ntwo\nthree\n").code(0);
    subscriber.wait().code(1).says("passed over").prints("got one\ngot two\ngot three\n");
}

#[test]
fn a_slow_subscriber_holds_up_misses_messages_or_ends_its_publisher() {
    let scratch = Scratch::new();
    let many = lines(500_000);
    // Waited for; then nobody has to wait any longer.
    let (publisher, subscriber) = meet(&scratch, "unix:./t", "unix:./t");
    subscriber.signal(Signal::STOP);
    let publisher = publisher.feed(many.clone());
    eventually("a full publisher", || is_asleep(publisher.id()));
    subscriber.signal(Signal::CONT);
    publisher.wait().code(0);
    subscriber.wait().code(0).prints(format!("first\n{many}"));
    // Left behind, and told so.
    let address = "unix:./t?overflow=drop-oldest&capacity=64KiB";
    let (mut publisher, subscriber) = meet(&scratch, address, "unix:./t");
    subscriber.signal(Signal::STOP);
    publisher.write(many.as_bytes());
    subscriber.signal(Signal::CONT);
    publisher.end().code(0);
    let ended = subscriber.wait().code(1).says("are missing in all");
    let text = ended.text();
    assert!(text.ends_with("\n500000\n"), "the newest are there");
    let missing = ended.stderr.split(" messages are missing in all").next().expect("a text");
    let missing: usize = missing.rsplit(' ').next().expect("a word").parse().expect("a number");
    assert_eq!(text.lines().count() + missing, 500_001);
    // The end of its publisher.
    let (publisher, subscriber) = meet(&scratch, "unix:./t?overflow=fail", "unix:./t");
    subscriber.signal(Signal::STOP);
    let ended = publisher.feed(many.clone()).wait().code(1).says("is too slow");
    ended.says(&format!("process {} (", subscriber.id())).says("?overflow=drop-oldest");
    subscriber.signal(Signal::CONT);
    subscriber.wait().code(1).says("publisher died");
}

#[test]
fn a_publisher_gives_up_in_time_and_says_for_whom_it_waited() {
    let scratch = Scratch::new();
    let give_up = ["publish", "--timeout", "200ms", "unix:./t"];
    run(scratch.path(), &give_up, "one\n").code(3).says("timed out").says("0 messages sent");
    // It counts from its own start: the subscriber has to be there before.
    let give_up = ["publish", "--timeout", "5s", "unix:./t"];
    let publisher = Run::start(scratch.path(), &give_up);
    eventually("a name", || scratch.join("t").exists());
    let subscriber = Run::start(scratch.path(), &["subscribe", "unix:./t"]);
    let mut publisher = publisher;
    publisher.write(b"first\n");
    subscriber.wait_stdout("a first line", |out| out == b"first\n");
    subscriber.signal(Signal::STOP);
    let ended = publisher.feed(lines(500_000)).wait().code(3).says("timed out");
    ended.says(&format!("not taken by process {} (", subscriber.id()));
    subscriber.signal(Signal::CONT);
    subscriber.wait().code(1).says("publisher died");
}

/// Whether a process sleeps, and did so a moment ago.
fn is_asleep(pid: u32) -> bool {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next())
    };
    (0..10).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        state() == Some('S')
    })
}

#[test]
fn deaths_are_told_and_hold_nobody_up() {
    let scratch = Scratch::new();
    let (mut publisher, subscriber) = meet(&scratch, "unix:./t", "unix:./t");
    let mut victim = Run::start(scratch.path(), &["subscribe", "unix:./t"]);
    for n in 0.. {
        publisher.write(format!("{n}\n").as_bytes());
        if !victim.stdout_so_far().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    victim.kill();
    publisher.write(b"last\n");
    subscriber.wait_stdout("the last line", |out| out.ends_with(b"last\n"));
    let count = subscriber.stdout_so_far().lines().count();
    publisher.kill();
    let ended = subscriber.wait().code(1).says(&format!("{count} messages arrived"));
    ended.says(&format!("publisher died: process {} (", publisher.id()));
}

#[test]
fn what_does_not_fit_is_said_with_both_names() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--count", "1", "unix:./q"]);
    eventually("a name", || scratch.join("q").exists());
    for (command, role) in [("subscribe", "a subscriber"), ("publish", "a publisher")] {
        let ended = run(scratch.path(), &[command, "unix:./q?connect"], "one\n").code(1);
        ended.says(&format!("this side is {role} of a topic")).says("a receiver of a queue");
    }
    run(scratch.path(), &["send", "unix:./q", "-m", "one"], "").code(0);
    receiver.wait().code(1).prints("one\n").says("was turned away");
    let (publisher, subscriber) = meet(&scratch, "unix:./t", "unix:./t");
    let ended = run(scratch.path(), &["publish", "unix:./t", "-m", "x"], "").code(1);
    ended.says(&format!("process {} (", publisher.id())).says("has bound it").says("?connect");
    let ended = run(scratch.path(), &["send", "unix:./t", "-m", "x"], "").code(1);
    ended.says("a publisher of a topic").says("a sender of a queue");
    publisher.end().code(0);
    subscriber.wait().code(0);
    run(scratch.path(), &["subscribe", "--from", "7", "unix:./t"], "").code(2).says("?history=N");
    run(scratch.path(), &["send", "unix:./t?history=3", "-m", "x"], "").code(2).says("topic only");
    run(scratch.path(), &["publish", "unix:./t?overflow=never"], "").code(2).says("drop-oldest");
    run(scratch.path(), &["publish", "unix:./t?framing=lines"], "").code(2).says("over links");
}

#[test]
fn without_waiting_nobody_is_waited_for() {
    let scratch = Scratch::new();
    run(scratch.path(), &["subscribe", "--no-wait", "unix:./t"], "").code(3);
    run(scratch.path(), &["publish", "--no-wait", "unix:./t"], "one\n").code(0);
    run(scratch.path(), &["publish", "--no-wait", "unix:./t?connect"], "one\n").code(3);
    // One that is connected waits for what comes.
    let mut publisher = Run::start(scratch.path(), &["publish", "unix:./t"]);
    eventually("a name", || scratch.join("t").exists());
    let subscriber = Run::start(scratch.path(), &["subscribe", "--no-wait", "unix:./t"]);
    publisher.write(b"one\n");
    subscriber.wait_stdout("a line", |out| out == b"one\n");
    publisher.end().code(0);
    subscriber.wait().code(0).prints("one\n");
    // Who follows stays for the next.
    let follower =
        Run::start(scratch.path(), &["subscribe", "--follow", "--count", "2", "unix:./t"]);
    for line in ["one\n", "two\n"] {
        run(scratch.path(), &["publish", "unix:./t"], line).code(0);
    }
    follower.wait().code(0).prints("one\ntwo\n");
}
