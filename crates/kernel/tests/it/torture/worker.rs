//! What the tortured processes do until they are killed, and what they check.

use std::sync::atomic::Ordering;
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::sync::{Locked, MutexGuard, Name, RwLock, Shared};

use super::world::{
    ACCOUNTS, By, Inside, Kind, OPENING_CENTS, Of, PERMITS, PLACES, Pair, WORKERS, World, between,
    now,
};
use crate::shared_words::opened;

/// Short waits that may end without success.
const SHORT: Duration = Duration::from_millis(1);

/// Role: works, without end. Arguments: the memory, what it does, its number, and a name or two.
pub(crate) fn worker(arguments: &[String]) {
    let memory = opened(&arguments[0]);
    let number = arguments[2].parse().expect("a number");
    let world = World::open(&memory);
    let names = arguments[3..].iter().map(|name| Name::new(name).expect("a name")).collect();
    let mut worker = Worker { world: &world, number, names, random: Random::new() };
    match arguments[1].as_str() {
        "mixer" => worker.mix(),
        "member" => worker.meet(),
        "producer" => worker.produce(),
        _ => worker.consume(),
    }
}

struct Worker<'a> {
    world: &'a World,
    number: usize,
    names: Vec<Name>,
    random: Random,
}

impl<'a> Worker<'a> {
    /// Something of all that one can do alone.
    fn mix(&mut self) {
        loop {
            let kind = Kind::ALL[self.random.below(7)];
            self.timed(kind, |worker| match kind {
                Kind::Mutex => worker.mutex(),
                Kind::RwLock => worker.rw_lock(),
                Kind::Permits => worker.permits(),
                Kind::Semaphore => worker.semaphore(),
                Kind::Monitor => worker.monitor(),
                Kind::Once => worker.once(),
                _ => worker.name(),
            });
            self.world.begin_operation(self.number, None);
            self.pause();
        }
    }

    fn timed(&mut self, kind: Kind, operation: impl FnOnce(&mut Self)) {
        let (world, number) = (self.world, self.number);
        world.begin_operation(number, Some(kind));
        let begun = now();
        operation(self);
        let ended = now();
        let death = world.of_kind(Of::Death, kind).load(Ordering::SeqCst);
        let took = between(begun, ended);
        let stall = if between(begun, death) > 0 { between(death, ended) } else { took };
        world.of_kind(Of::Stall, kind).fetch_max(stall, Ordering::SeqCst);
        world.of_worker(By::Longest, number).fetch_max(took, Ordering::SeqCst);
        world.of_kind(Of::Done, kind).fetch_add(1, Ordering::SeqCst);
        world.of_worker(By::Beat, number).fetch_add(1, Ordering::SeqCst);
        world.of_worker(By::Up, number).store(1, Ordering::SeqCst);
    }

    fn mutex(&mut self) {
        let world = self.world;
        let mutex = &world.mutex;
        let locked = match self.random.below(3) {
            0 => mutex.lock(),
            1 => mutex.try_lock(),
            _ => mutex.lock_until(Deadline::after(SHORT)),
        };
        let Some(locked) = self.got(locked) else { return };
        let guard = self.repaired(locked, Kind::Mutex, Pair::Mutex);
        self.alone(Inside::Mutex, |worker| worker.change(Pair::Mutex));
        drop(guard);
    }

    fn rw_lock(&mut self) {
        let world = self.world;
        let lock = &world.rw_lock;
        if self.random.below(3) > 0 {
            let read = match self.random.below(3) {
                0 => lock.read(),
                1 => lock.try_read(),
                _ => lock.read_until(Deadline::after(SHORT)),
            };
            match read {
                Err(error) if error.name() == "EOWNERDEAD" => {}
                read => {
                    let Some(guard) = self.got(read) else { return };
                    world.enter(Inside::Reading, self.number);
                    self.must(world.who(Inside::Writing) == 0, "a writer is in with a reader");
                    self.same(Pair::RwLock);
                    self.linger();
                    world.leave(Inside::Reading, self.number);
                    drop(guard);
                    return;
                }
            }
        }
        let written = match self.random.below(3) {
            0 => lock.write(),
            1 => lock.try_write(),
            _ => lock.write_until(Deadline::after(SHORT)),
        };
        let Some(locked) = self.got(written) else { return };
        let guard = self.repaired(locked, Kind::RwLock, Pair::RwLock);
        self.alone(Inside::Writing, |worker| {
            worker.must(world.who(Inside::Reading) == 0, "a reader is in with a writer");
            worker.change(Pair::RwLock);
        });
        drop(guard);
    }

    fn permits(&mut self) {
        let world = self.world;
        let permit = match self.random.below(3) {
            0 => world.permits.try_acquire(),
            _ => world.permits.acquire(),
        };
        let Some(permit) = self.got(permit) else { return };
        let others = world.enter(Inside::Permits, self.number).count_ones();
        self.must(others < PERMITS, "there are more holders than permits");
        self.linger();
        world.leave(Inside::Permits, self.number);
        drop(permit);
    }

    /// Whoever waits has raised the count before; so there is always enough.
    fn semaphore(&mut self) {
        let semaphore = &self.world.semaphore;
        let posted = semaphore.post();
        self.got(posted);
        self.linger();
        let waited = semaphore.wait();
        self.got(waited);
    }

    fn monitor(&mut self) {
        let world = self.world;
        let from = self.random.below(ACCOUNTS);
        let to = self.random.below(ACCOUNTS);
        let cents = i64::try_from(self.random.below(40)).unwrap_or_default();
        let waits = self.random.below(4) == 0;
        let result = world.monitor.with(|bank| {
            let sum: i64 = bank.cents.iter().sum();
            self.must(sum == OPENING_CENTS * ACCOUNTS as i64, "money came or went");
            if waits {
                let until = Deadline::after(SHORT);
                bank.wait_while_until(until, |bank| bank.cents[from] < cents)?;
            }
            if bank.cents[from] >= cents {
                bank.cents[from] -= cents;
                self.linger();
                bank.cents[to] += cents;
            }
            bank.notify_all()
        });
        if let Some(result) = self.got(result) {
            self.got(result);
        }
    }

    fn once(&mut self) {
        let (index, once) = self.world.once();
        let called = once.call(|| self.alone(Inside::Once(index), |worker| worker.linger()));
        self.got(called);
        self.must(once.is_done(), "it was done and is not");
    }

    /// An object that comes and goes with those who use it.
    fn name(&mut self) {
        let which = self.random.below(self.names.len());
        let named = RwLock::named(&self.names[which], 4);
        let Some(lock) = self.got(named) else { return };
        let written = lock.write().and_then(|locked| locked.or_repair(|| ()));
        let Some(guard) = self.got(written) else { return };
        let inside = if which == 0 { Inside::Name } else { Inside::PlainName };
        self.alone(inside, Self::linger);
        drop(guard);
    }

    /// A member of the barrier: nobody crosses before all that were members before have arrived.
    fn meet(&mut self) {
        let (world, number) = (self.world, self.number);
        world.begin_operation(number, Some(Kind::Barrier));
        let member = self.got(world.barrier.join()).expect("a place");
        world.enter(Inside::Members, number);
        loop {
            let round = world.round();
            self.pause();
            let before = self.members();
            world.of_worker(By::Arrived, number).store(round.wrapping_add(1), Ordering::SeqCst);
            self.timed(Kind::Barrier, |worker| {
                worker.got(member.wait());
            });
            let after = self.members();
            for (other, incarnation) in before {
                let arrived = world.of_worker(By::Arrived, other).load(Ordering::SeqCst);
                let is_late = arrived.wrapping_sub(round.wrapping_add(1)).cast_signed() < 0;
                let stayed = after.contains(&(other, incarnation));
                self.must(
                    !(stayed && is_late),
                    &format!(
                        "the barrier opened before member {other} arrived in {round}: {arrived}"
                    ),
                );
            }
        }
    }

    /// The members that live, with how often each was replaced; without those who are being replaced.
    fn members(&self) -> Vec<(usize, u32)> {
        let world = self.world;
        let incarnations = || {
            let of = |other| world.of_worker(By::Incarnation, other).load(Ordering::SeqCst);
            (0..WORKERS).map(of).collect::<Vec<_>>()
        };
        let (before, members, after) = (incarnations(), world.who(Inside::Members), incarnations());
        let stays = |n: &usize| members & 1 << n != 0 && before[*n] == after[*n];
        (0..WORKERS).filter(stays).map(|n| (n, after[n])).collect()
    }

    fn produce(&mut self) {
        loop {
            self.timed(Kind::Buffer, |worker| {
                let [put, taken] = worker.world.counts();
                let held = || put.load(Ordering::SeqCst).wrapping_sub(taken.load(Ordering::SeqCst));
                let guard = worker.buffer(|| held() >= PLACES, true);
                let number = put.load(Ordering::SeqCst);
                worker.must(held() < PLACES, "the buffer holds more than it can");
                worker.world.place(number).store(number, Ordering::SeqCst);
                worker.linger();
                put.store(number.wrapping_add(1), Ordering::SeqCst);
                // With the mutex: who dies before this leaves it orphaned, and all are told.
                worker.got(worker.world.buffer.not_empty.notify_one());
                drop(guard);
            });
            self.pause();
        }
    }

    fn consume(&mut self) {
        loop {
            self.timed(Kind::Buffer, |worker| {
                let [put, taken] = worker.world.counts();
                let held = || put.load(Ordering::SeqCst).wrapping_sub(taken.load(Ordering::SeqCst));
                let guard = worker.buffer(|| held() == 0, false);
                let number = taken.load(Ordering::SeqCst);
                let found = worker.world.place(number).load(Ordering::SeqCst);
                worker.must(found == number, "what was put in order comes out of order");
                worker.linger();
                taken.store(number.wrapping_add(1), Ordering::SeqCst);
                worker.got(worker.world.buffer.not_full.notify_one());
                drop(guard);
            });
            self.pause();
        }
    }

    /// The buffer's mutex, when one need not wait any more.
    fn buffer(&self, must_wait: impl Fn() -> bool, for_room: bool) -> MutexGuard<'a> {
        let world: &'a World = self.world;
        let buffer = &world.buffer;
        let condition = if for_room { &buffer.not_full } else { &buffer.not_empty };
        let mut locked = self.got(buffer.mutex.lock()).expect("the mutex");
        loop {
            let owner_died = locked.owner_died();
            let guard = self.got(locked.or_repair(|| ())).expect("the mutex");
            if owner_died {
                self.count_orphan(Kind::Buffer);
                self.got(buffer.not_full.notify_all());
                self.got(buffer.not_empty.notify_all());
            }
            if !must_wait() {
                return guard;
            }
            locked = self.got(condition.wait(guard)).expect("the mutex");
        }
    }

    fn repaired<G: switchboard_kernel::sync::Repairable>(
        &self,
        locked: Locked<G>,
        kind: Kind,
        pair: Pair,
    ) -> G {
        let [one, other] = self.world.pair(pair);
        let repaired = locked.or_repair(|| {
            self.count_orphan(kind);
            other.store(one.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        self.got(repaired).expect("a lock that can be repaired")
    }

    fn count_orphan(&self, kind: Kind) {
        self.world.of_kind(Of::Orphaned, kind).fetch_add(1, Ordering::SeqCst);
    }

    fn alone(&mut self, what: Inside, act: impl FnOnce(&mut Self)) {
        let others = self.world.enter(what, self.number);
        self.must(others == 0, &format!("{what:?}: others are in at a time: {others:#b}"));
        act(self);
        self.world.leave(what, self.number);
    }

    fn change(&mut self, pair: Pair) {
        self.same(pair);
        let [one, other] = self.world.pair(pair);
        one.fetch_add(1, Ordering::SeqCst);
        self.linger();
        other.fetch_add(1, Ordering::SeqCst);
    }

    fn same(&self, pair: Pair) {
        let [one, other] = self.world.pair(pair).map(|word| word.load(Ordering::SeqCst));
        self.must(one == other, "something is half done, and nobody said so");
    }

    /// What it came to; nothing if there was nothing to be had.
    #[track_caller]
    fn got<T>(&self, result: switchboard_kernel::Result<T>) -> Option<T> {
        match result {
            Ok(got) => Some(got),
            Err(error) if ["EBUSY", "ETIMEDOUT"].contains(&error.name()) => None,
            Err(error) => self.fail(&error.to_string()),
        }
    }

    #[track_caller]
    fn must(&self, holds: bool, otherwise: &str) {
        if !holds {
            self.fail(otherwise);
        }
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        self.world.fail();
        panic!("worker {}: {what}", self.number);
    }

    /// Takes its time, where others wait for it.
    fn linger(&mut self) {
        match self.random.below(16) {
            0..4 => std::thread::sleep(Duration::from_micros(self.random.below(200) as u64)),
            4..8 => std::thread::yield_now(),
            spins => (0..spins * 20).for_each(|_| std::hint::spin_loop()),
        }
    }

    /// Takes its time, where nobody does.
    fn pause(&mut self) {
        if self.random.below(2) > 0 {
            let microseconds = self.random.below(600) as u64;
            std::thread::sleep(Duration::from_micros(microseconds));
        }
    }
}

/// Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8 (2003).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self((u64::from(std::process::id()) << 32 | u64::from(now())) | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit.max(1)
    }
}
