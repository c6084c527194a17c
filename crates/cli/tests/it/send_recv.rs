//! `send` and `recv`: every transport, either side first, deaths, limits of a wait.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use switchboard::transport::{TABLE, Transport};
use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Ended, Run, binary, eventually, free_port, run};

/// Addresses of a row that nobody else uses, removed on drop.
struct Place {
    scratch: Scratch,
    address: String,
    made: bool,
}

impl Place {
    fn of(row: &Transport) -> Self {
        let scratch = Scratch::new();
        let made = matches!(row.scheme, "mq" | "sysv");
        let address = match row.scheme {
            "mq" => format!("mq:/{}", unique("mq")),
            "sysv" => format!("sysv:{}", scratch.path().display()),
            "tcp" | "udp" => format!("{}:127.0.0.1:{}", row.scheme, free_port()),
            "shm" => format!("shm:{}", unique("send-recv")),
            scheme => format!("{scheme}:./a"),
        };
        Self { scratch, address, made }
    }

    fn start(&self, arguments: &[&str]) -> Run {
        Run::start(self.scratch.path(), arguments)
    }

    /// Whether the receiver has made what a test can see.
    fn is_bound(&self, row: &Transport) -> bool {
        match row.scheme {
            "tcp" => is_listening(&self.address),
            "mq" | "sysv" | "fd" | "shm" => true,
            _ => self.scratch.join("a").exists(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made {
            run(self.scratch.path(), &["unlink", &self.address], "");
        }
    }
}

/// Whether somebody listens on the port of an address.
pub(crate) fn is_listening(address: &str) -> bool {
    let port: u16 = address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let wanted = format!(":{port:04X} 00000000:0000 0A");
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&wanted))
}

/// Rows that a stream and every line can go over, unharmed.
fn reliable() -> impl Iterator<Item = &'static Transport> {
    let queues = TABLE.iter().filter(|row| row.patterns().contains(&"queue"));
    queues.filter(|row| row.capabilities.reliable && row.scheme != "fd")
}

fn all_bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Sends `input` and checks that exactly that comes out, the sender or the receiver first.
fn check(row: &Transport, options: &[&str], idle: bool, input: &[u8], expected: &[u8]) {
    for sender_first in [true, false] {
        let place = Place::of(row);
        let address = place.address.as_str();
        let send = [&["send"], options, &[address]].concat();
        let mut recv = [&["recv"], options, &[address]].concat();
        // Where nobody says the end.
        let is_counted = idle && row.framing.is_none() && !row.capabilities.says_end;
        let count = expected.iter().filter(|byte| **byte == b'\n').count().to_string();
        if is_counted {
            recv.extend(["--count", &count]);
        }
        let (sender, receiver);
        if sender_first {
            sender = place.start(&send).feed(input);
            receiver = place.start(&recv);
        } else {
            receiver = place.start(&recv);
            eventually(address, || place.is_bound(row));
            sender = place.start(&send).feed(input);
        }
        receiver.wait().code(0).prints(expected);
        sender.wait().code(0).prints("");
        if is_counted {
            place.start(&["recv", "--no-wait", address]).wait().code(3).prints("");
        }
    }
}

#[test]
fn bytes_go_through_unchanged() {
    let bytes = all_bytes(3_000_001);
    for row in reliable() {
        check(row, &["--raw"], false, &bytes, &bytes);
    }
}

#[test]
fn no_bytes_are_a_stream_too() {
    for row in reliable() {
        check(row, &["--raw"], false, b"", b"");
    }
}

#[test]
fn lines_go_through_in_order() {
    let lines: String = (1..=3000).map(|n| format!("line {n}\n")).collect();
    for row in reliable() {
        check(row, &[], true, lines.as_bytes(), lines.as_bytes());
    }
}

#[test]
fn a_last_line_without_a_line_feed_counts() {
    for row in reliable() {
        check(row, &[], true, b"\none\n\xff\xfe\ntwo", b"\none\n\xff\xfe\ntwo\n");
    }
}

#[test]
fn datagrams_are_received_or_missed_aloud() {
    let row = TABLE.iter().find(|row| row.scheme == "udp").expect("udp");
    let place = Place::of(row);
    let receiver = place.start(&["recv", "--timeout", "10s", &place.address]);
    let port: u16 = place.address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let bound = format!(":{port:04X} ");
    eventually("a bound port", || {
        std::fs::read_to_string("/proc/net/udp").is_ok_and(|table| table.contains(&bound))
    });
    place.start(&["send", &place.address]).feed("one\ntwo\n").wait().code(0);
    receiver.wait().code(0).prints("one\ntwo\n");
}

#[test]
fn an_inherited_pipe_is_a_place_to_meet() {
    let mut sender = Command::new(binary());
    let mut sender = sender
        .args(["send", "fd:1", "--message", "a", "--message", "b"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a sender");
    let mut receiver = Command::new(binary());
    let output = receiver
        .args(["recv", "fd:0"])
        .stdin(sender.stdout.take().expect("a pipe"))
        .output()
        .expect("a receiver");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nb\n");
    assert!(output.status.success() && sender.wait().expect("a status").success());
}

#[test]
fn programs_that_are_not_ours_use_a_fifo() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "fifo:./f"]);
    eventually("the FIFO", || scratch.join("f").exists());
    let mut echo = Command::new("sh");
    echo.args(["-c", "echo one > f"]).current_dir(scratch.path());
    Run::command(echo).end().code(0);
    receiver.wait().code(0).prints("one\n");

    let sender = Run::start(scratch.path(), &["send", "fifo:./f"]).feed("two\nthree");
    eventually("the FIFO", || scratch.join("f").exists());
    let mut cat = Command::new("cat");
    cat.arg("f").current_dir(scratch.path());
    Run::command(cat).end().code(0).prints("two\nthree\n");
    sender.wait().code(0);
}

#[test]
fn two_senders_one_receiver() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--follow", "--count", "2000", "unix:./s"]);
    let lines = |who: &str| -> String { (0..1000).map(|n| format!("{who} {n}\n")).collect() };
    let mut senders = ["a", "b"].map(|who| {
        let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
        sender.write(&lines(who).as_bytes()[..4]);
        sender
    });
    // Both have joined before either ends.
    receiver.wait_stdout("both", |out| out == b"a 0\nb 0\n" || out == b"b 0\na 0\n");
    for (sender, who) in senders.iter_mut().zip(["a", "b"]) {
        sender.write(&lines(who).as_bytes()[4..]);
        sender.close();
    }
    let received = receiver.wait().code(0).text();
    for who in ["a", "b"] {
        let of_one: String = received
            .lines()
            .filter(|line| line.starts_with(who))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(of_one, lines(who));
    }
    // Everything was received, but the receiver left: both may end only if all was acknowledged.
    for sender in senders {
        sender.wait().code(0);
    }
}

#[test]
fn messages_from_arguments_by_priority() {
    let row = TABLE.iter().find(|row| row.scheme == "mq").expect("mq");
    let place = Place::of(row);
    for (priority, message) in [("1", "later"), ("9", "first")] {
        let send = ["send", &place.address, "--priority", priority, "--message", message];
        place.start(&send).end().code(0);
    }
    place.start(&["recv", "--count", "2", &place.address]).end().code(0).prints("first\nlater\n");
}

#[test]
fn a_killed_sender_is_reported_and_what_arrived_is_kept() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
    sender.write(b"one\ntwo\nthr");
    receiver.wait_stdout("two lines", |out| out == b"one\ntwo\n");
    let id = sender.id();
    sender.kill();
    let ended = receiver.wait().code(1).prints("one\ntwo\n");
    ended.says("sender died").says(&format!("process {id}")).says("2 messages arrived");
}

#[test]
fn a_follower_reports_a_killed_sender_and_goes_on() {
    for command in [&[][..], &["--", "cat"]] {
        let scratch = Scratch::new();
        let follow = ["recv", "--follow", "--count", "2", "unix:./s"];
        let receiver = Run::start(scratch.path(), &[&follow[..], command].concat());
        let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
        sender.write(b"one\n");
        receiver.wait_stdout("a line", |out| out.starts_with(b"one"));
        sender.kill();
        receiver.wait_stderr("sender died");
        run(scratch.path(), &["send", "unix:./s"], "two\n").code(0);
        let ended = receiver.wait().code(1).says("1 message arrived");
        assert_eq!(ended.text().replace('\n', ""), "onetwo");
    }
}

#[test]
fn one_message_is_no_messages() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
    sender.write(b"one\n");
    receiver.wait_stdout("a line", |out| out == b"one\n");
    sender.kill();
    receiver.wait().code(1).says("1 message arrived");
    let stream = Run::start(scratch.path(), &["recv", "--raw", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "--raw", "unix:./s"]);
    sender.write(b"1");
    stream.wait_stdout("a byte", |out| out == b"1");
    sender.signal(Signal::TERM);
    sender.wait().code(1).says("interrupted: 1 byte sent");
    stream.wait().code(1).says("1 byte arrived");
}

#[test]
fn another_receiver_gets_what_a_killed_one_did_not_finish() {
    let scratch = Scratch::new();
    let all: BTreeSet<String> = (1..=200_000).map(|n| n.to_string()).collect();
    let input: String = all.iter().map(|line| format!("{line}\n")).collect();
    let (half, rest) = input.split_at(input.len() / 2);
    let mut first = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
    // However fast it is, it is killed before the end; the last lines of this half are on their way.
    sender.write(half.as_bytes());
    first.wait_stdout("output", |out| out.len() > 10_000);
    first.kill();
    let sender = sender.feed(rest);
    let first = first_lines(first.wait());
    let second = Run::start(scratch.path(), &["recv", "unix:./s"]).wait().code(0);
    sender.wait().code(0);
    let second: BTreeSet<String> = second.text().lines().map(str::to_owned).collect();
    let missing = all.iter().filter(|line| !first.contains(*line) && !second.contains(*line));
    assert_eq!(missing.count(), 0);
}

/// The whole lines of one that was killed.
fn first_lines(ended: Ended) -> BTreeSet<String> {
    let text = ended.text();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

#[test]
fn a_receiver_whose_output_is_closed_acknowledges_nothing_more() {
    let scratch = Scratch::new();
    let input: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let sender = Run::start(scratch.path(), &["send", "unix:./s"]).feed(input);
    let mut shell = Command::new("bash");
    shell.arg("-c").arg("\"$0\" recv unix:./s | head -1; echo ${PIPESTATUS[0]}").arg(binary());
    shell.current_dir(scratch.path());
    let head = Run::command(shell).end().code(0).prints("1\n1\n");
    assert_eq!(head.stderr, "");
    let rest = Run::start(scratch.path(), &["recv", "unix:./s"]).wait().code(0).text();
    assert!(rest.ends_with("\n100000\n"), "the last ones are missing");
    sender.wait().code(0);
}

#[test]
fn a_stream_is_not_resumed() {
    let scratch = Scratch::new();
    let mut receiver = Run::start(scratch.path(), &["recv", "--raw", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "--raw", "unix:./s"]);
    sender.write(b"begin");
    receiver.wait_stdout("the beginning", |out| out == b"begin");
    receiver.kill();
    sender.wait().code(1).says("the receiver is gone").says("cannot be resumed");
}

#[test]
fn count_ends_it() {
    let scratch = Scratch::new();
    let sender = Run::start(scratch.path(), &["send", "unix:./s"]).feed("1\n2\n3\n4\n5\n");
    let two = ["recv", "--count", "2", "unix:./s"];
    Run::start(scratch.path(), &two).wait().code(0).prints("1\n2\n");
    Run::start(scratch.path(), &["recv", "unix:./s"]).wait().code(0).prints("3\n4\n5\n");
    sender.wait().code(0);
}

#[test]
fn silence_ends_it_when_told_so() {
    let scratch = Scratch::new();
    let recv = |address: &str| run(scratch.path(), &["recv", "--timeout", "50ms", address], "");
    recv("unix:./s").code(3).says("nothing came for 50ms");
    recv("unix-dgram:./d").code(3);
    // Over a link the end can be said: silence is no end.
    let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
    sender.write(b"one\n");
    let receiver = run(scratch.path(), &["recv", "--timeout", "5s", "unix:./s"], "");
    receiver.code(3).prints("one\n").says("1 message received");
    // Where nobody says it, silence after messages is the end.
    for row in TABLE.iter().filter(|row| ["mq", "sysv"].contains(&row.scheme)) {
        let place = Place::of(row);
        place.start(&["send", &place.address]).feed("one\ntwo\n").wait().code(0);
        let recv = ["recv", "--timeout", "50ms", &place.address];
        place.start(&recv).wait().code(0).prints("one\ntwo\n");
    }
}

#[test]
fn silence_is_no_end_of_a_stream() {
    let check = |row: &Transport| {
        let place = Place::of(row);
        let recv = ["recv", "--raw", "--timeout", "10s", &place.address];
        let receiver = place.start(&recv);
        eventually(row.scheme, || place.is_bound(row));
        let mut sender = place.start(&["send", "--raw", &place.address]);
        sender.write(b"begin");
        receiver.wait_stdout("the beginning", |out| out == b"begin");
        sender.kill();
        let ended = receiver.wait().code(3).prints("begin");
        ended.says("nothing came for 10s; the stream did not end; 5 bytes arrived");
    };
    // Side by side, because of the time.
    std::thread::scope(|threads| {
        for row in TABLE.iter().filter(|row| !row.capabilities.says_end) {
            threads.spawn(move || check(row));
        }
    });
}

#[test]
fn what_is_there_now_is_no_whole_stream() {
    let place = Place::of(TABLE.iter().find(|row| row.scheme == "mq").expect("mq"));
    let mut sender = place.start(&["send", "--raw", &place.address]);
    sender.write(b"begin");
    let waiting = || place.start(&["recv", "--raw", "--no-wait", &place.address]).wait();
    let mut tries = (0..1000).map(|_| waiting().code(3));
    let first = tries.find(|ended| !ended.stdout.is_empty()).expect("what was sent");
    first.prints("begin").says("the stream did not end; 5 bytes arrived");
    sender.end().code(0);
    waiting().code(0).prints("");
}

#[test]
fn a_sender_gives_up_when_told_so() {
    let scratch = Scratch::new();
    run(scratch.path(), &["send", "--timeout", "100ms", "unix:./s"], "one\n")
        .code(3)
        .says("timed out after 100ms");
    assert!(!scratch.join("s").exists());
}

#[test]
fn without_waiting_nothing_there_is_a_failure() {
    let scratch = Scratch::new();
    for address in ["unix:./s", "unix-dgram:./d", "fifo:./f"] {
        run(scratch.path(), &["send", "--no-wait", address], "one\n").code(3);
        run(scratch.path(), &["recv", "--no-wait", address], "").code(3);
    }
    let place = Place::of(TABLE.iter().find(|row| row.scheme == "mq").expect("mq"));
    place.start(&["recv", "--no-wait", &place.address]).wait().code(3).says("no queue");
    place.start(&["create", &place.address]).wait().code(0);
    place.start(&["recv", "--no-wait", &place.address]).wait().code(3).says("nothing is there");
    place.start(&["send", "--no-wait", &place.address]).feed("a\nb\n").wait().code(0);
    place.start(&["recv", "--no-wait", &place.address]).wait().code(0).prints("a\nb\n");
}
