//! `switchboard lock NAME -- COMMAND`: who keeps out whom, under which names, and what signals do.

mod killed;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{Signal, effective_user_id};
use switchboard_kernel::sync::{Name, Permits, RwLock, Shared};
use switchboard_testkit::{DEADLINE, Scratch, unique};

use self::killed::{command_of, is_asleep};
use crate::run::{Ended, Run, binary, eventually, run};

/// A name that is gone at the end, in which nothing is left then.
struct Lock {
    name: String,
    scratch: Scratch,
}

impl Lock {
    fn new() -> Self {
        Self { name: unique("lock"), scratch: Scratch::new() }
    }

    fn path(&self) -> PathBuf {
        Name::new(&self.name).expect("a name").path().to_owned()
    }

    fn arguments<'a>(&'a self, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["lock"], options, &[&self.name, "--"], command].concat()
    }

    fn start(&self, options: &[&str], command: &[&str]) -> Run {
        Run::start(self.scratch.path(), &self.arguments(options, command))
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Ended {
        self.start(options, command).end()
    }

    /// One that runs until it is told a line or its input is closed, and has begun.
    fn hold(&self, options: &[&str]) -> Run {
        let held = self.start(options, &["sh", "-c", "echo in; read line || :"]);
        held.wait_stdout("a start", |out| out == b"in\n");
        held
    }

    fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn is_gone(&self) -> bool {
        !self.path().exists()
    }
}

/// Nobody knows a lock that is used by nobody.
#[track_caller]
fn gone(lock: &Lock) {
    assert!(lock.is_gone(), "{} is left", lock.path().display());
}

/// Adds one to a number in a file, so slowly that two at a time would show.
const ADD: &str = "n=$(cat n); sleep 0.002; echo $((n + 1)) > n";

#[test]
fn one_at_a_time() {
    let lock = Lock::new();
    std::fs::write(lock.join("n"), "0\n").expect("a file");
    let script =
        format!("for i in 1 2 3 4 5; do {:?} lock {} -- sh -c '{ADD}'; done", binary(), lock.name);
    let workers: Vec<Run> = (0..4)
        .map(|_| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).current_dir(lock.scratch.path());
            Run::command(shell)
        })
        .collect();
    for worker in workers {
        let ended = worker.end().code(0);
        assert_eq!(ended.stderr, "", "{ended}");
    }
    assert_eq!(std::fs::read_to_string(lock.join("n")).expect("the number"), "20\n");
    gone(&lock);
}

#[test]
fn shared_ones_are_in_together_and_keep_others_out() {
    let lock = Lock::new();
    let readers = [lock.hold(&["--shared"]), lock.hold(&["--shared"])];
    lock.run(&["--no-wait"], &["true"])
        .code(3)
        .says("others have the lock")
        .says("true was not run");
    lock.run(&["--no-wait", "--shared"], &["true"]).code(0);
    let writer = lock.start(&[], &["touch", "written"]);
    for reader in readers {
        assert!(!lock.join("written").exists());
        reader.end().code(0);
    }
    writer.end().code(0);
    assert!(lock.join("written").exists());
    let writer = lock.hold(&[]);
    lock.run(&["--no-wait", "--shared"], &["true"]).code(3);
    writer.end().code(0);
    gone(&lock);
}

#[test]
fn so_many_slots() {
    let lock = Lock::new();
    let slots = ["--slots", "2"];
    let (first, second) = (lock.hold(&slots), lock.hold(&slots));
    let conflict = lock.run(&["--slots", "2", "--no-wait"], &["true"]).code(3);
    conflict.says("all 2 slots are taken");
    let third = lock.start(&slots, &["echo", "third"]);
    first.end().code(0);
    third.end().code(0).prints("third\n");
    second.end().code(0);
    gone(&lock);
}

#[test]
fn waiting_ends_in_time_with_the_code_that_was_asked_for() {
    let lock = Lock::new();
    let holder = lock.hold(&[]);
    for options in [&["--timeout", "80ms"][..], &["--timeout", "80ms", "--shared"]] {
        let begun = Instant::now();
        let ended = lock.run(options, &["touch", "run"]).code(3);
        assert!(begun.elapsed() >= Duration::from_millis(80), "{ended}");
        ended.says(&lock.name).says("others have the lock, for 80ms by now; touch was not run");
    }
    let options = ["--timeout", "10ms", "--conflict-exit-code", "75"];
    lock.run(&options, &["touch", "run"]).code(75);
    lock.run(&["--no-wait", "--conflict-exit-code", "0"], &["touch", "run"]).code(0);
    assert!(!lock.join("run").exists());
    holder.end().code(0);
    lock.run(&["--timeout", "30s"], &["touch", "run"]).code(0);
    assert!(lock.join("run").exists());
    gone(&lock);
}

#[test]
fn the_commands_exit_code_input_and_environment() {
    let lock = Lock::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let ended = lock.run(&[], &["sh", "-c", script]).code(code);
        assert_eq!(ended.stderr, "", "{ended}");
    }
    let script = "cat; echo $SWITCHBOARD_ADDRESS; cat <&7";
    let outer = format!("exec {:?} lock {} -- sh -c '{script}' 7<seven", binary(), lock.name);
    std::fs::write(lock.join("seven"), "seven\n").expect("a file");
    let mut shell = Command::new("sh");
    shell.args(["-c", &outer]).current_dir(lock.scratch.path());
    let ended = Run::command(shell).feed("input\n").wait().code(0);
    ended.prints(format!("input\nsync:{}\nseven\n", lock.name));
    gone(&lock);
}

#[test]
fn a_command_that_is_not_there_is_found_before_the_lock_is_taken() {
    let lock = Lock::new();
    let holder = lock.hold(&[]);
    for command in ["./nothing", "switchboard-has-no-such-command", "/", ""] {
        lock.run(&[], &[command]).code(2).says(&format!("cannot run {command}: execve: "));
    }
    run(lock.scratch.path(), &["lock", &lock.name], "").code(2);
    run(lock.scratch.path(), &["lock", &lock.name, "--"], "").code(2);
    holder.end().code(0);
    std::fs::write(lock.join("script"), "#!/no/such/interpreter\n").expect("a file");
    std::fs::set_permissions(lock.join("script"), PermissionsExt::from_mode(0o755))
        .expect("a mode");
    lock.run(&[], &["./script"]).code(1).says("cannot run ./script: execve: ");
    gone(&lock);
}

#[test]
fn wrong_names_and_options() {
    let scratch = Scratch::new();
    let check = |arguments: &[&str], code: i32, says: &str| {
        let arguments = [&["lock"], arguments, &["--", "true"]].concat();
        run(scratch.path(), &arguments, "").code(code).says(says);
    };
    check(&["a/b"], 2, "not the name of a lock: a/b: a name has no / in it");
    check(&[".hidden"], 2, "not the name of a lock");
    check(&["unix:./x"], 2, "unknown scheme; write it as sync:NAME");
    check(&[""], 2, "not the name of a lock: '': it is empty");
    check(&["sync:"], 2, "not the name of a lock: sync:: it is empty");
    check(&["/dev/shm/x?mode=0999"], 2, "octal permission bits");
    check(&["x?mode=0660"], 2, "mode is for a path");
    check(&["sync:x?group=root"], 2, "group is for a path");
    check(&["x?size=4"], 2, "sync: takes mode, owner, group");
    check(&[&"x".repeat(256)], 2, "over 255 bytes");
    check(&["--slots", "0", "x"], 2, "slots");
    check(&["--slots", "1025", "x"], 2, "slots");
    check(&["--slots", "2", "--shared", "x"], 2, "cannot be used with");
    check(&["--no-wait", "--timeout", "1s", "x"], 2, "cannot be used with");
    check(&["--conflict-exit-code", "256", "x"], 2, "conflict-exit-code");
    check(&["/no/such/folder/x"], 1, "hint: the folder has to be there");
}

#[test]
fn a_name_is_used_alike_by_all() {
    let lock = Lock::new();
    let other_ways: [&[&str]; 3] = [&[], &["--shared"], &["--slots", "3"]];
    let holder = lock.hold(&["--slots", "2"]);
    for options in other_ways {
        let ended = lock.run(options, &["true"]).code(1).says("another number of --slots");
        ended.says("hint: all who use a name at a time use it alike");
    }
    holder.end().code(0);
    let holder = lock.hold(&[]);
    lock.run(&["--slots", "2"], &["true"]).code(1).says("used in another way");
    holder.end().code(0);
    lock.run(&["--slots", "2"], &["true"]).code(0);
    // What is no lock is refused, and left.
    let file = Path::new("/dev/shm").join(unique("file"));
    std::fs::write(&file, "a letter").expect("a file");
    let name = file.to_str().expect("a name");
    run(lock.scratch.path(), &["lock", name, "--", "true"], "")
        .code(1)
        .says("a file that is no lock");
    assert_eq!(std::fs::read(&file).expect("the file"), b"a letter");
    std::fs::remove_file(&file).expect("removed");
    gone(&lock);
}

#[test]
fn a_program_that_uses_the_library_keeps_scripts_out() {
    let lock = Lock::new();
    let name = Name::new(&lock.name).expect("a name");
    let ours = RwLock::named(&name, RwLock::READERS).expect("a lock");
    let writing = ours.write().expect("locked").or_repair(|| ()).expect("locked");
    lock.run(&["--no-wait"], &["true"]).code(3);
    lock.run(&["--no-wait", "--shared"], &["true"]).code(3);
    drop(writing);
    let reading = ours.read().expect("locked");
    lock.run(&["--no-wait"], &["true"]).code(3);
    lock.run(&["--no-wait", "--shared"], &["true"]).code(0);
    drop(reading);
    let holder = lock.hold(&[]);
    assert_eq!(ours.try_read().map(drop).map_err(|error| error.name()), Err("EBUSY"));
    holder.end().code(0);
    drop(ours);
    gone(&lock);

    let ours = Permits::named(&name, 1).expect("permits");
    let permit = ours.acquire().expect("a permit");
    lock.run(&["--slots", "1", "--no-wait"], &["true"]).code(3);
    drop(permit);
    drop(ours);
    gone(&lock);
}

#[test]
fn signals_go_to_the_command() {
    let lock = Lock::new();
    for (signal, name, code) in
        [(Signal::INT, "INT", 2), (Signal::TERM, "TERM", 15), (Signal::HUP, "HUP", 1)]
    {
        let script = "trap 'echo INT; exit 2' INT; trap 'echo TERM; exit 15' TERM; \
                      trap 'echo HUP; exit 1' HUP; echo in; while :; do sleep 0.01; done";
        let holder = lock.start(&[], &["sh", "-c", script]);
        holder.wait_stdout("a start", |out| out == b"in\n");
        holder.signal(signal);
        holder.wait().code(code).prints(format!("in\n{name}\n"));
    }
    // One that does not heed it keeps the lock.
    let script = "trap '' TERM; echo in; read line; exit 7";
    let holder = lock.start(&[], &["sh", "-c", script]);
    holder.wait_stdout("a start", |out| out == b"in\n");
    holder.signal(Signal::TERM);
    lock.run(&["--timeout", "50ms"], &["true"]).code(3);
    holder.end().code(7);
    gone(&lock);
}

#[test]
fn a_signal_ends_the_wait() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        for options in [&[][..], &["--shared"]] {
            let lock = Lock::new();
            let mut holder = lock.hold(&[]);
            let waiter = lock.start(options, &["touch", "run"]);
            eventually("a waiter", || is_asleep(&waiter));
            let command = pidfd::open(command_of(&holder)).expect("the command");
            // The lock and the signal come at a time, and the waiter is the last to go.
            waiter.signal(Signal::STOP);
            holder.kill();
            assert!(pidfd::wait_dead(&command, Deadline::after(DEADLINE)).expect("a wait"));
            waiter.signal(signal);
            waiter.signal(Signal::CONT);
            waiter.wait().code(1).says("interrupted: ").says("was not locked; touch was not run");
            assert!(!lock.join("run").exists());
            gone(&lock);
        }
    }
    let lock = Lock::new();
    let holder = lock.hold(&[]);
    let waiter = lock.start(&[], &["touch", "run"]);
    eventually("a waiter", || is_asleep(&waiter));
    waiter.signal(Signal::TERM);
    waiter.wait().code(1).says("interrupted: ");
    holder.end().code(0);
    assert!(!lock.join("run").exists());
    gone(&lock);
}

#[test]
fn ignored_signals_stay_ignored() {
    let lock = Lock::new();
    let holder = lock.hold(&[]);
    let mut nohup = Command::new("nohup");
    nohup.arg(binary()).args(lock.arguments(&[], &["echo", "run"]));
    nohup.current_dir(lock.scratch.path()).stdin(Stdio::null());
    let waiter = Run::command(nohup);
    eventually("a waiter", || is_asleep(&waiter));
    waiter.signal(Signal::HUP);
    holder.end().code(0);
    waiter.end().code(0).prints("run\n");
    gone(&lock);
}

#[test]
fn several_users_share_a_path() {
    let path = Path::new("/dev/shm").join(unique("path"));
    let name = path.to_str().expect("a name").to_owned();
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let ours = |name: &str| {
        let held = ["lock", name, "--", "sh", "-c", "echo in; read line || :"];
        let holder = Run::start(scratch.path(), &held);
        holder.wait_stdout("a start", |out| out == b"in\n");
        holder
    };
    let mode =
        |path: &Path| std::fs::metadata(path).expect("the file").permissions().mode() & 0o777;
    let holder = ours(&format!("sync:{name}?mode=0666"));
    assert_eq!(mode(&path), 0o666);
    if effective_user_id() == 0 {
        let copy = scratch.join("switchboard");
        std::fs::copy(binary(), &copy).expect("a copy");
        let theirs = || {
            let mut other = Command::new(&copy);
            other.uid(65534).gid(65534).args(["lock", "--no-wait", &name, "--", "true"]);
            Run::command(other).end()
        };
        theirs().code(3);
        holder.end().code(0);
        let holder = ours(&name);
        assert_eq!(mode(&path), 0o600);
        theirs().code(5).says("EACCES").says("hint: ");
        holder.end().code(0);
        theirs().code(0);
    } else {
        holder.end().code(0);
    }
    assert!(!path.exists());
}
