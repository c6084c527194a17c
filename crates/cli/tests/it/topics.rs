//! `publish` and `subscribe`, and queues that outlive everybody: `file:`.

use std::path::{Path, PathBuf};

use switchboard_kernel::process::Signal;
use switchboard_testkit::Scratch;

use crate::run::{Run, eventually, run};

#[test]
fn every_subscriber_prints_every_message_from_where_it_begins() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\nthree\n").code(0);
    let from = |start: &str| {
        run(scratch.path(), &["subscribe", "--from", start, "--no-wait", "file:./t"], "")
    };
    from("oldest").code(0).prints("one\ntwo\nthree\n");
    from("2").code(0).prints("two\nthree\n");
    from("1h").code(0).prints("one\ntwo\nthree\n");
    from("2001-01-01T00:00:00Z").code(0).prints("one\ntwo\nthree\n");
    from("new").code(3).says("nothing");
    from("yesterday").code(2).says("oldest");
    let live =
        Run::start(scratch.path(), &["subscribe", "--from", "3", "--count", "2", "file:./t"]);
    live.wait_stdout("what is there", |out| out == b"three\n");
    run(scratch.path(), &["publish", "file:./t", "-m", "four"], "").code(0);
    live.wait().code(0).prints("three\nfour\n");
}

#[test]
fn a_named_reader_goes_on_where_it_was() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\n").code(0);
    let read = ["subscribe", "--from", "oldest", "--no-wait", "file:./t?reader=archive"];
    run(scratch.path(), &read, "").code(0).prints("one\ntwo\n");
    run(scratch.path(), &["publish", "file:./t"], "three\n").code(0);
    run(scratch.path(), &read, "").code(0).prints("three\n");
}

#[test]
fn a_named_reader_that_is_killed_misses_nothing() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t", "-m", "before"], "").code(0);
    let read = ["subscribe", "file:./t?reader=archive"];
    let mut killed = Run::start(scratch.path(), &read);
    eventually("a place", || {
        let place = std::fs::metadata(scratch.join("t/readers/archive"));
        place.is_ok_and(|place| place.len() > 4096)
    });
    let lines: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    run(scratch.path(), &["publish", "file:./t"], &lines).code(0);
    killed.wait_stdout("some messages", |out| out.len() > 100);
    killed.kill();
    let read = ["subscribe", "--no-wait", "file:./t?reader=archive"];
    let ended = run(scratch.path(), &read, "");
    // It may have been done with all of them.
    if ended.code != Some(3) {
        let text = ended.code(0).text();
        let first: u64 = text.lines().next().expect("a line").parse().expect("a number");
        let rest: String = (first..=1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(text, rest);
    }
}

#[test]
fn a_named_reader_is_not_done_with_what_was_not_written() {
    let scratch = Scratch::new();
    // One batch is more than a pipe may hold.
    let lines: String =
        (100_000..101_000).map(|n| format!("{n}{}\n", "x".repeat(10_000))).collect();
    run(scratch.path(), &["publish", "file:./t"], &lines).code(0);
    let read = "subscribe --from oldest --no-wait file:./t?reader=archive";
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!("\"$0\" {read} | head -c 6")).arg(crate::run::binary());
    shell.current_dir(scratch.path());
    Run::command(shell).end().prints("100000");
    let read: Vec<&str> = read.split(' ').collect();
    run(scratch.path(), &read, "").code(0).prints(lines);
}

#[test]
fn a_named_reader_is_not_done_with_what_its_command_was_doing() {
    for signal in [Signal::KILL, Signal::INT] {
        let scratch = Scratch::new();
        run(scratch.path(), &["publish", "file:./t"], "one\ntwo\nthree\n").code(0);
        let script = "read m; test $m = one && exit 0; touch started; exec sleep 1000";
        let address = "file:./t?reader=archive";
        let read = ["subscribe", "--from", "oldest", address, "--", "sh", "-c", script];
        let reader = Run::start(scratch.path(), &read);
        eventually("a started command", || scratch.join("started").exists());
        reader.signal(signal);
        reader.wait();
        let expected = if signal == Signal::KILL { "one\ntwo\nthree\n" } else { "two\nthree\n" };
        let read = ["subscribe", "--no-wait", address];
        run(scratch.path(), &read, "").code(0).prints(expected);
    }
}

#[test]
fn a_full_queue_is_not_waited_for_without_wanting_to() {
    let scratch = Scratch::new();
    let address = "file:./q?segment=4096&capacity=8192";
    let lines: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    let ended = run(scratch.path(), &["send", "--no-wait", "file:./q"], &lines);
    ended.code(3).says("there is no log of this name");
    run(scratch.path(), &["create", "file:./q"], "").code(0);
    let ended = run(scratch.path(), &["send", "--no-wait", address], &lines);
    let ended = ended.code(3).says("it is full; ").says(" 0 not acknowledged");
    let sent = ended.stderr.split("it is full; ").nth(1).expect("a number");
    let sent: u64 = sent.split(' ').next().expect("a word").parse().expect("a number");
    let kept: String = (1..=sent).map(|n| format!("{n}\n")).collect();
    run(scratch.path(), &["send", "--timeout", "50ms", address, "-m", "x"], "").code(3);
    run(scratch.path(), &["recv", "--no-wait", address], "").code(0).prints(kept);
}

#[test]
fn a_command_runs_for_each_message_of_a_topic() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\n").code(0);
    let each = ["subscribe", "--from", "oldest", "--count", "2", "file:./t", "--", "cat"];
    let text = run(scratch.path(), &each, "").code(0).text();
    assert_eq!(text.replace('\n', ""), "onetwo");
}

/// The segment of a short log.
fn only_segment(log: &Path) -> PathBuf {
    let files = std::fs::read_dir(log).expect("a log").flatten().map(|entry| entry.path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    files.into_iter().find(is_segment).expect("a segment")
}

#[test]
fn what_was_left_unfinished_is_said_and_the_rest_is_kept() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\n").code(0);
    let segment = only_segment(&scratch.join("t"));
    let mut bytes = std::fs::read(&segment).expect("a segment");
    // Two frames of 40 bytes after the header; then, as a sender killed in the middle leaves it, a
    // payload whose commit word is not there yet.
    bytes[64 + 2 * 40 + 32..][..5].copy_from_slice(b"three");
    std::fs::write(&segment, bytes).expect("damaged");
    run(scratch.path(), &["publish", "file:./t", "-m", "four"], "").code(0).says("unfinished");
    let all = ["subscribe", "--from", "oldest", "--no-wait", "file:./t"];
    run(scratch.path(), &all, "").code(1).says("unfinished").prints("one\ntwo\nfour\n");
}

#[test]
fn what_is_missing_is_said_once() {
    let scratch = Scratch::new();
    // Lines of one publisher would be one frame.
    for line in ["one\n", "two\n", "three\n"] {
        run(scratch.path(), &["publish", "file:./t"], line).code(0);
    }
    let segment = only_segment(&scratch.join("t"));
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[64 + 40 + 32] ^= 1;
    std::fs::write(&segment, bytes).expect("damaged");
    let ended =
        run(scratch.path(), &["subscribe", "--from", "oldest", "--no-wait", "file:./t"], "");
    let ended = ended.code(1).says("; 1 message is missing").prints("one\nthree\n");
    assert_eq!(ended.stderr.matches("missing").count(), 1, "{ended}");
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let scratch = Scratch::new();
    let refused = |command: &str, address: &str, says: &str| {
        run(scratch.path(), &[command, address], "one\n").code(2).says(says);
    };
    refused("send", "file:./l?retain=7d", "?retain= means something for a topic only");
    refused("recv", "file:./l?reader=x", "?reader= means something for a topic only");
    refused("publish", "file:./l?capacity=1GiB", "?capacity= means something for a queue only");
    refused("send", "file:./l?segment=1", "a segment has 4096 bytes or more, below 4 GiB");
    refused("publish", "file:./l?segment=4GiB", "a segment has 4096 bytes or more, below 4 GiB");
    refused("send", "file:./l?capacity=1", "takes two segments at least");
    assert!(!scratch.join("l").exists(), "nothing was made");
}

#[test]
fn patterns_do_not_mix() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t", "-m", "one"], "").code(0);
    run(scratch.path(), &["send", "file:./t", "-m", "two"], "").code(1).says("holds a topic");
    run(scratch.path(), &["publish", "fifo:./s", "-m", "one"], "")
        .code(2)
        .says("fifo: carries no topic")
        .says("unix, unix-seqpacket, file");
}
