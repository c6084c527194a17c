//! `send` and `recv` over `file:`: what is given back, what is rejected for good, what is removed.

use switchboard_testkit::Scratch;

use crate::run::{Run, run};

fn send(scratch: &Scratch, messages: &[&str]) {
    let mut arguments = vec!["send", "file:./q"];
    messages.iter().for_each(|message| arguments.extend(["-m", message]));
    run(scratch.path(), &arguments, "").code(0);
}

#[test]
fn what_the_output_cannot_hold_is_said_once_and_stays_for_another() {
    let scratch = Scratch::new();
    send(&scratch, &["a\nb", "two"]);
    for _ in 0..7 {
        let taken = run(scratch.path(), &["recv", "--no-wait", "--json", "file:./q"], "");
        let said = taken
            .code(1)
            .prints("")
            .says("message 1 is no JSON: expected value; given back: \"a\\nb\"");
        assert_eq!(said.stderr.matches("no JSON").count(), 2, "{said}");
    }
    let taken = run(scratch.path(), &["recv", "--count", "1", "file:./q"], "");
    let said = taken.code(1).prints("two\n").says("is no line; given back: \"a\\nb\"");
    assert_eq!(said.stderr.matches("line feed").count(), 1, "{said}");
    let all = ["recv", "--length-prefixed", "--no-wait", "file:./q"];
    run(scratch.path(), &all, "").code(0).prints("\0\0\0\x03a\nb");
}

#[test]
fn a_command_that_fails_is_given_a_message_once_in_a_short_run() {
    let scratch = Scratch::new();
    send(&scratch, &["one"]);
    for delivery in 1..5 {
        let number = match delivery {
            1 => "message 1:".to_owned(),
            _ => format!("message 1 (delivery {delivery}):"),
        };
        let taken = run(scratch.path(), &["recv", "--no-wait", "file:./q", "--", "false"], "");
        let said = taken.code(1).says(&format!("{number} false exited with 1; given back\n"));
        assert_eq!(said.stderr.matches("false exited").count(), 1, "{said}");
    }
    let last = run(scratch.path(), &["recv", "--count", "1", "file:./q", "--", "false"], "");
    last.code(1).says("message 1 (delivery 5): false exited with 1; rejected for good");
    run(scratch.path(), &["recv", "--no-wait", "file:./q"], "").code(3);
}

#[test]
fn a_receiver_that_goes_on_tries_again_and_says_how_it_ends() {
    let scratch = Scratch::new();
    send(&scratch, &["one", "two"]);
    let script = "read m; test $m = two && exit; exit 7";
    let receiver = Run::start(scratch.path(), &["recv", "file:./q", "--", "sh", "-c", script]);
    receiver.wait_stderr("rejected for good");
    receiver.signal(switchboard_kernel::process::Signal::TERM);
    let said = receiver.wait().code(1);
    assert_eq!(said.stderr.matches("message 1").count(), 5, "{said}");
    assert_eq!(said.stderr.matches("exited with 7; given back\n").count(), 4, "{said}");
    let said = said.says("message 1 (delivery 5): sh exited with 7; rejected for good");
    said.says("interrupted: 6 messages received");
}

#[test]
fn a_healthy_receiver_gets_what_another_fails_at() {
    let scratch = Scratch::new();
    let failing = Run::start(scratch.path(), &["recv", "file:./q", "--", "false"]);
    send(&scratch, &["one"]);
    failing.wait_stderr("message 1: false exited with 1; given back");
    let healthy = ["recv", "--count", "1", "file:./q", "--", "sh", "-c"];
    let script = "cat; echo \" $SWITCHBOARD_DELIVERIES $SWITCHBOARD_REDELIVERED\"";
    let taken = run(scratch.path(), &[&healthy[..], &[script]].concat(), "").code(0).text();
    assert!(taken.starts_with("one ") && taken.ends_with(" 1\n"), "{taken}");
}

#[test]
fn an_interrupted_command_uses_up_no_delivery() {
    let scratch = Scratch::new();
    send(&scratch, &["one"]);
    for _ in 0..6 {
        let started = scratch.join("started");
        let script = "touch started; exec sleep 100";
        let receiver = Run::start(scratch.path(), &["recv", "file:./q", "--", "sh", "-c", script]);
        crate::run::eventually("a started command", || started.exists());
        receiver.signal(switchboard_kernel::process::Signal::TERM);
        receiver.wait().code(1).says("1 of them not finished");
        std::fs::remove_file(started).expect("removed");
    }
    run(scratch.path(), &["recv", "--no-wait", "file:./q"], "").code(0).prints("one\n");
}

#[test]
fn a_table_cut_to_nothing_is_said() {
    let scratch = Scratch::new();
    send(&scratch, &["one", "two"]);
    run(scratch.path(), &["recv", "--count", "1", "file:./q"], "").code(0).prints("one\n");
    std::fs::File::create(scratch.join("q").join("queue")).expect("cut");
    let again = run(scratch.path(), &["recv", "--no-wait", "--verbose", "file:./q"], "");
    let again = again.code(1).prints("one\ntwo\n").says("file:./q: the queue's table is damaged");
    again.says("message 1 (delivery 2) may have been received before");
}

#[test]
fn a_log_that_is_removed_ends_the_wait() {
    let scratch = Scratch::new();
    for arguments in [&["recv", "file:./q"][..], &["recv", "--follow", "file:./q", "--", "cat"]] {
        send(&scratch, &["one"]);
        let receiver = Run::start(scratch.path(), arguments);
        receiver.wait_stdout("a message", |out| out.starts_with(b"one"));
        run(scratch.path(), &["unlink", "file:./q"], "").code(0);
        receiver.wait().code(1).says("error: file:./q: the log was removed").says("hint: ");
        assert!(!scratch.join("q").exists());
    }
}

#[test]
fn a_subscriber_passes_over_what_it_cannot_use() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./t", "-m", "a\nb", "-m", "two"], "").code(0);
    let all = ["subscribe", "--from", "oldest", "--no-wait", "file:./t"];
    run(scratch.path(), &all, "")
        .code(1)
        .prints("two\n")
        .says("is no line; passed over: \"a\\nb\"");
    let fails = [&all[..], &["--", "false"]].concat();
    let said = run(scratch.path(), &fails, "").code(1);
    let said = said.says("message 1: false exited with 1; passed over").says("message 2: false");
    assert!(!said.stderr.contains("lost"), "{said}");
    let help = run(scratch.path(), &["subscribe", "--help"], "").code(0).text();
    assert!(!help.contains("acknowledges it"), "{help}");
}
