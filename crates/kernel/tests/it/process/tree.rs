//! Process trees: who is whose child, orphans and who adopts them, and which process is meant.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{
    Child, Identity, Signal, Spawn, Stat, children, descendants, group, is_child_subreaper,
    reap_orphans, set_child_subreaper, stat, wait_any,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::{pipe, soon};
use crate::python;

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// A shell that says one line and waits for its input to end; with its background jobs.
fn saying_shell(script: &str) -> (Child, String, OwnedFd) {
    let ((input, held), (said, out)) = (pipe(), pipe());
    let child = Spawn::new("sh")
        .args(["-c", script])
        .stdin(input)
        .stdout(out)
        .die_with_parent()
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    BufReader::new(File::from(said)).read_line(&mut line).expect("its line");
    (child, line.trim().to_owned(), held)
}

fn ids(stats: &[Stat]) -> Vec<u32> {
    stats.iter().map(|stat| stat.id).collect()
}

#[test]
fn orphans_are_adopted_and_reaped() {
    let mut role = switchboard_testkit::Child::role::<&str>("process_subreaper", &[]);
    role.expect("done");
    assert!(role.wait().success());
}

/// Role: a subreaper, with everything a test of it may not do to other tests' children.
pub(crate) fn subreaper(_: &[String]) {
    assert_eq!(wait_any(now()).map_err(|error| error.name()), Err("ECHILD"));
    assert_eq!(wait_any(Deadline::NEVER).map_err(|error| error.name()), Err("ECHILD"));
    assert_eq!(is_child_subreaper(), Ok(false));
    set_child_subreaper(true).unwrap();
    assert_eq!(is_child_subreaper(), Ok(true));
    adopts_past_a_parent_that_lives();
    leaves_own_children_alone();
    waits_for_whoever_comes();
    waits_for_other_groups();
    adopts_from_a_killed_python();
    set_child_subreaper(false).unwrap();
    assert_eq!(is_child_subreaper(), Ok(false));
    assert_eq!(children(std::process::id()), Ok(vec![]));
    report("done");
}

/// The outer shell lives and is no subreaper: the orphan of the inner one comes to this process.
fn adopts_past_a_parent_that_lives() {
    let own = std::process::id();
    let (mut outer, line, held) =
        saying_shell("sh -c 'sleep 1000 >&- & echo $!'; exec >&-; read line");
    let orphan: u32 = line.parse().unwrap();
    // It is an orphan once the inner shell has ended, which the outer one has waited for or not.
    let since = std::time::Instant::now();
    while stat(orphan).unwrap().parent != own {
        assert!(since.elapsed() < DEADLINE, "not adopted: {:?}", stat(orphan));
        std::thread::yield_now();
    }
    assert!(ids(&children(own).unwrap()).contains(&orphan));
    assert!(!ids(&descendants(outer.id()).unwrap()).contains(&orphan));
    assert_eq!(reap_orphans(&[outer.id()]), Ok(vec![]), "it lives");

    let pidfd = Identity::of(orphan).unwrap().open().unwrap();
    pidfd::send_signal(&pidfd, Signal::KILL).unwrap();
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    let reaped = reap_orphans(&[outer.id()]).unwrap();
    assert_eq!(reaped.len(), 1);
    assert_eq!((reaped[0].0, reaped[0].1.signal()), (orphan, Some(libc::SIGKILL)));
    assert_eq!(reap_orphans(&[outer.id()]), Ok(vec![]));
    drop(held);
    outer.wait(soon()).unwrap().expect("its end");
}

fn leaves_own_children_alone() {
    let (mut own, _, held) = saying_shell("echo; read line; exit 7");
    drop(held);
    assert_eq!(pidfd::wait_dead(own.pidfd(), soon()), Ok(true));
    assert_eq!(stat(own.id()).unwrap().state, 'Z');
    assert_eq!(reap_orphans(&[own.id()]), Ok(vec![]));
    assert_eq!(own.wait(now()).unwrap().and_then(|status| status.code()), Some(7));
    assert_eq!(stat(own.id()).unwrap_err().name(), "ESRCH");
}

fn waits_for_whoever_comes() {
    let (mut own, line, held) = saying_shell("sleep 1000 >&- & echo $!; exec >&-; read line");
    let orphan: u32 = line.parse().unwrap();
    let pidfd = pidfd::open(orphan).unwrap();
    assert_eq!(wait_any(Deadline::after(Duration::from_millis(20))), Ok(None));
    drop(held);
    let (id, status) = wait_any(soon()).unwrap().expect("the shell's end");
    // `read` found the end of its input.
    assert_eq!((id, status.code()), (own.id(), Some(1)));
    assert_eq!(own.wait(soon()).map_err(|error| error.name()), Err("ECHILD"));
    // Its background job is this process's now, and ends while this waits.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(10));
            pidfd::send_signal(&pidfd, Signal::TERM).unwrap();
        });
        let (id, status) = wait_any(soon()).unwrap().expect("the orphan's end");
        assert_eq!((id, status.signal()), (orphan, Some(libc::SIGTERM)));
    });
    let (child, _, held) = saying_shell("echo; read line");
    drop(held);
    let (id, _) = wait_any(Deadline::NEVER).unwrap().expect("its end");
    assert_eq!(id, child.id());
}

fn waits_for_other_groups() {
    for deadline in [Deadline::NEVER, soon()] {
        let child = Spawn::new("true").new_process_group().spawn().unwrap();
        let (id, status) = wait_any(deadline).unwrap().expect("its end");
        assert_eq!((id, status.code()), (child.id(), Some(0)));
    }
}

fn adopts_from_a_killed_python() {
    let program = "import subprocess\nsay(subprocess.Popen(['sleep', '1000']).pid)\ntold()";
    let test = "orphans_are_adopted_and_reaped";
    let Some(mut python) = python::start(test, "subprocess", program, &[]) else { return };
    let orphan: u32 = python.line().unwrap().parse().unwrap();
    let pidfd = Identity::of(orphan).unwrap().open().unwrap();
    assert_eq!(stat(orphan).unwrap().parent, python.id());
    python.kill();
    assert_eq!(stat(orphan).unwrap().parent, std::process::id());
    pidfd::send_signal(&pidfd, Signal::KILL).unwrap();
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    assert_eq!(reap_orphans(&[]).unwrap().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [orphan]);
}

/// Role: has a child that lives on, and is killed.
pub(crate) fn orphaner(_: &[String]) {
    let child = Spawn::new("sleep").arg("1000").spawn().unwrap();
    report(format_args!("{} {}", std::process::id(), child.id()));
    let _ = instruction();
}

/// A subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) that starts the role, and waits for it and for the
/// orphan that it leaves.
const PYTHON: &str = "
import signal
assert c('prctl', 36, 1, 0, 0, 0) == 0
role = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
say('@@ role', os.waitpid(role, 0)[1])
orphan = int(told())
os.kill(orphan, signal.SIGTERM)
say('@@ orphan', os.waitpid(orphan, 0)[1])
";

#[test]
fn python_adopts_the_child_of_ours_that_is_killed() {
    let test = "python_adopts_the_child_of_ours_that_is_killed";
    let Some(command) = python::command(test, "ctypes", PYTHON, &[]) else { return };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let mut python =
        switchboard_testkit::Child::role_under::<&str>(&words, "process_orphaner", &[]);
    let line = python.line().unwrap();
    let (role, orphan) = line.split_once(' ').unwrap();
    let role = Identity::of(role.parse().unwrap()).unwrap().open().unwrap();
    pidfd::send_signal(&role, Signal::KILL).unwrap();
    python.expect(&format!("role {}", libc::SIGKILL));
    python.tell(orphan);
    python.expect(&format!("orphan {}", libc::SIGTERM));
    assert!(python.wait().success());
}

#[test]
fn a_tree_is_listed_from_the_top() {
    let (mut top, line, held) =
        saying_shell("sh -c 'sleep 1000 >&- & echo $$ $!; exec >&-; read line; kill $!; wait'");
    let numbers: Vec<u32> = line.split(' ').map(|id| id.parse().unwrap()).collect();
    let (middle, bottom) = (numbers[0], numbers[1]);
    let tree = descendants(top.id()).unwrap();
    // A shell may run its last command in its own place.
    let expected = if middle == top.id() { vec![bottom] } else { vec![middle, bottom] };
    assert_eq!(ids(&tree), expected);
    assert_eq!(ids(&children(middle).unwrap()), [bottom]);
    assert_eq!(stat(bottom).unwrap().parent, middle);
    assert_eq!(descendants(bottom), Ok(vec![]));
    assert!(ids(&descendants(std::process::id()).unwrap()).contains(&bottom));
    drop(held);
    top.wait(soon()).unwrap().expect("its end");
}

/// A group is there as long as one of it is, also when its leader has ended.
#[test]
fn a_group_outlives_its_leader() {
    let (reader, writer) = switchboard_kernel::pipe::pipe().unwrap();
    let leader = Spawn::new("sh").args(["-c", "sleep 1000 & echo $!"]).stdout(writer);
    let mut leader = leader.new_process_group().spawn().unwrap();
    let mut line = [0; 16];
    let len = switchboard_kernel::io::read(&reader, &mut line).unwrap();
    let other: u32 = std::str::from_utf8(&line[..len]).unwrap().trim().parse().unwrap();
    assert_eq!(pidfd::wait_dead(leader.pidfd(), soon()), Ok(true));
    let mut all = ids(&group(leader.id()).unwrap());
    all.sort_unstable();
    let mut expected = [leader.id(), other];
    expected.sort_unstable();
    assert_eq!(all, expected);
    let pidfd = Identity::of(other).unwrap().open().unwrap();
    switchboard_kernel::signal::send_group(leader.id(), Signal::KILL).unwrap();
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    let lives = |stats: Vec<Stat>| stats.iter().any(|one| one.state != 'Z');
    assert!(!lives(group(leader.id()).unwrap()));
    assert!(leader.wait(soon()).unwrap().unwrap().success());
}

/// Role: has a name that looks like the rest of the line.
pub(crate) fn named(arguments: &[String]) {
    std::fs::write("/proc/self/comm", &arguments[0]).unwrap();
    report("named");
    let _ = instruction();
}

#[test]
fn names_may_look_like_fields() {
    for name in ["a) Z 1 1 1 (", ")", "(", "))((", "a\nb) R 0", " ", "\u{e9}) S 3 3"] {
        let mut role = switchboard_testkit::Child::role("process_named", &[name]);
        role.expect("named");
        let found = stat(role.id()).unwrap();
        assert_eq!(found.name, name.as_bytes());
        assert_eq!((found.id, found.parent), (role.id(), std::process::id()), "{name:?}");
        assert!(matches!(found.state, 'R' | 'S'), "{found:?}");
        assert!(children(std::process::id()).unwrap().iter().any(|child| child.id == role.id()));
    }
    let scratch = Scratch::new();
    let program = scratch.join("x) Z 0 (y z");
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let (input, held) = pipe();
    let mut child = Spawn::new(&program).stdin(input).spawn().unwrap();
    let found = stat(child.id()).unwrap();
    assert_eq!((found.name.as_slice(), found.parent), (&b"x) Z 0 (y z"[..], std::process::id()));
    drop(held);
    child.wait(soon()).unwrap().expect("its end");
}

#[test]
fn what_the_kernel_says_of_this_process() {
    let own = stat(std::process::id()).unwrap();
    // The C library's word, which knows a group and a session of outside this PID namespace as 0.
    let script = "p = os.getppid(); print(p, os.getpgid(p), os.getsid(p))";
    let test = "what_the_kernel_says_of_this_process";
    let Some(said) = python::run(test, "os", script, &[]) else { return };
    assert_eq!(said, format!("{} {} {}", own.id, own.group, own.session));
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    assert_eq!((own.id, own.parent), (std::process::id(), parent.unsigned_abs()));
    for nobody in [0, u32::MAX] {
        let error = stat(nobody).unwrap_err();
        assert_eq!((error.name(), error.call()), ("ESRCH", "read"));
    }
}

#[test]
fn an_identity_is_of_one_process_only() {
    let (mut child, _, held) = saying_shell("echo; read line");
    let identity = Identity::of(child.id()).unwrap();
    assert_eq!(Identity::from(&stat(child.id()).unwrap()), identity);
    assert!(identity.start_ticks >= Identity::of(std::process::id()).unwrap().start_ticks);
    let pidfd = identity.open().unwrap();
    assert_eq!(pidfd::is_dead(&pidfd), Ok(false));
    let other = Identity { start_ticks: identity.start_ticks - 1, ..identity };
    assert_eq!(other.open().map(drop).unwrap_err().name(), "ESRCH");
    drop(held);
    child.wait(soon()).unwrap().expect("its end");
    assert_eq!(identity.open().map(drop).unwrap_err().name(), "ESRCH");
}
