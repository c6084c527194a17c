//! `leaks` and `leaks -- COMMAND`: what they print, and their exit codes. What is found, the inspector's own tests check.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use switchboard_kernel::process::Signal;
use switchboard_testkit::{Child, DEADLINE, Scratch, unique};

use crate::run::{Ended, Run, binary, run};

fn json(ended: &Ended) -> serde_json::Value {
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

/// Something of the gallery, kept by a child, and its object.
fn staged(name: &str) -> (Child, String) {
    let mut keeper = Child::role("gallery", &[name]);
    let mut object = String::new();
    loop {
        let line = keeper.line().expect("a line");
        if let Some(id) = line.strip_prefix("object ") {
            id.clone_into(&mut object);
        }
        if line == "ready" {
            return (keeper, object);
        }
    }
}

fn end(mut keeper: Child) {
    keeper.tell("end");
    assert!(keeper.wait().success());
}

#[test]
fn with_reasons_and_what_was_not_checked() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    let (keeper, id) = staged("segment-private");
    let young = here(&["leaks", "--name", &id, "sysv-shm"]).code(0);
    assert!(young.stdout.is_empty(), "{young}");
    young.says("nothing was left behind");
    let young =
        here(&["leaks", "--all", "--young", "1h", "--name", &id, "sysv-shm"]).code(0).text();
    assert!(young.starts_with(&format!("possible {id}: ")), "{young}");
    assert!(young.contains("but: made or used "), "{young}");
    let found = here(&["leaks", "--young", "0s", "--name", &id]).code(4).text();
    assert!(found.starts_with(&format!("probable {id}: ")), "{found}");
    assert!(found.contains("no process of any namespace has it attached"), "{found}");
    assert!(found.contains("has ended"), "{found}");

    let all = here(&["leaks", "--young", "0s", "--name", &id, "--json"]).code(4);
    let all = json(&all);
    assert_eq!(all["leaks"][0]["object"], id);
    assert_eq!(all["leaks"][0]["certainty"], "probable");
    assert_eq!(all["leaks"][0]["kind"], "sysv-shm");
    assert!(all["coverage"]["places"].as_array().is_some_and(|places| !places.is_empty()));
    // Another kind; another user.
    let none = here(&["leaks", "--young", "0s", "--name", &id, "fifo"]).code(0);
    none.says("nothing was left behind");
    here(&["leaks", "--young", "0s", "--name", &id, "--user", "61234567"]).code(0);
    // As it was saved.
    here(&["snapshot", "all.json"]).code(0);
    end(keeper);
    let saved = here(&["leaks", "--young", "0s", "--name", &id, "--from", "all.json"]).code(4);
    assert!(saved.text().starts_with(&format!("probable {id}: ")));
}

#[test]
fn in_folders_that_are_given() {
    let scratch = Scratch::new();
    let folder = scratch.join("sockets");
    std::fs::create_dir(&folder).expect("a folder");
    let (dead, live) = (folder.join("dead"), folder.join("live"));
    drop(UnixListener::bind(&dead).expect("a listener"));
    let _listener = UnixListener::bind(&live).expect("a listener");
    let folder = folder.to_str().expect("text");
    let found =
        run(scratch.path(), &["leaks", "--young", "0s", "--in", folder, "--name", folder], "");
    let found = found.code(4).text();
    assert!(found.contains(&format!("{folder}/dead")), "{found}");
    assert!(!found.contains(&format!("{folder}/live")), "{found}");
    assert!(found.starts_with("certain unix:"), "{found}");
}

#[test]
fn what_is_wrong_is_said() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["leaks", "pipe"]).code(2).says("goes with its last holder");
    here(&["leaks", "what"]).code(2).says("no kind what");
    here(&["leaks", "--in", "nowhere"]).code(2).says("cannot look in nowhere");
    here(&["leaks", "--user", "nobody-of-this-name"]).code(2).says("no user");
    here(&["leaks", "--from", "nothing.json"]).code(3);
    here(&["leaks", "--", "no-such-program-anywhere"]).code(2).says("cannot run");
    here(&["leaks", "--from", "x.json", "--", "true"]).code(2).says("live machine");
}

#[test]
fn a_command_that_leaves_nothing_ends_as_it_ends() {
    let scratch = Scratch::new();
    let name = unique("nothing");
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    // Tests beside this one may leave something at the same time, by the same user: no name of theirs has this in it.
    let script = "echo printed; echo said >&2; exit 7";
    let clean = here(&["leaks", "--json", "--name", &name, "--", "sh", "-c", script]).code(7);
    let seen = json(&clean);
    assert_eq!(seen["exit_code"], 7);
    assert_eq!(seen["processes"], serde_json::json!([]));
    assert_eq!(seen["objects"], serde_json::json!([]));
    assert!(clean.stderr.contains("printed\nsaid\n"), "{clean}");
    // It is said where was looked.
    assert_eq!(seen["looked_in"]["folders_deep"], 6);
    assert_eq!(seen["looked_in"]["folders"], seen["coverage"]["places"]);
    let plain = here(&["leaks", "--name", &name, "--", "sh", "-c", "exit 3"]).code(3);
    let words = [
        "sh left nothing behind",
        "no process, and of",
        "sysv-shm",
        "--name",
        "/tmp",
        "6 folders deep",
    ];
    assert!(words.iter().all(|word| plain.stderr.contains(word)), "{plain}");
    // It has the command's input and output.
    let said = run(scratch.path(), &["leaks", "--name", &name, "--", "cat"], "hello\n").code(0);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "hello\n");
    let killed =
        here(&["leaks", "--json", "--name", &name, "--", "sh", "-c", "kill -9 $$"]).code(137);
    assert_eq!(json(&killed)["exit_code"], 137);
}

#[test]
fn a_command_that_leaves_objects() {
    let scratch = Scratch::new();
    let word = unique("left").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    // A receiver that is killed cannot remove its socket.
    let program = format!(
        "mkfifo {word}-fifo; : > /dev/shm/{word}
         \"$0\" recv unix:./{word}-socket & while [ ! -S {word}-socket ]; do sleep 0.01; done; kill -9 $!"
    );
    let binary = binary();
    let binary = binary.to_str().expect("text");
    let left = run(scratch.path(), &["leaks", "--", "sh", "-c", &program, binary], "");
    let _ = std::fs::remove_file(format!("/dev/shm/{word}"));
    let left = left.code(4);
    for what in [format!("/dev/shm/{word}"), format!("{word}-fifo"), format!("{word}-socket")] {
        assert!(left.stderr.contains(&what), "no {what}: {left}");
    }
    // The kernel keeps who made a segment.
    let left = run(scratch.path(), &["leaks", "--", "ipcmk", "-M", "4096"], "");
    let made = left.text();
    let number = made.split_whitespace().last().and_then(|id| id.parse().ok());
    let number: i32 = number.unwrap_or_else(|| panic!("no id: {left}"));
    remove_segment(number);
    let left = left.code(4);
    assert!(left.stderr.contains(&format!("\nleft sysv-shm:{number}")), "{left}");
    assert!(left.stderr.contains("of the run made it"), "{left}");
}

/// Starts a program for which the kernel refuses namespaces, and looks into other processes, as it does in many a container.
const REFUSING: &str = "import ctypes, os, platform, struct, sys
refused = {'x86_64': [272, 308, 101, 310, 312, 438], 'aarch64': [97, 268, 117, 270, 272, 438]}[platform.machine()]
code = [struct.pack('HBBI', 0x20, 0, 0, 0)]
for number in refused:
    code += [struct.pack('HBBI', 0x15, 0, 1, number), struct.pack('HBBI', 0x06, 0, 0, 0x00050001)]
code = b''.join(code + [struct.pack('HBBI', 0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code) // 8, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
";

/// It needs no namespaces: what the run left is found, by its maker or by time, and it is said which; the exit code is the same.
#[test]
fn where_namespaces_are_refused_it_says_the_same() {
    let scratch = Scratch::new();
    let word = unique("refused").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let script = format!(
        "unshare --user true && echo namespaces; ipcmk -M 4096; : > /dev/shm/{word}; sleep 0.5"
    );
    let ask = |options: &[&str], script: &str| {
        let mut command = std::process::Command::new("python3");
        command
            .args(["-c", REFUSING])
            .arg(binary())
            .args(["leaks", "--wait", "0s", "sysv-shm", "posix-shm"])
            .args(options)
            .args(["--", "sh", "-c", script]);
        command.current_dir(scratch.path());
        Run::command(command).end()
    };
    let left = ask(&[], &script);
    let _ = std::fs::remove_file(format!("/dev/shm/{word}"));
    let made = left.text();
    let number = made.split_whitespace().last().and_then(|id| id.parse().ok());
    let number: i32 = number.unwrap_or_else(|| panic!("no id: {left}"));
    remove_segment(number);
    let left = left.code(4);
    assert!(!made.contains("namespaces"), "they were refused: {left}");
    assert!(left.stderr.contains(&format!("left sysv-shm:{number}")), "{left}");
    assert!(left.stderr.contains("probably left posix-shm:"), "{left}");
    assert!(
        left.stderr.contains(&word) && left.stderr.contains("told by time and user alone"),
        "{left}"
    );
    // What a command that leaves nothing ends with is passed on there, too.
    ask(&["--name", &word], "exit 7").code(7);
}

fn remove_segment(id: i32) {
    let status = std::process::Command::new("ipcrm").args(["-m", &id.to_string()]).status();
    assert!(status.expect("ipcrm").success());
}

/// A daemon is found, too: it has a session of its own, and its parent has ended.
#[test]
fn a_command_that_leaves_children() {
    let scratch = Scratch::new();
    let name = unique("daemon");
    let program = format!(
        "setsid sh -c 'echo $$ > {name}; exec sleep 1000' > /dev/null 2>&1 < /dev/null & while [ ! -s {name} ]; do sleep 0.01; done"
    );
    let left =
        run(scratch.path(), &["leaks", "--json", "--wait", "0s", "--", "sh", "-c", &program], "");
    let pid: u32 = std::fs::read_to_string(scratch.join(&name))
        .ok()
        .and_then(|pid| pid.trim().parse().ok())
        .expect("a process id");
    let _ = switchboard_kernel::signal::send(pid, Signal::KILL);
    let left = left.code(4);
    let seen = json(&left);
    let running: Vec<u64> = seen["processes"]
        .as_array()
        .expect("processes")
        .iter()
        .filter_map(|one| one["pid"].as_u64())
        .collect();
    assert_eq!(running, [u64::from(pid)], "{seen}");
    assert_eq!(seen["exit_code"], 0);
}

#[test]
fn children_may_take_a_while_to_end() {
    let scratch = Scratch::new();
    let began = Instant::now();
    let program = "sleep 0.3 > /dev/null 2>&1 < /dev/null &";
    let seen =
        run(scratch.path(), &["leaks", "--json", "--wait", "30s", "--", "sh", "-c", program], "");
    assert_eq!(json(&seen)["processes"].as_array().map(Vec::len), Some(0), "{seen}");
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn signals_are_passed_on() {
    let scratch = Scratch::new();
    let program = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let name = unique("nothing");
    let leaks = ["leaks", "--name", &name, "--wait", "5s", "--", "sh", "-c", program];
    let run = Run::start(scratch.path(), &leaks);
    run.wait_stdout("ready", |said| said.starts_with(b"ready"));
    run.signal(Signal::TERM);
    let ended = run.wait().code(9);
    assert!(String::from_utf8_lossy(&ended.stdout).contains("got"), "{ended}");
}

/// Only what was asked for counts; what makes no sense with a command is refused.
#[test]
fn a_command_and_what_is_asked_for() {
    let scratch = Scratch::new();
    let word = unique("asked").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let ask = |options: &[&str], code: i32| {
        let script = format!("mkfifo {word}-fifo; : > /dev/shm/{word}");
        let all = [&["leaks"], options, &["--", "sh", "-c", &script]].concat();
        let ended = run(scratch.path(), &all, "");
        let _ = std::fs::remove_file(format!("/dev/shm/{word}"));
        let _ = std::fs::remove_file(scratch.join(&format!("{word}-fifo")));
        ended.code(code).stderr
    };
    let has = |text: &str| {
        let left =
            |part: &str| text.lines().any(|line| line.contains(part) && line.contains("left "));
        (left(&format!("/dev/shm/{word}")), left(&format!("{word}-fifo")))
    };
    for (options, expected) in [
        (&["--name", &word][..], (true, true)),
        (&["fifo", "--name", &word], (false, true)),
        (&["posix-shm", "--name", &word], (true, false)),
        (&["--name", &format!("{word}-fifo")], (false, true)),
        (&["--name", &word, "--user", "61234567"], (false, false)),
        (&["sysv-sem", "--name", &word], (false, false)),
    ] {
        let code = if expected == (false, false) { 0 } else { 4 };
        let said = ask(options, code);
        assert_eq!(has(&said), expected, "{options:?}: {said}");
    }
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["leaks", "--young", "5s", "--", "true"]).code(2).says("--young");
    here(&["leaks", "--all", "--", "true"]).code(2).says("--all");
    here(&["leaks", "--wait", "5s"]).code(2).says("COMMAND");
    here(&["leaks", "--user", "nobody-of-this-name", "--", "true"]).code(2).says("no user");
}
