//! Processes that do this and that with every synchronisation object, and are killed at random, again and
//! again; checked by each other, and timed against a crew of which nobody is killed.
//!
//! `cargo xtask prove torture` runs this for longer: `SWITCHBOARD_TORTURE_SECONDS`.

mod worker;
mod world;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Name, RwLock, Shared};
use switchboard_testkit::{Child, skip::say, unique};

use self::worker::Random;
use self::world::{ACCOUNTS, By, Kind, OPENING_CENTS, Of, PERMITS, World};
use crate::shared_words::path_of;

pub(crate) use self::worker::worker;

/// How long a run is where nobody asks for longer.
const QUICK_SECONDS: u32 = 5;

/// Survivors go on within this time of a death, on top of what those take of whom nobody dies.
const PROMISED: Duration = Duration::from_millis(100);

/// Whoever does nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between kills: up to this many milliseconds.
const KILL_EVERY_MS: usize = 80;

/// How long a place stays empty, at most.
const EMPTY_MS: usize = 300;

/// How often a long run says how far it is.
const SAY_EVERY_SECONDS: u64 = 10;

/// How long an operation of a victim is waited for.
const AIM: Duration = Duration::from_millis(2);

/// Who is in a crew.
const ROLES: [&str; 11] = [
    "mixer", "mixer", "mixer", "mixer", "member", "member", "member", "producer", "producer",
    "consumer", "consumer",
];

/// The crew of which nobody is killed.
const CONTROL: [&str; 7] = ["mixer", "mixer", "member", "member", "member", "producer", "consumer"];

/// Processes that share a world.
struct Crew {
    world: World,
    memory: SharedWords,
    names: Vec<String>,
    workers: Vec<Worker>,
}

struct Worker {
    role: &'static str,
    life: Life,
}

/// A place in a crew is empty for a while after a kill, so that nobody is helped by whoever comes next.
enum Life {
    Alive {
        child: Child,
        /// Its count of operations when it was last looked at and had changed, and when that was.
        seen: (u32, Instant),
    },
    Empty {
        until: Instant,
    },
}

impl Crew {
    fn start(roles: &[&'static str], names: Vec<String>, seconds: u32) -> Self {
        let (memory, world) = World::create();
        world.begin(seconds);
        let mut crew = Self { world, memory, names, workers: Vec::new() };
        for (number, role) in roles.iter().enumerate() {
            let life = crew.life(role, number);
            crew.workers.push(Worker { role, life });
        }
        crew
    }

    fn life(&self, role: &str, number: usize) -> Life {
        let first = [path_of(&self.memory), role.to_owned(), number.to_string()];
        let arguments: Vec<String> = first.into_iter().chain(self.names.iter().cloned()).collect();
        let child = Child::role("torture-worker", &arguments);
        Life::Alive { child, seen: (self.beat(number), Instant::now()) }
    }

    fn beat(&self, number: usize) -> u32 {
        self.world.of_worker(By::Beat, number).load(Ordering::SeqCst)
    }

    fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        let alive = |number: &usize| matches!(self.workers[*number].life, Life::Alive { .. });
        (0..self.workers.len()).filter(alive)
    }

    /// Kills one; whether it did. The buffer needs somebody at either end.
    fn kill_one(&mut self, random: &mut Random) -> bool {
        let number = random.below(self.workers.len());
        let role = self.workers[number].role;
        let is_up = |n: usize| self.world.of_worker(By::Up, n).load(Ordering::SeqCst) == 1;
        let has_peer =
            self.alive().any(|n| n != number && self.workers[n].role == role && is_up(n));
        let is_needed = ["producer", "consumer"].contains(&role) && !has_peer;
        if is_needed || !self.alive().any(|other| other == number) {
            return false;
        }
        // Most of the time it does nothing; so it is caught at something, but then at any point.
        let since = Instant::now();
        while self.world.operation(number).is_none() && since.elapsed() < AIM {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(random.below(300) as u64));
        self.kill(number);
        let empty_ms = random.below(EMPTY_MS) as u64;
        let until = Instant::now() + Duration::from_millis(empty_ms);
        self.workers[number].life = Life::Empty { until };
        true
    }

    fn kill(&mut self, number: usize) {
        if let Life::Alive { child, .. } = &mut self.workers[number].life {
            self.world.doom(number);
            child.kill();
            self.world.bury(number);
        }
    }

    /// Fills the places that were empty for long enough.
    fn fill(&mut self) {
        for number in 0..self.workers.len() {
            let worker = &self.workers[number];
            if matches!(worker.life, Life::Empty { until } if until <= Instant::now()) {
                self.workers[number].life = self.life(worker.role, number);
            }
        }
    }

    /// Everybody does something, and nobody found anything wrong.
    fn look(&mut self) {
        for number in 0..self.workers.len() {
            let (beat, operation) = (self.beat(number), self.world.operation(number));
            let Worker { role, life: Life::Alive { child, seen } } = &mut self.workers[number]
            else {
                continue;
            };
            if beat != seen.0 {
                *seen = (beat, Instant::now());
            }
            let what = format!("worker {number} ({role}), at {operation:?}");
            assert!(!self.world.has_failed(), "something does not hold: see what a worker said");
            assert!(seen.1.elapsed() < PATIENCE, "{what}, does not go on");
            assert!(child.wait_within(Duration::ZERO).is_none(), "{what}, ended by itself");
        }
    }

    /// Each does something more.
    fn all_go_on(&mut self) {
        let before: Vec<(usize, u32)> = self.alive().map(|n| (n, self.beat(n))).collect();
        while before.iter().any(|(number, beat)| self.beat(*number) == *beat) {
            self.look();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn longest(&self) -> Duration {
        let longest = |n| self.world.of_worker(By::Longest, n).load(Ordering::SeqCst);
        time((0..self.workers.len()).map(longest).max().unwrap_or_default())
    }

    fn count(&self, word: Of, kind: Kind) -> u32 {
        self.world.of_kind(word, kind).load(Ordering::SeqCst)
    }

    fn done(&self) -> u64 {
        Kind::ALL.iter().map(|kind| u64::from(self.count(Of::Done, *kind))).sum()
    }

    /// Since a death, or if there was none meanwhile.
    fn worst(&self) -> (Duration, Kind) {
        let stalls = Kind::ALL.map(|kind| (self.count(Of::Stall, kind), kind));
        let (worst, kind) = stalls.into_iter().max_by_key(|stall| stall.0).expect("some");
        (time(worst), kind)
    }

    fn kill_all(&mut self) {
        (0..self.workers.len()).for_each(|number| self.world.doom(number));
        (0..self.workers.len()).for_each(|number| self.kill(number));
    }

    /// All are killed; then everything is free, and whole.
    fn end(mut self) {
        self.kill_all();
        let world = &self.world;
        let soon = || Deadline::after(PATIENCE);
        drop(
            world.mutex.lock_until(soon()).expect("the mutex").or_repair(|| ()).expect("repaired"),
        );
        let written = world.rw_lock.write_until(soon()).expect("the lock");
        drop(written.or_repair(|| ()).expect("repaired"));
        drop(world.rw_lock.read_until(soon()).expect("the lock"));
        let permits: Vec<_> = (0..PERMITS).map(|_| world.permits.acquire_until(soon())).collect();
        assert!(permits.iter().all(Result::is_ok), "{permits:?}");
        world.semaphore.post().expect("raised");
        world.semaphore.wait_until(soon()).expect("lowered");
        let sum = world.monitor.with_until(soon(), |bank| bank.cents.iter().sum::<i64>());
        assert_eq!(sum.expect("the sum"), OPENING_CENTS * ACCOUNTS as i64);
        let member = world.barrier.join().expect("a place");
        member.wait_until(soon()).expect("nobody else is there");
        for name in &self.names {
            let name = Name::new(name).expect("a name");
            drop(RwLock::named(&name, 4).expect("the name"));
            assert!(!name.path().exists(), "{} is left", name.path().display());
        }
    }
}

impl Drop for Crew {
    /// After a failure: those who are left find nothing wrong with the others' deaths.
    fn drop(&mut self) {
        self.kill_all();
        for name in self.names.iter().filter_map(|name| Name::new(name).ok()) {
            let _ = RwLock::named(&name, 4);
        }
    }
}

/// Units of the shared words.
fn time(units: u32) -> Duration {
    Duration::from_micros(u64::from(units) * 10)
}

/// Whether survivors went on in time.
fn torture(seconds: u32, plain_names: bool) -> bool {
    let names = || {
        let path = Path::new("/dev/shm").join(unique("torture"));
        let path = path.to_str().expect("a path").to_owned();
        let plain = plain_names.then(|| unique("torture"));
        [path].into_iter().chain(plain).collect::<Vec<_>>()
    };
    let mut crew = Crew::start(&ROLES, names(), seconds);
    let mut control = Crew::start(&CONTROL, names(), seconds);
    for one in [&mut crew, &mut control] {
        one.all_go_on();
        one.world.forget_times();
    }
    let begun = Instant::now();
    let (kills, late) = kill_for(seconds, &mut crew, &mut control);
    crew.all_go_on();
    control.all_go_on();
    let ((stall, at), unharmed) = (crew.worst(), control.longest().max(late));
    tell_account(&crew, kills, begun.elapsed());
    tell(&format!(
        "worst stall after a death: {stall:?} ({at:?}); where nobody dies: {unharmed:?}"
    ));
    assert!(kills >= seconds, "only {kills} were killed");
    for kind in Kind::ALL {
        assert!(crew.count(Of::Done, kind) > 0, "nobody did anything with {kind:?}");
    }
    crew.end();
    control.end();
    stall <= unharmed + PROMISED
}

/// How many were killed, and how much later than it wanted to this process did so, at worst.
fn kill_for(seconds: u32, crew: &mut Crew, control: &mut Crew) -> (u32, Duration) {
    let mut random = Random::new();
    let (begun, mut said) = (Instant::now(), 0);
    let (mut kills, mut late) = (0_u32, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(u64::from(seconds)) {
        let pause = Duration::from_millis(random.below(KILL_EVERY_MS) as u64);
        let since = Instant::now();
        std::thread::sleep(pause);
        late = late.max(since.elapsed() - pause);
        kills += u32::from(crew.kill_one(&mut random));
        crew.fill();
        crew.look();
        control.look();
        let passed = begun.elapsed().as_secs();
        if passed / SAY_EVERY_SECONDS > said {
            said = passed / SAY_EVERY_SECONDS;
            let (done, stall) = (crew.done(), crew.worst().0);
            tell(&format!("{passed} s: {done} operations, {kills} killed, worst stall {stall:?}"));
        }
    }
    (kills, late)
}

fn tell_account(crew: &Crew, kills: u32, took: Duration) {
    tell(&format!("{kills} processes killed in {:.0} s", took.as_secs_f64()));
    for kind in Kind::ALL {
        let (done, orphaned) = (crew.count(Of::Done, kind), crew.count(Of::Orphaned, kind));
        let stall = time(crew.count(Of::Stall, kind));
        let mut text = format!("{kind:?}: {done} operations, worst stall {stall:?}");
        if orphaned > 0 {
            let _ = write!(text, ", {orphaned} dead holders found");
        }
        tell(&text);
    }
}

/// Says it; to `cargo xtask prove torture` by the file that it reads, as a line that is no result of killstep.
fn tell(text: &str) {
    let file = std::env::var_os("SWITCHBOARD_KILLS")
        .and_then(|path| OpenOptions::new().append(true).open(path).ok());
    match file {
        Some(mut file) => {
            let _ = writeln!(file, "0\t0\ttorture: {text}");
        }
        None => say(text),
    }
}

#[test]
fn torture_every_object_while_processes_are_killed() {
    let asked = std::env::var("SWITCHBOARD_TORTURE_SECONDS").ok();
    if let Some(seconds) = asked {
        let seconds = seconds.parse().expect("a number of seconds");
        assert!(torture(seconds, true), "somebody was kept for longer than promised");
        return;
    }
    // A machine that does much else at a time delays some more than others: then again.
    let in_time = (0..3).any(|_| torture(QUICK_SECONDS, false));
    assert!(in_time, "somebody was kept for longer than promised, three times");
}
