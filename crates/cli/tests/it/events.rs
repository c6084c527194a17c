//! `notify` and `wait`.

use serde_json::Value;
use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, eventually, run};

/// A semaphore's address, removed on drop.
struct Semaphore(String);

impl Semaphore {
    fn new() -> Self {
        Self(format!("sem:/{}", unique("events")))
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        if let Ok(address) = self.0.parse() {
            let _ = switchboard::object::unlink(&address);
        }
    }
}

#[test]
fn notify_ends_wait() {
    let (scratch, event) = (Scratch::new(), Semaphore::new());
    let waiting = Run::start(scratch.path(), &["wait", &event.0]);
    run(scratch.path(), &["notify", &event.0], "").code(0).prints("");
    waiting.wait().code(0).prints("");
    let many = ["notify", "--count", "3", "--json", &event.0];
    let said = format!("{{\"address\":\"{}\",\"notified\":3}}\n", event.0);
    run(scratch.path(), &many, "").code(0).prints(said);
    run(scratch.path(), &["wait", "--count", "2", &event.0], "").code(0);
    let json = ["wait", "--no-wait", "--json", &event.0];
    run(scratch.path(), &json, "").code(0).prints("{\"count\":1,\"id\":0,\"merged\":false}\n");
    run(scratch.path(), &json, "").code(3).says("nothing happened yet");
    let timed = run(scratch.path(), &["wait", "--timeout", "30ms", &event.0], "").code(3);
    timed.says("nothing happened for 30ms; 0 events taken");
}

#[test]
fn a_command_for_each_event() {
    let (scratch, event) = (Scratch::new(), Semaphore::new());
    run(scratch.path(), &["create", "--value", "3", &event.0], "").code(0);
    let command = ["wait", "--count", "2", &event.0, "--", "sh", "-c", "echo $SWITCHBOARD_ADDRESS"];
    run(scratch.path(), &command, "").code(0).prints(format!("{0}\n{0}\n", event.0));
    let fails = ["wait", &event.0, "--", "sh", "-c", "exit 7"];
    run(scratch.path(), &fails, "").code(1).says("event 1: sh exited with 7");
    run(scratch.path(), &["notify", &event.0], "").code(0);
    let none = ["wait", &event.0, "--", "/nowhere/at/all"];
    run(scratch.path(), &none, "").code(2).says("cannot run /nowhere/at/all");
    // The event is still there.
    run(scratch.path(), &["wait", "--no-wait", &event.0], "").code(0);
}

#[test]
fn signals_have_numbers_and_senders() {
    let scratch = Scratch::new();
    let arguments = ["wait", "--announce", "--json", "--count", "2", "signal:self/SIGRTMIN+3"];
    let waiting = Run::start(scratch.path(), &arguments);
    let address = format!("signal:{}/SIGRTMIN+3", waiting.id());
    waiting.wait_stdout("its address", |out| out.ends_with(b"\n"));
    let notifier = Run::start(scratch.path(), &["notify", "--value", "-5", &address]);
    let pid = notifier.id();
    notifier.wait().code(0);
    run(scratch.path(), &["notify", &address], "").code(0);
    let said = waiting.wait().code(0).text();
    let lines: Vec<&str> = said.lines().collect();
    let [announced, first] =
        [0, 1].map(|at| serde_json::from_str::<Value>(lines[at]).expect("JSON"));
    assert_eq!(announced, serde_json::json!({ "address": address }));
    assert_eq!(first["value"], -5);
    assert_eq!((&first["from"]["pid"], &first["merged"]), (&pid.into(), &false.into()));
    assert_eq!(lines.len(), 3, "{said}");

    let values = ["wait", "--announce", "signal:self/SIGUSR1", "--"];
    let command = ["sh", "-c", "echo $SWITCHBOARD_VALUE; kill -USR1 $$"];
    let waiting = Run::start(scratch.path(), &[&values[..], &command[..]].concat());
    waiting.wait_stdout("its address", |out| out.ends_with(b"\n"));
    let address = format!("signal:{}/SIGUSR1", waiting.id());
    run(scratch.path(), &["notify", "--value", "9", &address], "").code(0);
    // What is run has no signals blocked.
    let ended = waiting.wait().code(1).says("was killed by signal 10");
    assert_eq!(ended.text(), format!("{address}\n9\n"));
}

#[test]
fn over_links_by_id() {
    for address in ["unix:./e", "unix-seqpacket:./e", "shm:e?scope=SCRATCH/at"] {
        let scratch = Scratch::new();
        let address = address.replace("SCRATCH", scratch.path().to_str().expect("a path"));
        let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
        here(&["notify", "--no-wait", &address]).code(3);
        here(&["notify", "--timeout", "30ms", &address]).code(3).says("nobody listened for 30ms");
        let waiting = Run::start(scratch.path(), &["wait", "--json", "--count", "3", &address]);
        let notify = ["notify", "--json", "--id", "7", "--count", "3", &address];
        let said = format!("{{\"address\":\"{address}\",\"notified\":3}}\n");
        here(&notify).code(0).prints(said);
        waiting.wait().code(0).prints("{\"count\":3,\"id\":7,\"merged\":false}\n");
        assert!(!scratch.join("e").exists() && !scratch.join("at/shm/e").exists());

        let command = ["sh", "-c", "echo $SWITCHBOARD_ID $SWITCHBOARD_COUNT"];
        let wait = ["wait", "--count", "4", &address, "--"];
        let waiting = Run::start(scratch.path(), &[&wait[..], &command[..]].concat());
        here(&["notify", "--id", "1", "--count", "2", &address]).code(0);
        waiting.wait_stdout("the first", |out| out == b"1 2\n");
        here(&["notify", "--count", "2", &address]).code(0);
        waiting.wait().code(0).prints("1 2\n0 2\n");
        here(&["notify", "--value", "1", "--no-wait", &address]).code(3);
    }
    let (scratch, event) = (Scratch::new(), Semaphore::new());
    let refused = run(scratch.path(), &["notify", "--id", "1", &event.0], "").code(2);
    refused.says("carries no id");
}

#[test]
fn what_cannot_be() {
    let (scratch, event) = (Scratch::new(), Semaphore::new());
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["wait", "--no-wait", &event.0]).code(3).says("no semaphore of this name");
    here(&["notify", "--no-wait", &event.0]).code(3).says("no semaphore of this name");
    here(&["notify", "--value", "1", &event.0]).code(2).says("no number");
    here(&["notify", "mq:/jobs"]).code(2).says("an event is carried by");
    here(&["wait", "signal:1/SIGUSR1"]).code(2).says("signal:self/SIGUSR1");
    for fault in ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"] {
        here(&["wait", &format!("signal:self/{fault}")]).code(2).says("hint: take SIGUSR1");
    }
    here(&["wait", "signal:self/SIGNOT"]).code(2).says("no signal \"SIGNOT\"");
    here(&["wait", "signal:self/SIGKILL"]).code(2).says("cannot be waited for");
    here(&["notify", "signal:0/SIGUSR1"]).code(2).says("a process is its number");
    here(&["notify", "signal:SIGUSR1"]).code(2).says("PID/SIGNAL");
    here(&["notify", "signal:2147483646/SIGUSR1"]).code(3).says("no process");
    here(&["wait", "sysv-sem:./no/file"]).code(3).says("has to exist");
    here(&["create", "signal:self/SIGUSR1"]).code(2).says("nothing to create");
    here(&["create", "sem:/x?value=2147483648"]).code(2).says("a count is 0 to");
    let too_many = here(&["create", "sysv-sem:.", "--value", "32768"]);
    too_many.code(2).says("counts to 32767 at most").says("hint: give 0 to 32767");
}

#[test]
fn ended_by_a_signal() {
    let (scratch, event) = (Scratch::new(), Semaphore::new());
    for signal in [Signal::INT, Signal::TERM] {
        let waiting = Run::start(scratch.path(), &["wait", "--follow", "--json", &event.0]);
        run(scratch.path(), &["notify", &event.0], "").code(0);
        waiting.wait_stdout("an event", |out| out.ends_with(b"\n"));
        waiting.signal(signal);
        waiting.wait().code(1).says("interrupted: 1 event taken");
    }
    let marker = scratch.join("started");
    let command = format!("touch {}; exec sleep 100", marker.display());
    let waiting = Run::start(scratch.path(), &["wait", &event.0, "--", "sh", "-c", &command]);
    run(scratch.path(), &["notify", &event.0], "").code(0);
    eventually("the command runs", || marker.exists());
    waiting.signal(Signal::INT);
    waiting.wait().code(1).says("sh was not finished");
}
