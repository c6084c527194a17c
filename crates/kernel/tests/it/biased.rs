//! A value that one thread owns and others visit: nobody is in with another, with membarrier, without it,
//! and when it is refused from one moment on.
//!
//! What is refused is refused to the whole process, so each case runs in one of its own.

#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

use switchboard_kernel::biased::{self, Owner, Visitor};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE};

/// Two numbers that are the same whenever somebody comes in.
#[derive(Default)]
struct Twins {
    first: u64,
    second: u64,
    torn: u64,
}

impl Twins {
    /// Not in one step, so that another who is in would be noticed.
    fn add(&mut self) {
        let found = self.first;
        self.torn += u64::from(found != self.second);
        self.first = std::hint::black_box(found) + 1;
        std::hint::black_box(&mut self.first);
        self.second += 1;
    }
}

/// When membarrier is refused to the process.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Never,
    Before,
    /// After the first value was made.
    Later,
}

impl Refused {
    fn of(word: &str) -> Self {
        match word {
            "never" => Self::Never,
            "before" => Self::Before,
            _ => Self::Later,
        }
    }
}

/// From now on, membarrier fails with `EPERM` in all threads that this one starts, and in this one.
fn refuse_membarrier() {
    let step = |code: u32, found: u8, other: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("a code"),
        jt: found,
        jf: other,
        k,
    };
    let call = u32::try_from(libc::SYS_membarrier).expect("a number");
    let errno = u32::try_from(libc::EPERM).expect("a number");
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: it takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is whole and outlives the call.
    let filtered =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(filtered, 0, "{}", std::io::Error::last_os_error());
}

/// Makes a value as the case wants it.
fn made<T: Send>(refused: Refused, value: T) -> (Owner<T>, Visitor<T>) {
    if matches!(refused, Refused::Before) {
        refuse_membarrier();
    }
    let made = biased::new(value);
    assert_eq!(biased::has_membarrier(), !matches!(refused, Refused::Before));
    if matches!(refused, Refused::Later) {
        refuse_membarrier();
    }
    made
}

const VISITORS: u32 = 3;
/// What each visitor, and the owner, does at least.
const VISITS: u64 = 3_000;
const STAYS: u64 = 100_000;

/// An owner that goes in all the time, also from another thread, and visitors that come all the time.
pub(crate) fn storm(arguments: &[String]) {
    let (mut owner, visitor) = made(Refused::of(&arguments[0]), Twins::default());
    let stays = Arc::new(AtomicU64::new(0));
    let visiting: Vec<_> = (0..VISITORS)
        .map(|_| {
            let (visitor, stays) = (visitor.clone(), Arc::clone(&stays));
            spawn(move || {
                let mut visits = 0;
                while visits < VISITS || stays.load(Ordering::Relaxed) < STAYS {
                    assert_eq!(visitor.visit(Twins::add), Some(()));
                    visits += 1;
                }
                visits
            })
        })
        .collect();
    let mut turn = 0_u32;
    while visiting.iter().any(|thread| !thread.is_finished()) {
        let own = move || {
            for _ in 0..10_000 {
                owner.enter().add();
            }
            owner
        };
        owner = if turn.is_multiple_of(2) { spawn(own).join().expect("no panic") } else { own() };
        turn += 1;
        stays.fetch_add(10_000, Ordering::Relaxed);
    }
    let visits: u64 = visiting.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    let expected = stays.load(Ordering::Relaxed) + visits;
    let value = owner.enter();
    let whole = value.first == expected && value.second == expected;
    report(format_args!("{whole} {}", value.torn));
}

#[test]
fn nobody_is_in_with_another() {
    for refused in ["never", "before", "later"] {
        Child::role("biased-storm", &[refused]).expect("true 0");
    }
}

/// An owner that is in for a while, and visitors that come and go rarely: the short way is taken.
pub(crate) fn rarely(arguments: &[String]) {
    let (mut owner, visitor) = made(Refused::of(&arguments[0]), Twins::default());
    let ended = Arc::new(AtomicBool::new(false));
    let visits = Arc::new(AtomicU64::new(0));
    let visiting = {
        let (ended, visits) = (Arc::clone(&ended), Arc::clone(&visits));
        spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                visitor.visit(Twins::add);
                visits.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let since = Instant::now();
    let mut stays = 0;
    // On a machine that is very busy the visitor is given a processor late.
    let few = || visits.load(Ordering::Relaxed) <= 10 && since.elapsed() < DEADLINE / 2;
    while since.elapsed() < Duration::from_millis(500) || few() {
        for _ in 0..1000 {
            owner.enter().add();
        }
        stays += 1000;
    }
    ended.store(true, Ordering::Relaxed);
    visiting.join().expect("no panic");
    let visits = visits.load(Ordering::Relaxed);
    let value = owner.enter();
    let whole = value.first == stays + visits && value.second == value.first;
    report(format_args!("{whole} {} {}", value.torn, visits > 10));
}

#[test]
fn rare_visitors_are_let_in_and_harm_nothing() {
    for refused in ["never", "before", "later"] {
        Child::role("biased-rarely", &[refused]).expect("true 0 true");
    }
}

/// A value that counts how often it was dropped.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_value_goes_with_its_owner() {
    let drops = Arc::new(AtomicU32::new(0));
    let (owner, visitor) = biased::new(Counted(Arc::clone(&drops)));
    let other = visitor.clone();
    assert_eq!(visitor.visit(|_| 1), Some(1));
    drop(visitor);
    drop(owner);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(other.visit(|_| 1), None);
    assert_eq!(other.clone().visit(|_| 1), None);
    drop(other);
    assert_eq!(drops.load(Ordering::SeqCst), 1);

    let (owner, visitor) = biased::new(Counted(Arc::clone(&drops)));
    drop(visitor);
    drop(owner);
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}

/// The owner is dropped while a visitor is in, and while another waits behind it.
#[test]
fn an_owner_that_goes_waits_for_who_is_in() {
    for _ in 0..50 {
        let drops = Arc::new(AtomicU32::new(0));
        let (owner, visitor) = biased::new(Counted(Arc::clone(&drops)));
        let (is_in, came_in) = channel();
        let (go_on, told) = channel();
        scope(|scope| {
            let second = visitor.clone();
            let inside = scope.spawn(move || {
                visitor.visit(|value| {
                    is_in.send(()).expect("sent");
                    told.recv_timeout(DEADLINE).expect("told");
                    value.0.load(Ordering::SeqCst)
                })
            });
            came_in.recv_timeout(DEADLINE).expect("it came in");
            let waiting = scope.spawn(move || second.visit(|value| value.0.load(Ordering::SeqCst)));
            let going = scope.spawn(move || drop(owner));
            go_on.send(()).expect("sent");
            assert_eq!(inside.join().expect("no panic"), Some(0));
            assert!(matches!(waiting.join().expect("no panic"), Some(0) | None));
            going.join().expect("no panic");
        });
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}

/// A visitor waits while the owner is in, however long, and is the next.
#[test]
fn a_visitor_waits_for_the_owner() {
    let (mut owner, visitor) = biased::new(0_u32);
    let entered = AtomicBool::new(false);
    scope(|scope| {
        let mut value = owner.enter();
        let visiting =
            scope.spawn(|| visitor.visit(|value| (*value, entered.load(Ordering::SeqCst))));
        // It is asleep between its looks by then, or has not come yet: both are right.
        std::thread::sleep(Duration::from_millis(20));
        *value = 7;
        entered.store(true, Ordering::SeqCst);
        drop(value);
        assert_eq!(visiting.join().expect("no panic"), Some((7, true)));
    });
}

#[test]
fn panics_let_others_in() {
    let (mut owner, visitor) = biased::new(0_u32);
    let visited = catch_unwind(AssertUnwindSafe(|| {
        visitor.visit(|value| {
            *value = 1;
            panic!("as a visitor");
        })
    }));
    assert!(visited.is_err());
    assert_eq!(*owner.enter(), 1);
    let owned = catch_unwind(AssertUnwindSafe(|| {
        *owner.enter() = 2;
        let _value = owner.enter();
        panic!("as the owner");
    }));
    assert!(owned.is_err());
    assert_eq!(visitor.visit(|value| *value), Some(2));
    assert_eq!(format!("{owner:?} {visitor:?}"), "Owner { .. } Visitor { .. }");
}

/// Who forgets to go out keeps visitors out until it comes and goes again, and may be dropped.
#[test]
fn a_forgotten_stay_ends_with_the_next_or_with_the_owner() {
    let (mut owner, visitor) = biased::new(3_u32);
    std::mem::forget(owner.enter());
    drop(owner.enter());
    assert_eq!(visitor.visit(|value| *value), Some(3));
    std::mem::forget(owner.enter());
    scope(|scope| {
        let visiting = scope.spawn(|| visitor.visit(|value| *value));
        drop(owner);
        assert!(matches!(visiting.join().expect("no panic"), Some(3) | None));
    });
}
