//! The C library's mutex, condition variable and semaphore, shared with a C program and with
//! children of the test's own kind, all of which are killed. Most tests are run with either.

mod peer;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use switchboard_kernel::futex;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::Semaphore;
use switchboard_kernel::pthread::{Condition, Guard, Locked, Mutex, MutexOptions, OBJECT_BYTES};
use switchboard_kernel::shared_words::SharedWords;

use crate::interruption;
use crate::shared_words::{opened, path_of};
use peer::{
    CONDITION, MUTEX, Peer, Shared, Start, consistent, count_up, error_of, ours, slot, soon,
};

pub(crate) use peer::{CPeer, peer};

/// Runs a check with a peer of ours and with the C program.
fn with_either(test: &str, check: impl Fn(Start<'_>)) {
    check(&ours);
    if let Some(program) = CPeer::compile(test) {
        check(&|shared: &Shared| program.start(&shared.memory));
    }
}

const EITHER_PROTOCOL: [bool; 2] = [false, true];

fn with_inheritance(inherit: bool) -> Shared {
    Shared::with(MutexOptions::new().priority_inheritance(inherit))
}

#[test]
fn a_mutex_keeps_processes_apart() {
    with_either("a_mutex_keeps_processes_apart", |start| {
        let shared = Shared::new();
        let mut peers = [start(&shared), start(&shared)];
        peers.iter_mut().for_each(|peer| peer.tell("count 5000"));
        count_up(&shared, 5000).expect("counted");
        peers.iter_mut().for_each(|peer| peer.expect("count 0"));
        assert_eq!(shared.count().load(Ordering::Relaxed), 15_000);
    });
}

#[test]
fn a_killed_holder_is_told_of() {
    with_either("a_killed_holder_is_told_of", |start| {
        for inherit in EITHER_PROTOCOL {
            let shared = with_inheritance(inherit);
            // Killed before we look, and killed while we wait.
            for waiting in [false, true] {
                let mut holder = start(&shared);
                holder.told("lock", "0");
                if waiting {
                    let mut witness = ours(&shared);
                    witness.told_and_waits("lock");
                    holder.kill();
                    witness.expect("lock EOWNERDEAD");
                    witness.told("consistent", "0");
                    witness.told("unlock", "0");
                } else {
                    holder.kill();
                    let locked = shared.mutex.lock().expect("locked");
                    assert!(locked.owner_died());
                    let mut repaired = false;
                    drop(locked.or_repair(|| repaired = true).expect("marked"));
                    assert!(repaired);
                }
                drop(consistent(shared.mutex.lock()));
            }
        }
    });
}

#[test]
fn our_death_is_told_to_c() {
    let Some(program) = CPeer::compile("our_death_is_told_to_c") else { return };
    for inherit in EITHER_PROTOCOL {
        let shared = with_inheritance(inherit);
        let mut c = program.start(&shared.memory);
        let mut holder = ours(&shared);
        holder.told("lock", "0");
        c.told("trylock", "EBUSY");
        c.told("timedlock 0", "ETIMEDOUT");
        c.told_and_waits("lock");
        holder.kill();
        c.expect("lock EOWNERDEAD");
        assert_eq!(error_of(shared.mutex.try_lock()), "EBUSY");
        c.told("consistent", "0");
        c.told("unlock", "0");
        drop(consistent(shared.mutex.try_lock()));
    }
}

#[test]
fn a_mutex_that_nobody_repairs_is_of_no_use() {
    with_either("a_mutex_that_nobody_repairs_is_of_no_use", |start| {
        for inherit in EITHER_PROTOCOL {
            let shared = with_inheritance(inherit);
            let (mut holder, mut waiter) = (start(&shared), start(&shared));
            holder.told("lock", "0");
            holder.kill();
            let locked = shared.mutex.lock().expect("locked");
            assert!(locked.owner_died());
            waiter.told_and_waits("lock");
            drop(locked);
            waiter.expect("lock ENOTRECOVERABLE");
            let results =
                [shared.mutex.try_lock(), shared.mutex.lock(), shared.mutex.lock_until(soon())];
            for result in results {
                assert_eq!(error_of(result), "ENOTRECOVERABLE");
            }
            waiter.told("lock", "ENOTRECOVERABLE");
            // Made anew, it is as good as new.
            let memory = shared.memory.clone();
            drop((shared, waiter));
            let mut slot = slot(&memory, MUTEX);
            slot.clear();
            let options = MutexOptions::new().priority_inheritance(inherit);
            drop(consistent(Mutex::create(slot, options).expect("a mutex").lock()));
        }
    });
}

#[test]
fn an_heir_that_dies_too_leaves_it_to_the_next() {
    let shared = Shared::new();
    for _ in 0..3 {
        let mut heir = ours(&shared);
        heir.tell("lock");
        let said = heir.child.line().expect("a line");
        assert!(said == "lock 0" || said == "lock EOWNERDEAD", "{said}");
        heir.kill();
    }
    assert!(shared.mutex.lock().expect("locked").owner_died());
}

#[test]
fn a_killed_waiter_harms_nobody() {
    let shared = Shared::new();
    let (mut doomed, mut other) = (ours(&shared), ours(&shared));
    let guard = consistent(shared.mutex.lock());
    doomed.told_and_waits("lock");
    other.told_and_waits("lock");
    doomed.kill();
    drop(guard);
    other.expect("lock 0");
}

#[test]
fn locking_again_trying_and_waiting_in_vain() {
    with_either("locking_again_trying_and_waiting_in_vain", |start| {
        for inherit in EITHER_PROTOCOL {
            let shared = with_inheritance(inherit);
            let guard = consistent(shared.mutex.lock());
            assert_eq!(error_of(shared.mutex.lock()), "EDEADLK");
            assert_eq!(error_of(shared.mutex.lock_until(soon())), "EDEADLK");
            assert!(matches!(error_of(shared.mutex.try_lock()), "EBUSY" | "EDEADLK"));
            let mut peer = start(&shared);
            peer.told("trylock", "EBUSY");
            peer.told("timedlock 0", "ETIMEDOUT");
            drop(guard);
            peer.told("timedlock 9", "0");
            let since = Instant::now();
            let short = Duration::from_millis(30);
            assert_eq!(error_of(shared.mutex.lock_until(Deadline::after(short))), "ETIMEDOUT");
            assert!(since.elapsed() >= short, "{:?}", since.elapsed());
            assert_eq!(error_of(shared.mutex.try_lock()), "EBUSY");
            peer.told("unlock", "0");
            drop(consistent(shared.mutex.lock_until(soon())));
        }
    });
}

#[test]
fn a_thread_that_ends_with_the_mutex_counts_as_dead() {
    let shared = Shared::new();
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(consistent(shared.mutex.lock())));
    });
    drop(shared.mutex.lock().expect("locked").or_repair(|| ()));
    drop(consistent(shared.mutex.lock()));
    // Its list of held mutexes ended with it: nothing keeps this one's place.
    let memory = shared.memory.clone();
    drop(shared);
    memory.slot(MUTEX, OBJECT_BYTES).expect("free again");
}

#[test]
fn memory_outlives_a_forgotten_guard() {
    let shared = Shared::new();
    let path = path_of(&shared.memory);
    let other = Shared::new();
    std::mem::forget(consistent(shared.mutex.lock()));
    let memory = shared.memory.clone();
    drop(shared);
    // The C library writes to the forgotten one when another is locked and unlocked.
    drop(consistent(other.mutex.lock()));
    assert_eq!(error_of(memory.slot(MUTEX, OBJECT_BYTES)), "EBUSY");
    let again = opened(&path);
    let mutex = Mutex::open(slot(&again, MUTEX)).expect("the mutex");
    assert_eq!(error_of(mutex.lock()), "EDEADLK");
}

#[test]
fn a_condition_wakes_one_or_all() {
    with_either("a_condition_wakes_one_or_all", |start| {
        let shared = Shared::new();
        let mut peers = [start(&shared), start(&shared), start(&shared)];
        for peer in &mut peers {
            peer.told("lock", "0");
            peer.told_and_waits("wait");
        }
        let guard = consistent(shared.mutex.lock());
        shared.flag().store(1, Ordering::SeqCst);
        drop(guard);
        // The flag alone wakes nobody; then each that is woken goes on when the last let go.
        peers[0].says_nothing_yet();
        shared.condition.broadcast().expect("all woken");
        let mut waiting: Vec<&mut Peer> = peers.iter_mut().collect();
        let until = soon();
        while !waiting.is_empty() {
            assert!(!until.passed(), "{} still wait", waiting.len());
            let woken = waiting.iter_mut().position(|peer| {
                let said = peer.child.line_within(Duration::from_millis(5));
                assert!(said.as_deref().is_none_or(|line| line == "wait 0"), "{said:?}");
                said.is_some()
            });
            if let Some(index) = woken {
                waiting.remove(index).told("unlock", "0");
            }
        }
        // And the other way round: we wait, the peer signals.
        shared.flag().store(0, Ordering::SeqCst);
        let guard = consistent(shared.mutex.lock());
        peers[0].tell("lock");
        let (locked, timed_out) = waited(&shared, guard, || {
            peers[0].expect("lock 0");
            peers[0].told("flag", "0");
            peers[0].told("signal", "0");
            peers[0].told("unlock", "0");
        });
        assert!(!timed_out && !locked.owner_died());
    });
}

/// Waits for the flag, while another thread of this process does something.
fn waited<'m>(
    shared: &'m Shared,
    mut guard: Guard<'m>,
    meanwhile: impl FnOnce() + Send,
) -> (Locked<'m>, bool) {
    std::thread::scope(|scope| {
        scope.spawn(meanwhile);
        loop {
            match shared.condition.wait_until(guard, soon()).expect("waited") {
                (Locked::Consistent(again), false) if shared.flag().load(Ordering::SeqCst) == 0 => {
                    guard = again;
                }
                ended => return ended,
            }
        }
    })
}

#[test]
fn a_condition_has_a_deadline_and_keeps_the_mutex() {
    let shared = Shared::new();
    let guard = consistent(shared.mutex.lock());
    let since = Instant::now();
    let short = Duration::from_millis(30);
    let deadline = Deadline::after(short);
    let (locked, timed_out) = shared.condition.wait_until(guard, deadline).expect("waited");
    assert!(timed_out && since.elapsed() >= short);
    let mut peer = ours(&shared);
    peer.told("trylock", "EBUSY");
    drop(locked);
    peer.told("trylock", "0");
}

#[test]
fn a_waiter_is_told_of_a_holder_that_was_killed() {
    with_either("a_waiter_is_told_of_a_holder_that_was_killed", |start| {
        let shared = Shared::new();
        let guard = consistent(shared.mutex.lock());
        let mut peer = start(&shared);
        peer.tell("lock");
        let (locked, timed_out) = waited(&shared, guard, || {
            peer.expect("lock 0");
            peer.told("flag", "0");
            peer.told("signal", "0");
            peer.kill();
        });
        assert!(locked.owner_died() && !timed_out);
        drop(locked);
        // Nobody repaired it: a wait that has to take it again cannot.
        assert_eq!(error_of(shared.mutex.lock()), "ENOTRECOVERABLE");
    });
}

#[test]
fn a_condition_may_suffer_from_a_killed_waiter_but_the_mutex_recovers() {
    let shared = Shared::new();
    let (mut doomed, mut waiter, mut signaller) = (ours(&shared), ours(&shared), ours(&shared));
    doomed.told("lock", "0");
    doomed.told_and_waits("wait");
    doomed.kill();
    // The first goes to the dead.
    signaller.told("signal", "0");
    waiter.told("lock", "0");
    waiter.told_and_waits("wait");
    signaller.told("lock", "0");
    signaller.told("flag", "0");
    signaller.tell("signal");
    // The second returns or does not, by the C library's version: see `Condition`.
    let _ = signaller.child.line_within(Duration::from_millis(200));
    // Hanging or not, its death frees the mutex, and a new condition variable works.
    signaller.kill();
    waiter.kill();
    let locked = shared.mutex.lock().expect("locked");
    assert!(locked.owner_died());
    drop(locked.or_repair(|| ()).expect("marked"));
    let Shared { memory, condition, .. } = shared;
    drop(condition);
    let mut place = slot(&memory, CONDITION);
    place.clear();
    let condition = Condition::create(place).expect("a condition variable");
    condition.signal().expect("signalled");
    condition.broadcast().expect("signalled");
}

#[test]
fn signals_end_no_wait() {
    let shared = Shared::new();
    let mut child = ours(&shared);
    for command in ["lock", "timedlock 30"] {
        let guard = consistent(shared.mutex.lock());
        child.tell(command);
        interruption::interrupt(&child.child, child.thread, libc::SYS_futex);
        child.says_nothing_yet();
        drop(guard);
        child.expect(if command == "lock" { "lock 0" } else { "timedlock 0" });
        child.told("unlock", "0");
    }
    child.told("lock", "0");
    child.tell("wait");
    interruption::interrupt(&child.child, child.thread, libc::SYS_futex);
    child.says_nothing_yet();
    drop(consistent(shared.mutex.lock()));
    shared.flag().store(1, Ordering::SeqCst);
    shared.condition.signal().expect("signalled");
    child.expect("wait 0");
    drop(child.child.stdin());
    child.expect("3");
}

#[test]
fn c_makes_them_too() {
    let Some(program) = CPeer::compile("c_makes_them_too") else { return };
    for kind in ["inherit", "plain"] {
        let memory = SharedWords::create(4096).expect("memory");
        assert_eq!(error_of(Mutex::open(slot(&memory, MUTEX))), "ENOENT");
        let mut c = program.start(&memory);
        c.told(&format!("make {kind}"), "0");
        c.told("make", "EBUSY");
        let shared = Shared::open(memory);
        c.told("lock", "0");
        assert_eq!(error_of(shared.mutex.try_lock()), "EBUSY");
        c.told("sem_post", "0");
        assert_eq!(shared.semaphore.wait_until(soon()), Ok(()));
        c.told_and_waits("wait");
        let guard = consistent(shared.mutex.lock());
        // Made for the real-time clock: ours counts by the monotonic one all the same.
        let now = Deadline::after(Duration::from_millis(5));
        let (locked, timed_out) = shared.condition.wait_until(guard, now).expect("waited");
        assert!(timed_out);
        shared.flag().store(1, Ordering::SeqCst);
        shared.condition.signal().expect("signalled");
        drop(locked);
        c.expect("wait 0");
        c.kill();
        assert!(shared.mutex.lock().expect("locked").owner_died());
    }
}

#[test]
fn c_sleeps_on_the_same_word() {
    let Some(program) = CPeer::compile("c_sleeps_on_the_same_word") else { return };
    let shared = Shared::new();
    let mut c = program.start(&shared.memory);
    c.told_and_waits("futex_wait");
    shared.flag().store(1, Ordering::SeqCst);
    assert_eq!(futex::wake(shared.flag(), 1), Ok(1));
    c.expect("futex_wait 0");
    c.told("futex_wait", "EAGAIN");
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| futex::wait(shared.flag(), 1, soon()));
        while futex_wake_missed(&mut c) {}
        assert_eq!(sleeper.join().expect("no panic"), Ok(futex::Waited::Woken));
    });
}

/// Whether nobody slept when the C program woke.
fn futex_wake_missed(c: &mut Peer) -> bool {
    c.tell("futex_wake");
    c.child.line().expect("a line") == "futex_wake EAGAIN"
}

#[test]
fn other_bytes_are_refused() {
    let memory = SharedWords::create(4096).expect("memory");
    assert_eq!(error_of(Mutex::create(memory.slot(0, 56).expect("a slot"), options())), "EINVAL");
    drop(Mutex::create(slot(&memory, MUTEX), options()).expect("a mutex"));
    assert_eq!(error_of(Mutex::create(slot(&memory, MUTEX), options())), "EEXIST");
    assert_eq!(error_of(Condition::create(slot(&memory, MUTEX))), "EEXIST");
    assert_eq!(error_of(Condition::open(slot(&memory, MUTEX))), "EINVAL");
    assert_eq!(error_of(Semaphore::open_in(slot(&memory, MUTEX))), "EINVAL");
    for (word, value, expected) in [
        (15, 1, "EAGAIN"),
        (15, 7, "EINVAL"),
        (15, 0, "ENOENT"),
        (14, 1, "EINVAL"),
        (13, 65_535, "EINVAL"),
        (12, 0, "EINVAL"),
        (4, 0x80, "EINVAL"),
    ] {
        let place = slot(&memory, MUTEX);
        let before = place.words()[word].swap(value, Ordering::SeqCst);
        assert_eq!(error_of(Mutex::open(place)), expected, "word {word}: {value}");
        slot(&memory, MUTEX).words()[word].store(before, Ordering::SeqCst);
    }
    drop(consistent(Mutex::open(slot(&memory, MUTEX)).expect("the mutex").lock()));
}

fn options() -> MutexOptions {
    MutexOptions::new()
}

#[test]
fn a_mutex_of_c_that_is_not_robust_is_refused() {
    let test = "a_mutex_of_c_that_is_not_robust_is_refused";
    let Some(program) = CPeer::compile(test) else { return };
    let memory = SharedWords::create(4096).expect("memory");
    let mut c = program.start(&memory);
    c.told("make_fragile", "0");
    assert_eq!(error_of(Mutex::open(slot(&memory, MUTEX))), "EINVAL");
    Condition::open(slot(&memory, CONDITION)).expect("the condition variable");
}
