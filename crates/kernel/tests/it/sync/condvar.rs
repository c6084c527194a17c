//! The condition variable: nobody is missed, whoever dies.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_kernel::sync::{Condvar, LOOK, Locked, Mutex, MutexGuard, MutexOptions, Shared};

use super::{Peer, kept, name_of, obey_each, repaired, shortly, soon};

const CONDVAR_OFFSET: usize = 1024;

/// A mutex and a condition in one memory.
pub(super) struct Pair {
    pub(super) memory: SharedWords,
    pub(super) mutex: Mutex,
    pub(super) changed: Condvar,
}

impl Pair {
    pub(super) fn new() -> Self {
        let memory = SharedWords::create(16 << 10).expect("memory");
        let (mutex, changed) = slots(&memory);
        let mutex = Mutex::create_in(mutex, MutexOptions::new()).expect("a mutex");
        let changed = Condvar::create_in(changed, ()).expect("a condition");
        Self { memory, mutex, changed }
    }

    /// The same in another process.
    pub(super) fn open(memory: SharedWords) -> Self {
        let (mutex, changed) = slots(&memory);
        let mutex = Mutex::open_in(mutex).expect("the mutex");
        let changed = Condvar::open_in(changed).expect("the condition");
        Self { memory, mutex, changed }
    }

    fn peer(&self) -> Peer {
        Peer::start("condvar", &self.memory)
    }

    /// A peer that waits for the condition.
    fn waiter(&self) -> Peer {
        let mut peer = self.peer();
        peer.told("lock", "ok");
        peer.told_and_waits("wait");
        peer
    }

    /// With the mutex held, as a program would: after that, those told to wait do.
    pub(super) fn locked(&self) -> MutexGuard<'_> {
        self.mutex.lock_until(soon()).expect("locked").or_repair(|| ()).expect("marked")
    }
}

fn slots(memory: &SharedWords) -> (Slot, Slot) {
    let mutex = memory.slot(0, Mutex::bytes(&MutexOptions::new())).expect("a slot");
    (mutex, memory.slot(CONDVAR_OFFSET, Condvar::bytes(&())).expect("a slot"))
}

pub(super) fn obey(memory: &SharedWords) {
    let Pair { mutex, changed, .. } = Pair::open(memory.clone());
    let mut held = None;
    obey_each(|command| match command {
        "lock" => kept(mutex.lock(), &mut held),
        "repair" => repaired(&mut held),
        "wait" => match held.take() {
            Some(Locked::Consistent(guard)) => kept(changed.wait(guard), &mut held),
            _ => "not held".to_owned(),
        },
        // Waits, and lets go at once.
        "pass" => match held.take() {
            Some(Locked::Consistent(guard)) => {
                name_of(changed.wait(guard).and_then(|locked| locked.or_repair(|| ())))
            }
            _ => "not held".to_owned(),
        },
        "timed" => match held.take() {
            Some(Locked::Consistent(guard)) => match changed.wait_until(guard, shortly()) {
                Ok((locked, true)) => {
                    held = Some(locked);
                    "timed out".to_owned()
                }
                Ok((locked, false)) => kept(Ok(locked), &mut held),
                Err(error) => error.name().to_owned(),
            },
            _ => "not held".to_owned(),
        },
        "one" => name_of(changed.notify_one()),
        "all" => name_of(changed.notify_all()),
        _ => {
            held = None;
            "ok".to_owned()
        }
    });
}

/// Takes the one that says that it was woken out of those that wait.
fn woken(waiters: &mut Vec<Peer>) -> Peer {
    let mut index = 0;
    super::until("one is woken", || {
        index = (index + 1) % waiters.len();
        waiters[index]
            .child
            .line_within(Duration::from_millis(5))
            .is_some_and(|line| line == "wait ok")
    });
    waiters.remove(index)
}

#[test]
fn one_is_woken_or_all() {
    let pair = Pair::new();
    let mut waiters = vec![pair.waiter(), pair.waiter(), pair.waiter()];
    pair.changed.notify_one().expect("rung");
    woken(&mut waiters).told("unlock", "ok");
    // Another may have been about to look, and was told too. All others are told now. They come one
    // after another, each with the mutex.
    pair.changed.notify_all().expect("rung");
    woken(&mut waiters).told("unlock", "ok");
    woken(&mut waiters).told("unlock", "ok");
}

#[test]
fn a_wait_has_a_deadline_and_keeps_the_mutex() {
    let pair = Pair::new();
    let mut peer = pair.peer();
    peer.told("lock", "ok");
    peer.told("timed", "timed out");
    assert_eq!(name_of(pair.mutex.try_lock()), "EBUSY");
    peer.told("unlock", "ok");
    drop(pair.locked());
    let guard = pair.locked();
    let (locked, timed_out) =
        pair.changed.wait_until(guard, Deadline::after(Duration::ZERO)).expect("waited");
    assert!(timed_out && !locked.owner_died());
}

#[test]
fn ringing_with_nobody_there_is_forgotten() {
    let pair = Pair::new();
    pair.changed.notify_one().expect("rung");
    pair.changed.notify_all().expect("rung");
    let mut peer = pair.peer();
    peer.told("lock", "ok");
    peer.told("timed", "timed out");
}

#[test]
fn a_waiter_that_dies_asleep_is_not_missed() {
    let pair = Pair::new();
    let mut dead = pair.waiter();
    let mut other = pair.waiter();
    dead.kill();
    // It was the first in the queue. The other may have been woken for the death already.
    pair.changed.notify_one().expect("rung");
    other.expect("wait", "ok");
    other.told("unlock", "ok");
    pair.changed.notify_all().expect("rung");
    drop(pair.locked());
}

#[test]
fn what_a_dead_waiter_was_told_others_are_told() {
    let pair = Pair::new();
    let mut waiters = vec![pair.waiter(), pair.waiter()];
    pair.changed.notify_one().expect("rung");
    // It dies with the mutex, and with what it was told. Nobody notifies again.
    woken(&mut waiters).kill();
    let other = &mut waiters[0];
    other.expect("wait", "EOWNERDEAD");
    other.told("repair", "ok");
    other.told("unlock", "ok");
}

#[test]
fn a_death_with_the_mutex_wakes_who_waits() {
    let pair = Pair::new();
    let mut waiter = pair.waiter();
    let mut holder = pair.peer();
    holder.told("lock", "ok");
    holder.kill();
    waiter.expect("wait", "EOWNERDEAD");
}

#[test]
fn a_death_with_the_mutex_wakes_who_waits_although_somebody_else_repairs_it() {
    let pair = Pair::new();
    let mut waiter = pair.waiter();
    let mut holder = pair.peer();
    holder.told("lock", "ok");
    holder.kill();
    // Before the waiter looks, as a rule; and nobody notifies.
    drop(pair.locked());
    assert!(waiter.child.line().is_some_and(|line| line.starts_with("wait ")));
}

#[test]
fn more_wait_than_there_are_seats() {
    let pair = Pair::new();
    let count = 70;
    let ready = AtomicU32::new(0);
    let go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let guard = pair.locked();
                ready.fetch_add(1, SeqCst);
                let locked = pair.changed.wait_while(guard, || !go.load(SeqCst)).expect("waited");
                drop(locked);
            });
        }
        super::until("all wait", || ready.load(SeqCst) == count);
        let guard = pair.locked();
        go.store(true, SeqCst);
        drop(guard);
        pair.changed.notify_all().expect("rung");
    });
}

/// As many as there are seats wait, in a process that lives, and more in one that is killed: what those were told
/// may have been for the others. When there is room again, nobody is woken for nothing.
#[test]
fn more_than_there_are_seats_for_wait_and_die() {
    const SEATS: usize = 64;
    let pair = Pair::new();
    let (asleep, woken) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SEATS {
            scope.spawn(|| {
                let guard = pair.locked();
                asleep.fetch_add(1, SeqCst);
                let (locked, timed_out) = pair.changed.wait_until(guard, soon()).expect("waited");
                assert!(!timed_out);
                woken.fetch_add(1, SeqCst);
                drop(locked.or_repair(|| ()).expect("marked"));
            });
        }
        super::until("all wait", || asleep.load(SeqCst) == 64);
        // With the mutex, the last one has let go of it: it waits, and all seats are taken.
        drop(pair.locked());
        let mut more = pair.peer();
        more.told("lock", "ok");
        more.child.tell("wait");
        super::until("they look for themselves", || woken.load(SeqCst) > 0);
        more.kill();
        super::until("all look for themselves", || woken.load(SeqCst) == 64);
    });
    // The first to look says that there is room, and rings; after that, nobody is woken.
    super::until("it is quiet", || {
        let deadline = Deadline::after(4 * LOOK);
        pair.changed.wait_until(pair.locked(), deadline).expect("waited").1
    });
}
