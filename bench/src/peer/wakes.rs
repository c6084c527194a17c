//! Mechanisms by which processes wake each other, each through its wrapper. They carry no bytes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::futex::WaitedAny;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::posix_sem::Semaphore;
use switchboard_kernel::pthread::{Condition, Guard, Mutex};
use switchboard_kernel::shared_words::{OBJECT_BYTES, SharedWords, Slot};
use switchboard_kernel::signal::{self, Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;
use switchboard_kernel::sysv_sem::{Operation, SemaphoreSet};
use switchboard_kernel::timerfd::TimerFd;
use switchboard_kernel::{Result, futex, io, process};

use crate::Failure;
use crate::objects::name_of;

use super::{BYTES, Channel, IN, Job, Known, MUTEX, OUT, WORDS, repeat, run as run_channel};

pub(super) fn run(job: &Job, name: &str, (out_id, in_id): (i32, i32)) -> Known {
    let memory = || SharedWords::from_fd(process::inherited_descriptor(OUT)?);
    match name {
        "posix-sem" => {
            let memory = memory()?;
            let open = |at| Semaphore::open_in(memory.slot(at, OBJECT_BYTES)?);
            let (out, from) = both_ways(out_id, in_id, open)?;
            run_channel(job, PosixSem { out: &out, from: from.as_ref().unwrap_or(&out) })
        }
        "posix-sem-named" => {
            let (out, from) =
                (Semaphore::open(&name_of(out_id))?, Semaphore::open(&name_of(in_id))?);
            run_channel(job, PosixSem { out: &out, from: &from })
        }
        "sysv-sem" => {
            let (out, from) = (SemaphoreSet::from_id(out_id), SemaphoreSet::from_id(in_id));
            run_channel(job, SysvSem { out, from })
        }
        "sysv-sem-undo" => {
            let set = SemaphoreSet::from_id(out_id);
            let (add, take) = ([Operation::add_one(0).undo()], [Operation::take_one(0).undo()]);
            repeat(job, || set.operate(&add).and_then(|()| set.operate(&take)))
        }
        "sysv-sem-several" => {
            let set = SemaphoreSet::from_id(out_id);
            let add = [Operation::add_one(0), Operation::add_one(1)];
            let take = [Operation::take_one(0), Operation::take_one(1)];
            repeat(job, || set.operate(&add).and_then(|()| set.operate(&take)))
        }
        "futex" => {
            let memory = memory()?;
            let open = |at| memory.slot(at, OBJECT_BYTES);
            let (out, from) = both_ways(out_id, in_id, open)?;
            run_channel(job, Futex { out: &out, from: from.as_ref().unwrap_or(&out) })
        }
        "futex-waitv" => {
            let memory = memory()?;
            let open = |at| memory.slot(at, OBJECT_BYTES);
            let (out, from) = both_ways(out_id, in_id, open)?;
            let quiet = memory.slot(MUTEX, OBJECT_BYTES)?;
            let from = from.as_ref().unwrap_or(&out);
            run_channel(job, FutexOfTwo { out: &out, from, quiet: &quiet })
        }
        "pthread" => {
            let memory = memory()?;
            let open = |at| -> Result<Turn> {
                let changed = Condition::open(memory.slot(at, OBJECT_BYTES)?)?;
                Ok(Turn { changed, come: memory.slot(WORDS + at, 8)? })
            };
            let mutex = Mutex::open(memory.slot(MUTEX, OBJECT_BYTES)?)?;
            let (out, from) = both_ways(out_id, in_id, open)?;
            let from = from.as_ref().unwrap_or(&out);
            let ways = [&out, from].map(|turn| (&turn.changed, &turn.come.words()[0]));
            run_channel(job, Pthread { mutex: &mutex, out: ways[0], from: ways[1] })
        }
        "signal" => {
            let (peer, set) = meet_blocking()?;
            run_channel(job, Signals { peer, signal: queued(), set })
        }
        "signalfd" => {
            let (peer, set) = meet_blocking()?;
            let signals = SignalFd::new(&set)?;
            run_channel(job, SignalDescriptor { peer, signal: queued(), signals })
        }
        "timerfd" => {
            let timer = TimerFd::new()?;
            repeat(job, || {
                timer.arm(Duration::ZERO, None)?;
                io::wait_for(&timer, Interest::Readable, Deadline::NEVER)?;
                timer.clear().map(|expired| assert_eq!(expired, 1))
            })
        }
        "timerfd-idle" => {
            let timer = TimerFd::new()?;
            repeat(job, || {
                timer.arm(Duration::from_secs(3600), None)?;
                timer.clear().map(|expired| assert_eq!(expired, 0))
            })
        }
        "epoll" => {
            let (event, epoll, mut events) =
                (EventFd::new(0)?, Epoll::new()?, Events::with_capacity(8));
            epoll.add(&event, 7, Interest::Readable)?;
            repeat(job, || {
                event.add(1)?;
                epoll.wait(&mut events, Deadline::NEVER)?;
                assert!(events.iter().all(|(token, ready)| token == 7 && ready.readable));
                event.take().map(|count| assert_eq!(count, 1))
            })
        }
        "epoll-add" => {
            let (event, epoll) = (EventFd::new(0)?, Epoll::new()?);
            repeat(job, || {
                epoll.add(&event, 7, Interest::Readable)?;
                epoll.delete(&event)
            })
        }
        _ => Ok(false),
    }
}

/// The objects of the way out and the way in: one for both, if they are at the same place.
fn both_ways<T>(
    out_id: i32,
    in_id: i32,
    open: impl Fn(usize) -> Result<T>,
) -> std::result::Result<(T, Option<T>), Failure> {
    let out = open(out_id.try_into()?)?;
    let from = if in_id == out_id { None } else { Some(open(in_id.try_into()?)?) };
    Ok((out, from))
}

struct PosixSem<'a> {
    out: &'a Semaphore,
    from: &'a Semaphore,
}

impl Channel for PosixSem<'_> {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.post()
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.wait()
    }
}

struct SysvSem {
    out: SemaphoreSet,
    from: SemaphoreSet,
}

impl Channel for SysvSem {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.operate(&[Operation::add_one(0)])
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.operate(&[Operation::take_one(0)])
    }
}

/// The word is 1 when it is the other side's turn. Who waits asks the kernel first, not the word, so
/// that both languages make as many calls.
struct Futex<'a> {
    out: &'a Slot,
    from: &'a Slot,
}

impl Channel for Futex<'_> {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        let word = &self.out.words()[0];
        // Partner: the swap in `take`.
        word.store(1, Ordering::Release);
        futex::wake(word, 1).map(drop)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let word = &self.from.words()[0];
        loop {
            futex::wait(word, 0, Deadline::NEVER)?;
            // Partner: the store in `put`.
            if word.swap(0, Ordering::Acquire) == 1 {
                return Ok(());
            }
        }
    }
}

/// As `Futex`, by a wait for two words, of which the second never changes.
struct FutexOfTwo<'a> {
    out: &'a Slot,
    from: &'a Slot,
    quiet: &'a Slot,
}

impl Channel for FutexOfTwo<'_> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
        Futex { out: self.out, from: self.from }.put(message)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let (word, quiet) = (&self.from.words()[0], &self.quiet.words()[0]);
        loop {
            let waited = futex::wait_any(&[(word, 0), (quiet, 0)], Deadline::NEVER)?;
            assert_ne!(waited, WaitedAny::Woken(1));
            // Partner: the store in `put`.
            if word.swap(0, Ordering::Acquire) == 1 {
                return Ok(());
            }
        }
    }
}

/// The words are found once, as in C.
struct Pthread<'a> {
    mutex: &'a Mutex,
    out: (&'a Condition, &'a AtomicU32),
    from: (&'a Condition, &'a AtomicU32),
}

struct Turn {
    changed: Condition,
    come: Slot,
}

impl Pthread<'_> {
    #[inline(always)]
    fn locked(&self) -> Result<Guard<'_>> {
        self.mutex.lock()?.or_repair(|| ())
    }
}

impl Channel for Pthread<'_> {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        let guard = self.locked()?;
        // Relaxed: the mutex orders it.
        self.out.1.store(1, Ordering::Relaxed);
        self.out.0.signal()?;
        drop(guard);
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let mut guard = self.locked()?;
        let (changed, come) = self.from;
        while come.load(Ordering::Relaxed) == 0 {
            guard = changed.wait(guard)?.or_repair(|| ())?;
        }
        come.store(0, Ordering::Relaxed);
        drop(guard);
        Ok(())
    }
}

/// Blocks the signal, and tells the other side who to send it to. Alone, that is this process.
fn meet_blocking() -> Result<(u32, SignalSet)> {
    let set = SignalSet::from(queued());
    signal::block(&set)?.keep();
    Ok((meet()?, set))
}

/// Tells the other side the number of this process, and waits for that of the other.
pub(super) fn meet() -> Result<u32> {
    io::write_all(process::inherited_descriptor(OUT)?, &std::process::id().to_ne_bytes())?;
    let mut peer = [0; 4];
    io::read_full(process::inherited_descriptor(IN)?, &mut peer)?;
    Ok(u32::from_ne_bytes(peer))
}

/// `SIGRTMIN`, which is never merged.
fn queued() -> Signal {
    Signal::real_time(0).expect("there is a first one")
}

struct Signals {
    peer: u32,
    signal: Signal,
    set: SignalSet,
}

impl Channel for Signals {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        signal::queue(self.peer, self.signal, 1)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let received = signal::wait(&self.set, Deadline::NEVER)?;
        assert_eq!(received.and_then(|received| received.value), Some(1));
        Ok(())
    }
}

struct SignalDescriptor {
    peer: u32,
    signal: Signal,
    signals: SignalFd,
}

impl Channel for SignalDescriptor {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        signal::queue(self.peer, self.signal, 1)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let received = self.signals.next(Deadline::NEVER)?;
        assert_eq!(received.and_then(|received| received.value), Some(1));
        Ok(())
    }
}
