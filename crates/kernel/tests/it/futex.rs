//! Words that processes sleep on.

use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use switchboard_kernel::ErrorKind;
use switchboard_kernel::futex::{
    ALL, Waited, WaitedAny, requeue, wait, wait_any, wait_bits, wake, wake_at, wake_bits,
};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use crate::interruption::{self, wait_until_asleep};
use crate::python;
use crate::shared_words::{opened, path_of};

/// Where children have the words: not where the test has them.
fn shared() -> (String, Slot) {
    let (memory, slot) = shared_memory();
    // The slot keeps the descriptor open.
    (path_of(&memory), slot)
}

fn shared_memory() -> (SharedWords, Slot) {
    let memory = SharedWords::create(8192).expect("memory");
    let slot = memory.slot(4096, 64).expect("a slot");
    (memory, slot)
}

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

fn bits(bits: u32) -> NonZeroU32 {
    NonZeroU32::new(bits).expect("some bits")
}

/// Role: waits on word 0 while it is 0, for these bits, and says how that ended.
pub(crate) fn waiter(arguments: &[String]) {
    let slot = opened(&arguments[0]).slot(4096, 64).expect("a slot");
    let wanted = bits(arguments[1].parse().expect("bits"));
    interruption::handle();
    let waited = wait_bits(&slot.words()[0], 0, wanted, soon()).expect("a wait");
    report(format_args!("{waited:?} {}", interruption::handled()));
}

/// Role: marks word 0 as held, and is killed before it lets go and wakes.
pub(crate) fn holder(arguments: &[String]) {
    let slot = opened(&arguments[0]).slot(4096, 64).expect("a slot");
    slot.words()[0].store(1, Ordering::Release);
    report("holding");
    let _ = instruction();
}

/// Role: waits on words 1 and 2 at once, and on more than there may be.
pub(crate) fn any_waiter(arguments: &[String]) {
    let slot = opened(&arguments[0]).slot(4096, 64).expect("a slot");
    interruption::handle();
    let words = [(&slot.words()[1], 0), (&slot.words()[2], 0)];
    match wait_any(&words, soon()) {
        Ok(waited) => report(format_args!("{waited:?} {}", interruption::handled())),
        Err(error) => report(format_args!("{error:?}")),
    }
}

/// A child that waits, and the id of its thread.
fn waiting(path: &str, bits: &str) -> (Child, u32) {
    let mut child = Child::role("futex_waiter", &[path, bits]);
    let thread = child.line().expect("a line").parse().expect("a thread id");
    wait_until_asleep(child.id(), thread, libc::SYS_futex);
    (child, thread)
}

#[test]
fn a_wait_ends_by_a_wake_a_value_or_the_deadline() {
    let (path, slot) = shared();
    let word = &slot.words()[0];
    let (mut child, _) = waiting(&path, "1");
    // Changed and not woken: it sleeps on.
    word.store(1, Ordering::Release);
    assert_eq!(child.line_within(Duration::from_millis(50)), None);
    assert_eq!(wake(word, 0), Ok(0));
    assert_eq!(wake(word, u32::MAX), Ok(1));
    child.expect("Woken 0");
    assert_eq!(wake(word, 1), Ok(0));

    assert_eq!(wait(word, 0, Deadline::NEVER), Ok(Waited::ValueChanged));
    let since = Instant::now();
    let short = Duration::from_millis(30);
    assert_eq!(wait(word, 1, Deadline::after(short)), Ok(Waited::TimedOut));
    assert!(since.elapsed() >= short, "{:?}", since.elapsed());
    assert_eq!(wait(word, 1, Deadline::after(Duration::ZERO)), Ok(Waited::TimedOut));
    assert!(wake(word, 1).is_ok());
}

#[test]
fn who_sleeps_is_woken_by_the_address_alone() {
    let (path, slot) = shared();
    let (mut child, _) = waiting(&path, "1");
    let address = std::ptr::from_ref(&slot.words()[0]).addr();
    assert_eq!(wake_at(address, 0), Ok(0));
    assert_eq!(wake_at(address + 4, 1), Ok(0), "another word");
    assert_eq!(wake_at(address, u32::MAX), Ok(1));
    child.expect("Woken 0");
    assert_eq!(wake_at(address, 1), Ok(0));
    assert_eq!(wake_at(address + 1, 1).map_err(|error| error.errno()), Err(libc::EINVAL));
    // Page 0 is never mapped.
    assert_eq!(wake_at(64, 1).map_err(|error| error.errno()), Err(libc::EFAULT));
}

#[test]
fn bits_choose_who_is_woken() {
    let (path, slot) = shared();
    let word = &slot.words()[0];
    let (mut first, _) = waiting(&path, "1");
    let (mut second, _) = waiting(&path, "6");
    word.store(1, Ordering::Release);
    assert_eq!(wake_bits(word, 9, bits(8)), Ok(0));
    assert_eq!(wake_bits(word, 9, bits(4)), Ok(1));
    second.expect("Woken 0");
    assert_eq!(wake_bits(word, 9, ALL), Ok(1));
    first.expect("Woken 0");
}

#[test]
fn waiters_are_moved_to_another_word() {
    let (path, slot) = shared();
    let (from, to) = (&slot.words()[0], &slot.words()[1]);
    let mut children = [waiting(&path, "1").0, waiting(&path, "1").0, waiting(&path, "1").0];
    assert_eq!(requeue(from, 7, 1, to, 9), Ok(None));
    let error = requeue(from, 0, 1, from, 9).expect_err("the same word");
    assert_eq!(error.name(), "EINVAL");
    assert_eq!(requeue(from, 0, 1, to, u32::MAX), Ok(Some(3)));
    assert_eq!(wake(from, 9), Ok(0));
    assert_eq!(wake(to, 9), Ok(2));
    for child in &mut children {
        child.expect("Woken 0");
    }
}

#[test]
fn a_killed_waiter_takes_no_wake_up_along() {
    let (path, slot) = shared();
    let word = &slot.words()[0];
    let (mut doomed, _) = waiting(&path, "1");
    let (mut other, _) = waiting(&path, "1");
    doomed.kill();
    word.store(1, Ordering::Release);
    assert_eq!(wake(word, 1), Ok(1));
    other.expect("Woken 0");
}

#[test]
fn a_killed_holder_wakes_nobody() {
    let (path, slot) = shared();
    let word = &slot.words()[0];
    let mut holder = Child::role("futex_holder", &[path]);
    holder.expect("holding");
    holder.kill();
    let deadline = Deadline::after(Duration::from_millis(20));
    assert_eq!(wait(word, 1, deadline), Ok(Waited::TimedOut));
    assert_eq!(word.load(Ordering::Acquire), 1);
}

#[test]
fn a_signal_does_not_end_a_wait() {
    let (path, slot) = shared();
    let (mut child, thread) = waiting(&path, "1");
    interruption::interrupt(&child, thread, libc::SYS_futex);
    assert_eq!(child.line_within(Duration::from_millis(20)), None);
    slot.words()[0].store(1, Ordering::Release);
    assert_eq!(wake(&slot.words()[0], 1), Ok(1));
    child.expect("Woken 1");
}

#[test]
fn several_words_are_waited_for_at_once() {
    let (path, slot) = shared();
    let words: Vec<(&AtomicU32, u32)> = slot.words()[..3].iter().map(|word| (word, 0)).collect();
    let now = Deadline::after(Duration::from_millis(10));
    match wait_any(&words, now) {
        // Before Linux 5.16.
        Err(error) => return assert_eq!(error.kind(), ErrorKind::NotSupported),
        Ok(waited) => assert_eq!(waited, WaitedAny::TimedOut),
    }
    let wrong = [words[0], (words[1].0, 1)];
    assert_eq!(wait_any(&wrong, soon()), Ok(WaitedAny::ValueChanged));
    for count in [0, 129] {
        let error = wait_any(&vec![words[0]; count], now).expect_err("too few or many");
        assert_eq!(error.name(), "EINVAL", "{count}");
    }
    assert_eq!(wait_any(&vec![words[0]; 128], now), Ok(WaitedAny::TimedOut));

    let mut child = Child::role("futex_any_waiter", &[path]);
    let thread = child.line().expect("a line").parse().expect("a thread id");
    interruption::interrupt(&child, thread, libc::SYS_futex_waitv);
    words[2].0.store(1, Ordering::Release);
    assert_eq!(wake(words[2].0, 1), Ok(1));
    child.expect("Woken(1) 1");
}

/// Waits and wakes by system calls of the two numbers that come before this, as it is told. A struct
/// futex_waitv is a value, an address and flags (2: the word has 32 bits).
const PYTHON: &str = "
import mmap, struct
memory = mmap.mmap(fds[0], 8192)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory, 4096))
word = lambda index: ctypes.c_void_p(start + 4 * index)
both = b''.join(struct.pack('QQII', 0, start + 4 * index, 2, 0) for index in (1, 2))
orders = {
    'wait': lambda: c('syscall', FUTEX, word(0), 0, 0, None, None, 0),
    'wake': lambda: c('syscall', FUTEX, word(0), 1, 1, None, None, 0),
    'wait for both': lambda: c('syscall', WAITV, both, 2, 0, None, 0),
}
while order := told():
    say(orders[order]())
";

fn python(test: &str, memory: &SharedWords) -> Option<Child> {
    let (one, several) = (libc::SYS_futex, libc::SYS_futex_waitv);
    let program = format!("FUTEX, WAITV = {one}, {several}\n{PYTHON}");
    python::start_with(test, "ctypes", &program, &[memory.as_fd()])
}

fn told_and_asleep(python: &mut Child, order: &str, call: libc::c_long) {
    python.tell(order);
    wait_until_asleep(python.id(), python.id(), call);
}

#[test]
fn python_waits_and_wakes_and_either_is_killed() {
    let (memory, slot) = shared_memory();
    let test = "python_waits_and_wakes_and_either_is_killed";
    let Some(mut python) = python(test, &memory) else { return };
    let (path, word) = (path_of(&memory), &slot.words()[0]);
    told_and_asleep(&mut python, "wait", libc::SYS_futex);
    word.store(1, Ordering::Release);
    assert_eq!(wake(word, 1), Ok(1));
    python.expect("0");
    python.tell("wait");
    python.expect("EAGAIN");

    word.store(0, Ordering::Release);
    let (mut ours, _) = waiting(&path, "1");
    let (mut doomed, _) = waiting(&path, "1");
    doomed.kill();
    python.tell("wake");
    python.expect("1");
    ours.expect("Woken 0");
    python.tell("wake");
    python.expect("0");

    told_and_asleep(&mut python, "wait", libc::SYS_futex);
    let (mut ours, _) = waiting(&path, "1");
    python.kill();
    assert_eq!(wake(word, 1), Ok(1));
    ours.expect("Woken 0");
}

#[test]
fn python_waits_for_several_words() {
    let (memory, slot) = shared_memory();
    let (first, second) = (&slot.words()[1], &slot.words()[2]);
    if wait_any(&[(first, 1)], soon()).is_err_and(|e| e.kind() == ErrorKind::NotSupported) {
        return;
    }
    let Some(mut python) = python("python_waits_for_several_words", &memory) else { return };
    for (index, word) in [first, second].into_iter().enumerate() {
        told_and_asleep(&mut python, "wait for both", libc::SYS_futex_waitv);
        assert_eq!(wake(word, 1), Ok(1));
        python.expect(&index.to_string());
    }
    told_and_asleep(&mut python, "wait for both", libc::SYS_futex_waitv);
    python.kill();
    assert_eq!((wake(first, 1), wake(second, 1)), (Ok(0), Ok(0)));

    let mut ours = Child::role("futex_any_waiter", &[path_of(&memory)]);
    let thread = ours.line().expect("a line").parse().expect("a thread id");
    wait_until_asleep(ours.id(), thread, libc::SYS_futex_waitv);
    ours.kill();
    assert_eq!((wake(first, 1), wake(second, 1)), (Ok(0), Ok(0)));
}
