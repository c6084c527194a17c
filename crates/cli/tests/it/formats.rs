//! Lines, lengths, JSON: what goes in and out, and what does not fit.

use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, run};

/// Sends `input` in one format and gives what `recv` with `options` ended with.
fn pass(scratch: &Scratch, send: &[&str], input: &[u8], recv: &[&str]) -> crate::run::Ended {
    let sender = [&["send", "unix:./s"], send].concat();
    let receiver = [&["recv", "unix:./s"], recv].concat();
    let receiver = Run::start(scratch.path(), &receiver);
    let sender = Run::start(scratch.path(), &sender).feed(input);
    let ended = receiver.wait();
    sender.wait().code(0);
    ended
}

#[test]
fn lengths() {
    let scratch = Scratch::new();
    let framed = b"\0\0\0\x03a\nb\0\0\0\0\0\0\0\x01\xff";
    let option = ["--length-prefixed"];
    pass(&scratch, &option, framed, &option).code(0).prints(framed);
    pass(&scratch, &[], b"ab\n", &option).code(0).prints(b"\0\0\0\x02ab");
    let sender = Run::start(scratch.path(), &["send", "--length-prefixed", "unix:./s"]);
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let cut = sender.feed(b"\0\0\0\x02ok\0\0\0\x05abc".as_slice());
    cut.wait().code(1).says("message 2: standard input: the input ends after 3 of its 5 bytes");
    receiver.wait().code(0).prints("ok\n");
}

#[test]
fn json_values_are_made_compact() {
    let scratch = Scratch::new();
    let input = b"{ \"a\" : 1 }\n[1,\n 2] 18446744073709551617 \"x y\"";
    let expected = "{\"a\":1}\n[1,2]\n18446744073709551617\n\"x y\"\n";
    pass(&scratch, &["--json"], input, &["--json"]).code(0).prints(expected);
    pass(&scratch, &["--json"], input, &[]).code(0).prints(expected);
}

#[test]
fn what_is_no_json_is_not_sent() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let sender = run(scratch.path(), &["send", "--json", "unix:./s"], "{}\n[1]\n{\"a\" 2}\n3\n");
    sender
        .code(1)
        .says("message 3: standard input: no JSON at line 3, column 6")
        .says("2 messages sent, 0 not acknowledged");
    receiver.wait().code(0).prints("{}\n[1]\n");
}

#[test]
fn what_is_no_json_is_not_printed() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--json", "unix:./s"]);
    let send = ["send", "unix:./s", "--message", "1", "--message", "{\x1b[2J", "--message", "2"];
    let sender = Run::start(scratch.path(), &send).end();
    sender.code(1).says("1 message was rejected");
    receiver.wait().code(1).prints("1\n2\n").says("is no JSON").says("{\\x1b[2J");
}

#[test]
fn a_line_feed_is_no_part_of_a_line() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let send = ["send", "unix:./s", "--message", "one", "--message", "a\nb", "--message", "two"];
    Run::start(scratch.path(), &send).end().code(1).says("1 message was rejected");
    let ended = receiver.wait().code(1).prints("one\ntwo\n").says("--length-prefixed");
    let said = "unix:./s: message 2 contains a line feed and is no line; given back: \"a\\nb\"";
    assert_eq!(ended.stderr.matches("line feed").count(), 1, "{ended}");
    ended.says(said);
}

#[test]
fn what_came_and_is_no_line_was_something() {
    let scratch = Scratch::new();
    let address = format!("mq:/{}", unique("feed"));
    for wait in [["--timeout", "50ms"].as_slice(), &["--no-wait"]] {
        let send = ["send", &address, "--message", "a\nb"];
        Run::start(scratch.path(), &send).end().code(0);
        let recv = [&["recv", &address], wait].concat();
        let ended = run(scratch.path(), &recv, "").code(1).prints("");
        ended.says("message 1 contains a line feed").says("the message is lost: \"a\\nb\"");
    }
    run(scratch.path(), &["unlink", &address], "").code(0);
}

#[test]
fn a_follower_outlives_a_line_feed() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--follow", "unix:./s"]);
    let send =
        |message| Run::start(scratch.path(), &["send", "unix:./s", "--message", message]).end();
    send("a\nb").code(1).says("rejected");
    send("after").code(0);
    receiver.signal(Signal::TERM);
    receiver.wait().code(1).prints("after\n").says("interrupted: 1 message received");
}

#[test]
fn a_message_that_is_too_large_is_named() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let input = format!("one\ntwo\n{}\nfour\n", "x".repeat(101));
    let sender = run(scratch.path(), &["send", "unix:./s?max-message=100"], &input);
    sender
        .code(1)
        .says("message 3: a message of 101 bytes; at most 100 fit")
        .says("2 messages sent, 0 not acknowledged")
        .says("hint:");
    receiver.wait().code(0).prints("one\ntwo\n");
}

#[test]
fn a_message_too_large_for_a_datagram_is_not_sent_to_raw_bytes() {
    let scratch = Scratch::new();
    let address = format!("udp:127.0.0.1:{}", crate::run::free_port());
    let input = format!("{}\n", "x".repeat(70_000));
    let sender = run(scratch.path(), &["send", &address], &input);
    let ended = sender.code(1).says("at most 65483 fit").says("hint: split the message");
    assert!(!ended.stderr.contains("--raw"), "udp: does not take it: {ended}");
}

#[test]
fn a_line_over_a_fifo_is_written_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "fifo:./f"]);
    let input = format!("{}\n{}\n", "x".repeat(4095), "y".repeat(4096));
    let sender = run(scratch.path(), &["send", "fifo:./f"], &input);
    sender.code(1).says("message 2: a message of 4096 bytes; at most 4095 fit");
    receiver.wait().code(0).prints(format!("{}\n", "x".repeat(4095)));
}
