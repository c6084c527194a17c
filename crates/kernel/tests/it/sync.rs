//! Locks and the like that go on when somebody dies: between processes, with each side killed.

mod barrier;
mod condvar;
mod fork;
mod killstep;
mod monitor;
mod mutex;
mod name;
mod object;
mod once;
mod order;
mod permits;
mod races;
mod rw_lock;
mod semaphore;

use std::time::{Duration, Instant};

use switchboard_kernel::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{LOOK, Locked, Repairable, Shared};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

use crate::interruption::wait_until_asleep;
use crate::shared_words::path_of;

pub(crate) use fork::forker;
pub(crate) use killstep::victim;
pub(crate) use name::{leaver, user};
pub(crate) use object::opener;

/// Role: does to an object what it is told, and says what came of it.
pub(crate) fn peer(arguments: &[String]) {
    let memory = crate::shared_words::opened(&arguments[1]);
    report(rustix::thread::gettid().as_raw_nonzero());
    match arguments[0].as_str() {
        "barrier" => barrier::obey(&memory),
        "condvar" => condvar::obey(&memory),
        "monitor" => monitor::obey(&memory),
        "mutex" => mutex::obey(&memory),
        "once" => once::obey(&memory),
        "permits" => permits::obey(&memory),
        "rw_lock" => rw_lock::obey(&memory),
        _ => semaphore::obey(&memory),
    }
}

/// In a peer: says what came of each instruction, until there are no more.
fn obey_each(mut one: impl FnMut(&str) -> String) {
    while let Some(command) = instruction() {
        let result = one(&command);
        report(format_args!("{command} {result}"));
    }
}

/// A process that does what it is told.
struct Peer {
    child: Child,
    thread: u32,
}

impl Peer {
    fn start(kind: &str, memory: &SharedWords) -> Self {
        let mut child = Child::role("sync_peer", &[kind, &path_of(memory)]);
        let thread = child.line().expect("a line").parse().expect("a thread id");
        Self { child, thread }
    }

    /// Told to do something that ends, as expected.
    fn told(&mut self, command: &str, result: &str) {
        self.child.tell(command);
        self.expect(command, result);
    }

    fn expect(&mut self, command: &str, result: &str) {
        self.child.expect(&format!("{command} {result}"));
    }

    /// Told to do something that has to wait.
    fn told_and_waits(&mut self, command: &str) {
        self.child.tell(command);
        self.waits();
    }

    /// Until it is asleep.
    fn waits(&self) {
        wait_until_asleep(self.child.id(), self.thread, libc::SYS_futex);
    }

    fn kill(&mut self) {
        self.child.kill();
    }
}

/// An object in memory of its own.
fn opened<S: Shared>(memory: &SharedWords) -> S {
    S::from_fd(memory).expect("the object")
}

fn name_of<T>(result: Result<T>) -> String {
    result.map_or_else(|error| error.name().to_owned(), |_| "ok".to_owned())
}

/// What taking a lock came to; the lock is put where it is told.
fn kept<G: Repairable>(result: Result<Locked<G>>, place: &mut Option<Locked<G>>) -> String {
    match result {
        Ok(locked) => {
            let died = locked.owner_died();
            *place = Some(locked);
            if died { "EOWNERDEAD" } else { "ok" }.to_owned()
        }
        Err(error) => error.name().to_owned(),
    }
}

/// Marks a lock consistent whose last holder died.
fn repaired<G: Repairable>(place: &mut Option<Locked<G>>) -> String {
    match place.take().map(|locked| locked.or_repair(|| ())) {
        Some(Ok(guard)) => {
            *place = Some(Locked::Consistent(guard));
            "ok".to_owned()
        }
        Some(Err(error)) => error.name().to_owned(),
        None => "nothing".to_owned(),
    }
}

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

/// Long enough to be waited for, too short to be waited out.
fn shortly() -> Deadline {
    Deadline::after(Duration::from_millis(20))
}

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_look_is_more_often_than_what_is_promised() {
    assert!(LOOK <= Duration::from_millis(50));
}
