//! Mechanisms by which processes wake each other, each through its wrapper. They carry no bytes.

use std::sync::atomic::Ordering;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::Semaphore;
use switchboard_kernel::pthread::{Condition, Guard, Mutex};
use switchboard_kernel::shared_words::{OBJECT_BYTES, SharedWords, Slot};
use switchboard_kernel::signal::{self, Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;
use switchboard_kernel::sysv_sem::{Operation, SemaphoreSet};
use switchboard_kernel::{Result, futex, io, process};

use super::{BYTES, Channel, IN, Job, Known, MUTEX, OUT, WORDS, run as run_channel};

pub(super) fn run(job: &Job, name: &str, (out_id, in_id): (i32, i32)) -> Known {
    let memory = || SharedWords::from_fd(process::inherited_descriptor(OUT)?);
    let (out_at, in_at) = (usize::try_from(out_id), usize::try_from(in_id));
    match name {
        "posix-sem" => {
            let (out, from) = (memory()?, memory()?);
            let out = Semaphore::open_in(out.slot(out_at?, OBJECT_BYTES)?)?;
            let from = Semaphore::open_in(from.slot(in_at?, OBJECT_BYTES)?)?;
            run_channel(job, PosixSem { out, from })
        }
        "sysv-sem" => {
            let (out, from) = (SemaphoreSet::from_id(out_id), SemaphoreSet::from_id(in_id));
            run_channel(job, SysvSem { out, from })
        }
        "futex" => {
            let (out, from) = (memory()?, memory()?);
            let out = out.slot(out_at?, OBJECT_BYTES)?;
            run_channel(job, Futex { out, from: from.slot(in_at?, OBJECT_BYTES)? })
        }
        "pthread" => {
            let turn = |at| -> Result<Turn> {
                let memory = memory()?;
                let changed = Condition::open(memory.slot(at, OBJECT_BYTES)?)?;
                Ok(Turn { changed, come: memory.slot(WORDS + at, 8)? })
            };
            let mutex = Mutex::open(memory()?.slot(MUTEX, OBJECT_BYTES)?)?;
            run_channel(job, Pthread { mutex, out: turn(out_at?)?, from: turn(in_at?)? })
        }
        "signal" => {
            let (peer, set) = meet()?;
            run_channel(job, Signals { peer, signal: queued(), set })
        }
        "signalfd" => {
            let (peer, set) = meet()?;
            let signals = SignalFd::new(&set)?;
            run_channel(job, SignalDescriptor { peer, signal: queued(), signals })
        }
        _ => Ok(false),
    }
}

struct PosixSem {
    out: Semaphore,
    from: Semaphore,
}

impl Channel for PosixSem {
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.post()
    }

    #[inline]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.wait()
    }
}

struct SysvSem {
    out: SemaphoreSet,
    from: SemaphoreSet,
}

impl Channel for SysvSem {
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.operate(&[Operation::add_one(0)])
    }

    #[inline]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.operate(&[Operation::take_one(0)])
    }
}

/// The word is 1 when it is the other side's turn. Who waits asks the kernel first, not the word, so
/// that both languages make as many calls.
struct Futex {
    out: Slot,
    from: Slot,
}

impl Channel for Futex {
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        let word = &self.out.words()[0];
        // Partner: the swap in `take`.
        word.store(1, Ordering::Release);
        futex::wake(word, 1).map(drop)
    }

    #[inline]
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

struct Pthread {
    mutex: Mutex,
    out: Turn,
    from: Turn,
}

struct Turn {
    changed: Condition,
    come: Slot,
}

impl Pthread {
    #[inline]
    fn locked(&self) -> Result<Guard<'_>> {
        self.mutex.lock()?.or_repair(|| ())
    }
}

impl Channel for Pthread {
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        let guard = self.locked()?;
        // Relaxed: the mutex orders it.
        self.out.come.words()[0].store(1, Ordering::Relaxed);
        self.out.changed.signal()?;
        drop(guard);
        Ok(())
    }

    #[inline]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let mut guard = self.locked()?;
        let come = &self.from.come.words()[0];
        while come.load(Ordering::Relaxed) == 0 {
            guard = self.from.changed.wait(guard)?.or_repair(|| ())?;
        }
        come.store(0, Ordering::Relaxed);
        drop(guard);
        Ok(())
    }
}

/// Blocks the signal, and tells the other side who to send it to. Alone, that is this process.
fn meet() -> Result<(u32, SignalSet)> {
    let set = SignalSet::from(queued());
    signal::block(&set)?.keep();
    io::write_all(process::inherited_descriptor(OUT)?, &std::process::id().to_ne_bytes())?;
    let mut peer = [0; 4];
    io::read_full(process::inherited_descriptor(IN)?, &mut peer)?;
    Ok((u32::from_ne_bytes(peer), set))
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
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        signal::queue(self.peer, self.signal, 1)
    }

    #[inline]
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
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        signal::queue(self.peer, self.signal, 1)
    }

    #[inline]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        let received = self.signals.next(Deadline::NEVER)?;
        assert_eq!(received.and_then(|received| received.value), Some(1));
        Ok(())
    }
}
