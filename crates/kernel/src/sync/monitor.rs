//! The monitor: data, the mutex that protects it, and the condition that tells of its changes.
//!
//! Source: Hoare, "Monitors: an operating system structuring concept", CACM 17 (1974); Lampson and Redell,
//! "Experience with processes and monitors in Mesa", CACM 23 (1980), whose conditions these are.
//!
//! The data is there twice. Changes are made on a copy of the process's own, written over the old one of the
//! two, and become true by one store of which one counts. `docs/design/sync.md` has the deaths.

use std::any::type_name;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::condvar::Condvar;
use super::locked::Locked;
use super::mutex::{Mutex, MutexGuard};
use super::object::{HEADER_BYTES, Kind, NameOfObject, Placed, Shape, Shared, refused};
use super::order::LockOrder;
use crate::error::Result;
use crate::io::Deadline;
use crate::pthread::MutexOptions;
use crate::shared_words::{SharedWords, Slot};

/// Data that processes share, one at a time.
///
/// `T` is plain: every pattern of bytes is a value of it (zerocopy's traits say so), so that nothing another
/// process writes can make it something that it is not. All processes are built with the same `T`; one of
/// another size, alignment or name is refused.
///
/// *Death.* A change is made whole or not at all: if a thread dies in [`Monitor::with`], or panics there,
/// the data is as it was before, and nobody needs to repair anything. Who waits is woken.
///
/// ```
/// use switchboard_kernel::sync::{Monitor, Shared};
/// use zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(FromBytes, IntoBytes, Immutable)]
/// #[repr(C)]
/// struct Account {
///     cents: i64,
/// }
///
/// let account = Monitor::anonymous(Account { cents: 100 })?;
/// account.with(|account| account.cents -= 30)?;
/// account.with(|account| {
///     // Lets go of the account while it waits.
///     account.wait_while(|account| account.cents < 50)?;
///     account.cents -= 50;
///     account.notify_all()
/// })??;
/// assert_eq!(account.with(|account| account.cents)?, 20);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// `T` is copied in and out at each use, and is on the stack meanwhile: it is for data of up to some
/// kilobytes.
#[derive(Debug)]
pub struct Monitor<T> {
    mutex: Mutex,
    changed: Condvar,
    placed: Placed,
    of: PhantomData<fn() -> T>,
}

/// Own word: which of the two copies counts.
const CURRENT: usize = 0;

const MUTEX_OFFSET: usize = HEADER_BYTES;
const CONDVAR_OFFSET: usize = MUTEX_OFFSET + Mutex::BYTES;
const DATA_OFFSET: usize = CONDVAR_OFFSET + Condvar::BYTES;

impl<T: FromBytes + IntoBytes + Immutable> Monitor<T> {
    const COPY_BYTES: usize = size_of::<T>().next_multiple_of(64);
    const BYTES: usize = DATA_OFFSET + 2 * Self::COPY_BYTES;

    /// Gives the monitor a rank: see [`LockOrder`]. Of this handle; each process says so for itself.
    #[must_use]
    pub fn ordered(mut self, order: LockOrder) -> Self {
        self.mutex = self.mutex.ordered(order);
        self
    }

    /// Does something with the data while nobody else does. Blocks until it can.
    ///
    /// Changes are made when `change` returns; see [`Entry`] for what else it may do. When it panics,
    /// nothing has changed.
    ///
    /// # Errors
    /// `EDEADLK` when this thread is in the monitor already, or for a violation of the [`LockOrder`];
    /// `EINVAL` when other bytes are there by now.
    #[track_caller]
    pub fn with<R>(&self, change: impl FnOnce(&mut Entry<'_, T>) -> R) -> Result<R> {
        let mut entry = self.entered(self.mutex.lock()?)?;
        let result = change(&mut entry);
        entry.commit();
        Ok(result)
    }

    /// As [`Monitor::with`], but waits to come in until a deadline only.
    ///
    /// # Errors
    /// `ETIMEDOUT`; else as [`Monitor::with`].
    #[track_caller]
    pub fn with_until<R>(
        &self,
        deadline: Deadline,
        change: impl FnOnce(&mut Entry<'_, T>) -> R,
    ) -> Result<R> {
        let mut entry = self.entered(self.mutex.lock_until(deadline)?)?;
        let result = change(&mut entry);
        entry.commit();
        Ok(result)
    }

    /// As [`Monitor::with`], but never blocks to come in.
    ///
    /// # Errors
    /// `EBUSY` when another thread is in; else as [`Monitor::with`].
    #[track_caller]
    pub fn try_with<R>(&self, change: impl FnOnce(&mut Entry<'_, T>) -> R) -> Result<R> {
        let mut entry = self.entered(self.mutex.try_lock()?)?;
        let result = change(&mut entry);
        entry.commit();
        Ok(result)
    }

    fn entered<'a>(&'a self, locked: Locked<MutexGuard<'a>>) -> Result<Entry<'a, T>> {
        let guard = self.consistent(locked)?;
        Ok(Entry { value: self.read(), changed: false, guard: Some(guard), monitor: self })
    }

    /// The data is whole, whoever died. But who died may have had to tell the others.
    fn consistent<'a>(&self, locked: Locked<MutexGuard<'a>>) -> Result<MutexGuard<'a>> {
        match locked {
            Locked::Consistent(guard) => Ok(guard),
            Locked::OwnerDied(orphaned) => {
                let guard = orphaned.mark_consistent()?;
                self.changed.notify_all()?;
                Ok(guard)
            }
        }
    }

    fn words_of(&self, copy: u32) -> &[AtomicU32] {
        let offset = DATA_OFFSET + if copy == 0 { 0 } else { Self::COPY_BYTES };
        &self.placed.words_from(offset)[..Self::COPY_BYTES / 4]
    }

    fn read(&self) -> T {
        let mut value = T::new_zeroed();
        let words = self.words_of(self.placed.word(CURRENT).load(Ordering::Acquire));
        for (bytes, word) in value.as_mut_bytes().chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..bytes.len()]);
        }
        value
    }

    fn write(&self, value: &T) {
        let current = self.placed.word(CURRENT);
        let other = u32::from(current.load(Ordering::Relaxed) == 0);
        write_to(self.words_of(other), value);
        // Release: if this is seen, all of the copy is.
        current.store(other, Ordering::Release);
    }
}

fn write_to<T: IntoBytes + Immutable>(words: &[AtomicU32], value: &T) {
    for (bytes, word) in value.as_bytes().chunks(4).zip(words) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        word.store(u32::from_ne_bytes(whole), Ordering::Relaxed);
    }
}

/// The inside of a monitor: the data, as this thread sees and changes it.
#[derive(Debug)]
pub struct Entry<'a, T: FromBytes + IntoBytes + Immutable> {
    value: T,
    changed: bool,
    /// None after a wait that failed.
    guard: Option<MutexGuard<'a>>,
    monitor: &'a Monitor<T>,
}

impl<T: FromBytes + IntoBytes + Immutable> Entry<'_, T> {
    /// Makes the changes so far, then waits for as long as `condition` says so, with the monitor open to
    /// others meanwhile. Looks first, and after each notification.
    ///
    /// # Errors
    /// `EINVAL` when other bytes are there by now. Then the monitor is not this thread's any more, and what
    /// is changed after that is forgotten.
    pub fn wait_while(&mut self, condition: impl FnMut(&T) -> bool) -> Result<()> {
        self.wait_while_until(Deadline::NEVER, condition).map(drop)
    }

    /// As [`Entry::wait_while`], until a deadline; says whether the condition came to an end before.
    ///
    /// # Errors
    /// As [`Entry::wait_while`].
    pub fn wait_while_until(
        &mut self,
        deadline: Deadline,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<bool> {
        while condition(&self.value) {
            if deadline.passed() {
                return Ok(false);
            }
            self.commit();
            let guard = self.guard.take().ok_or(refused(Errno::NOLCK))?;
            let (locked, _) = self.monitor.changed.wait_until(guard, deadline)?;
            self.guard = Some(self.monitor.consistent(locked)?);
            self.value = self.monitor.read();
        }
        Ok(true)
    }

    /// Makes the changes so far, and wakes one who waits for a condition.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn notify_one(&mut self) -> Result<()> {
        self.commit();
        self.monitor.changed.notify_one()
    }

    /// Makes the changes so far, and wakes all who wait for a condition.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn notify_all(&mut self) -> Result<()> {
        self.commit();
        self.monitor.changed.notify_all()
    }

    fn commit(&mut self) {
        // In a child that was made by `fork(2)` inside, the parent is in the monitor.
        if self.changed && self.guard.as_ref().is_some_and(MutexGuard::is_of_this_thread) {
            self.monitor.write(&self.value);
        }
        self.changed = false;
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Deref for Entry<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: FromBytes + IntoBytes + Immutable> DerefMut for Entry<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Shared for Monitor<T> {
    /// What it begins with.
    type Options = T;

    fn bytes(_: &T) -> usize {
        Self::BYTES
    }

    fn create_in(slot: Slot, value: T) -> Result<Self> {
        let bytes = Self::BYTES;
        let fingerprint = fingerprint::<T>();
        let shape = Shape { kind: Kind::Monitor, number: 0, bytes, fingerprint };
        let (placed, (mutex, changed)) = Placed::create(slot, shape, |placed| {
            placed.word(CURRENT).store(0, Ordering::Relaxed);
            write_to(placed.words_from(DATA_OFFSET), &value);
            let mutex = placed.part(MUTEX_OFFSET, Mutex::BYTES)?;
            let changed = placed.part(CONDVAR_OFFSET, Condvar::BYTES)?;
            Ok((Mutex::create_in(mutex, MutexOptions::new())?, Condvar::create_in(changed, ())?))
        })?;
        Ok(Self { mutex, changed, placed, of: PhantomData })
    }

    fn open_in(slot: Slot) -> Result<Self> {
        let placed = Placed::open(slot, Kind::Monitor, fingerprint::<T>())?;
        if placed.words_from(0).len() * 4 < Self::BYTES {
            return Err(refused(Errno::INVAL));
        }
        let mutex = Mutex::open_in(placed.part(MUTEX_OFFSET, Mutex::BYTES)?)?;
        let changed = Condvar::open_in(placed.part(CONDVAR_OFFSET, Condvar::BYTES)?)?;
        Ok(Self { mutex, changed, placed, of: PhantomData })
    }

    fn was_made_with(&self, _: &T) -> bool {
        true
    }

    fn memory(&self) -> &SharedWords {
        self.placed.memory()
    }

    fn keep_name(&mut self, NameOfObject(name): NameOfObject) {
        self.placed.keep(name);
    }
}

/// FNV-1a of the size, the alignment, and the name of a type without its path.
fn fingerprint<T>() -> u64 {
    let name = type_name::<T>();
    let path_end = name.split('<').next().and_then(|path| path.rfind("::")).map_or(0, |at| at + 2);
    let sizes = [size_of::<T>() as u64, align_of::<T>() as u64];
    let bytes = sizes.iter().flat_map(|size| size.to_le_bytes()).chain(name[path_end..].bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
