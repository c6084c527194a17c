//! The thread that drives the control path of a process's endpoints: meeting, deaths, what waits on sockets.
//! The data path never touches it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::{Error, background, fork};

use super::park::BACKSTOP;

/// Something to drive.
pub(super) trait Driven: Send + Sync {
    /// Readable when there is something to do.
    fn epoll(&self) -> BorrowedFd<'_>;
    /// Does it.
    fn turn(&self) -> Turn;
    /// Wakes a caller who may not have noticed. Whether to do so again.
    fn wake(&self) -> bool;
    /// Wakes a caller who has slept since the last look. Whether to do so again.
    fn look(&self) -> bool;
    /// It cannot be driven here: from now on its caller drives it.
    fn leave_to_caller(&self);
    /// Whether the endpoint was closed.
    fn is_gone(&self) -> bool;
}

/// How a turn ended.
pub(super) enum Turn {
    Done,
    /// A sleeper has to be woken until it has noticed.
    WakeAgain,
    /// It is gone, or driven by its caller.
    NotMine,
}

struct Thread {
    /// The process that it runs in: a child of `fork` has none.
    generation: u32,
    new: Mutex<Vec<Arc<dyn Driven>>>,
    nudge: EventFd,
}

/// Says that something was closed.
pub(super) fn forget() {
    let thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*thread
        && running.generation == fork::generation()
    {
        let _ = running.nudge.add(1);
    }
}

static THREAD: Mutex<Option<Arc<Thread>>> = Mutex::new(None);

const NUDGE: u64 = 0;
/// How soon a sleeper is woken again: at first, and at most.
const AGAIN: Duration = Duration::from_micros(50);
const AGAIN_AT_MOST: Duration = Duration::from_millis(1);

/// Hands something to the thread, which is started if there is none.
pub(super) fn drive(driven: Arc<dyn Driven>) -> Result<(), Error> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let running = match &*thread {
        Some(running) if running.generation == fork::generation() => Arc::clone(running),
        _ => {
            let started = start()?;
            *thread = Some(Arc::clone(&started));
            started
        }
    };
    running.new.lock().unwrap_or_else(PoisonError::into_inner).push(driven);
    running.nudge.add(1)
}

fn start() -> Result<Arc<Thread>, Error> {
    let thread = Arc::new(Thread {
        generation: fork::generation(),
        new: Mutex::default(),
        nudge: EventFd::new(0)?,
    });
    let epoll = Epoll::new()?;
    epoll.add(&thread.nudge, NUDGE, Interest::Readable)?;
    let of_thread = Arc::clone(&thread);
    background::spawn("switchboard-io", move || {
        let rounds = Loop {
            thread: of_thread,
            epoll,
            driven: Vec::new(),
            free: Vec::new(),
            wake_again: Vec::new(),
        };
        rounds.run();
    })?;
    Ok(thread)
}

struct Loop {
    thread: Arc<Thread>,
    epoll: Epoll,
    /// By token, less one. Each keeps its descriptor open.
    driven: Vec<Option<Arc<dyn Driven>>>,
    free: Vec<usize>,
    /// Who has not noticed yet that it was woken.
    wake_again: Vec<usize>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut again = AGAIN;
        let mut next_look = Deadline::after(BACKSTOP);
        loop {
            let mut until =
                if self.driven.len() > self.free.len() { next_look } else { Deadline::NEVER };
            if !self.wake_again.is_empty() {
                until = until.min(Deadline::after(again));
            }
            if self.epoll.wait(&mut events, until).is_err() {
                // Only memory can be short here.
                std::thread::sleep(AGAIN_AT_MOST);
                continue;
            }
            again = if events.is_empty() { (again * 2).min(AGAIN_AT_MOST) } else { AGAIN };
            let driven = &self.driven;
            self.wake_again.retain(|index| driven[*index].as_ref().is_some_and(|one| one.wake()));
            if next_look.passed() {
                next_look = Deadline::after(BACKSTOP);
                self.look();
            }
            for (token, _) in events.iter() {
                if token == NUDGE {
                    let _ = self.thread.nudge.try_take();
                    self.take_in();
                    continue;
                }
                let index = token as usize - 1;
                let Some(driven) = &self.driven[index] else { continue };
                match driven.turn() {
                    Turn::Done => {}
                    Turn::WakeAgain => self.wake_again.push(index),
                    Turn::NotMine => self.leave(index),
                }
            }
        }
    }

    /// Ends the sleeps that have lasted too long.
    fn look(&mut self) {
        for (index, driven) in self.driven.iter().enumerate() {
            if driven.as_ref().is_some_and(|driven| driven.look()) {
                self.wake_again.push(index);
            }
        }
    }

    /// Takes in what is new, and leaves what was closed.
    fn take_in(&mut self) {
        for index in 0..self.driven.len() {
            if self.driven[index].as_ref().is_some_and(|driven| driven.is_gone()) {
                self.leave(index);
            }
        }
        let new =
            std::mem::take(&mut *self.thread.new.lock().unwrap_or_else(PoisonError::into_inner));
        for driven in new {
            let index = self.free.pop().unwrap_or_else(|| {
                self.driven.push(None);
                self.driven.len() - 1
            });
            let watched = self.epoll.add(driven.epoll(), index as u64 + 1, Interest::Readable);
            if watched.is_ok() {
                self.driven[index] = Some(driven);
            } else {
                driven.leave_to_caller();
                self.free.push(index);
            }
        }
    }

    fn leave(&mut self, index: usize) {
        if let Some(driven) = self.driven[index].take() {
            let _ = self.epoll.delete(driven.epoll());
            self.free.push(index);
        }
    }
}
