//! The monitor: changes are made whole or not at all, and nobody who waits is missed.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Monitor, Shared};
use switchboard_testkit::child::{instruction, report};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Peer, name_of, obey_each, opened, shortly, soon};

/// Two accounts whose sum is always the same.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Bank {
    pub(super) accounts: [i64; 2],
    /// Something else beside it.
    pub(super) mark: [u8; 8],
}

pub(super) const START: Bank = Bank { accounts: [100, 0], mark: *b"bank 1.0" };

pub(super) fn obey(memory: &SharedWords) {
    let bank: Monitor<Bank> = opened(memory);
    obey_each(|command| match command {
        // Changes one side and waits to be killed, or to go on.
        "half" => name_of(bank.with(|bank| {
            bank.accounts[0] -= 10;
            report("half done");
            let _ = instruction();
            bank.accounts[1] += 10;
        })),
        "move" => name_of(bank.with(|bank| {
            bank.accounts[0] -= 10;
            bank.accounts[1] += 10;
            bank.notify_all()
        })),
        // Tells the others and dies before it lets go.
        "told" => name_of(bank.with(|bank| {
            bank.accounts[0] -= 10;
            bank.accounts[1] += 10;
            bank.notify_one().expect("rung");
            report("told done");
            let _ = instruction();
        })),
        "try" => name_of(bank.try_with(|_| ())),
        "timed" => name_of(bank.with_until(shortly(), |_| ())),
        _ => name_of(bank.with(|bank| bank.wait_while(|bank| bank.accounts[1] < 10))),
    });
}

fn bank() -> (Monitor<Bank>, Peer) {
    let bank = Monitor::anonymous(START).expect("a monitor");
    let peer = Peer::start("monitor", bank.memory());
    (bank, peer)
}

fn look(bank: &Monitor<Bank>) -> Bank {
    bank.with_until(soon(), |bank| **bank).expect("a look")
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    let (bank, mut peer) = bank();
    let mut other = Peer::start("monitor", bank.memory());
    peer.told("half", "done");
    other.told("try", "EBUSY");
    other.told("timed", "ETIMEDOUT");
    peer.kill();
    assert_eq!(look(&bank), START);
    other.told("half", "done");
    other.child.tell("go on");
    other.expect("half", "ok");
    assert_eq!(look(&bank).accounts, [90, 10]);
}

#[test]
fn a_panic_changes_nothing() {
    let (bank, _) = bank();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bank.with(|bank| {
            bank.accounts[0] = 7;
            std::panic::resume_unwind(Box::new(()))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(look(&bank), START);
}

#[test]
fn who_waits_sees_the_change() {
    let (bank, mut waiting) = bank();
    waiting.told_and_waits("wait");
    let mut mover = Peer::start("monitor", bank.memory());
    mover.told("move", "ok");
    waiting.expect("wait", "ok");
    assert_eq!(look(&bank).accounts, [90, 10]);
}

#[test]
fn who_waits_sees_the_change_of_one_that_died_telling() {
    let (bank, mut waiting) = bank();
    waiting.told_and_waits("wait");
    let mut mover = Peer::start("monitor", bank.memory());
    mover.told("told", "done");
    mover.kill();
    waiting.expect("wait", "ok");
}

#[test]
fn a_wait_has_a_deadline_and_what_was_changed_before_it_stays() {
    let (bank, _) = bank();
    let came = bank.with(|bank| {
        bank.accounts = [60, 40];
        bank.wait_while_until(shortly(), |_| true)
    });
    assert_eq!(came, Ok(Ok(false)));
    assert_eq!(look(&bank).accounts, [60, 40]);
}

#[test]
fn going_in_twice_is_an_error() {
    let (bank, _) = bank();
    assert_eq!(bank.with(|_| name_of(bank.with(|_| ()))), Ok("EDEADLK".to_owned()));
}

#[test]
fn data_of_another_kind_is_refused() {
    let (bank, _) = bank();
    assert_eq!(name_of(Monitor::<[i64; 3]>::from_fd(bank.memory())), "EINVAL");
    assert_eq!(name_of(Monitor::<[u8; 24]>::from_fd(bank.memory())), "EINVAL");
    assert_eq!(name_of(Monitor::<Bank>::from_fd(bank.memory())), "ok");
}
