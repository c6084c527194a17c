//! `call` and `serve`.

use serde_json::Value;
use switchboard_kernel::process::Signal;
use switchboard_testkit::Scratch;

use crate::command::with_descriptors;
use crate::run::{Run, eventually, run};

/// At an address of each transport, in a folder of its own, side by side.
fn each(check: impl Fn(&Scratch, &str) + Sync) {
    std::thread::scope(|threads| {
        for address in
            ["unix:./service", "unix-seqpacket:./service", "shm:service?scope=SCRATCH/at"]
        {
            let check = &check;
            threads.spawn(move || {
                let scratch = Scratch::new();
                let path = scratch.path().to_str().expect("a path");
                check(&scratch, &address.replace("SCRATCH", path));
            });
        }
    });
}

/// A server, and what it is given.
fn serve(scratch: &Scratch, options: &[&str], address: &str, command: &[&str]) -> Run {
    Run::start(scratch.path(), &[&["serve"], options, &[address, "--"], command].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_program_answers_each_request() {
    each(|scratch, address| {
        let server = serve(scratch, &["--count", "5", "--json"], address, &["tr", "a-z", "A-Z"]);
        // Either side may start first.
        run(scratch.path(), &["call", address, "hello"], "").code(0).prints("HELLO");
        run(scratch.path(), &["call", address], "two\nlines\n").code(0).prints("TWO\nLINES\n");
        run(scratch.path(), &["call", address, ""], "").code(0).prints("");
        let long = "long line\n".repeat(400_000);
        let said = run(scratch.path(), &["call", address], &long).code(0);
        assert_eq!(said.stdout, long.to_uppercase().as_bytes());
        let said = json(&run(scratch.path(), &["call", "--json", address, "x"], "").code(0).text());
        assert_eq!(said["replies"][0]["text"], "X");
        let log = server.wait().code(0).text();
        let lines: Vec<Value> = log.lines().map(json).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!((&lines[0]["request_bytes"], &lines[0]["reply_bytes"]), (&5.into(), &5.into()));
        let names = ["service", "at/shm/service"].map(|name| scratch.join(name).exists());
        assert_eq!(names, [false, false]);
    });
}

#[test]
fn a_program_that_fails_is_a_call_that_failed() {
    each(|scratch, address| {
        let command = ["sh", "-c", "echo half of it; exit 7"];
        let server = serve(scratch, &["--count", "2"], address, &command);
        let failed = run(scratch.path(), &["call", address, "x"], "").code(1).prints("");
        failed.says("the server failed: unknown: sh exited with 7");
        let said = json(&run(scratch.path(), &["call", "--json", address, "x"], "").code(1).text());
        assert_eq!(said["status"]["code"], "unknown");
        assert_eq!(said["status"]["details"]["text"], "half of it\n");
        server.wait().code(0);
        let none = ["serve", address, "--", "/nowhere/at/all"];
        run(scratch.path(), &none, "").code(2).says("cannot run /nowhere/at/all");
        let mq = run(scratch.path(), &["call", "mq:/x", "x"], "").code(2);
        mq.says("mq: carries no service").says("a service is carried by");
    });
}

#[test]
fn a_program_that_stays_answers_one_request_after_the_other() {
    each(|scratch, address| {
        let lines = ["sh", "-c", "while read x; do [ $x = die ] && exit 3; echo $$ $x; done"];
        let server = serve(scratch, &["--count", "5", "--persistent"], address, &lines);
        let ask = |request: &str| run(scratch.path(), &["call", address, request], "");
        let (first, second) = (ask("a").code(0).text(), ask("b").code(0).text());
        let process = first.split(' ').next().expect("a process").to_owned();
        assert_eq!(second, format!("{process} b"));
        ask("two\nlines").code(1).says("invalid-argument");
        ask("die").code(1).says("sh exited with 3");
        let third = ask("c").code(0).text();
        assert!(third.ends_with(" c") && !third.starts_with(&process), "{third}");
        server.wait().code(0);
        // Bytes of any kind, by their length.
        let framed = ["--count", "2", "--persistent", "--length-prefixed"];
        let server = serve(scratch, &framed, address, &["cat"]);
        ask("any\nlines\n").code(0).prints("any\nlines\n");
        ask("").code(0).prints("");
        server.wait().code(0);
        // A reply that nobody asked for is nonsense, which fails what comes next.
        let server = serve(scratch, &["--count", "1", "--persistent"], address, &["yes"]);
        ask("x").code(0).prints("y");
        server.wait().code(0);
        // What it prints behind a reply is nobody's.
        let chatty =
            "while read x; do if [ $x = two ]; then printf 'two\\nmore\\n'; else echo $x; fi; done";
        let server =
            serve(scratch, &["--count", "3", "--persistent"], address, &["sh", "-c", chatty]);
        ask("two").code(0).prints("two");
        ask("x").code(0).prints("x");
        ask("y").code(0).prints("y");
        server.wait().code(0).says("it printed more than a reply");
    });
}

#[test]
fn what_nobody_waits_for_is_ended() {
    each(|scratch, address| {
        let mark = scratch.join("ended");
        let work = format!(
            "trap 'echo x >> {0}; exit 1' TERM; echo s > {0}.started; while :; do sleep 0.02; done",
            mark.display()
        );
        let server = serve(scratch, &["--count", "3"], address, &["sh", "-c", &work]);
        let timed = ["call", "--timeout", "10s", address, "x"];
        // Whether the client's clock is the first to say so, or the server's.
        run(scratch.path(), &timed, "").code(3).says("no reply in time");
        let marks = || std::fs::read_to_string(&mark).unwrap_or_default().len();
        eventually("the first is ended", || marks() == 2);
        let started = scratch.join("ended.started");
        for (n, signal) in [(2, Signal::KILL), (3, Signal::INT)] {
            let _ = std::fs::remove_file(&started);
            let mut client = Run::start(scratch.path(), &["call", address, "x"]);
            eventually("it is started", || started.exists());
            if signal == Signal::KILL {
                client.kill();
            } else {
                client.signal(signal);
                client.wait().code(1).says("interrupted: whether the call was done is not known");
            }
            eventually("it is ended", || marks() == 2 * n);
        }
        server.wait().code(0);
        run(scratch.path(), &["call", "--no-wait", address, "x"], "").code(3);
        run(scratch.path(), &["call", "--timeout", "30ms", address, "x"], "")
            .code(3)
            .says("the call was not started");
    });
}

/// However many clients there are, there are descriptors for the process that answers them.
#[test]
fn a_crowd_leaves_descriptors_for_the_command() {
    let scratch = Scratch::new();
    let server = crowd(&scratch, "unix:./crowd", (30, 40), "cat", |_| {});
    server.wait().code(0);
}

/// A client over shared memory has two links: those who have one leave descriptors for their other.
#[test]
fn a_crowd_over_shared_memory_is_served_in_turns() {
    let scratch = Scratch::new();
    let path = scratch.path().to_str().expect("a path");
    let address = format!("shm:crowd?scope={path}/at");
    // Nobody leaves until there are too many.
    let command = "while ! [ -e full ]; do sleep 0.01; done; cat";
    let server = crowd(&scratch, &address, (80, 12), command, |server| {
        server.wait_stderr("for a further client");
        std::fs::write(scratch.join("full"), "").expect("a file");
    });
    let said = server.wait().code(0).says("ulimit -n").stderr;
    assert_eq!(said.matches("for a further client").count(), 1, "{said}");
}

/// A server that may have few descriptors; so many clients of it get their answers.
fn crowd(
    scratch: &Scratch,
    address: &str,
    (descriptors, clients): (u32, usize),
    command: &str,
    when_they_come: impl Fn(&Run),
) -> Run {
    let count = clients.to_string();
    let arguments =
        ["serve", "--jobs", "12", "--count", &count, address, "--", "sh", "-c", command];
    let server = with_descriptors(descriptors, scratch.path(), &arguments);
    let clients: Vec<Run> = (0..clients)
        .map(|n| Run::start(scratch.path(), &["call", address, &format!("request {n}")]))
        .collect();
    when_they_come(&server);
    for (n, client) in clients.into_iter().enumerate() {
        client.wait().code(0).prints(format!("request {n}"));
    }
    server
}

#[test]
fn several_at_a_time_and_several_servers() {
    each(|scratch, address| {
        // Each waits for the other: only two at a time can end.
        let meet = "read me; read you < $me.pipe; echo $you";
        let fifo = |name: &str| {
            let made = std::process::Command::new("mkfifo").arg(scratch.join(name)).status();
            assert!(made.expect("mkfifo").success());
        };
        fifo("a.pipe");
        fifo("b.pipe");
        let meet =
            meet.replacen("read you", "{ [ $me = a ] && echo to-b > b.pipe & }; read you", 1)
                + "; [ $me = b ] && echo to-a > a.pipe; true";
        let server =
            serve(scratch, &["--jobs", "2", "--count", "2"], address, &["sh", "-c", &meet]);
        let a = Run::start(scratch.path(), &["call", address, "a\n"]);
        let b = Run::start(scratch.path(), &["call", address, "b\n"]);
        b.wait().code(0).prints("to-b\n");
        a.wait().code(0).prints("to-a\n");
        server.wait().code(0);
    });
}

#[test]
fn a_server_that_is_killed_or_interrupted_is_told() {
    for (signal, told) in [(Signal::KILL, "is gone; whether"), (Signal::INT, "unavailable")] {
        each(|scratch, address| {
            let started = scratch.join("started");
            let work =
                format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", started.display());
            let mut server = serve(scratch, &[], address, &["sh", "-c", &work]);
            let busy = Run::start(scratch.path(), &["call", address, "x"]);
            eventually("it is started", || started.exists());
            let waits = ["call", "--json", "--timeout", "1s", address, "x"];
            let waiting = Run::start(scratch.path(), &waits);
            match signal {
                Signal::KILL => server.kill(),
                _ => server.signal(signal),
            }
            busy.wait().code(1).says(told);
            // It had not begun: told at once, or when no other server came in time.
            let said = waiting.wait();
            assert!(matches!(said.code, Some(1 | 3)), "{said:?}");
            assert_eq!(json(&said.text())["progress"], "not-started", "{said:?}");
            if signal == Signal::INT {
                server.wait().code(1).says("interrupted: ");
            }
            // Its program went with it.
            let process = std::fs::read_to_string(&started).expect("a process");
            eventually("the program is ended", || !sleeps(&process));
        });
    }
}

/// Whether a process is there that has become a `sleep`.
fn sleeps(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.trim()));
    // Where the first process collects nobody, a zombie stays. A number may be another's meanwhile.
    stat.is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains("(sleep) Z"))
}

/// A program starts another one, which takes no notice of SIGTERM, and ends itself when it gets that: with the
/// client's time, when the client is interrupted, and when the server is.
#[test]
fn what_a_program_started_is_ended_with_it() {
    each(|scratch, address| {
        let started = scratch.join("started");
        let work = format!(
            "sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & wait",
            started.display()
        );
        let server = serve(scratch, &[], address, &["sh", "-c", &work]);
        let child = || {
            eventually("it is started", || started.exists());
            let process = std::fs::read_to_string(&started).expect("a process");
            eventually("it sleeps", || sleeps(&process));
            std::fs::remove_file(&started).expect("removed");
            process
        };
        let timed = ["call", "--timeout", "10s", address, "x"];
        let client = Run::start(scratch.path(), &timed);
        let process = child();
        client.wait().code(3).says("no reply in time");
        eventually("it is ended after the client's time", || !sleeps(&process));
        let client = Run::start(scratch.path(), &["call", address, "x"]);
        let process = child();
        client.signal(Signal::INT);
        client.wait().code(1);
        eventually("it is ended with the client", || !sleeps(&process));
        let client = Run::start(scratch.path(), &["call", address, "x"]);
        let process = child();
        server.signal(Signal::INT);
        server.wait().code(1).says("interrupted: ");
        assert!(!sleeps(&process), "it was left behind");
        client.wait().code(1).says("unavailable");
    });
}

/// One that stays and does not reply is replaced: when its client's time is over, when its client went, and when
/// nobody set a time.
#[test]
fn a_program_that_stays_and_does_not_reply_is_replaced() {
    each(|scratch, address| {
        let work = "while read x; do if [ $x = none ]; then : > begun; else echo $$ $x; fi; done";
        let persistent = |options: &[&str]| {
            let options = [&["--persistent"], options].concat();
            serve(scratch, &options, address, &["sh", "-c", work])
        };
        let ask = |options: &[&str], request: &str| {
            run(scratch.path(), &[&["call"], options, &[address, request]].concat(), "")
        };
        let server = persistent(&[]);
        let first = ask(&[], "a").code(0).text();
        ask(&["--timeout", "10s"], "none").code(3).says("no reply in time");
        let second = ask(&[], "b").code(0).text();
        assert!(second.trim_end().ends_with(" b"), "{second}");
        assert_ne!(first.split(' ').next(), second.split(' ').next(), "it was not replaced");
        let begun = scratch.join("begun");
        std::fs::remove_file(&begun).expect("it was begun");
        let mut client = Run::start(scratch.path(), &["call", address, "none"]);
        eventually("it is begun", || begun.exists());
        client.kill();
        let third = ask(&[], "c").code(0).text();
        assert_ne!(second.split(' ').next(), third.split(' ').next(), "it was not replaced");
        server.signal(Signal::INT);
        server.wait().code(1).says("no reply in time, so it was replaced");
        let server = persistent(&["--reply-timeout", "3s"]);
        ask(&[], "none").code(3).says("no reply for 3s (--reply-timeout)");
        ask(&[], "d").code(0);
        server.signal(Signal::INT);
        server.wait().code(1);
        run(scratch.path(), &["serve", "--reply-timeout", "1s", address, "--", "cat"], "").code(2);
    });
}
