//! The semaphore: a count whose waiters miss nothing.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Semaphore, Shared};

use super::{Peer, name_of, obey_each, opened, shortly, soon};

pub(super) fn obey(memory: &SharedWords) {
    let semaphore: Semaphore = opened(memory);
    obey_each(|command| {
        name_of(match command {
            "wait" => semaphore.wait(),
            "try" => semaphore.try_wait(),
            "timed" => semaphore.wait_until(shortly()),
            _ => semaphore.post(),
        })
    });
}

fn peers<const N: usize>(semaphore: &Semaphore) -> [Peer; N] {
    std::array::from_fn(|_| Peer::start("semaphore", semaphore.memory()))
}

#[test]
fn it_counts_between_processes() {
    let semaphore = Semaphore::anonymous(1).expect("a semaphore");
    let [mut one, mut two] = peers(&semaphore);
    one.told("wait", "ok");
    one.told("try", "EBUSY");
    one.told("timed", "ETIMEDOUT");
    one.told_and_waits("wait");
    two.told_and_waits("wait");
    semaphore.post().expect("raised");
    semaphore.post().expect("raised");
    one.expect("wait", "ok");
    two.expect("wait", "ok");
    two.told("post", "ok");
    assert_eq!(semaphore.value(), 1);
    assert_eq!(name_of(semaphore.try_wait()), "ok");
}

#[test]
fn a_waiter_that_dies_takes_nothing_along() {
    let semaphore = Semaphore::anonymous(0).expect("a semaphore");
    let [mut first, mut second] = peers(&semaphore);
    first.told_and_waits("wait");
    second.told_and_waits("wait");
    first.kill();
    semaphore.post().expect("raised");
    second.expect("wait", "ok");
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn it_has_limits() {
    assert_eq!(name_of(Semaphore::anonymous(Semaphore::MAX + 1)), "EINVAL");
    let semaphore = Semaphore::anonymous(Semaphore::MAX).expect("a semaphore");
    assert_eq!(name_of(semaphore.post()), "EOVERFLOW");
    semaphore.wait_until(soon()).expect("lowered");
    assert_eq!(name_of(semaphore.post()), "ok");
    assert_eq!(semaphore.value(), Semaphore::MAX);
}
