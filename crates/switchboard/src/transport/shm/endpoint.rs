//! An endpoint: its core, who may touch it, and how its caller waits.
//!
//! The caller's thread owns the core; the process's I/O thread visits it when something waits on the control
//! path. An endpoint whose descriptor was taken, or that was opened so, is driven by its caller alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use switchboard_kernel::biased::{self, Entered, Owner, Visitor};
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::{Error, fork};
use switchboard_shm::bell::Sleeps;

use super::io_thread;
use super::park::{BACKSTOP, Parking, Place, Spin};

/// What an endpoint does; both threads call this, one at a time.
pub(crate) trait Core: Send + 'static {
    /// Whether the caller would find something now. Looks at memory only.
    fn is_ready(&mut self) -> bool;

    /// Says to the peers how the caller is about to sleep, and looks once more: where it sleeps, and the value
    /// for which it does, or nothing if it need not.
    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)>;

    /// The caller sleeps no more. `late`: nobody woke it.
    fn disarm(&mut self, late: bool);

    /// Deals with what waits on the control path, without waiting. Whether the caller should look again.
    fn control(&mut self) -> bool;

    /// Makes the descriptor readable: the I/O thread took what the caller's event loop was to see.
    fn nudge(&mut self);
}

/// `EOWNERDEAD` would be another's death: `ESTALE`, a handle that means nothing here.
const NOT_OF_A_CHILD: i32 = 116;

/// What both threads may use at any time.
#[derive(Debug)]
pub(super) struct Shared {
    parking: Parking,
    by_caller: AtomicBool,
    closed: AtomicBool,
    /// All of the control path in one descriptor.
    epoll: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Endpoint<C> {
    /// Not dropped in a child of `fork`: a visitor may have been in, who is not there.
    owner: Option<Owner<C>>,
    visitor: Visitor<C>,
    shared: Arc<Shared>,
    spin: Spin,
    generation: u32,
    /// The news of the control path that the caller has had time to look at.
    seen: u32,
    /// When the control path was looked at last, where the caller drives it.
    looked_ns: u64,
}

const GONE: &str = "the core goes with the endpoint";

/// Between two looks at the control path while messages flow, where the caller drives it.
const LOOK_EVERY_NS: u64 = 1_000_000;

impl<C: Core> Endpoint<C> {
    /// `epoll` is a copy of the descriptor that `core` watches its control path by.
    pub(super) fn new(core: C, epoll: OwnedFd, io_thread: bool) -> Result<Self, Error> {
        let (owner, visitor) = biased::new(core);
        let by_caller = AtomicBool::new(!io_thread);
        let shared = Arc::new(Shared {
            parking: Parking::default(),
            by_caller,
            closed: AtomicBool::new(false),
            epoll,
        });
        if io_thread {
            let visitor = visitor.clone();
            io_thread::drive(Arc::new(Seat { visitor, shared: Arc::clone(&shared) }))?;
        }
        let generation = fork::watch()?;
        Ok(Self {
            owner: Some(owner),
            visitor,
            shared,
            spin: Spin::new(),
            generation,
            seen: 0,
            looked_ns: 0,
        })
    }

    /// The core, for a call of the caller's. An error in a child of `fork`, which has none of the memory.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<Entered<'_, C>, Error> {
        if fork::generation() != self.generation {
            return Err(forked());
        }
        Ok(self.owner().enter())
    }

    #[inline]
    fn owner(&mut self) -> &mut Owner<C> {
        let Some(owner) = &mut self.owner else { unreachable!("{GONE}") };
        owner
    }

    /// How often the control path has brought something.
    #[inline]
    pub(super) fn news(&self) -> u32 {
        self.shared.parking.news()
    }

    /// The same, where the I/O thread drives it and this is the process that opened it: then nothing has changed
    /// while that has not.
    #[inline]
    pub(super) fn quiet_news(&self) -> Option<u32> {
        self.is_quiet().then(|| self.news())
    }

    /// Whether the I/O thread drives it, and this is the process that opened it.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        !self.shared.by_caller.load(Ordering::Relaxed) && self.is_here()
    }

    /// Whether this is the process that opened it.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        fork::generation() == self.generation
    }

    /// Asks the core something, by a reference that is shared. Costs a system call.
    pub(super) fn ask<R>(&self, question: impl FnOnce(&mut C) -> R) -> Option<R> {
        if self.is_here() { self.visitor.visit(question) } else { None }
    }

    /// Where the caller drives the control path: looks at it, at most once in a millisecond.
    #[inline]
    pub(super) fn look_now_and_then(&mut self) {
        if self.shared.by_caller.load(Ordering::Relaxed) {
            self.look_if_due();
        }
    }

    fn look_if_due(&mut self) {
        let now_ns = io::coarse_time_ns();
        if now_ns.wrapping_sub(self.looked_ns) >= LOOK_EVERY_NS {
            self.looked_ns = now_ns;
            self.owner().enter().control();
        }
    }

    /// Looks at the control path, where the caller drives it. Whether there was something.
    pub(super) fn look(&mut self) -> bool {
        self.is_by_caller() && self.enter().is_ok_and(|mut core| core.control())
    }

    /// In a caller's event loop: nothing was found, so peers are to wake the descriptor. Whether there
    /// is something after all.
    pub(super) fn arm_descriptor(&mut self) -> bool {
        if !self.shared.by_caller.load(Ordering::Relaxed) {
            return false;
        }
        let mut core = self.owner().enter();
        core.control();
        core.arm(Sleeps::OnDescriptor).is_none()
    }

    /// Whether the caller drives it.
    #[inline]
    pub(super) fn is_by_caller(&self) -> bool {
        self.shared.by_caller.load(Ordering::Relaxed)
    }

    /// The caller, who drives it, is about to sleep on its descriptor: whether there is nothing to be looked at first.
    pub(super) fn fall_asleep(&mut self) -> Result<bool, Error> {
        let mut core = self.enter()?;
        Ok(!core.control() && core.arm(Sleeps::OnDescriptor).is_some())
    }

    /// The caller sleeps no more. `late`: nobody woke it.
    pub(super) fn wake_up(&mut self, late: bool) {
        if let Ok(mut core) = self.enter() {
            let late = late && core.is_ready();
            core.disarm(late);
            core.control();
        }
    }

    /// Waits until something may have changed.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        if !self.is_here() {
            return Err(forked());
        }
        let news = self.shared.parking.news();
        if news != self.seen {
            self.seen = news;
            return Ok(());
        }
        let Some(owner) = &mut self.owner else { unreachable!("{GONE}") };
        if self.spin.poll(|| owner.enter().is_ready()) {
            return Ok(());
        }
        if self.shared.by_caller.load(Ordering::Relaxed) {
            self.wait_by_descriptor(deadline)
        } else {
            self.wait_by_word(deadline)
        }
    }

    fn wait_by_word(&mut self, deadline: Deadline) -> Result<(), Error> {
        let seen = self.seen;
        let Some((place, expected)) = self.owner().enter().arm(Sleeps::OnFutex) else {
            self.owner().enter().disarm(false);
            return Ok(());
        };
        let late = self.shared.parking.sleep(&place, expected, seen, deadline);
        let mut core = self.owner().enter();
        let found = *late.as_ref().unwrap_or(&false) && core.is_ready();
        core.disarm(found);
        late.map(drop)
    }

    fn wait_by_descriptor(&mut self, deadline: Deadline) -> Result<(), Error> {
        let mut late = false;
        if self.fall_asleep()? {
            let until = deadline.min(Deadline::after(BACKSTOP));
            late =
                !io::wait_for(&self.shared.epoll, Interest::Readable, until)? && !deadline.passed();
        }
        self.wake_up(late);
        Ok(())
    }

    /// The descriptor for a caller's event loop. From now on the caller drives this endpoint.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.by_caller.store(true, Ordering::SeqCst);
        self.shared.epoll.as_fd()
    }
}

impl<C> Drop for Endpoint<C> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let owner = self.owner.take();
        if fork::generation() == self.generation {
            // Its name and its links go before the thread is told.
            drop(owner);
            io_thread::forget();
        } else {
            std::mem::forget(owner);
        }
    }
}

fn forked() -> Error {
    Error::from_raw("fork", NOT_OF_A_CHILD)
}

/// An endpoint as the I/O thread has it.
struct Seat<C> {
    visitor: Visitor<C>,
    shared: Arc<Shared>,
}

impl<C: Core> io_thread::Driven for Seat<C> {
    fn epoll(&self) -> BorrowedFd<'_> {
        self.shared.epoll.as_fd()
    }

    fn turn(&self) -> io_thread::Turn {
        if self.shared.by_caller.load(Ordering::SeqCst) {
            return io_thread::Turn::NotMine;
        }
        // Whoever takes messages by itself asks the core for the next one.
        self.shared.parking.stir();
        let Some(news) = self.visitor.visit(Core::control) else {
            return io_thread::Turn::NotMine;
        };
        if self.shared.by_caller.load(Ordering::SeqCst) {
            // Its event loop may have been about to see what was taken just now.
            self.visitor.visit(Core::nudge);
            return io_thread::Turn::NotMine;
        }
        if news && self.shared.parking.notify() {
            io_thread::Turn::WakeAgain
        } else {
            io_thread::Turn::Done
        }
    }

    fn wake(&self) -> bool {
        self.shared.parking.wake()
    }

    fn look(&self) -> bool {
        self.shared.parking.look()
    }

    fn leave_to_caller(&self) {
        self.shared.by_caller.store(true, Ordering::SeqCst);
        let _ = self.shared.parking.notify();
    }

    fn is_gone(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }
}
