//! Two words that must be equal: set one after the other, or by a commit.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::killstep::{self, Access, Boundary, Depth, How, Kind, Plan};
use switchboard_testkit::{Child, Scratch};

use crate::shared_words::{opened, path_of};

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// Which of two pairs counts.
const CURRENT: usize = 4;

/// Role: two stores, between which the pair is wrong.
pub(crate) fn careless(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let slot = words(&memory);
    killstep::begin();
    slot.words()[LEFT].store(1, Ordering::SeqCst);
    slot.words()[RIGHT].store(1, Ordering::SeqCst);
    killstep::end();
}

/// Role: writes the pair that does not count, then makes it count.
pub(crate) fn careful(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let slot = words(&memory);
    killstep::begin();
    slot.words()[2 + LEFT].store(1, Ordering::SeqCst);
    slot.words()[2 + RIGHT].store(1, Ordering::SeqCst);
    slot.words()[CURRENT].store(2, Ordering::SeqCst);
    killstep::end();
}

fn words(memory: &SharedWords) -> Slot {
    memory.slot(0, 64).expect("a slot")
}

/// Role: two folders that must both be there, or neither.
pub(crate) fn two_folders(arguments: &[String]) {
    let folder = PathBuf::from(&arguments[0]);
    killstep::begin();
    for name in ["left", "right"] {
        std::fs::create_dir(folder.join(name)).expect("a folder");
    }
    killstep::end();
}

/// One after the other, which is wrong on purpose.
struct TwoFolders;

impl Plan for TwoFolders {
    type World = Scratch;

    fn name(&self) -> String {
        "toy two folders, wrong on purpose".to_owned()
    }

    fn prepare(&self) -> Scratch {
        Scratch::new()
    }

    fn victim(&self, world: &mut Scratch) -> Child {
        Child::role("killstep-two-folders", &[world.path().display()])
    }

    fn while_stopped(&self, world: &mut Scratch, at: &Boundary) -> Result<(), String> {
        self.check(world, at)
    }

    fn check(&self, world: &mut Scratch, at: &Boundary) -> Result<(), String> {
        match ["left", "right"].map(|name| world.join(name).exists()) {
            [true, true] => Ok(()),
            [false, false] if !at.is_end() => Ok(()),
            found => Err(format!("{found:?}")),
        }
    }
}

#[test]
fn what_is_wrong_between_two_calls_is_found() {
    if killstep::refused("what_is_wrong_between_two_calls_is_found") {
        return;
    }
    for how in [How::Kill, How::Stop] {
        let report = killstep::run_calls(&TwoFolders, how, Depth::Quick);
        assert!(report.killed >= 4 && report.killed == report.boundaries, "{report}");
        // After the first call and before the second.
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("ended mkdir") && found[1].contains("begins mkdir"), "{found:?}");
        assert!(found.iter().all(|found| found.ends_with("[true, false]")), "{found:?}");
    }
}

struct Pair {
    role: &'static str,
    /// Stores beyond this byte are not allowed.
    end: u64,
}

impl Plan for Pair {
    type World = SharedWords;

    fn name(&self) -> String {
        let wrong = if self.role == "killstep-careless" { ", wrong on purpose" } else { "" };
        format!("toy {}{wrong}", self.role)
    }

    fn prepare(&self) -> SharedWords {
        SharedWords::create(4096).expect("memory")
    }

    fn shared(&self, world: &mut SharedWords) -> Vec<PathBuf> {
        vec![path_of(world).into()]
    }

    fn victim(&self, world: &mut SharedWords) -> Child {
        Child::role(self.role, &[path_of(world)])
    }

    fn check(&self, world: &mut SharedWords, at: &Boundary) -> Result<(), String> {
        let slot = words(world);
        let word = |index: usize| slot.words()[index].load(Ordering::SeqCst);
        let current = word(CURRENT) as usize;
        let (left, right) = (word(current + LEFT), word(current + RIGHT));
        if left != right {
            return Err(format!("left is {left}, right is {right}"));
        }
        if at.is_end() && left != 1 { Err("nothing was done".to_owned()) } else { Ok(()) }
    }

    fn allowed(&self, access: &Access) -> bool {
        access.kind == Kind::Load || access.is_within(0..self.end)
    }
}

#[test]
fn a_protocol_without_a_commit_is_found_wrong() {
    if killstep::refused("a_protocol_without_a_commit_is_found_wrong") {
        return;
    }
    let careless = Pair { role: "killstep-careless", end: 20 };
    let report = killstep::run(&careless, How::Kill, Depth::from_environment());
    assert!(!report.findings.is_empty(), "{report}");
    assert!(report.findings.iter().all(|found| found.what == "left is 1, right is 0"));
    let first = report.findings[0].at.as_ref().expect("a boundary");
    assert!(first.changed, "{first}");
}

#[test]
fn a_protocol_with_a_commit_passes() {
    if killstep::refused("a_protocol_with_a_commit_passes") {
        return;
    }
    let careful = Pair { role: "killstep-careful", end: 20 };
    for (how, depth) in [(How::Kill, Depth::Every), (How::Stop, Depth::from_environment())] {
        let report = killstep::run(&careful, how, depth);
        report.expect_clean();
        assert!(depth == Depth::Quick || report.killed == report.boundaries, "{report}");
        let stores: Vec<(u64, usize)> = report
            .accesses
            .iter()
            .filter(|access| access.changed)
            .map(|access| (access.offset_bytes, access.len_bytes))
            .collect();
        assert_eq!(stores, [(8, 4), (12, 4), (16, 4)]);
    }
}

#[test]
fn a_store_that_is_not_allowed_is_found() {
    if killstep::refused("a_store_that_is_not_allowed_is_found") {
        return;
    }
    let careful = Pair { role: "killstep-careful", end: 16 };
    let report = killstep::run(&careful, How::Kill, Depth::Quick);
    let [found] = &report.findings[..] else { panic!("{report}: {:?}", report.findings) };
    assert!(found.what.starts_with("not allowed: "), "{found}");
    assert!(found.what.contains("of 4 bytes at 16 of object 0"), "{found}");
}
