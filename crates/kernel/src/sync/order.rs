//! Locking in an order that cannot hang: named ranks, checked before anything waits.
//!
//! Source: Havender, "Avoiding deadlock in multitasking systems", IBM Systems Journal 7 (1968): whoever takes
//! resources only in one common order never waits in a circle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// The place of a lock in the order in which locks are taken: a thread takes only locks whose rank is
/// higher than those of all it holds.
///
/// Checked in each process by itself, in builds with debug assertions, and elsewhere where
/// [`LockOrder::check`] or the environment variable `SWITCHBOARD_LOCK_ORDER=1` asks for it. A violation is
/// the error `EDEADLK`, whose text says which lock was to be taken where, and which is held since
/// where. It comes before anything waits, each time, whether or not it would have hung this time.
///
/// ```
/// use switchboard_kernel::sync::{LockOrder, Locked, Mutex, MutexOptions, Shared};
///
/// const ACCOUNTS: LockOrder = LockOrder::new("accounts", 1);
/// const JOURNAL: LockOrder = LockOrder::new("journal", 2);
/// LockOrder::check(true);
///
/// let accounts = Mutex::anonymous(MutexOptions::new())?.ordered(ACCOUNTS);
/// let journal = Mutex::anonymous(MutexOptions::new())?.ordered(JOURNAL);
/// let held = journal.lock()?;
/// let error = accounts.lock().unwrap_err();
/// assert!(error.to_string().contains("accounts") && error.to_string().contains("journal"));
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockOrder {
    name: &'static str,
    rank: u32,
}

/// As asked for: not yet, no, yes.
static CHECKED: AtomicU8 = AtomicU8::new(UNASKED);

const UNASKED: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

impl LockOrder {
    /// A rank and what to call it.
    #[must_use]
    pub const fn new(name: &'static str, rank: u32) -> Self {
        Self { name, rank }
    }

    /// Whether this process checks, from now on.
    pub fn check(on: bool) {
        CHECKED.store(if on { ON } else { OFF }, Ordering::Relaxed);
    }

    fn is_checked() -> bool {
        match CHECKED.load(Ordering::Relaxed) {
            UNASKED => {
                let asked = std::env::var_os("SWITCHBOARD_LOCK_ORDER");
                let on = asked.map_or(cfg!(debug_assertions), |value| value == "1");
                Self::check(on);
                on
            }
            found => found == ON,
        }
    }
}

/// What a thread holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Which lock, by the address of its handle.
    lock: usize,
    order: Option<LockOrder>,
    since: &'static Location<'static>,
}

thread_local! {
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// A note that this thread holds a lock, or that nobody notes it. Taken back on drop.
#[derive(Debug)]
pub(super) struct Note {
    lock: Option<NonZeroUsize>,
}

impl Note {
    /// Checks that this thread may take the lock, and notes that it does: where an order was given,
    /// and where `always` says so.
    #[inline(always)]
    pub(super) fn take(
        lock: usize,
        order: Option<LockOrder>,
        always: bool,
        place: &'static Location<'static>,
    ) -> Result<Self> {
        if order.is_none() && !always {
            return Ok(Self { lock: None });
        }
        Self::take_checked(lock, order, always, place)
    }

    fn take_checked(
        lock: usize,
        order: Option<LockOrder>,
        always: bool,
        place: &'static Location<'static>,
    ) -> Result<Self> {
        let checked = order.is_some() && LockOrder::is_checked();
        if !checked && !always {
            return Ok(Self { lock: None });
        }
        note(Held { lock, order: order.filter(|_| checked), since: place })?;
        Ok(Self { lock: NonZeroUsize::new(lock) })
    }
}

impl Note {
    /// Checks that the lock may be let go of and taken again, with all that this thread holds: its rank is
    /// the highest.
    pub(super) fn check_again(&self) -> Result<()> {
        let Some(lock) = self.lock else { return Ok(()) };
        let checked = HELD.try_with(|held| {
            let held = held.borrow();
            let Some(own) = held.iter().find(|one| one.lock == lock.get()) else { return Ok(()) };
            let rank = |one: &Held| one.order.map(|order| order.rank);
            let later = held.iter().find(|one| {
                one.lock != own.lock
                    && matches!((rank(one), rank(own)), (Some(has), Some(wants)) if has >= wants)
            });
            later.map_or(Ok(()), |conflict| Err(violation(own, conflict)))
        });
        checked.unwrap_or(Ok(()))
    }
}

impl Drop for Note {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            take_back(lock);
        }
    }
}

fn take_back(lock: NonZeroUsize) {
    // A thread that ends may have lost its list before it lets go.
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if held.pop_if(|one| one.lock == lock.get()).is_some() {
            return;
        }
        if let Some(index) = held.iter().rposition(|one| one.lock == lock.get()) {
            held.remove(index);
        }
    });
}

#[inline]
fn note(wanted: Held) -> Result<()> {
    let noted = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if !held.is_empty() {
            check(&held, &wanted)?;
        }
        held.push(wanted);
        Ok(())
    });
    noted.unwrap_or(Ok(()))
}

fn check(held: &[Held], wanted: &Held) -> Result<()> {
    let again = held.iter().find(|one| one.lock == wanted.lock);
    let rank = |one: &Held| one.order.map(|order| order.rank);
    let higher = held
        .iter()
        .find(|one| matches!((rank(one), rank(wanted)), (Some(has), Some(wants)) if has >= wants));
    match again.or(higher) {
        Some(conflict) => Err(violation(wanted, conflict)),
        None => Ok(()),
    }
}

/// Errors are small and carry the name of a call. So the text of a violation is kept for good: once for
/// each pair of places, of which a program has only so many.
fn violation(wanted: &Held, conflict: &Held) -> Error {
    type Pair = [(&'static str, u32, u32); 2];
    static TEXTS: Mutex<BTreeMap<Pair, &'static str>> = Mutex::new(BTreeMap::new());
    let place = |held: &Held| (held.since.file(), held.since.line(), held.since.column());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let text = texts.entry([place(wanted), place(conflict)]).or_insert_with(|| {
        let mut text = String::from("lock order: ");
        describe(&mut text, wanted);
        text.push_str(" is taken while ");
        describe_held(&mut text, wanted, conflict);
        Box::leak(text.into_boxed_str())
    });
    Error::new(text, Errno::DEADLK)
}

fn describe(text: &mut String, held: &Held) {
    let _ = match held.order {
        Some(LockOrder { name, rank }) => {
            write!(text, "{name:?} (rank {rank}) at {}", held.since)
        }
        None => write!(text, "a lock at {}", held.since),
    };
}

fn describe_held(text: &mut String, wanted: &Held, conflict: &Held) {
    if wanted.lock == conflict.lock {
        let _ = write!(text, "this thread holds it, since {}", conflict.since);
    } else if let Some(LockOrder { name, rank }) = conflict.order {
        let _ = write!(text, "{name:?} (rank {rank}) is held, since {}", conflict.since);
    }
}
