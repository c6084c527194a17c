//! `recv ADDRESS -- COMMAND`: a command per message, acknowledged by its exit code.

use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, eventually, run};

#[test]
fn one_run_per_message() {
    let scratch = Scratch::new();
    let script =
        "cat; echo \" $SWITCHBOARD_ADDRESS $SWITCHBOARD_REDELIVERED $SWITCHBOARD_DELIVERIES\"";
    let recv = ["recv", "unix:./s", "--", "sh", "-c", script];
    let receiver = Run::start(scratch.path(), &recv);
    run(scratch.path(), &["send", "unix:./s"], "one\ntwo\n").code(0);
    receiver.wait().code(0).prints("one unix:./s 0 0\ntwo unix:./s 0 0\n");
}

#[test]
fn a_large_message_reaches_a_slow_reader_and_may_be_ignored() {
    let scratch = Scratch::new();
    let line = "x".repeat(5 << 20);
    for (command, expected) in [("wc -c", format!("{}\n", 5 << 20)), ("true", String::new())] {
        let recv = ["recv", "unix:./s", "--", "sh", "-c", command];
        let receiver = Run::start(scratch.path(), &recv);
        run(scratch.path(), &["send", "unix:./s"], &line).code(0);
        receiver.wait().code(0).prints(expected);
    }
}

#[test]
fn a_failed_message_comes_again() {
    let scratch = Scratch::new();
    // The first run of a message fails, the second does not.
    let script = "read m; echo $m $SWITCHBOARD_REDELIVERED; mkdir seen-$m || exit 0; exit 7";
    let recv = ["recv", "unix:./s", "--", "sh", "-c", script];
    let receiver = Run::start(scratch.path(), &recv);
    run(scratch.path(), &["send", "unix:./s"], "a\n").code(0);
    let ended = receiver.wait().code(1).prints("a 0\na 1\n");
    ended.says("message 1: sh exited with 7; given back");
}

#[test]
fn a_message_that_always_fails_is_reported_to_its_sender() {
    let scratch = Scratch::new();
    let recv = ["recv", "unix:./s", "--", "sh", "-c", "kill -9 $$"];
    let receiver = Run::start(scratch.path(), &recv);
    run(scratch.path(), &["send", "unix:./s"], "a\n").code(1).says("1 messages were rejected");
    let ended = receiver.wait().code(1).says("was killed by signal 9; given back");
    assert_eq!(ended.stderr.matches("killed by").count(), 5, "{ended}");
}

#[test]
fn what_cannot_come_again_is_said_to_be_lost() {
    let scratch = Scratch::new();
    let address = format!("mq:/{}", unique("lost"));
    run(scratch.path(), &["send", &address], "a\n").code(0);
    let recv = ["recv", "--count", "1", &address, "--", "false"];
    let receiver = Run::start(scratch.path(), &recv).wait();
    run(scratch.path(), &["unlink", &address], "").code(0);
    receiver.code(1).says("false exited with 1; mq: cannot redeliver; the message is lost");
}

#[test]
fn several_at_a_time() {
    let scratch = Scratch::new();
    // Each run waits until three are there: they end only if three run at once.
    let script = "read m; mkdir in-$m; while [ $(ls -d in-* | wc -l) -lt 3 ]; do sleep 0.01; done; \
                  echo $m";
    let recv = ["recv", "--jobs", "3", "unix:./s", "--", "sh", "-c", script];
    let receiver = Run::start(scratch.path(), &recv);
    run(scratch.path(), &["send", "unix:./s"], "1\n2\n3\n4\n").code(0);
    let received = receiver.wait().code(0).text();
    let mut received: Vec<&str> = received.lines().collect();
    received.sort_unstable();
    assert_eq!(received, ["1", "2", "3", "4"]);
}

#[test]
fn work_is_shared_between_receivers() {
    let scratch = Scratch::new();
    let script =
        "read m; mkdir $0-$m; while [ $(ls -d *-[12] | wc -l) -lt 2 ]; do sleep 0.01; done";
    let sender = Run::start(scratch.path(), &["send", "unix:./s?bind"]).feed("1\n2\n");
    let receivers = ["a", "b"].map(|name| {
        let recv = ["recv", "unix:./s?connect", "--", "sh", "-c", script, name];
        Run::start(scratch.path(), &recv)
    });
    for receiver in receivers {
        receiver.wait().code(0);
    }
    sender.wait().code(0);
}

#[test]
fn a_command_that_cannot_be_run_loses_nothing() {
    let scratch = Scratch::new();
    let sender = Run::start(scratch.path(), &["send", "unix:./s"]).feed("one\n");
    let receiver = run(scratch.path(), &["recv", "unix:./s", "--", "./nothing"], "");
    receiver.code(1).says("cannot run ./nothing").says("given back");
    run(scratch.path(), &["recv", "unix:./s"], "").code(0).prints("one\n");
    sender.wait().code(0);
}

#[test]
fn interrupted_commands_end_and_their_messages_go_back() {
    let scratch = Scratch::new();
    let script = "touch started; exec sleep 1000";
    let recv = ["recv", "unix:./s", "--", "sh", "-c", script];
    let receiver = Run::start(scratch.path(), &recv);
    let sender = Run::start(scratch.path(), &["send", "unix:./s"]).feed("one\n");
    eventually("a started command", || scratch.join("started").exists());
    receiver.signal(Signal::INT);
    receiver.wait().code(1).says("interrupted: 1 message received, 1 of them not finished");
    run(scratch.path(), &["recv", "unix:./s"], "").code(0).prints("one\n");
    sender.wait().code(0);
}
