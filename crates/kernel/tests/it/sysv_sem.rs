//! System V semaphore sets between processes that are killed, at their limits, and with Python at
//! the other end.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use switchboard_kernel::Permissions;
use switchboard_kernel::error::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::sysv_sem::{
    CreateOptions, Key, Operation, SemaphoreSet, VALUE_MAX, limits,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::interruption::{self, wait_until_asleep};
use crate::privileges::{NOBODY, become_ordinary_user, is_root};
use crate::python;

/// What the C library's `semop` calls; the same as its `semtimedop`.
const SEMOP: libc::c_long = libc::SYS_semtimedop;

/// A set that is removed in the end.
struct Removed(SemaphoreSet);

impl Removed {
    fn new(values: &[u16]) -> Self {
        Self::with(&Key::Private, &CreateOptions::new().values(values))
    }

    fn with(key: &Key, options: &CreateOptions) -> Self {
        Self(SemaphoreSet::create(key, options).expect("a set"))
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

fn set_of(arguments: &[String]) -> SemaphoreSet {
    SemaphoreSet::from_id(arguments[0].parse().expect("an id"))
}

/// What arguments such as `0-1u` and `1=0` stand for: take 1 from semaphore 0 with undo, wait until
/// semaphore 1 is 0.
fn operations(words: &[String]) -> Vec<Operation> {
    let one = |word: &String| {
        let (word, undo) = word.strip_suffix('u').map_or((word.as_str(), false), |w| (w, true));
        let (index, by) = word.split_at(word.find(['+', '-', '=']).expect("a sign"));
        let by = by.trim_start_matches('=').parse().expect("an amount");
        let operation = Operation::change(index.parse().expect("an index"), by);
        if undo { operation.undo() } else { operation }
    };
    words.iter().map(one).collect()
}

/// Role: operates, says how that went, and stays until told to go.
pub(crate) fn operator(arguments: &[String]) {
    let set = set_of(arguments);
    interruption::handle();
    match set.operate(&operations(&arguments[1..])) {
        Ok(()) => report(format_args!("done {}", interruption::handled())),
        Err(error) => report(error.name()),
    }
    let _ = instruction();
}

/// Role: as [`operator`], with a deadline, and ended by a signal first.
pub(crate) fn patient(arguments: &[String]) {
    let set = set_of(arguments);
    interruption::handle();
    let wanted = operations(&arguments[1..]);
    report(set.operate_interruptible(&wanted).expect_err("a signal").name());
    let result = set.operate_until(&wanted, Deadline::after(DEADLINE));
    report(result.map_or_else(|error| error.name(), |()| "done"));
}

fn operating(set: SemaphoreSet, operations: &[&str]) -> (Child, u32) {
    let id = set.id().to_string();
    let mut child = Child::role("sysv_sem_operator", &[&[id.as_str()], operations].concat());
    let thread = child.line().expect("a line").parse().expect("a thread id");
    (child, thread)
}

/// A child that waits in its operation.
fn blocked(set: SemaphoreSet, operations: &[&str]) -> (Child, u32) {
    let (child, thread) = operating(set, operations);
    wait_until_asleep(child.id(), thread, SEMOP);
    (child, thread)
}

#[test]
fn all_operations_are_done_or_none() {
    let Removed(set) = &Removed::new(&[1, 0, 0]);
    let (mut child, _) = blocked(*set, &["0-1", "1-2", "2=0"]);
    assert_eq!(set.values(), Ok(vec![1, 0, 0]));
    set.operate(&[Operation::add_one(1)]).expect("added");
    assert_eq!(set.values(), Ok(vec![1, 1, 0]));
    let status = set.semaphore(1).expect("status");
    assert_eq!((status.value, status.waiting_for_more, status.waiting_for_zero), (1, 1, 0));
    assert_eq!(status.last_pid, std::process::id());
    set.operate(&[Operation::add_one(1), Operation::add_one(2)]).expect("added");
    assert_eq!(set.semaphore(2).expect("status").waiting_for_zero, 1);
    assert_eq!(set.values(), Ok(vec![1, 2, 1]));
    set.operate(&[Operation::take_one(2)]).expect("taken");
    child.expect("done 0");
    assert_eq!(set.values(), Ok(vec![0, 0, 0]));
    assert_eq!(set.semaphore(0).expect("status").last_pid, child.id());
    assert_eq!(error_of(set.try_operate(&[Operation::take_one(0)])), "EAGAIN");
    let many = vec![Operation::wait_for_zero(0); 20];
    assert_eq!(set.try_operate(&many), Ok(()));
    set.set_value(0, 1).expect("set");
    assert_eq!(error_of(set.try_operate(&many)), "EAGAIN");
}

#[test]
fn what_a_killed_process_did_with_undo_is_put_back() {
    let Removed(set) = &Removed::new(&[1, 1, 5]);
    let (mut holder, _) = operating(*set, &["0-1u", "1-1", "2+3u"]);
    holder.expect("done 0");
    assert_eq!(set.values(), Ok(vec![0, 0, 8]));
    let (mut next, _) = blocked(*set, &["0-1u"]);
    let pid = holder.id();
    holder.kill();
    next.expect("done 0");
    assert_eq!(set.values(), Ok(vec![0, 0, 5]));
    assert_eq!(set.semaphore(2).expect("status").last_pid, pid);
    // Its own end puts back too, though nobody killed it.
    next.tell("go");
    assert!(next.wait().success());
    assert_eq!(set.values(), Ok(vec![1, 0, 5]));
}

#[test]
fn what_is_put_back_stays_within_the_bounds_and_setting_forgets_it() {
    let Removed(set) = &Removed::new(&[0, 1, 1]);
    let (mut holder, _) = operating(*set, &["0+5u", "1-1u", "2-1u"]);
    holder.expect("done 0");
    set.operate(&[Operation::change(0, -3)]).expect("taken");
    set.operate(&[Operation::change(1, 32_767)]).expect("added");
    set.set_value(2, 7).expect("set");
    holder.kill();
    assert_eq!(set.values(), Ok(vec![0, VALUE_MAX, 7]));
}

#[test]
fn a_killed_waiter_takes_nothing_along() {
    let Removed(set) = &Removed::new(&[0]);
    let (mut doomed, _) = blocked(*set, &["0-1"]);
    let (mut other, _) = blocked(*set, &["0-1"]);
    doomed.kill();
    assert_eq!(set.semaphore(0).expect("status").waiting_for_more, 1);
    set.operate(&[Operation::add_one(0)]).expect("added");
    other.expect("done 0");
    assert_eq!(set.values(), Ok(vec![0]));
}

#[test]
fn waits_end_by_deadline_removal_and_zero_but_not_by_a_signal() {
    let Removed(set) = &Removed::new(&[0, 1]);
    let since = Instant::now();
    let short = Duration::from_millis(30);
    let take = [Operation::take_one(0)];
    assert_eq!(error_of(set.operate_until(&take, Deadline::after(short))), "ETIMEDOUT");
    assert!(since.elapsed() >= short);
    let unwilling = [Operation::take_one(0).no_wait()];
    assert_eq!(error_of(set.operate_until(&unwilling, Deadline::after(DEADLINE))), "EAGAIN");
    assert_eq!(error_of(set.operate(&unwilling)), "EAGAIN");

    let (mut for_zero, thread) = blocked(*set, &["1=0"]);
    interruption::interrupt(&for_zero, thread, SEMOP);
    assert_eq!(for_zero.line_within(Duration::from_millis(20)), None);
    set.set_values(&[0, 0]).expect("set");
    for_zero.expect("done 1");

    let mut patient = Child::role("sysv_sem_patient", &[set.id().to_string(), "0-1".to_owned()]);
    let thread = patient.line().expect("a line").parse().expect("a thread id");
    wait_until_asleep(patient.id(), thread, SEMOP);
    interruption::interrupt_once(&patient, thread);
    patient.expect("EINTR");
    interruption::interrupt(&patient, thread, SEMOP);
    assert_eq!(patient.line_within(Duration::from_millis(20)), None);
    set.operate(&[Operation::add_one(0)]).expect("added");
    patient.expect("done");

    let (mut waiter, _) = blocked(*set, &["0-1"]);
    set.remove().expect("removed");
    waiter.expect("EIDRM");
    assert_eq!(error_of(set.operate(&take)), "EINVAL");
}

#[test]
fn who_was_last_and_how_many_wait_can_be_asked() {
    let set = Removed::new(&[1, 0]);
    set.0.operate(&[Operation::change(0, -1)]).expect("taken");
    assert_eq!(set.0.last_process(0), Ok(Some(std::process::id())));
    assert_eq!(set.0.waiting(1), Ok((0, 0)));
    let (_waiter, _) = blocked(set.0, &["1-1"]);
    assert_eq!(set.0.waiting(1), Ok((1, 0)));
    assert_eq!(error_of(set.0.waiting(2)), "EINVAL");
}

/// Role: makes or finds the set of a key, and takes 1 from it if it can.
pub(crate) fn racer(arguments: &[String]) {
    let key = Key::Value(arguments[0].parse().expect("a key"));
    let _ = instruction();
    let set = SemaphoreSet::create(&key, &CreateOptions::new().values([1])).expect("a set");
    let result = set.try_operate(&[Operation::take_one(0)]);
    report(result.map_or_else(|error| error.name(), |()| "taken"));
    let _ = instruction();
}

#[test]
fn of_many_creators_one_gives_the_counts() {
    for round in 0..5 {
        let key = key();
        let mut racers: Vec<Child> =
            (0..6).map(|_| Child::role("sysv_sem_racer", &[key])).collect();
        racers.iter_mut().for_each(|racer| racer.tell("go"));
        let mut said: Vec<String> =
            racers.iter_mut().map(|racer| racer.line().expect("a line")).collect();
        SemaphoreSet::open(&Key::Value(key)).expect("the set").remove().expect("removed");
        said.sort_unstable();
        assert_eq!(said, ["EAGAIN", "EAGAIN", "EAGAIN", "EAGAIN", "EAGAIN", "taken"], "{round}");
    }
}

/// A key that no other test uses.
fn key() -> i32 {
    let name = switchboard_testkit::unique("key");
    let hash =
        name.bytes().fold(17_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    hash | 1
}

#[test]
fn keys_find_a_set_and_the_first_creator_decides() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: b'S' };
    assert_eq!(error_of(SemaphoreSet::open(&key)), "ENOENT");
    let Removed(set) = &Removed::with(&key, &CreateOptions::new().values([3, 4]));
    let again = CreateOptions::new().values([9, 9]);
    assert_eq!(SemaphoreSet::create(&key, &again), Ok(*set));
    assert_eq!(SemaphoreSet::open_ready(&key, Deadline::NEVER), Ok(*set));
    assert_eq!(set.values(), Ok(vec![3, 4]));
    assert_eq!(error_of(SemaphoreSet::create(&key, &again.exclusive(true))), "EEXIST");
    let larger = CreateOptions::new().values([0, 0, 0]);
    assert_eq!(error_of(SemaphoreSet::create(&key, &larger)), "EINVAL");
    for none in [Key::Private, Key::Value(0)] {
        assert_eq!(error_of(SemaphoreSet::open(&none)), "EINVAL");
    }
    assert_eq!(error_of(set.set_values(&[1])), "EINVAL");
    assert_eq!(error_of(set.value(2)), "EINVAL");
    let status = set.status().expect("status");
    assert_eq!((status.count, status.mode), (2, 0o600));
    assert!(status.last_operation.is_some());
}

/// Role: makes sets of several modes under a hostile umask, and says what their owner may do; tries
/// to give one away.
pub(crate) fn modes(_: &[String]) {
    become_ordinary_user();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    for mode in [0o600, 0o666, 0o400, 0o000] {
        let options = CreateOptions::new().permissions(Permissions::new().mode(mode));
        let Removed(set) = &Removed::with(&Key::Private, &options);
        let could = |result: Result<()>| result.map_or_else(|error| error.name(), |()| "done");
        let read = could(set.try_operate(&[Operation::wait_for_zero(0)]));
        let wrote = could(set.try_operate(&[Operation::add_one(0)]));
        report(format_args!("{mode:o} {read} {wrote}"));
    }
    let foreign = CreateOptions::new().permissions(Permissions::new().owner(0).group(0));
    let Removed(set) = &Removed::with(&Key::Private, &foreign);
    report(set.status().expect("status").owner);
}

#[test]
fn the_mode_is_exact() {
    let mut child = Child::role::<&str>("sysv_sem_modes", &[]);
    for expected in ["600 done done", "666 done done", "400 done EACCES", "0 EACCES EACCES"] {
        child.expect(expected);
    }
    // The owner may give a System V set away; as its creator it keeps the owner's rights.
    child.expect("0");
    assert!(child.wait().success());
}

/// Role: says what an ordinary user may do with a set.
pub(crate) fn outsider(arguments: &[String]) {
    become_ordinary_user();
    let set = set_of(arguments);
    let found = set.try_operate(&[Operation::take_one(0)]);
    report(found.map_or_else(|error| error.name(), |()| "taken"));
    report(set.remove().map_or_else(|error| error.name(), |()| "removed"));
}

#[test]
fn owner_and_mode_decide_who_may_use_it() {
    if !is_root() {
        return the_mode_is_exact();
    }
    for (permissions, expected) in [
        (Permissions::new(), ["EACCES", "EPERM"]),
        (Permissions::new().mode(0o666), ["taken", "EPERM"]),
        (Permissions::new().mode(0o660).group(NOBODY), ["taken", "EPERM"]),
        (Permissions::new().owner(NOBODY), ["taken", "removed"]),
    ] {
        let options = CreateOptions::new().values([1]).permissions(permissions);
        let Removed(set) = &Removed::with(&Key::Private, &options);
        let status = set.status().expect("status");
        assert_eq!((status.creator, status.mode), (0, permissions.mode));
        assert_eq!(status.owner, permissions.owner.unwrap_or(0));
        let mut outsider = Child::role("sysv_sem_outsider", &[set.id()]);
        expected.iter().for_each(|line| outsider.expect(line));
    }
}

#[test]
fn limits_are_those_of_the_system() {
    let text = std::fs::read_to_string("/proc/sys/kernel/sem").expect("the limits");
    let found: Vec<u32> = text.split_whitespace().map(|n| n.parse().expect("a limit")).collect();
    let l = limits();
    assert_eq!(found, [l.max_set_size, l.max_semaphores, l.max_operations, l.max_sets]);
}

#[test]
fn limits_of_a_set_and_a_call_are_named() {
    let Removed(set) = &Removed::new(&[VALUE_MAX, 0]);
    let text = |result: Result<()>| result.expect_err("beyond a limit").to_string();
    let named = |result, limit: &str| {
        let text = text(result);
        assert!(text.contains(limit), "{text}");
    };
    named(set.operate(&[Operation::add_one(0)]), "SEMVMX");
    let soon = Deadline::after(DEADLINE);
    named(set.operate_until(&[Operation::add_one(0)], soon), "SEMVMX");
    named(set.set_value(0, VALUE_MAX + 1), "SEMVMX");
    named(set.set_values(&[0, u16::MAX]), "SEMVMX");
    let options = CreateOptions::new().values([VALUE_MAX + 1]);
    named(SemaphoreSet::create(&Key::Private, &options).map(drop), "SEMVMX");
    let most = usize::try_from(limits().max_operations).expect("a number");
    let many = vec![Operation::wait_for_zero(1); most + 1];
    assert_eq!(set.operate(&many[..most]), Ok(()));
    named(set.operate(&many), "SEMOPM");
    named(set.operate_until(&many, soon), "SEMOPM");
    assert_eq!(error_of(set.operate(&[])), "EINVAL");
    assert_eq!(error_of(set.operate(&[Operation::take_one(2)])), "EFBIG");
    assert_eq!(set.values(), Ok(vec![VALUE_MAX, 0]));
}

/// Role: in an IPC namespace of its own, makes sets up to each limit on their number and size.
pub(crate) fn full(_: &[String]) {
    // Kernels before 6.1 let only root of the machine do so.
    if std::fs::write("/proc/sys/kernel/sem", "5 12 3 4").is_err() {
        return report("limits cannot be set");
    }
    let mut sets = Vec::new();
    let mut make = |values: usize| {
        let options = CreateOptions::new().values(vec![0; values]);
        SemaphoreSet::create(&Key::Private, &options).map(|set| sets.push(set))
    };
    let text = |result: Result<()>| result.map_or_else(|e| e.to_string(), |()| "made".to_owned());
    for values in [6, 5, 5, 5, 1, 1, 1] {
        report(text(make(values)));
    }
    sets.iter().for_each(|set| set.remove().expect("removed"));
}

#[test]
fn limits_of_the_system_are_named() {
    let starter: &[&str] = if is_root() {
        &["unshare", "--ipc"]
    } else {
        &["unshare", "--user", "--map-root-user", "--ipc"]
    };
    let mut child = Child::role_under::<&str>(starter, "sysv_sem_full", &[]);
    let first = child.line();
    if !first.as_ref().is_some_and(|line| line.contains("SEMMSL")) {
        let why = first.unwrap_or_else(|| "no IPC namespace of its own to be had".to_owned());
        return switchboard_testkit::skip::skip("limits_of_the_system_are_named", &why);
    }
    for expected in ["made", "made", "SEMMNS", "made", "made", "SEMMNI"] {
        let line = child.line().expect("a line");
        assert!(line.contains(expected), "{line} instead of {expected}");
    }
    assert!(child.wait().success());
}

#[test]
fn python_uses_the_same_set() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: 42 };
    let Removed(set) = &Removed::with(&key, &CreateOptions::new().values([2]));
    let program = "import sysv_ipc, sys\n\
                   s = sysv_ipc.Semaphore(sysv_ipc.ftok(sys.argv[1], 42, True))\n\
                   s.acquire(); s.acquire(); s.block = False\n\
                   try: s.acquire()\n\
                   except sysv_ipc.BusyError: print('busy', s.value, oct(s.mode))\n\
                   s.release(7)\n";
    let path = scratch.path().to_str().expect("a path");
    let test = "python_uses_the_same_set";
    let Some(said) = python::run(test, "sysv_ipc", program, &[path]) else { return };
    assert_eq!(said, "busy 0 0o600");
    assert_eq!(set.values(), Ok(vec![7]));
}

#[test]
fn a_set_of_another_program_is_ready_after_its_first_operation() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: 43 };
    let program = "import sysv_ipc, sys\n\
                   k = sysv_ipc.ftok(sys.argv[1], 43, True)\n\
                   print(sysv_ipc.Semaphore(k, sysv_ipc.IPC_CREX, 0o600).id)\n";
    let path = scratch.path().to_str().expect("a path");
    let test = "a_set_of_another_program_is_ready_after_its_first_operation";
    let Some(id) = python::run(test, "sysv_ipc", program, &[path]) else { return };
    let Removed(set) = &Removed(SemaphoreSet::from_id(id.parse().expect("an id")));
    assert_eq!(SemaphoreSet::open(&key), Ok(*set));
    assert_eq!(set.status().expect("status").last_operation, None);
    let short = Duration::from_millis(20);
    assert_eq!(error_of(SemaphoreSet::open_ready(&key, Deadline::after(short))), "ETIMEDOUT");
    let options = CreateOptions::new().ready_within(short);
    assert_eq!(error_of(SemaphoreSet::create(&key, &options)), "ETIMEDOUT");
    set.operate(&[Operation::add_one(0)]).expect("added");
    assert_eq!(SemaphoreSet::open_ready(&key, Deadline::after(DEADLINE)), Ok(*set));
}

#[test]
fn what_a_killed_python_did_with_undo_is_put_back() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: 44 };
    let Removed(set) = &Removed::with(&key, &CreateOptions::new().values([3]));
    let program = "import sysv_ipc\n\
                   s = sysv_ipc.Semaphore(sysv_ipc.ftok(sys.argv[1], 44, True))\n\
                   s.acquire()\n\
                   s.undo = True\n\
                   s.acquire(); s.acquire()\n\
                   say('taken')\n\
                   s.acquire()\n";
    let path = scratch.path().to_str().expect("a path");
    let test = "what_a_killed_python_did_with_undo_is_put_back";
    let Some(mut child) = python::start(test, "sysv_ipc", program, &[path]) else { return };
    child.expect("taken");
    wait_until_asleep(child.id(), child.id(), SEMOP);
    assert_eq!(set.values(), Ok(vec![0]));
    child.kill();
    // What it took without undo, nobody gives back.
    assert_eq!(set.values(), Ok(vec![2]));
}
