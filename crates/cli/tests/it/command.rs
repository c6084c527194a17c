//! `recv ADDRESS -- COMMAND`: a command per message, acknowledged by its exit code.

use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, binary, eventually, run};

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
    run(scratch.path(), &["send", "unix:./s"], "a\n").code(1).says("1 message was rejected");
    let ended = receiver.wait().code(1).says("was killed by signal 9; given back");
    let ended = ended.says("message 1: sh ").says("message 1 (delivery 5): sh ");
    assert!(!ended.stderr.contains("message 2"), "{ended}");
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

/// `switchboard ARGUMENTS` with at most so many descriptors.
pub(crate) fn with_descriptors(most: u32, folder: &std::path::Path, arguments: &[&str]) -> Run {
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {most}; exec \"$0\" \"$@\"")).arg(binary());
    shell.args(arguments).current_dir(folder);
    Run::command(shell)
}

#[test]
fn fewer_at_a_time_when_descriptors_run_out() {
    let scratch = Scratch::new();
    // The first ones stay until there are two: more than one at a time, less than eight.
    let script = "read m; mkdir in-$m; while [ $(ls -d in-* | wc -l) -lt 2 ]; do sleep 0.01; done; \
                  sleep 0.2; echo $m";
    let recv = ["recv", "--jobs", "8", "unix:./s", "--", "sh", "-c", script];
    let receiver = with_descriptors(20, scratch.path(), &recv);
    run(scratch.path(), &["send", "unix:./s"], "1\n2\n3\n4\n5\n6\n7\n8\n9\n").code(0);
    let ended = receiver.wait().code(0).says("at a time from now on").says("RLIMIT_NOFILE");
    assert!(ended.stderr.contains("pipe2") && !ended.stderr.contains("execve"), "{ended}");
    let text = ended.text();
    let mut received: Vec<&str> = text.lines().collect();
    received.sort_unstable();
    assert_eq!(received, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn too_few_descriptors_are_said_with_their_limit() {
    let scratch = Scratch::new();
    let lacking = |most: u32, arguments: &[&str]| {
        let ended = with_descriptors(most, scratch.path(), arguments).end();
        if ended.stderr.contains("EMFILE") {
            assert_eq!(ended.code, Some(1), "{most}: {ended}");
            let hint = ended.stderr.lines().find(|line| line.starts_with("hint: "));
            assert!(hint.is_some_and(|hint| hint.contains("RLIMIT_NOFILE")), "{most}: {ended}");
        }
        ended.stderr.contains("EMFILE")
    };
    let mut met = 0;
    for most in 4..20 {
        met += u32::from(lacking(most, &["recv", "--timeout", "20ms", "unix:./s"]));
        met += u32::from(lacking(most, &["recv", "--timeout", "20ms", "unix:./s", "--", "cat"]));
        met += u32::from(lacking(most, &["send", "--timeout", "20ms", "fifo:./f"]));
        met += u32::from(lacking(most, &["recv", "--timeout", "20ms", "unix-dgram:./d"]));
    }
    for most in 4..9 {
        met += u32::from(lacking(most, &["demo", "--json", "--seconds", "1"]));
    }
    assert!(met > 16, "descriptors were lacking {met} times only");
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
    let address = format!("mq:/{}", unique("kept"));
    run(scratch.path(), &["send", &address], "one\n").code(0);
    std::fs::write(scratch.join("text"), "no program").expect("a file");
    for command in ["./nothing", "switchboard-has-no-such-command", "./text", "/", ""] {
        let receiver = run(scratch.path(), &["recv", &address, "--", command], "");
        receiver.code(2).prints("").says(&format!("cannot run {command}: execve: "));
    }
    run(scratch.path(), &["recv", "--no-wait", &address], "").code(0).prints("one\n");
    run(scratch.path(), &["unlink", &address], "").code(0);
}

#[test]
fn a_command_that_the_kernel_refuses_gives_its_message_back() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("script"), "#!/no/such/interpreter\n").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.join("script"), mode).expect("a mode");
    let sender = Run::start(scratch.path(), &["send", "unix:./s"]).feed("one\n");
    let receiver = run(scratch.path(), &["recv", "unix:./s", "--", "./script"], "");
    receiver.code(1).says("cannot run ./script: execve: ").says("given back");
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
