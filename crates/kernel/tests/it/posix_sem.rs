//! POSIX semaphores, named and placed, between processes that are killed, at their limits, and with
//! C and Python at the other end.

use std::fmt::Debug;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use switchboard_kernel::Permissions;
use switchboard_kernel::error::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::{
    CreateOptions, OBJECT_BYTES, Semaphore, VALUE_MAX, unlink, validate_name,
};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use crate::interruption::{self, wait_until_asleep};
use crate::privileges::{NOBODY, become_ordinary_user, is_root};
use crate::pthread::CPeer;
use crate::python;
use crate::shared_words::{opened, path_of};

/// A name that goes away in the end.
struct Name(String);

impl Name {
    fn new() -> Self {
        Self(format!("/{}", switchboard_testkit::unique("sem")))
    }

    fn create(&self, value: u32) -> Semaphore {
        Semaphore::create(&self.0, &CreateOptions::new().value(value)).expect("a semaphore")
    }

    fn file(&self) -> String {
        format!("/dev/shm/sem.{}", &self.0[1..])
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

fn outcome(result: Result<()>) -> &'static str {
    result.map_or_else(|error| error.name(), |()| "taken")
}

/// The semaphore of a name, or the one placed at the start of another process's memory.
fn found(address: &str) -> Semaphore {
    if address.starts_with("/proc/") {
        let slot = opened(address).slot(0, OBJECT_BYTES).expect("a slot");
        Semaphore::open_in(slot).expect("a semaphore")
    } else {
        Semaphore::open(address).expect("a semaphore")
    }
}

/// Role: takes, once with and once without a deadline, and stays.
pub(crate) fn waiter(arguments: &[String]) {
    let semaphore = found(&arguments[0]);
    interruption::handle();
    report(outcome(semaphore.wait()));
    report(outcome(semaphore.wait_until(Deadline::after(DEADLINE))));
    report(interruption::handled());
    let _ = instruction();
}

fn waiting(address: &str) -> (Child, u32) {
    let mut child = Child::role("posix_sem_waiter", &[address]);
    let thread = child.line().expect("a line").parse().expect("a thread id");
    (child, thread)
}

/// What holds for a semaphore with a count of 0, wherever it is.
fn check(semaphore: &Semaphore, address: &str) {
    assert_eq!(error_of(semaphore.try_wait()), "EAGAIN");
    let since = Instant::now();
    let short = Duration::from_millis(30);
    assert_eq!(error_of(semaphore.wait_until(Deadline::after(short))), "ETIMEDOUT");
    assert!(since.elapsed() >= short);

    // Waits survive signals, and end by posts of another process.
    let (mut child, thread) = waiting(address);
    for _ in 0..2 {
        interruption::interrupt(&child, thread, libc::SYS_futex);
        assert_eq!(child.line_within(Duration::from_millis(10)), None);
        semaphore.post().expect("posted");
        child.expect("taken");
    }
    child.expect("2");

    // What a killed process took is not given back.
    assert_eq!(semaphore.value(), 0);
    child.kill();
    assert_eq!(semaphore.value(), 0);

    // One that waits takes nothing along.
    let (mut doomed, thread) = waiting(address);
    wait_until_asleep(doomed.id(), thread, libc::SYS_futex);
    doomed.kill();
    let (mut other, thread) = waiting(address);
    wait_until_asleep(other.id(), thread, libc::SYS_futex);
    semaphore.post().expect("posted");
    other.expect("taken");
    other.kill();
    semaphore.post().expect("posted");
    assert_eq!((semaphore.value(), semaphore.try_wait()), (1, Ok(())));
}

#[test]
fn a_named_one_between_processes() {
    let name = Name::new();
    check(&name.create(0), &name.0);
}

#[test]
fn a_placed_one_between_processes() {
    let memory = SharedWords::create(OBJECT_BYTES).expect("memory");
    let slot = memory.slot(0, OBJECT_BYTES).expect("a slot");
    check(&Semaphore::create_in(slot, 0).expect("a semaphore"), &path_of(&memory));
}

#[test]
fn a_placed_one_is_made_once_and_told_from_other_bytes() {
    let memory = SharedWords::create(4096).expect("memory");
    let slot = || start_of(&memory);
    assert_eq!(error_of(Semaphore::open_in(slot())), "ENOENT");
    assert_eq!(error_of(Semaphore::create_in(slot(), VALUE_MAX + 1)), "EINVAL");
    assert_eq!(error_of(Semaphore::create_in(memory.slot(0, 60).expect("a slot"), 1)), "EINVAL");
    drop(Semaphore::create_in(slot(), VALUE_MAX).expect("a semaphore"));
    assert_eq!(error_of(Semaphore::create_in(slot(), 1)), "EEXIST");
    let semaphore = Semaphore::open_in(slot()).expect("the semaphore");
    assert_eq!(semaphore.value(), VALUE_MAX);
    assert_eq!(error_of(semaphore.post()), "EOVERFLOW");
    drop(semaphore);
    for (word, value, expected) in [
        (15, 1, "EAGAIN"),
        (15, 3, "EINVAL"),
        (12, 0, "EINVAL"),
        (13, 65_536, "EINVAL"),
        (2, 1, "EINVAL"),
        (0, u32::MAX, "EINVAL"),
    ] {
        let before = slot().words()[word].swap(value, Ordering::SeqCst);
        assert_eq!(error_of(Semaphore::open_in(slot())), expected, "word {word}");
        slot().words()[word].store(before, Ordering::SeqCst);
    }
    let mut half_made = slot();
    half_made.words()[15].store(1, Ordering::SeqCst);
    half_made.clear();
    assert_eq!(Semaphore::create_in(half_made, 3).expect("a semaphore").value(), 3);
}

fn start_of(memory: &SharedWords) -> Slot {
    memory.slot(0, OBJECT_BYTES).expect("a slot")
}

#[test]
fn names_are_checked_and_the_first_creator_decides() {
    for (name, expected) in [
        ("", "EINVAL"),
        ("x", "EINVAL"),
        ("/", "EINVAL"),
        ("/a/b", "EINVAL"),
        ("//a", "EINVAL"),
        ("/a\0", "EINVAL"),
        (&format!("/{}", "n".repeat(252)), "ENAMETOOLONG"),
    ] {
        assert_eq!(error_of(validate_name(name)), expected, "{name}");
        assert_eq!(error_of(Semaphore::open(name)), expected, "{name}");
        assert_eq!(error_of(unlink(name)), expected, "{name}");
    }
    let unique = Name::new();
    let name = Name(format!("{:n<252}", unique.0));
    assert_eq!(error_of(Semaphore::open(&name.0)), "ENOENT");
    assert_eq!(error_of(unlink(&name.0)), "ENOENT");
    let semaphore = name.create(3);
    assert_eq!(name.create(9).value(), 3);
    let options = CreateOptions::new().exclusive(true);
    assert_eq!(error_of(Semaphore::create(&name.0, &options)), "EEXIST");
    let options = CreateOptions::new().value(VALUE_MAX + 1);
    assert_eq!(error_of(Semaphore::create(&Name::new().0, &options)), "EINVAL");
    unlink(&name.0).expect("unlinked");
    assert_eq!(name.create(8).value(), 8);
    assert_eq!(semaphore.value(), 3);
}

#[test]
fn files_that_are_no_semaphores_are_refused() {
    let name = Name::new();
    let file = name.file();
    let target = Name::new();
    drop(target.create(1));
    symlink(target.file(), &file).expect("a link");
    assert_eq!(error_of(Semaphore::open(&name.0)), "ELOOP");
    std::fs::remove_file(&file).expect("removed");
    let mut private = std::fs::read(target.file()).expect("a semaphore");
    private[8] = 0;
    for bytes in [&b""[..], b"short", &[0xff; 32], &private, &[0; 31]] {
        std::fs::write(&file, bytes).expect("a file");
        assert_eq!(error_of(Semaphore::open(&name.0)), "EINVAL", "{bytes:?}");
        assert_eq!(error_of(Semaphore::create(&name.0, &CreateOptions::new())), "EINVAL");
    }
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("a folder");
    assert_eq!(error_of(Semaphore::open(&name.0)), "EISDIR");
    std::fs::remove_dir(&file).expect("removed");
}

/// Role: makes or finds a semaphore, and takes from it if it can.
pub(crate) fn racer(arguments: &[String]) {
    let _ = instruction();
    let options = CreateOptions::new().value(1);
    let semaphore = Semaphore::create(&arguments[0], &options).expect("a semaphore");
    report(outcome(semaphore.try_wait()));
}

#[test]
fn of_many_creators_one_gives_the_count() {
    let name = Name::new();
    let mut racers: Vec<Child> =
        (0..8).map(|_| Child::role("posix_sem_racer", &[&name.0])).collect();
    racers.iter_mut().for_each(|racer| racer.tell("go"));
    let said: Vec<String> = racers.iter_mut().filter_map(Child::line).collect();
    assert_eq!(said.iter().filter(|line| *line == "taken").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|line| *line == "EAGAIN").count(), 7, "{said:?}");
}

/// Role: makes a semaphore under a hostile umask, as an ordinary user; tries to give one away.
pub(crate) fn modes(arguments: &[String]) {
    become_ordinary_user();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    let options = CreateOptions::new().permissions(Permissions::new().mode(0o640));
    drop(Semaphore::create(&arguments[0], &options).expect("a semaphore"));
    report("made");
    let _ = instruction();
    unlink(&arguments[0]).expect("unlinked");
    let foreign = CreateOptions::new().permissions(Permissions::new().owner(0).group(0));
    report(error_of(Semaphore::create(&arguments[0], &foreign)));
    report(error_of(Semaphore::open(&arguments[0])));
}

#[test]
fn the_mode_is_exact() {
    let name = Name::new();
    let mut child = Child::role("posix_sem_modes", &[&name.0]);
    child.expect("made");
    assert_eq!(std::fs::metadata(name.file()).expect("its file").mode() & 0o777, 0o640);
    child.tell("go on");
    child.expect("EPERM");
    child.expect("ENOENT");
}

/// Role: says what an ordinary user may do with a semaphore.
pub(crate) fn outsider(arguments: &[String]) {
    become_ordinary_user();
    report(Semaphore::open(&arguments[0]).map_or_else(|e| e.name(), |s| outcome(s.try_wait())));
    let options = CreateOptions::new();
    report(Semaphore::create(&arguments[0], &options).map_or_else(|e| e.name(), |_| "opened"));
    report(unlink(&arguments[0]).map_or_else(|error| error.name(), |()| "unlinked"));
}

#[test]
fn owner_and_mode_decide_who_may_use_it() {
    if !is_root() {
        return the_mode_is_exact();
    }
    for (permissions, expected) in [
        (Permissions::new(), ["EACCES", "EACCES", "EPERM"]),
        (Permissions::new().mode(0o666), ["taken", "opened", "EPERM"]),
        (Permissions::new().mode(0o660).group(NOBODY), ["taken", "opened", "EPERM"]),
        (Permissions::new().owner(NOBODY), ["taken", "opened", "unlinked"]),
    ] {
        let name = Name::new();
        let options = CreateOptions::new().value(1).permissions(permissions);
        drop(Semaphore::create(&name.0, &options).expect("a semaphore"));
        let found = std::fs::metadata(name.file()).expect("its file");
        assert_eq!(
            (found.uid(), found.mode() & 0o777),
            (permissions.owner.unwrap_or(0), permissions.mode)
        );
        let mut outsider = Child::role("posix_sem_outsider", &[&name.0]);
        expected.iter().for_each(|line| outsider.expect(line));
    }
}

/// Role: with a `/dev/shm` of one page, makes semaphores until it is full.
pub(crate) fn full(_: &[String]) {
    let names = [Name::new(), Name::new()];
    for name in &names {
        report(Semaphore::create(&name.0, &CreateOptions::new()).map_or_else(
            |error| error.name(),
            |semaphore| {
                semaphore.post().expect("posted");
                "made"
            },
        ));
    }
    let left = std::fs::read_dir("/dev/shm").expect("the folder").count();
    report(left);
}

#[test]
fn a_full_file_system_is_an_error_and_leaves_nothing() {
    let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
    let script = "mount -t tmpfs -o size=4k none /dev/shm && exec \"$@\"";
    let starter = [&["unshare", "--mount"], user, &["sh", "-c", script, "sh"]].concat();
    let mut child = Child::role_under::<&str>(&starter, "posix_sem_full", &[]);
    match child.line() {
        Some(line) => assert_eq!(line, "made"),
        None => {
            return switchboard_testkit::skip::skip(
                "a_full_file_system_is_an_error_and_leaves_nothing",
                "no mount namespace of its own to be had",
            );
        }
    }
    child.expect("ENOSPC");
    child.expect("1");
    assert!(child.wait().success());
}

#[test]
fn python_uses_the_same_semaphore() {
    let (ours, theirs) = (Name::new(), Name::new());
    let semaphore = ours.create(2);
    let program = "import posix_ipc, sys\n\
                   s = posix_ipc.Semaphore(sys.argv[1])\n\
                   s.acquire(); s.acquire()\n\
                   try: s.acquire(0)\n\
                   except posix_ipc.BusyError: print('busy', s.value)\n\
                   s.release(); s.release(); s.release()\n\
                   posix_ipc.Semaphore(sys.argv[2], posix_ipc.O_CREX, initial_value=5)\n";
    let test = "python_uses_the_same_semaphore";
    let Some(said) = python::run(test, "posix_ipc", program, &[&ours.0, &theirs.0]) else {
        return;
    };
    assert_eq!((said.as_str(), semaphore.value()), ("busy 0", 3));
    assert_eq!(Semaphore::open(&theirs.0).expect("its semaphore").value(), 5);
}

#[test]
fn c_uses_the_same_semaphore() {
    let Some(program) = CPeer::compile("c_uses_the_same_semaphore") else { return };
    let (ours, theirs) = (Name::new(), Name::new());
    let semaphore = ours.create(0);
    let memory = SharedWords::create(4096).expect("memory");
    let mut child = program.start(&memory).child;
    child.tell(&format!("sem_open {}", ours.0));
    child.expect("sem_open 0");
    child.tell("sem_wait");
    wait_until_asleep(child.id(), child.id(), libc::SYS_futex);
    semaphore.post().expect("posted");
    child.expect("sem_wait 0");
    child.tell("sem_post");
    child.expect("sem_post 0");
    assert_eq!(semaphore.wait_until(Deadline::after(DEADLINE)), Ok(()));
    child.tell(&format!("sem_create {}", theirs.0));
    child.expect("sem_create 0");
    let semaphore = Semaphore::open(&theirs.0).expect("its semaphore");
    assert_eq!(semaphore.value(), 4);
    // It took one, and is killed: nobody gives it back.
    child.tell("sem_wait");
    child.expect("sem_wait 0");
    child.kill();
    assert_eq!(semaphore.value(), 3);
}
