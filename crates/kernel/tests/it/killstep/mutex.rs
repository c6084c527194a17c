//! The robust mutex: a holder or a waiter that dies anywhere hinders nobody.

use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pthread::{Locked, Mutex, MutexOptions, OBJECT_BYTES};
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::Child;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::killstep::{self, Access, Boundary, Depth, How, Plan, Recovery, Report};

use crate::shared_words::{opened, path_of};

/// A survivor gets the mutex within this time; the C library needs a fraction of it.
const SOON: Duration = Duration::from_secs(5);

/// Longer than a waiter is left asleep, shorter than a test's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Role: one operation on a mutex, stepped; or `hold`, which keeps it until told to let go.
pub(crate) fn locker(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let mutex = Mutex::open(slot(&memory)).expect("the mutex");
    match arguments[1].as_str() {
        "hold" => {
            let locked = mutex.lock().expect("locked");
            report("held");
            let _ = instruction();
            drop(locked);
        }
        "unlock" => {
            let locked = mutex.lock().expect("locked");
            killstep::begin();
            drop(locked);
            killstep::end();
        }
        "lock and repair" => {
            killstep::begin();
            drop(mutex.lock().expect("locked").or_repair(|| ()).expect("marked"));
            killstep::end();
        }
        operation => {
            warm_up();
            killstep::begin();
            let locked = match operation {
                "lock" => mutex.lock(),
                "try lock" => mutex.try_lock(),
                _ => mutex.lock_until(Deadline::after(PATIENCE)),
            };
            killstep::end();
            if let Locked::OwnerDied(orphaned) = locked.expect("locked") {
                drop(orphaned.mark_consistent().expect("marked"));
            }
        }
    }
}

/// The first look at the clock searches for it, in tens of thousands of instructions: not here.
fn warm_up() {
    let memory = SharedWords::create(4096).expect("memory");
    let mutex = Mutex::create(slot(&memory), MutexOptions::new()).expect("a mutex");
    drop(mutex.lock_until(Deadline::after(PATIENCE)).expect("locked"));
}

fn slot(memory: &SharedWords) -> Slot {
    memory.slot(0, OBJECT_BYTES).expect("a slot")
}

struct Locking {
    operation: &'static str,
    /// Another process holds the mutex, and is told to let go when the victim sleeps.
    is_contended: bool,
    options: MutexOptions,
}

struct World {
    memory: SharedWords,
    mutex: Mutex,
    holder: Option<Child>,
}

impl World {
    fn child(&self, operation: &str) -> Child {
        Child::role("killstep-locker", &[&path_of(&self.memory), operation])
    }

    fn let_go(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            holder.tell("let go");
            holder.wait();
        }
    }
}

impl Plan for Locking {
    type World = World;

    fn name(&self) -> String {
        let contended = if self.is_contended { ", contended" } else { "" };
        let inherits = if self.options.priority_inheritance { ", inheriting" } else { "" };
        format!("pthread mutex {}{contended}{inherits}", self.operation)
    }

    fn prepare(&self) -> World {
        let memory = SharedWords::create(4096).expect("memory");
        drop(Mutex::create(slot(&memory), self.options).expect("a mutex"));
        let mutex = Mutex::open(slot(&memory)).expect("the mutex");
        let mut world = World { memory, mutex, holder: None };
        if self.is_contended {
            let mut holder = world.child("hold");
            holder.expect("held");
            world.holder = Some(holder);
        }
        world
    }

    fn shared(&self, world: &mut World) -> Vec<PathBuf> {
        vec![path_of(&world.memory).into()]
    }

    fn victim(&self, world: &mut World) -> Child {
        world.child(self.operation)
    }

    fn unblock(&self, world: &mut World) {
        world.let_go();
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        world.let_go();
        match world.mutex.try_lock() {
            Ok(Locked::Consistent(guard)) => drop(guard),
            Ok(Locked::OwnerDied(_)) => return Err("a stopped owner counts as dead".to_owned()),
            Err(error) if error.name() == "EBUSY" => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn check(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        world.let_go();
        let locked = world.mutex.lock_until(Deadline::after(SOON)).map_err(|e| e.to_string())?;
        drop(locked.or_repair(|| ()).map_err(|e| e.to_string())?);
        match world.mutex.try_lock().map_err(|e| e.to_string())? {
            Locked::Consistent(_) => Ok(()),
            Locked::OwnerDied(_) => Err("it was marked consistent and is not".to_owned()),
        }
    }

    fn allowed(&self, access: &Access) -> bool {
        access.is_within(0..OBJECT_BYTES as u64)
    }
}

impl Recovery for Locking {
    fn survivor(&self, world: &mut World) -> Child {
        world.let_go();
        world.child("lock and repair")
    }
}

/// Runs a check of each operation, with and without priority inheritance.
fn each(test: &str, is_contended: bool, operations: &[&'static str], check: impl Fn(&Locking)) {
    if killstep::refused(test) {
        return;
    }
    for inherit in [false, true] {
        for operation in operations {
            let options = MutexOptions::new().priority_inheritance(inherit);
            check(&Locking { operation, is_contended, options });
        }
    }
}

fn run(plan: &Locking, how: How) -> Report {
    let report = killstep::run(plan, how, Depth::from_environment());
    report.expect_clean();
    let sleeps = report.events.iter().any(|event| event.blocked.is_some());
    assert_eq!(sleeps, plan.is_contended, "{report}");
    report
}

const ALL: &[&str] = &["lock", "try lock", "timed lock", "unlock"];
const THAT_WAIT: &[&str] = &["lock", "timed lock"];

#[test]
fn a_killed_holder_hinders_nobody() {
    each("a_killed_holder_hinders_nobody", false, ALL, |plan| {
        let report = run(plan, How::Kill);
        // It is taken by one store, and given back by one.
        let changed = report.accesses.iter().filter(|access| access.changed);
        assert!(changed.clone().any(|access| access.is_within(0..4)), "{report}");
    });
}

#[test]
fn a_killed_waiter_hinders_nobody() {
    each("a_killed_waiter_hinders_nobody", true, THAT_WAIT, |plan| drop(run(plan, How::Kill)));
}

#[test]
fn a_stopped_holder_goes_on() {
    each("a_stopped_holder_goes_on", false, ALL, |plan| drop(run(plan, How::Stop)));
}

#[test]
fn a_stopped_waiter_goes_on() {
    each("a_stopped_waiter_goes_on", true, THAT_WAIT, |plan| drop(run(plan, How::Stop)));
}

#[test]
fn an_heir_that_is_killed_hinders_nobody() {
    each("an_heir_that_is_killed_hinders_nobody", false, &["lock", "unlock"], |plan| {
        killstep::run_recovery(plan, Depth::from_environment()).expect_clean();
    });
}
