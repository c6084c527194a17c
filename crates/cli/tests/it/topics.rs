//! `publish` and `subscribe`, and queues that outlive everybody: `file:`.

use switchboard_testkit::Scratch;

use crate::run::{Run, run};

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
fn a_command_runs_for_each_message_of_a_topic() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\n").code(0);
    let each = ["subscribe", "--from", "oldest", "--count", "2", "file:./t", "--", "cat"];
    let text = run(scratch.path(), &each, "").code(0).text();
    assert_eq!(text.replace('\n', ""), "onetwo");
}

#[test]
fn what_was_left_unfinished_is_said_and_the_rest_is_kept() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t"], "one\ntwo\n").code(0);
    let segment = scratch.join("t").join("00-0000000001.seg");
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
fn patterns_do_not_mix() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t", "-m", "one"], "").code(0);
    run(scratch.path(), &["send", "file:./t", "-m", "two"], "").code(1).says("holds a topic");
    run(scratch.path(), &["publish", "unix:./s", "-m", "one"], "")
        .code(1)
        .says("unix: carries no topic")
        .says("file");
}
