//! Ctrl-C, SIGTERM and SIGHUP: a message, exit 1, and nothing left behind.

use std::path::Path;

use switchboard_kernel::process::Signal;
use switchboard_testkit::Scratch;

use crate::run::{Run, eventually};

/// What is left in a folder.
fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_receiver() {
    for (address, name) in [("unix:./a", "a"), ("unix-dgram:./b", "b"), ("fifo:./c", "c")] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let scratch = Scratch::new();
            let receiver = Run::start(scratch.path(), &["recv", address]);
            eventually(name, || scratch.join(name).exists());
            receiver.signal(signal);
            receiver.wait().code(1).says("interrupted: 0 messages received");
            assert_eq!(left(scratch.path()), [""; 0]);
        }
    }
}

#[test]
fn a_receiver_that_outlives_its_terminal() {
    let scratch = Scratch::new();
    let mut nohup = std::process::Command::new("nohup");
    nohup.arg(crate::run::binary()).args(["recv", "unix:./a"]).current_dir(scratch.path());
    let receiver = Run::command(nohup);
    eventually("a socket", || scratch.join("a").exists());
    receiver.signal(Signal::HUP);
    Run::start(scratch.path(), &["send", "unix:./a", "--message", "x"]).end().code(0);
    receiver.wait().code(0).prints("x\n");
}

#[test]
fn a_sender_that_waits_for_a_receiver() {
    for (address, name) in [("unix:./a?bind", "a"), ("fifo:./c", "c")] {
        let scratch = Scratch::new();
        let sender = Run::start(scratch.path(), &["send", address, "--message", "x"]);
        eventually(name, || scratch.join(name).exists());
        sender.signal(Signal::INT);
        sender.wait().code(1).says("interrupted: 0 messages sent");
        assert_eq!(left(scratch.path()), [""; 0]);
    }
}

#[test]
fn a_sender_that_waits_for_its_input() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "unix:./s"]);
    sender.write(b"one\ntwo\n");
    receiver.wait_stdout("two lines", |out| out == b"one\ntwo\n");
    sender.signal(Signal::TERM);
    sender.wait().code(1).says("interrupted: 2 messages sent");
    receiver.wait().code(1).prints("one\ntwo\n").says("sender died");
}

#[test]
fn a_stream_that_is_cut_is_no_whole_stream() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--raw", "unix:./s"]);
    let mut sender = Run::start(scratch.path(), &["send", "--raw", "unix:./s"]);
    sender.write(b"begin");
    receiver.wait_stdout("the beginning", |out| out == b"begin");
    sender.signal(Signal::INT);
    sender.wait().code(1).says("interrupted: 5 bytes sent, the stream is not complete");
    let ended = receiver.wait().code(1).prints("begin");
    ended.says("sender died").says("5 bytes arrived");
}

#[test]
fn a_receiver_whose_output_nobody_takes() {
    let scratch = Scratch::new();
    let sender = Run::start(scratch.path(), &["send", "--raw", "unix:./s"]);
    let sender = sender.feed(vec![7; 8 << 20]);
    // Nobody reads this pipe, and it stays open.
    let (unread, pipe) = switchboard_kernel::pipe::pipe().expect("a pipe");
    let mut receiver = std::process::Command::new(crate::run::binary());
    let mut receiver = receiver
        .args(["recv", "--raw", "unix:./s"])
        .current_dir(scratch.path())
        .stdout(pipe)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a receiver");
    eventually("a full pipe", || {
        switchboard_kernel::io::bytes_waiting(&unread).is_ok_and(|n| n > 32 << 10)
    });
    let process = switchboard_kernel::pidfd::open(receiver.id()).expect("a child");
    switchboard_kernel::pidfd::send_signal(process, Signal::TERM).expect("a signal");
    assert_eq!(receiver.wait().expect("a status").code(), Some(1));
    sender.wait().code(1).says("the receiver is gone");
}

#[test]
fn a_follower() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "--follow", "unix:./s"]);
    for message in ["one", "two"] {
        let send = ["send", "unix:./s", "--message", message];
        Run::start(scratch.path(), &send).end().code(0);
    }
    receiver.signal(Signal::INT);
    receiver.wait().code(1).prints("one\ntwo\n").says("interrupted: 2 messages received");
}
