//! Wrong usage, things that are not there, refusals: each with its exit code and what to do.

use std::os::unix::fs::PermissionsExt;

use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, eventually, free_port, run};

/// Both ends fail so, at once.
fn check(address: &str, code: i32, says: &[&str]) {
    let scratch = Scratch::new();
    for command in ["send", "recv"] {
        let mut ended = run(scratch.path(), &[command, address], "x\n").code(code).prints("");
        assert!(ended.stderr.starts_with("error: "), "{ended}");
        for text in says {
            ended = ended.says(text);
        }
    }
}

#[test]
fn wrong_addresses_are_pointed_at() {
    check("unix:./x?mod=0640", 2, &["         ^^^ unknown option; unix: takes"]);
    check("unx:./x", 2, &["^^^ unknown scheme; known: "]);
    check("./x", 2, &["no scheme; write it as unix:./x"]);
    check("tcp:127.0.0.1", 2, &["no port"]);
    check("unix:./x?framing=raw", 2, &["keeps no messages apart", "hint: add --raw"]);
}

#[test]
fn an_address_that_does_not_carry_the_pattern_is_wrong_usage() {
    let scratch = Scratch::new();
    let commands: [(&str, &[&[&str]]); 5] = [
        ("queue", &[&["send", "@", "-m", "x"], &["recv", "@"]]),
        ("topic", &[&["publish", "@", "-m", "x"], &["subscribe", "@"]]),
        ("service", &[&["call", "@", "x"], &["serve", "@", "--", "cat"]]),
        ("event", &[&["notify", "@"], &["wait", "@"]]),
        ("state", &[&["set", "@", "x"], &["get", "@"], &["watch", "@"]]),
    ];
    for row in switchboard::transport::TABLE {
        let here = |arguments: &[&str]| {
            let arguments: Vec<&str> = arguments
                .iter()
                .map(|word| if *word == "@" { row.example } else { word })
                .collect();
            run(scratch.path(), &arguments, "").code(2).prints("").says(row.example)
        };
        for (pattern, ends) in commands {
            if row.patterns().contains(&pattern) {
                continue;
            }
            for arguments in ends {
                here(arguments).says(&format!("{}: carries no {pattern}", row.scheme));
            }
        }
        if !row.creates() {
            here(&["create", "@"]).says("has nothing to create");
        }
    }
    for address in ["tcp:127.0.0.1:9", "udp:127.0.0.1:9", "fd:0", "signal:self/SIGUSR1"] {
        run(scratch.path(), &["unlink", address], "").code(2).says("has no name to remove");
    }
    let from = ["subscribe", "--from", "5", "unix:./s"];
    run(scratch.path(), &from, "").code(2).says("not with a message's number");
    run(scratch.path(), &["publish", "unix:./s?framing=lines", "-m", "x"], "").code(2);
    // What is there, and something else than the address says, is no wrong usage.
    std::fs::write(scratch.join("plain"), "a file").expect("a file");
    for address in ["fifo:./plain", "unix:./plain", "mmap:./plain"] {
        run(scratch.path(), &["unlink", address], "").code(1);
    }
}

#[test]
fn what_can_never_appear_fails_at_once() {
    check("unix:./no/x", 3, &["there is no folder ./no", "hint: make it first: mkdir -p ./no"]);
    check("unix-dgram:./no/x", 3, &["there is no folder ./no"]);
    check("fifo:./no/x", 3, &["there is no folder ./no"]);
}

#[test]
fn policy_refuses_plaintext_beyond_this_machine() {
    check("tcp:192.0.2.1:9", 5, &["192.0.2.1 is not this machine", "hint: ", "?plaintext"]);
    check("udp:192.0.2.1:9", 5, &["?plaintext"]);
}

#[test]
fn modes_refuse_other_users() {
    let scratch = Scratch::new();
    if effective_user_id() == 0 {
        // Root passes every mode: an ordinary user tries.
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
        eventually("a socket", || scratch.join("s").exists());
        let binary = scratch.join("switchboard");
        std::fs::copy(crate::run::binary(), &binary).expect("a copy");
        let mut other = std::process::Command::new(binary);
        std::os::unix::process::CommandExt::uid(&mut other, 65534);
        other.args(["send", "unix:./s", "--message", "x"]).current_dir(scratch.path());
        Run::command(other).end().code(5).says("EACCES").says("hint: ");
        drop(receiver);
    } else {
        std::fs::create_dir(scratch.join("closed")).expect("a folder");
        let mode = PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(scratch.join("closed"), mode).expect("a mode");
        run(scratch.path(), &["recv", "fifo:./closed/f"], "").code(5).says("EACCES").says("hint: ");
        let mode = PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(scratch.join("closed"), mode).expect("a mode");
    }
}

#[test]
fn an_address_in_use_names_its_holder() {
    let scratch = Scratch::new();
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    eventually("a socket", || scratch.join("s").exists());
    let second = run(scratch.path(), &["recv", "unix:./s"], "").code(1).says("address in use");
    second.says(&format!("process {} (", receiver.id())).says("hint: only one side binds");
    // The first one was not disturbed.
    run(scratch.path(), &["send", "unix:./s"], "x\n").code(0);
    receiver.wait().code(0).prints("x\n");
}

#[test]
fn a_stream_does_not_go_over_datagrams() {
    let scratch = Scratch::new();
    let address = format!("udp:127.0.0.1:{}", free_port());
    for command in ["send", "recv"] {
        run(scratch.path(), &[command, "--raw", &address], "").code(2).says("hint: use tcp:");
    }
}

#[test]
fn wrong_usage() {
    let scratch = Scratch::new();
    let usage = |arguments: &[&str], says: &str| {
        run(scratch.path(), arguments, "").code(2).says(says);
    };
    usage(&[], "Usage: switchboard <COMMAND>");
    usage(&["sned", "unix:./s"], "send");
    usage(&["send"], "ADDRESS");
    usage(&["send", "--raw", "--json", "unix:./s"], "cannot be used with");
    usage(&["send", "--raw", "--message", "x", "unix:./s"], "cannot be used with");
    usage(&["send", "--priority", "1", "unix:./s"], "no priorities");
    usage(&["send", "--timeout", "soon", "unix:./s"], "500ms");
    usage(&["recv", "--count", "0", "unix:./s"], "0");
    usage(&["recv", "--jobs", "2", "unix:./s"], "COMMAND");
    usage(&["recv", "--json", "unix:./s", "--", "cat"], "cannot be used with");
}

/// A shell that finds the command in `$0`.
fn shell(scratch: &Scratch, script: &str) -> crate::run::Ended {
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(script).arg(crate::run::binary()).current_dir(scratch.path());
    Run::command(shell).end()
}

#[test]
fn standard_output_that_is_closed_takes_nothing() {
    let scratch = Scratch::new();
    let address = format!("mq:/{}", unique("closed"));
    run(scratch.path(), &["send", &address], "one\n").code(0);
    let closed = shell(&scratch, &format!("\"$0\" recv --no-wait {address} >&-"));
    closed.code(1).says("standard output is closed").says("hint: ");
    run(scratch.path(), &["recv", "--no-wait", &address], "").code(0).prints("one\n");
    run(scratch.path(), &["unlink", &address], "").code(0);
    for command in ["transports", "man", "demo"] {
        shell(&scratch, &format!("\"$0\" {command} >&-")).code(1).says("output is closed");
    }
    shell(&scratch, "\"$0\" transports >&- 2>&-").code(1);
}

#[test]
fn dev_null_is_no_closed_output() {
    let scratch = Scratch::new();
    let address = format!("mq:/{}", unique("null"));
    for output in [">/dev/null", "<>/dev/null >&0"] {
        run(scratch.path(), &["send", &address], "one\n").code(0);
        shell(&scratch, &format!("\"$0\" recv --no-wait {address} {output}")).code(0);
        run(scratch.path(), &["recv", "--no-wait", &address], "").code(3).prints("");
    }
    run(scratch.path(), &["unlink", &address], "").code(0);
    // What does not print needs no output; what is run has its own.
    let send = Run::start(scratch.path(), &["recv", "unix:./s"]);
    shell(&scratch, "\"$0\" send unix:./s --message one >&-").code(0);
    send.wait().code(0).prints("one\n");
}

#[test]
fn standard_input_that_is_closed_cannot_be_read() {
    let scratch = Scratch::new();
    for option in ["", "--raw", "--json"] {
        let closed = shell(&scratch, &format!("\"$0\" send {option} unix:./s <&-"));
        closed.code(1).says("standard input is closed").says("hint: ");
    }
    for command in
        ["set mmap:./value", "set --pairs unix:./state", "set unix:./state", "call unix:./s"]
    {
        let closed = shell(&scratch, &format!("\"$0\" {command} <&-"));
        closed.code(1).says("standard input is closed").says("hint: ");
    }
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    shell(&scratch, "\"$0\" send unix:./s --message one <&-").code(0);
    receiver.wait().code(0).prints("one\n");
}

#[test]
fn an_output_that_is_full_is_an_error() {
    let scratch = Scratch::new();
    shell(&scratch, "\"$0\" transports > /dev/full")
        .code(1)
        .says("cannot write to standard output");
    let ended = shell(
        &scratch,
        "\"$0\" send unix:./s --message x --timeout 10s & \"$0\" recv unix:./s > /dev/full
         code=$?; kill $!; exit $code",
    );
    ended.code(1).says("cannot write to standard output").says("ENOSPC");
}
