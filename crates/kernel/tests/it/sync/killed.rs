//! Every operation, with whoever does it killed or stopped at each instruction boundary: the others go on.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{
    Barrier, Locked, Monitor, Mutex, MutexOptions, Once, Permits, RwLock, Semaphore, Shared,
};
use switchboard_testkit::Child;
use switchboard_testkit::killstep::{self, Access, Boundary, Depth, How, Plan, Recovery};

use super::condvar::Pair;
use super::monitor::{Bank, START};
use super::{Peer, opened};
use crate::shared_words::path_of;

/// Others go on within this time. What they need is a fraction of it; the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

/// Longer than a waiter is left asleep, shorter than a test's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// One operation, who else is there, and how they find that all is well.
struct Case {
    /// What the victim does.
    operation: &'static str,
    /// What the object is, for the peers.
    kind: &'static str,
    make: fn() -> SharedWords,
    /// What each peer is told before the victim starts. It waits, if that begins with `~`.
    peers: &'static [&'static [&'static str]],
    /// Helps the victim on that sleeps, and does not wait itself: the victim may be stopped.
    unblock: fn(&mut World),
    check: fn(&mut World, &Boundary) -> std::result::Result<(), String>,
    /// The bytes that the victim may store to.
    stores: &'static [Range<u64>],
}

struct World {
    memory: SharedWords,
    peers: Vec<Peer>,
    /// How often the victim slept and was helped on.
    helped: usize,
    /// The victim was stopped, not killed.
    stopped: bool,
}

impl World {
    /// A peer's answer, without a panic if there is none in time.
    fn answer(&mut self, peer: usize) -> std::result::Result<String, String> {
        let line = self.peers[peer].child.line_within(SOON);
        line.ok_or_else(|| format!("peer {peer} does not go on"))
    }

    fn told(&mut self, peer: usize, command: &str) -> std::result::Result<String, String> {
        self.peers[peer].child.tell(command);
        self.answer(peer)
    }
}

impl Plan for Case {
    type World = World;

    fn name(&self) -> String {
        format!("sync {}", self.operation)
    }

    fn prepare(&self) -> World {
        let memory = (self.make)();
        let mut peers = Vec::new();
        for commands in self.peers {
            let mut peer = Peer::start(self.kind, &memory);
            for command in *commands {
                match command.strip_prefix('~') {
                    Some(command) => peer.told_and_waits(command),
                    None => {
                        peer.child.tell(command);
                        peer.child.line().expect("an answer");
                    }
                }
            }
            peers.push(peer);
        }
        World { memory, peers, helped: 0, stopped: false }
    }

    fn shared(&self, world: &mut World) -> Vec<PathBuf> {
        vec![path_of(&world.memory).into()]
    }

    fn victim(&self, world: &mut World) -> Child {
        Child::role("sync_victim", &[self.operation, &path_of(&world.memory)])
    }

    fn unblock(&self, world: &mut World) {
        (self.unblock)(world);
        world.helped += 1;
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
        world.stopped = true;
        // All that can be done without it: whoever is to help it on does so now.
        self.unblock(world);
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
        (self.check)(world, at)
    }

    fn allowed(&self, access: &Access) -> bool {
        !access.kind.writes() || self.stores.iter().any(|range| access.is_within(range.clone()))
    }
}

/// Whoever goes on after the first was killed is killed as well, wherever it is.
impl Recovery for Case {
    fn survivor(&self, world: &mut World) -> Child {
        let operation = format!("{} recover", self.kind);
        Child::role("sync_victim", &[operation, path_of(&world.memory)])
    }
}

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
    assert_eq!(super::name_of(nothing), "ETIMEDOUT");
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
        "lock, contended" => stepped(|| (), |()| mutex.lock()),
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

fn consistent<G: switchboard_kernel::sync::Repairable>(locked: Locked<G>) -> Result<G> {
    locked.or_repair(|| ())
}

fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// An error as the harness takes it.
fn say<T>(what: &str, result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The first peer is told to let go.
fn let_go(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("unlock");
    }
}

fn nothing(_: &mut World) {}

fn memory_of<S: Shared>(object: Result<S>) -> SharedWords {
    object.expect("an object").memory().clone()
}

/// A survivor takes the mutex.
fn check_mutex(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    release(world);
    let mutex: Mutex = opened(&world.memory);
    let guard = say("lock", mutex.lock_until(soon()).and_then(consistent))?;
    drop(guard);
    Ok(())
}

/// If nobody has told the first peer to let go, because the victim did not come to wait for it.
fn release(world: &mut World) {
    if !world.peers.is_empty() {
        let_go(world);
        world.helped += 1;
    }
}

/// A survivor reads, writes, and reads again; a writer that was killed inside is told of.
fn check_rw_lock(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    release(world);
    let lock: RwLock = opened(&world.memory);
    let locked = say("write", lock.write_until(soon()))?;
    if locked.owner_died() && at.is_end() {
        return Err("a writer that let go counts as dead".to_owned());
    }
    drop(say("repair", consistent(locked))?);
    drop(say("read", lock.read_until(soon()))?);
    drop(say("write again", lock.try_write())?);
    Ok(())
}

/// All permits can be had, and no more.
fn check_permits(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    release(world);
    let permits: Permits = opened(&world.memory);
    let mut all = Vec::new();
    for _ in 0..permits.count() {
        all.push(say("acquire", permits.acquire_until(soon()))?);
    }
    match permits.try_acquire() {
        Ok(_) => Err("there is one more than there were".to_owned()),
        Err(error) if error.name() == "EBUSY" => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What the victim may have taken is gone; of what is raised now nothing is.
fn check_semaphore(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    let semaphore: Semaphore = opened(&world.memory);
    let before = semaphore.value();
    say("post", semaphore.post())?;
    say("wait", semaphore.wait_until(soon()))?;
    if semaphore.value() <= before { Ok(()) } else { Err("the count went up by itself".to_owned()) }
}

/// The waiter gets what the victim raised, or what is raised now, and no more than one of both is left.
fn check_posted(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    let semaphore: Semaphore = opened(&world.memory);
    if !at.is_end() {
        say("post", semaphore.post())?;
    }
    world.answer(0)?;
    if semaphore.value() <= 1 { Ok(()) } else { Err(format!("{} are left", semaphore.value())) }
}

/// The other waiter is told: because the victim died, because what it was told is told on, or now.
fn check_waiting(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    let pair = Pair::open(world.memory.clone());
    if world.helped == 0 || world.stopped || at.is_end() {
        say("notify", pair.changed.notify_one())?;
    }
    world.answer(0)?;
    say("lock", pair.mutex.lock_until(soon()).and_then(consistent)).map(drop)
}

/// All waiters are told, by the victim or by a survivor.
fn check_notified(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    let pair = Pair::open(world.memory.clone());
    if !at.is_end() {
        say("notify", pair.changed.notify_all())?;
    }
    for peer in 0..world.peers.len() {
        world.answer(peer)?;
    }
    say("lock", pair.mutex.lock_until(soon()).and_then(consistent)).map(drop)
}

/// One is told. If that is the other, and the victim sleeps on, all are.
fn help_waiter(world: &mut World) {
    let pair = Pair::open(world.memory.clone());
    let rung =
        if world.helped == 0 { pair.changed.notify_one() } else { pair.changed.notify_all() };
    rung.expect("rung");
}

/// The other member crosses, without the victim or with it, and again.
fn check_barrier(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    other_arrives(world);
    world.answer(0)?;
    world.told(0, "wait")?;
    Ok(())
}

fn other_arrives(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("wait");
    }
}

/// Somebody takes the place that the victim may have taken, and both cross.
fn check_joined(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    let barrier: Barrier = opened(&world.memory);
    let member = say("join", barrier.join())?;
    world.peers[0].child.tell("wait");
    say("wait", member.wait_until(soon()))?;
    world.answer(0)?;
    Ok(())
}

fn check_once(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    let once: Once = opened(&world.memory);
    let did = say("call", once.call_until(|| (), soon()))?;
    if did && at.is_end() {
        return Err("it was done twice".to_owned());
    }
    if once.is_done() { Ok(()) } else { Err("it is not done".to_owned()) }
}

/// The sum is what it was.
fn check_sum(world: &mut World, _: &Boundary) -> std::result::Result<(), String> {
    let bank: Monitor<Bank> = opened(&world.memory);
    let found = say("look", bank.with_until(soon(), |bank| **bank))?;
    if found.accounts[0] + found.accounts[1] == 100 && found.mark == START.mark {
        Ok(())
    } else {
        Err(format!("{found:?}"))
    }
}

/// The same, and whoever waits for a change sees one.
fn check_bank(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    check_sum(world, at)?;
    let bank: Monitor<Bank> = opened(&world.memory);
    let found = say("look", bank.with_until(soon(), |bank| **bank))?;
    if found.accounts[1] < 10 {
        say("move", bank.with_until(soon(), transfer))?.map_err(|error| error.to_string())?;
    }
    world.answer(0)?;
    Ok(())
}

fn transfer(bank: &mut switchboard_kernel::sync::Entry<'_, Bank>) -> Result<()> {
    bank.accounts[0] -= 10;
    bank.accounts[1] += 10;
    bank.notify_all()
}

/// Fails while the victim is stopped inside.
fn move_money(world: &mut World) {
    let bank: Monitor<Bank> = opened(&world.memory);
    let _ = bank.with_until(Deadline::after(Duration::from_millis(20)), transfer);
}

/// The words of an object's own, and the robust mutex behind the header.
const OWN: Range<u64> = 32..64;
const FIRST_MUTEX: Range<u64> = 64..128;

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
    stores: &[FIRST_MUTEX],
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
    stores: &[FIRST_MUTEX, 1024 + 32..1024 + 40, seats(1024 + 64, 64)],
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
    // The mark of which copy counts, the mutex, the bell, the seats, the copies.
    stores: &[32..36, 128..192, 224..232, seats(256, 64), 4352..4480],
};

fn run(test: &str, how: How, cases: &[Case]) {
    if killstep::refused(test) {
        return;
    }
    for case in cases {
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

fn mutexes() -> [Case; 6] {
    let held: &[&[&str]] = &[&["lock"]];
    [
        MUTEX,
        Case { operation: "mutex try", ..MUTEX },
        Case { operation: "mutex unlock", ..MUTEX },
        Case { operation: "mutex timed", ..MUTEX },
        Case { operation: "mutex lock, contended", peers: held, unblock: let_go, ..MUTEX },
        Case { operation: "mutex timed, contended", peers: held, unblock: let_go, ..MUTEX },
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

fn give_both_back(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("release");
        world.peers[0].child.tell("release");
    }
}

fn check_given_back(world: &mut World, at: &Boundary) -> std::result::Result<(), String> {
    give_both_back(world);
    world.helped += 1;
    check_permits(world, at)
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
