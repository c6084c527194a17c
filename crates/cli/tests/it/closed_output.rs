//! Standard output that nobody reads any more (`… | head -1`): every command that waits for what it prints
//! ends then, and not at the next thing to print.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::pidfd;
use switchboard_testkit::{DEADLINE, Scratch, unique};

use crate::run::{binary, run};

/// Starts a command, closes its standard output once it has printed so much, and waits for its end.
fn check(scratch: &Scratch, arguments: &[&str], printed: &str) {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(scratch.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut found = vec![0; printed.len()];
    stdout.read_exact(&mut found).expect("what it prints");
    assert_eq!(String::from_utf8_lossy(&found), printed, "{arguments:?}");
    drop(stdout);
    let process = pidfd::open(child.id()).expect("a process");
    let deadline = Deadline::after(DEADLINE);
    let ended = wait_for(process.as_fd(), Interest::Readable, deadline).expect("waited");
    if !ended {
        child.kill().expect("killed");
    }
    let status = child.wait().expect("reaped");
    assert!(ended, "{arguments:?} goes on");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), &said[..]), (Some(1), ""), "{arguments:?}");
}

#[test]
fn a_receiver_ends() {
    let scratch = Scratch::new();
    let mq = format!("mq:/{}", unique("closed"));
    run(scratch.path(), &["create", "fifo:./fifo"], "").code(0);
    run(scratch.path(), &["create", &mq], "").code(0);
    run(scratch.path(), &["create", "sysv:."], "").code(0);
    for address in [&mq, "sysv:.", "file:./log"] {
        run(scratch.path(), &["send", address, "--message", "one"], "").code(0);
        check(&scratch, &["recv", address], "one\n");
    }
    // Before anything came.
    let quiet = [
        "fifo:./fifo",
        "unix:./stream",
        "unix-dgram:./packets",
        "udp:127.0.0.1:0",
        "file:./log",
        &mq,
    ];
    for address in quiet {
        check(&scratch, &["recv", address], "");
    }
    run(scratch.path(), &["unlink", &mq, "sysv:."], "").code(0);
}

#[test]
fn a_subscriber_ends() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./log", "--message", "one"], "").code(0);
    check(&scratch, &["subscribe", "--from", "oldest", "file:./log"], "one\n");
    check(&scratch, &["subscribe", "file:./log?reader=a"], "");
}

#[test]
fn who_watches_a_state_ends() {
    let scratch = Scratch::new();
    check(&scratch, &["watch", "mmap:./not-there"], "");
    run(scratch.path(), &["set", "mmap:./state", "one"], "").code(0);
    check(&scratch, &["watch", "--initial", "mmap:./state"], "one\n");
    check(
        &scratch,
        &["watch", "--initial", "--timeout", "1h", "mmap:./state?layout=slots"],
        "one\n",
    );
}

#[test]
fn who_waits_for_an_event_ends() {
    let scratch = Scratch::new();
    let sem = format!("sem:/{}", unique("closed"));
    run(scratch.path(), &["create", &sem, "--value", "1"], "").code(0);
    check(
        &scratch,
        &["wait", "--follow", "--json", &sem],
        "{\"count\":1,\"id\":0,\"merged\":false}\n",
    );
    check(&scratch, &["wait", "--json", "signal:self/SIGRTMIN+1"], "");
    run(scratch.path(), &["unlink", &sem], "").code(0);
}
