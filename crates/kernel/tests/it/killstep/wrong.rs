//! Protocols that no kill shows to be wrong: one that only a stop does, and one that only a second
//! death does.

use std::sync::atomic::Ordering;

use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::Child;
use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan, Recovery};

use crate::shared_words::{opened, path_of};

const COUNT: usize = 0;
const ANNOUNCED: usize = 1;

/// Role: counts up by a load and a store; what others count in between is lost. Or `atomic`ally.
pub(crate) fn counter(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let slot = words(&memory);
    let count = &slot.words()[COUNT];
    killstep::begin();
    if arguments[1] == "atomic" {
        count.fetch_add(1, Ordering::SeqCst);
    } else {
        count.store(count.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }
    killstep::end();
}

/// Role: `announce` says that the count is to be set; `recover` sets it, and takes the announcement
/// back. With `add` the count goes up instead, as often as somebody recovers.
pub(crate) fn announcer(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let slot = words(&memory);
    killstep::begin();
    if arguments[1] == "announce" {
        slot.words()[ANNOUNCED].store(1, Ordering::SeqCst);
    } else {
        recover(&slot, &arguments[2]);
    }
    killstep::end();
}

fn recover(slot: &Slot, way: &str) {
    if slot.words()[ANNOUNCED].load(Ordering::SeqCst) == 0 {
        return;
    }
    if way == "add" {
        slot.words()[COUNT].fetch_add(1, Ordering::SeqCst);
    } else {
        slot.words()[COUNT].store(1, Ordering::SeqCst);
    }
    slot.words()[ANNOUNCED].store(0, Ordering::SeqCst);
}

fn words(memory: &SharedWords) -> Slot {
    memory.slot(0, 64).expect("a slot")
}

struct World {
    memory: SharedWords,
    /// What others have counted.
    by_others: u32,
}

impl World {
    fn new() -> Self {
        Self { memory: SharedWords::create(4096).expect("memory"), by_others: 0 }
    }

    fn count(&self) -> u32 {
        words(&self.memory).words()[COUNT].load(Ordering::SeqCst)
    }
}

/// Others count 10 while the victim is stopped.
struct Counting(&'static str);

impl Plan for Counting {
    type World = World;

    fn name(&self) -> String {
        format!("toy that counts, {}", self.0)
    }

    fn prepare(&self) -> World {
        World::new()
    }

    fn victim(&self, world: &mut World) -> Child {
        Child::role("killstep-counter", &[&path_of(&world.memory), self.0])
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        words(&world.memory).words()[COUNT].fetch_add(10, Ordering::SeqCst);
        world.by_others += 10;
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Result<(), String> {
        let by_victim = world.count().wrapping_sub(world.by_others);
        let done = if at.is_end() { by_victim == 1 } else { by_victim <= 1 };
        if done { Ok(()) } else { Err(format!("the count is {}", world.count())) }
    }
}

/// The count is 0 or 1, after whoever looks has recovered.
struct Announcing(&'static str);

impl Announcing {
    fn child(&self, world: &World, what: &str) -> Child {
        Child::role("killstep-announcer", &[&path_of(&world.memory), what, self.0])
    }
}

impl Plan for Announcing {
    type World = World;

    fn name(&self) -> String {
        let wrong = if self.0 == "add" { ", wrong on purpose" } else { "" };
        format!("toy that announces to {}{wrong}", self.0)
    }

    fn prepare(&self) -> World {
        World::new()
    }

    fn victim(&self, world: &mut World) -> Child {
        self.child(world, "announce")
    }

    fn check(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        recover(&words(&world.memory), self.0);
        if world.count() <= 1 { Ok(()) } else { Err(format!("the count is {}", world.count())) }
    }
}

impl Recovery for Announcing {
    fn survivor(&self, world: &mut World) -> Child {
        self.child(world, "recover")
    }
}

#[test]
fn a_victim_that_was_stopped_loses_what_others_did() {
    if killstep::refused("a_victim_that_was_stopped_loses_what_others_did") {
        return;
    }
    for how in [How::Kill, How::Stop] {
        killstep::run(&Counting("atomic"), how, Depth::from_environment()).expect_clean();
    }
    let wrong = Counting("wrong on purpose");
    killstep::run(&wrong, How::Kill, Depth::from_environment()).expect_clean();
    let report = killstep::run(&wrong, How::Stop, Depth::from_environment());
    assert!(!report.findings.is_empty(), "{report}");
    assert!(report.findings.iter().all(|found| found.what == "the count is 1"), "{report}");
}

#[test]
fn a_recovery_that_is_not_finished_is_begun_again() {
    if killstep::refused("a_recovery_that_is_not_finished_is_begun_again") {
        return;
    }
    let depth = Depth::from_environment();
    killstep::run_recovery(&Announcing("set"), depth).expect_clean();
    killstep::run(&Announcing("add"), How::Kill, depth).expect_clean();
    let report = killstep::run_recovery(&Announcing("add"), depth);
    assert!(report.findings.iter().all(|found| found.what == "the count is 2"), "{report}");
    let at = report.findings.first().and_then(|found| found.at.as_ref()).expect("a finding");
    assert!(at.who == "survivor" && at.changed, "{at}");
    assert!(at.after.as_ref().is_some_and(|after| after.who == "victim" && after.changed), "{at}");
}
