//! Permits: so many at a time, and those of the dead come back.

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::stat;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{LOOK, Permits, Shared};

use super::{Peer, name_of, obey_each, opened, shortly, soon, until};

pub(super) fn obey(memory: &SharedWords) {
    let permits: Permits = opened(memory);
    let mut held = Vec::new();
    obey_each(|command| {
        let found = match command {
            "acquire" => permits.acquire(),
            "try" => permits.try_acquire(),
            "timed" => permits.acquire_until(shortly()),
            _ => {
                held.pop();
                return "ok".to_owned();
            }
        };
        found.map_or_else(
            |error| error.name().to_owned(),
            |permit| {
                held.push(permit);
                "ok".to_owned()
            },
        )
    });
}

fn peers<const N: usize>(permits: &Permits) -> [Peer; N] {
    std::array::from_fn(|_| Peer::start("permits", permits.memory()))
}

#[test]
fn there_are_so_many() {
    let permits = Permits::anonymous(3).expect("permits");
    let [mut one, mut two] = peers(&permits);
    // A thread may have more than one.
    one.told("acquire", "ok");
    one.told("acquire", "ok");
    let own = permits.acquire().expect("the third");
    two.told("try", "EBUSY");
    two.told("timed", "ETIMEDOUT");
    two.told_and_waits("acquire");
    drop(own);
    two.expect("acquire", "ok");
    assert_eq!(name_of(permits.try_acquire()), "EBUSY");
    one.told("release", "ok");
    assert_eq!(name_of(permits.try_acquire()), "ok");
}

#[test]
fn those_of_the_dead_come_back() {
    let permits = Permits::anonymous(2).expect("permits");
    let [mut dead, mut waiting, mut queued] = peers(&permits);
    dead.told("acquire", "ok");
    dead.told("acquire", "ok");
    waiting.told_and_waits("acquire");
    queued.told_and_waits("acquire");
    dead.kill();
    waiting.expect("acquire", "ok");
    queued.expect("acquire", "ok");
    waiting.kill();
    assert_eq!(name_of(permits.try_acquire()), "ok");
}

#[test]
fn a_waiter_that_dies_is_not_waited_for() {
    let permits = Permits::anonymous(1).expect("permits");
    let [mut first, mut second] = peers(&permits);
    let own = permits.acquire().expect("the only one");
    first.told_and_waits("acquire");
    second.told_and_waits("acquire");
    first.kill();
    drop(own);
    second.expect("acquire", "ok");
    second.told("release", "ok");
    assert_eq!(name_of(permits.acquire_until(soon())), "ok");
}

/// The first of those who wait is stopped: others get what it does not take.
#[test]
fn a_stopped_waiter_keeps_nobody_out() {
    let permits = Permits::anonymous(1).expect("permits");
    let [mut first, mut second] = peers(&permits);
    let own = permits.acquire().expect("the only one");
    first.told_and_waits("acquire");
    second.told_and_waits("acquire");
    // Stopped: it cannot take the permit that is free now.
    first.child.signal(rustix::process::Signal::STOP);
    until("it is stopped", || stat(first.thread).is_ok_and(|found| found.state == 'T'));
    drop(own);
    drop(permits.try_acquire().expect("the only one"));
    // Whoever comes after it waits, though not for ever.
    second.expect("acquire", "ok");
    second.told("release", "ok");
    assert_eq!(name_of(permits.acquire_until(soon())), "ok");
    first.child.signal(rustix::process::Signal::CONT);
    first.expect("acquire", "ok");
}

/// One that gives its permit back and wants it again at once does not get it before one that waits.
#[test]
fn those_who_wait_are_served_before_those_who_come_later() {
    const TURNS: usize = 20;
    let permits = Permits::anonymous(1).expect("permits");
    let [mut waiting] = peers(&permits);
    let mut overtaken = 0;
    for _ in 0..TURNS {
        let own = permits.acquire().expect("the only one");
        waiting.told_and_waits("acquire");
        drop(own);
        let mine = permits.acquire_until(Deadline::after(LOOK / 2));
        overtaken += usize::from(mine.is_ok());
        drop(mine);
        waiting.expect("acquire", "ok");
        waiting.told("release", "ok");
    }
    // On a busy machine, the one that waits may be late at its own turn.
    assert!(overtaken < TURNS / 2, "overtaken {overtaken} times");
}

#[test]
fn there_are_some_and_not_too_many() {
    for count in [0, Permits::MAX + 1] {
        assert_eq!(name_of(Permits::anonymous(count)), "EINVAL");
    }
    let permits = Permits::anonymous(Permits::MAX).expect("permits");
    let all: Vec<_> = (0..Permits::MAX).map(|_| permits.try_acquire().expect("one")).collect();
    assert_eq!(name_of(permits.try_acquire()), "EBUSY");
    drop(all);
    assert_eq!(permits.count(), Permits::MAX);
}
