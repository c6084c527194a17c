//! Another process that shares a mutex, a condition variable and a semaphore with a test: one of
//! this crate's making, or the C program of `peer.c`. Both take the same commands.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchboard_kernel::Error;
use switchboard_kernel::error::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::Semaphore;
use switchboard_kernel::pthread::{Condition, Guard, Locked, Mutex, MutexOptions, OBJECT_BYTES};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use crate::c_program::{Program, compile};
use crate::interruption::{self, wait_until_asleep};
use crate::shared_words::{opened, path_of};

/// As `struct memory` of the C program has them.
pub(crate) const MUTEX: usize = 0;
pub(crate) const CONDITION: usize = 64;
pub(crate) const SEMAPHORE: usize = 128;
pub(crate) const WORDS: usize = 192;

/// A test's end of the shared memory.
pub(crate) struct Shared {
    pub(crate) memory: SharedWords,
    pub(crate) mutex: Mutex,
    pub(crate) condition: Condition,
    pub(crate) semaphore: Semaphore,
    words: Slot,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self::with(MutexOptions::new())
    }

    pub(crate) fn with(options: MutexOptions) -> Self {
        let memory = SharedWords::create(4096).expect("memory");
        drop(Mutex::create(slot(&memory, MUTEX), options).expect("a mutex"));
        drop(Condition::create(slot(&memory, CONDITION)).expect("a condition variable"));
        drop(Semaphore::create_in(slot(&memory, SEMAPHORE), 0).expect("a semaphore"));
        Self::open(memory)
    }

    pub(crate) fn open(memory: SharedWords) -> Self {
        Self {
            mutex: Mutex::open(slot(&memory, MUTEX)).expect("the mutex"),
            condition: Condition::open(slot(&memory, CONDITION)).expect("the condition variable"),
            semaphore: Semaphore::open_in(slot(&memory, SEMAPHORE)).expect("the semaphore"),
            words: memory.slot(WORDS, 8).expect("a slot"),
            memory,
        }
    }

    pub(crate) fn flag(&self) -> &AtomicU32 {
        &self.words.words()[0]
    }

    pub(crate) fn count(&self) -> &AtomicU32 {
        &self.words.words()[1]
    }
}

pub(crate) fn slot(memory: &SharedWords, offset: usize) -> Slot {
    memory.slot(offset, OBJECT_BYTES).expect("a slot")
}

pub(crate) fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

/// The guard of a mutex whose last holder let go of it.
pub(crate) fn consistent(locked: Result<Locked<'_>>) -> Guard<'_> {
    match locked.expect("locked") {
        Locked::Consistent(guard) => guard,
        Locked::OwnerDied(_) => panic!("its owner died"),
    }
}

/// Role: does what the C program does, by this crate's means.
pub(crate) fn peer(arguments: &[String]) {
    let shared = Shared::open(opened(&arguments[0]));
    let mut holding = Holding::Nothing;
    interruption::handle();
    while let Some(line) = instruction() {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let said = match obey(&shared, &mut holding, command, argument) {
            Ok(()) => "0",
            Err(error) => error.name(),
        };
        report(format_args!("{command} {said}"));
    }
    report(interruption::handled());
}

enum Holding<'a> {
    Nothing,
    Locked(Locked<'a>),
}

fn obey<'a>(
    shared: &'a Shared,
    holding: &mut Holding<'a>,
    command: &str,
    argument: &str,
) -> Result<()> {
    let held = std::mem::replace(holding, Holding::Nothing);
    match (command, held) {
        ("lock" | "trylock" | "timedlock", Holding::Nothing) => {
            let locked = match command {
                "lock" => shared.mutex.lock(),
                "trylock" => shared.mutex.try_lock(),
                _ => {
                    let seconds = argument.parse().expect("seconds");
                    shared.mutex.lock_until(Deadline::after(Duration::from_secs(seconds)))
                }
            }?;
            keep(holding, locked)
        }
        ("consistent", Holding::Locked(Locked::OwnerDied(orphaned))) => {
            keep(holding, Locked::Consistent(orphaned.mark_consistent()?))
        }
        ("unlock", Holding::Locked(locked)) => {
            drop(locked);
            Ok(())
        }
        ("wait", Holding::Locked(Locked::Consistent(mut guard))) => loop {
            if shared.flag().load(Ordering::SeqCst) != 0 {
                return keep(holding, Locked::Consistent(guard));
            }
            match shared.condition.wait(guard)? {
                Locked::Consistent(again) => guard = again,
                orphaned => return keep(holding, orphaned),
            }
        },
        ("count", _) => count_up(shared, argument.parse().expect("a number")),
        ("flag", held) => {
            shared.flag().store(1, Ordering::SeqCst);
            *holding = held;
            Ok(())
        }
        ("signal", held) => {
            *holding = held;
            shared.condition.signal()
        }
        ("broadcast", held) => {
            *holding = held;
            shared.condition.broadcast()
        }
        ("sem_wait", _) => shared.semaphore.wait(),
        ("sem_post", _) => shared.semaphore.post(),
        _ => panic!("no such command now: {command}"),
    }
}

fn keep<'a>(holding: &mut Holding<'a>, locked: Locked<'a>) -> Result<()> {
    let owner_died = locked.owner_died();
    *holding = Holding::Locked(locked);
    if owner_died { Err(Error::from_raw("lock", libc::EOWNERDEAD)) } else { Ok(()) }
}

pub(crate) fn count_up(shared: &Shared, times: u32) -> Result<()> {
    for _ in 0..times {
        let _guard = consistent(shared.mutex.lock());
        let count = shared.count().load(Ordering::Relaxed);
        shared.count().store(count + 1, Ordering::Relaxed);
    }
    Ok(())
}

/// Another process, and its thread that does as it is told.
pub(crate) struct Peer {
    pub(crate) child: Child,
    pub(crate) thread: u32,
}

/// Starts peers of one kind.
pub(crate) type Start<'a> = &'a dyn Fn(&Shared) -> Peer;

pub(crate) fn ours(shared: &Shared) -> Peer {
    let mut child = Child::role("pthread_peer", &[path_of(&shared.memory)]);
    let thread = child.line().expect("a line").parse().expect("a thread id");
    Peer { child, thread }
}

/// The C program `peer.c`; gone on drop.
pub(crate) struct CPeer(Program);

impl CPeer {
    /// Compiles it, or returns `None` after noting that the test was skipped.
    pub(crate) fn compile(test: &str) -> Option<Self> {
        compile(test, include_str!("../peer.c")).map(Self)
    }

    /// Starts it.
    pub(crate) fn start(&self, memory: &SharedWords) -> Peer {
        let child = self.0.start(&[&path_of(memory)]);
        let thread = child.id();
        Peer { child, thread }
    }
}

impl Peer {
    /// Tells a command and checks the outcome.
    pub(crate) fn told(&mut self, command: &str, outcome: &str) {
        self.child.tell(command);
        self.expect(&format!("{} {outcome}", command.split(' ').next().unwrap_or_default()));
    }

    /// Tells a command that will wait.
    pub(crate) fn told_and_waits(&mut self, command: &str) {
        self.child.tell(command);
        wait_until_asleep(self.child.id(), self.thread, libc::SYS_futex);
    }

    pub(crate) fn tell(&mut self, command: &str) {
        self.child.tell(command);
    }

    pub(crate) fn expect(&mut self, line: &str) {
        self.child.expect(line);
    }

    pub(crate) fn says_nothing_yet(&mut self) {
        assert_eq!(self.child.line_within(Duration::from_millis(10)), None);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill();
    }
}
