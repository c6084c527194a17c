//! The victims: processes that do one operation, stepped.

use std::time::Duration;

use switchboard_kernel::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Barrier, Monitor, Mutex, Once, Permits, RwLock, Semaphore, Shared};
use switchboard_testkit::killstep;

use super::check::consistent;
use crate::sync::condvar::Pair;
use crate::sync::monitor::Bank;
use crate::sync::{name_of, opened};

/// Longer than a waiter is left asleep, shorter than a test's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Role: one operation, stepped.
pub(crate) fn victim(arguments: &[String]) {
    let memory = crate::shared_words::opened(&arguments[1]);
    warm_up();
    match arguments[0].split_once(' ').expect("a kind and an operation") {
        ("mutex", operation) => mutex_victim(&memory, operation),
        ("rw_lock", operation) => rw_lock_victim(&memory, operation),
        ("permits", operation) => permits_victim(&memory, operation),
        ("semaphore", operation) => semaphore_victim(&memory, operation),
        ("condvar", operation) => condvar_victim(&memory, operation),
        ("barrier", operation) => barrier_victim(&memory, operation),
        ("once", _) => stepped(|| opened::<Once>(&memory), |once| once.call(|| ())),
        (_, operation) => monitor_victim(&memory, operation),
    }
}

/// The first look at the clock searches for it, in tens of thousands of instructions: not in a victim.
fn warm_up() {
    let semaphore = Semaphore::anonymous(0).expect("a semaphore");
    let nothing = semaphore.wait_until(Deadline::after(Duration::from_millis(1)));
    assert_eq!(name_of(nothing), "ETIMEDOUT");
}

fn patience() -> Deadline {
    Deadline::after(PATIENCE)
}

/// Prepares, then does one operation between the marks.
fn stepped<P, R>(prepare: impl FnOnce() -> P, operation: impl FnOnce(&P) -> Result<R>) {
    let prepared = prepare();
    killstep::begin();
    let result = operation(&prepared);
    killstep::end();
    drop(result.expect("done"));
}

/// Does one operation on something that is held, which ends its life.
fn stepped_end<H>(held: H) {
    killstep::begin();
    drop(held);
    killstep::end();
}

fn mutex_victim(memory: &SharedWords, operation: &str) {
    let mutex: Mutex = opened(memory);
    match operation {
        "lock" => stepped(|| (), |()| mutex.lock()),
        "try" => stepped(|| (), |()| mutex.try_lock()),
        "timed" => stepped(|| (), |()| mutex.lock_until(patience())),
        "lock, contended" | "lock, overtaken" => stepped(|| (), |()| mutex.lock()),
        "timed, contended" => stepped(|| (), |()| mutex.lock_until(patience())),
        "recover" => stepped(|| (), |()| consistent(mutex.lock_until(patience())?).map(drop)),
        _ => stepped_end(mutex.lock().expect("locked")),
    }
}

fn rw_lock_victim(memory: &SharedWords, operation: &str) {
    let lock: RwLock = opened(memory);
    match operation {
        "read" | "read, contended" => stepped(|| (), |()| lock.read_until(patience())),
        "unlock read" => stepped_end(lock.read().expect("locked")),
        "try write" => stepped(|| (), |()| lock.try_write()),
        "recover" => {
            stepped(|| (), |()| consistent(lock.write_until(patience())?).map(drop));
        }
        "write" | "write, contended" => {
            stepped(|| (), |()| consistent(lock.write_until(patience())?))
        }
        _ => stepped_end(lock.write().expect("locked").or_repair(|| ()).expect("marked")),
    }
}

fn permits_victim(memory: &SharedWords, operation: &str) {
    let permits: Permits = opened(memory);
    match operation {
        "try" => stepped(|| (), |()| permits.try_acquire()),
        "acquire" | "acquire, contended" => {
            stepped(|| (), |()| permits.acquire_until(patience()));
        }
        "recover" => stepped(
            || (),
            |()| {
                let both = (permits.acquire()?, permits.acquire()?);
                drop(both);
                Ok(())
            },
        ),
        _ => stepped_end(permits.acquire().expect("a permit")),
    }
}

fn semaphore_victim(memory: &SharedWords, operation: &str) {
    let semaphore: Semaphore = opened(memory);
    match operation {
        "wait" | "wait, contended" => stepped(|| (), |()| semaphore.wait_until(patience())),
        _ => stepped(|| (), |()| semaphore.post()),
    }
}

fn condvar_victim(memory: &SharedWords, operation: &str) {
    let pair = Pair::open(memory.clone());
    match operation {
        "wait" => {
            let guard = pair.locked();
            killstep::begin();
            let waited = pair.changed.wait_until(guard, patience());
            killstep::end();
            drop(waited.expect("waited"));
        }
        "notify one" => stepped(|| (), |()| pair.changed.notify_one()),
        _ => stepped(|| (), |()| pair.changed.notify_all()),
    }
}

fn barrier_victim(memory: &SharedWords, operation: &str) {
    let barrier: Barrier = opened(memory);
    match operation {
        "join" => stepped(|| (), |()| barrier.join()),
        "leave" => stepped_end(barrier.join().expect("joined")),
        _ => stepped(|| barrier.join().expect("joined"), |member| member.wait_until(patience())),
    }
}

fn monitor_victim(memory: &SharedWords, operation: &str) {
    let bank: Monitor<Bank> = opened(memory);
    match operation {
        "transfer" | "recover" => stepped(
            || (),
            |()| {
                bank.with(|bank| {
                    bank.accounts[0] -= 10;
                    bank.accounts[1] += 10;
                    bank.notify_all()
                })
            },
        ),
        _ => stepped(|| (), |()| bank.with(|bank| bank.wait_while(|bank| bank.accounts[1] < 10))),
    }
}
