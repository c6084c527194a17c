//! The operations.

use std::ops::Range;

use switchboard_kernel::sync::{
    Barrier, Monitor, Mutex, MutexOptions, Once, Permits, RwLock, Semaphore, Shared,
};
use switchboard_testkit::killstep::{self, Depth, How};
use switchboard_testkit::share;

use super::check::*;
use super::{Case, World};
use crate::sync::condvar::Pair;
use crate::sync::monitor::START;
use crate::sync::opened;

/// The words of an object's own, and the robust mutex behind the header.
const OWN: Range<u64> = 32..64;
const FIRST_MUTEX: Range<u64> = 64..128;

/// Where a mutex counts holders that were found to have died.
const DEATHS: Range<u64> = 32..36;

const fn seats(from: u64, count: u64) -> Range<u64> {
    from..from + 64 * count
}

const MUTEX: Case = Case {
    operation: "mutex lock",
    kind: "mutex",
    make: || memory_of(Mutex::anonymous(MutexOptions::new())),
    peers: &[],
    unblock: nothing,
    check: check_mutex,
    stores: &[DEATHS, FIRST_MUTEX],
};

const RW_LOCK: Case = Case {
    operation: "rw_lock read",
    kind: "rw_lock",
    make: || memory_of(RwLock::anonymous(3)),
    peers: &[],
    unblock: nothing,
    check: check_rw_lock,
    stores: &[OWN, FIRST_MUTEX, seats(128, 3)],
};

const PERMITS: Case = Case {
    operation: "permits acquire",
    kind: "permits",
    make: || memory_of(Permits::anonymous(2)),
    peers: &[],
    unblock: nothing,
    check: check_permits,
    stores: &[OWN, FIRST_MUTEX, seats(128, 2)],
};

const SEMAPHORE: Case = Case {
    operation: "semaphore wait",
    kind: "semaphore",
    make: || memory_of(Semaphore::anonymous(1)),
    peers: &[],
    unblock: nothing,
    check: check_semaphore,
    stores: &[32..36, FIRST_MUTEX],
};

const CONDVAR: Case = Case {
    operation: "condvar wait",
    kind: "condvar",
    make: || Pair::new().memory,
    peers: &[&["lock", "~pass"]],
    unblock: help_waiter,
    check: check_waiting,
    // The mutex, the bell and its neighbour, the seats.
    stores: &[DEATHS, FIRST_MUTEX, 1024 + 32..1024 + 40, seats(1024 + 64, 64)],
};

const BARRIER: Case = Case {
    operation: "barrier wait",
    kind: "barrier",
    make: || memory_of(Barrier::anonymous(2)),
    peers: &[&["join"]],
    unblock: other_arrives,
    check: check_barrier,
    stores: &[OWN, FIRST_MUTEX, seats(128, 2), 256..264],
};

const ONCE: Case = Case {
    operation: "once call",
    kind: "once",
    make: || memory_of(Once::anonymous(())),
    peers: &[],
    unblock: nothing,
    check: check_once,
    stores: &[32..36, FIRST_MUTEX],
};

const MONITOR: Case = Case {
    operation: "monitor transfer",
    kind: "monitor",
    make: || memory_of(Monitor::anonymous(START)),
    peers: &[&["~wait"]],
    unblock: nothing,
    check: check_bank,
    // The mark of which copy counts, the mutex with its count of deaths, the bell, the seats, the copies.
    stores: &[32..36, 96..100, 128..192, 224..232, seats(256, 64), 4352..4480],
};

fn run(test: &str, how: How, cases: &[Case]) {
    if killstep::refused(test) {
        return;
    }
    // A kill and a stop of the same operation are tests of their own: each run has one of them.
    let first = usize::from(how == How::Stop);
    for (_, case) in cases.iter().enumerate().filter(|(at, _)| share::is_mine(at + first)) {
        killstep::run(case, how, Depth::from_environment()).expect_clean();
    }
}

#[test]
fn killed_while_recovering() {
    if killstep::refused("killed_while_recovering") {
        return;
    }
    let cases = [
        MUTEX,
        Case { operation: "mutex unlock", ..MUTEX },
        Case { operation: "rw_lock read", ..RW_LOCK },
        Case { operation: "rw_lock write", ..RW_LOCK },
        Case { operation: "rw_lock unlock write", ..RW_LOCK },
        PERMITS,
        Case { operation: "permits release", ..PERMITS },
        ONCE,
        Case { peers: &[], check: check_sum, ..MONITOR },
    ];
    // The gate has time for some: those with the most to repair.
    let depth = Depth::from_environment();
    let in_the_gate = ["mutex unlock", "rw_lock unlock write", "permits release"];
    let asked = |case: &&Case| depth == Depth::Every || in_the_gate.contains(&case.operation);
    for case in cases.iter().filter(asked) {
        killstep::run_recovery(case, depth).expect_clean();
    }
}

fn mutexes() -> [Case; 7] {
    let held: &[&[&str]] = &[&["lock"]];
    let held_and_wanted: &[&[&str]] = &[&["lock"], &[]];
    [
        MUTEX,
        Case { operation: "mutex try", ..MUTEX },
        Case { operation: "mutex unlock", ..MUTEX },
        Case { operation: "mutex timed", ..MUTEX },
        Case { operation: "mutex lock, contended", peers: held, unblock: let_go, ..MUTEX },
        Case { operation: "mutex timed, contended", peers: held, unblock: let_go, ..MUTEX },
        Case {
            operation: "mutex lock, overtaken",
            peers: held_and_wanted,
            unblock: overtake,
            check: check_overtaken,
            ..MUTEX
        },
    ]
}

fn rw_locks() -> [Case; 7] {
    let written: &[&[&str]] = &[&["write"]];
    let read: &[&[&str]] = &[&["read"]];
    [
        RW_LOCK,
        Case { operation: "rw_lock unlock read", ..RW_LOCK },
        Case { operation: "rw_lock write", ..RW_LOCK },
        Case { operation: "rw_lock try write", ..RW_LOCK },
        Case { operation: "rw_lock unlock write", ..RW_LOCK },
        Case { operation: "rw_lock read, contended", peers: written, unblock: let_go, ..RW_LOCK },
        Case { operation: "rw_lock write, contended", peers: read, unblock: let_go, ..RW_LOCK },
    ]
}

fn permits() -> [Case; 4] {
    let both: &[&[&str]] = &[&["acquire", "acquire"]];
    [
        PERMITS,
        Case { operation: "permits try", ..PERMITS },
        Case { operation: "permits release", ..PERMITS },
        Case {
            operation: "permits acquire, contended",
            peers: both,
            unblock: give_both_back,
            check: check_given_back,
            ..PERMITS
        },
    ]
}

fn semaphores() -> [Case; 4] {
    let waiting: &[&[&str]] = &[&["~wait"]];
    let empty = || memory_of(Semaphore::anonymous(0));
    let post = |world: &mut World| {
        if world.helped == 0 {
            opened::<Semaphore>(&world.memory).post().expect("raised");
        }
    };
    [
        SEMAPHORE,
        Case { operation: "semaphore post", ..SEMAPHORE },
        Case { operation: "semaphore wait, contended", make: empty, unblock: post, ..SEMAPHORE },
        Case {
            operation: "semaphore post, waited for",
            make: empty,
            peers: waiting,
            check: check_posted,
            ..SEMAPHORE
        },
    ]
}

fn condvars() -> [Case; 3] {
    let one = Case { unblock: nothing, check: check_notified, ..CONDVAR };
    let two: &[&[&str]] = &[&["lock", "~pass"], &["lock", "~pass"]];
    [
        CONDVAR,
        Case { operation: "condvar notify one", ..one },
        Case { operation: "condvar notify all", peers: two, ..one },
    ]
}

fn barriers() -> [Case; 3] {
    let alone = Case { unblock: nothing, check: check_joined, ..BARRIER };
    [
        BARRIER,
        Case { operation: "barrier join", ..alone },
        Case { operation: "barrier leave", ..alone },
    ]
}

fn monitors() -> [Case; 3] {
    [ONCE, MONITOR, Case { operation: "monitor wait", unblock: move_money, ..MONITOR }]
}

macro_rules! tests {
    ($($killed:ident, $stopped:ident: $cases:ident;)*) => {
        $(
            #[test]
            fn $killed() {
                run(stringify!($killed), How::Kill, &$cases());
            }

            #[test]
            fn $stopped() {
                run(stringify!($stopped), How::Stop, &$cases());
            }
        )*
    };
}

tests! {
    killed_at_a_mutex, stopped_at_a_mutex: mutexes;
    killed_at_a_rw_lock, stopped_at_a_rw_lock: rw_locks;
    killed_at_permits, stopped_at_permits: permits;
    killed_at_a_semaphore, stopped_at_a_semaphore: semaphores;
    killed_at_a_condvar, stopped_at_a_condvar: condvars;
    killed_at_a_barrier, stopped_at_a_barrier: barriers;
    killed_at_a_monitor, stopped_at_a_monitor: monitors;
}
