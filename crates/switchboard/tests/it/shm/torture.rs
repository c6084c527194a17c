//! Processes that talk over a queue and two topics, and are killed at random, or stopped and let go on late;
//! checked by each other, by what they write down, and by one process that lives through it all.
//!
//! `cargo xtask prove torture shm` runs this for longer: `SWITCHBOARD_TORTURE_SECONDS`.

mod desk;
mod ledger;
mod queue;
mod topic;
mod witness;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard::Options;
use switchboard_testkit::skip::say;
use switchboard_testkit::{Child, DEADLINE, Scratch};

pub(crate) use self::witness::witness;

use self::desk::{Channel, Desk, PATIENCE};
use self::ledger::{Ledger, Of, Phase};
use self::witness::kib;
use crate::conformance::contents::Random;
use crate::conformance::death::Seed;

/// How long a run is where nobody asks for longer.
const QUICK_SECONDS: u64 = 3;

/// What the end of a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sender,
    Receiver,
    Publisher(Channel),
    Subscriber(Channel),
}

impl Kind {
    /// Works until all close.
    fn work(self, desk: &mut Desk) {
        match self {
            Self::Sender => queue::send(desk),
            Self::Receiver => queue::receive(desk),
            Self::Publisher(channel) => topic::publish(desk, channel),
            Self::Subscriber(channel) => topic::subscribe(desk, channel),
        }
        desk.gone();
    }

    fn writes(self) -> bool {
        matches!(self, Self::Sender | Self::Publisher(_))
    }
}

/// Who there is, twice: as six processes that are killed, in the first seats; and in one that lives through it,
/// in those that follow, so that there is always somebody to talk to.
const KINDS: [Kind; 6] = [
    Kind::Sender,
    Kind::Receiver,
    Kind::Publisher(Channel::Block),
    Kind::Subscriber(Channel::Block),
    Kind::Publisher(Channel::DropOldest),
    Kind::Subscriber(Channel::DropOldest),
];
const MORTALS: usize = KINDS.len();
const SEATS: usize = 2 * MORTALS;

/// Time between two deaths or stops: up to this many milliseconds.
const EVERY_MS: u64 = 80;
/// How long a place stays empty, at most.
const EMPTY_MS: u64 = 200;
/// How long somebody is stopped: mostly up to the first, sometimes up to the second.
const STOPPED_MS: [u64; 2] = [200, 3000];
/// Who was stopped has at least so long before it is stopped again.
const AWAKE_MS: u64 = 200;
/// How many may be stopped at a time.
const MOST_STOPPED: usize = 3;
/// How often a long run says how far it is.
const SAY_EVERY_SECONDS: u64 = 10;

/// What the shared memory of the whole machine may have grown by: other programs have some too.
const MACHINE_KIB: u64 = 64 << 10;

/// Said and asked between the conductor and the witnesses.
const COUNT: &str = "count";
const CLOSED: &str = "closed";

/// What happens to the mortals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// SIGKILL.
    Death,
    /// SIGSTOP and, later, SIGCONT; some are killed meanwhile.
    Stop,
}

/// Role: one mortal. Arguments: the ledger, where the channels are, its seat.
pub(crate) fn mortal(arguments: &[String]) {
    let seat: usize = arguments[2].parse().expect("a seat");
    let mut desk = Desk::new(Ledger::open(&arguments[0]), seat, &arguments[1]);
    witness::watch_sleeps(&desk.ledger);
    kind(seat).work(&mut desk);
}

/// A mortal, as the conductor knows it.
enum Life {
    Alive {
        child: Child,
        stopped_until: Option<Instant>,
        /// When it may be stopped again.
        awake_until: Instant,
    },
    Empty {
        until: Instant,
    },
}

struct Conductor {
    ledger: Ledger,
    scratch: Scratch,
    lives: Vec<Life>,
    witness: Child,
    /// What each seat had done when it was last looked at and had changed, and when that was.
    beats: Vec<(u32, Instant)>,
    random: Random,
    deaths: u32,
    stops: u32,
    /// The longest that somebody did nothing who was not stopped.
    longest: Duration,
}

impl Conductor {
    /// The witnesses are there, and have counted what they have.
    fn start(seed: u64) -> Self {
        let (ledger, scratch) = (Ledger::create(), Scratch::new());
        let witness = Child::role("shm-witness", &[ledger.path(), scope(&scratch)]);
        let mut conductor = Self {
            ledger,
            scratch,
            lives: Vec::new(),
            witness,
            beats: vec![(0, Instant::now()); SEATS],
            random: Random::new(seed),
            deaths: 0,
            stops: 0,
            longest: Duration::ZERO,
        };
        conductor
            .until("the witnesses work", |this| (MORTALS..SEATS).all(|seat| this.beat(seat) > 50));
        conductor.settle();
        conductor.count();
        conductor.lives = (0..MORTALS).map(|seat| conductor.life(seat)).collect();
        conductor.ledger.set_phase(Phase::Work);
        conductor.until("all work", |this| (0..SEATS).all(|seat| this.beat(seat) > 0));
        conductor
    }

    fn life(&self, seat: usize) -> Life {
        let arguments = [self.ledger.path(), scope(&self.scratch), seat.to_string()];
        let now = Instant::now();
        Life::Alive {
            child: Child::role("shm-mortal", &arguments),
            stopped_until: None,
            awake_until: now,
        }
    }

    fn beat(&self, seat: usize) -> u32 {
        self.ledger.of_seat(seat, Of::Beat).load(SeqCst)
    }

    /// Waits for something, while all do what they do.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !is_so(self) {
            self.look();
            assert!(since.elapsed() < 2 * PATIENCE, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All writers finish what they began.
    fn settle(&mut self) {
        self.ledger.set_phase(Phase::Settle);
        self.until("all is settled", |this| {
            (0..this.beats.len()).filter(|seat| this.is_there(*seat)).all(|seat| {
                let is_done = this.ledger.of_seat(seat, Of::Waits).load(SeqCst) == 1;
                is_done || !kind(seat).writes()
            })
        });
    }

    fn is_there(&self, seat: usize) -> bool {
        seat >= MORTALS || matches!(self.lives.get(seat), Some(Life::Alive { .. }))
    }

    /// The witnesses count what they have.
    fn count(&mut self) {
        self.witness.tell(COUNT);
        while let Some(line) = self.witness.line() {
            if line == COUNT {
                return;
            }
            tell(&line);
        }
        panic!("the witnesses are gone");
    }

    fn kill(&mut self, seat: usize) {
        if let Life::Alive { child, .. } = &mut self.lives[seat] {
            child.kill();
            let pause = Duration::from_millis(self.random.below(EMPTY_MS));
            self.ledger.of_seat(seat, Of::Waits).store(0, SeqCst);
            self.lives[seat] = Life::Empty { until: Instant::now() + pause };
            self.deaths += 1;
        }
    }

    fn stop(&mut self, seat: usize) {
        let is_stopped = |life: &&Life| matches!(life, Life::Alive { stopped_until: Some(_), .. });
        if self.lives.iter().filter(is_stopped).count() >= MOST_STOPPED {
            return;
        }
        let most_ms = STOPPED_MS[usize::from(self.random.below(12) == 0)];
        let pause = Duration::from_millis(self.random.below(most_ms));
        if let Life::Alive { child, stopped_until: stopped @ None, awake_until } =
            &mut self.lives[seat]
            && Instant::now() >= *awake_until
        {
            child.signal(Signal::STOP);
            *stopped = Some(Instant::now() + pause);
            self.stops += 1;
        }
    }

    /// Lets go on who was stopped for long enough, and fills places that were empty for long enough.
    fn go_on(&mut self, at: Instant) {
        for seat in 0..self.lives.len() {
            match &mut self.lives[seat] {
                Life::Alive { child, stopped_until, awake_until } => {
                    if stopped_until.is_some_and(|until| until <= at) {
                        child.signal(Signal::CONT);
                        *stopped_until = None;
                        *awake_until = at + Duration::from_millis(AWAKE_MS);
                        self.beats[seat].1 = Instant::now();
                    }
                }
                Life::Empty { until } if *until <= at => {
                    self.lives[seat] = self.life(seat);
                    self.beats[seat].1 = Instant::now();
                }
                Life::Empty { .. } => {}
            }
        }
    }

    /// Everybody does something who is not stopped, and nobody found anything wrong.
    fn look(&mut self) {
        assert!(!self.ledger.has_failed(), "something does not hold: see what was said");
        for seat in 0..self.beats.len() {
            let (beat, now) = (self.beat(seat), Instant::now());
            let is_idle = match self.lives.get_mut(seat) {
                None => seat < MORTALS || self.ledger.phase() == Phase::Settle,
                Some(Life::Alive { child, stopped_until: None, .. }) => {
                    let ended = child.wait_within(Duration::ZERO);
                    assert!(ended.is_none(), "seat {seat} ended by itself: {ended:?}");
                    self.ledger.phase() == Phase::Settle
                }
                Some(_) => true,
            };
            if beat != self.beats[seat].0 || is_idle {
                self.beats[seat] = (beat, now);
                continue;
            }
            let since = now - self.beats[seat].1;
            self.longest = self.longest.max(since);
            assert!(since < PATIENCE, "seat {seat} ({:?}) does not go on", kind(seat));
        }
    }

    /// Kills or stops one after the other.
    fn torture(&mut self, fate: Fate, seconds: u64) {
        let (begun, mut said) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(self.random.below(EVERY_MS)));
            let seat = self.random.below(MORTALS as u64) as usize;
            match fate {
                Fate::Stop if self.random.below(10) > 0 => self.stop(seat),
                _ => self.kill(seat),
            }
            self.go_on(Instant::now());
            self.look();
            let passed = begun.elapsed().as_secs();
            if passed / SAY_EVERY_SECONDS > said {
                said = passed / SAY_EVERY_SECONDS;
                tell(&format!("{passed} s: {}", self.account()));
            }
        }
        tell(&format!("{fate:?}, {seconds} s: {}", self.account()));
    }

    fn account(&self) -> String {
        let of = |is_one: fn(Kind) -> bool| -> u32 {
            (0..SEATS).filter(|seat| is_one(kind(*seat))).map(|seat| self.beat(seat)).sum()
        };
        let sent = of(|kind| kind == Kind::Sender);
        let received = of(|kind| kind == Kind::Receiver);
        let published = of(|kind| matches!(kind, Kind::Publisher(_)));
        let taken = of(|kind| matches!(kind, Kind::Subscriber(_)));
        let Self { deaths, stops, longest, .. } = self;
        let (slept, late) = self.ledger.sleeps();
        format!(
            "{deaths} killed, {stops} stopped, {sent} sent, {received} received, {published} published, \
             {taken} taken by subscribers; {slept} sleeps, {late} not woken; longest standstill \
             {longest:?}"
        )
    }

    /// All that is on its way arrives; then all mortals are killed, the witnesses find that nothing is left of
    /// them, and close.
    fn end(mut self) {
        self.go_on(Instant::now() + Duration::from_secs(60));
        self.settle();
        (0..MORTALS).for_each(|seat| self.kill(seat));
        self.count();
        self.ledger.set_phase(Phase::CloseWriters);
        let writers = |this: &Self| {
            (MORTALS..SEATS)
                .filter(|seat| kind(*seat).writes())
                .all(|seat| this.ledger.of_seat(seat, Of::Gone).load(SeqCst) == 1)
        };
        self.until("the writers close", writers);
        self.ledger.set_phase(Phase::Close);
        drop(self.witness.stdin());
        assert_eq!(self.witness.line().as_deref(), Some(CLOSED), "the witnesses close");
        assert!(self.witness.wait().success());
        assert!(!self.ledger.has_failed(), "something does not hold: see what was said");
        // Names of the dead are left, and go with the next ends.
        for channel in [Channel::Queue, Channel::Block, Channel::DropOldest] {
            let desk = Desk::new(self.ledger.clone(), 0, &scope(&self.scratch));
            drop(channel.reader(&desk.address(channel), Options::default()).expect("an end"));
        }
        let channels = self.scratch.join("scope/shm");
        let left: Vec<_> = std::fs::read_dir(channels).expect("the channels").flatten().collect();
        assert!(left.is_empty(), "channels are left: {left:?}");
    }
}

/// Shared memory of the whole machine.
fn shared_kib() -> u64 {
    kib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "Shmem:")
}

fn scope(scratch: &Scratch) -> String {
    scratch.join("scope").display().to_string()
}

fn kind(seat: usize) -> Kind {
    KINDS[seat % MORTALS]
}

/// Says it; to `cargo xtask prove torture` by the file that it reads, as a line that is no result of killstep.
fn tell(text: &str) {
    let file = std::env::var_os("SWITCHBOARD_KILLS")
        .and_then(|path| OpenOptions::new().append(true).open(path).ok());
    match file {
        Some(mut file) => {
            let _ = writeln!(file, "0\t0\tshm torture: {text}");
        }
        None => say(&format!("torture: {text}")),
    }
}

/// How often somebody slept although there was something to do, until it looked by itself.
fn torture(fate: Fate, seconds: u64) -> u32 {
    let seed = Seed(Random::seed());
    let before_kib = shared_kib();
    let mut conductor = Conductor::start(seed.0);
    conductor.torture(fate, seconds);
    let (slept, late) = conductor.ledger.sleeps();
    assert!(slept > 0, "somebody sleeps");
    conductor.end();
    // Others have some too, and give it back.
    let mut after_kib = shared_kib();
    let until = Instant::now() + DEADLINE;
    while after_kib > before_kib + MACHINE_KIB && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        after_kib = shared_kib();
    }
    tell(&format!("shared memory of the machine: {before_kib} KiB before, {after_kib} KiB after"));
    assert!(after_kib <= before_kib + MACHINE_KIB, "shared memory is left: {after_kib} KiB");
    late
}

/// How long, if somebody asks for that.
fn asked_seconds() -> Option<u64> {
    let seconds = std::env::var("SWITCHBOARD_TORTURE_SECONDS").ok()?;
    Some(seconds.parse().expect("a number of seconds"))
}

#[test]
fn torture_shm_while_processes_are_killed() {
    if let Some(seconds) = asked_seconds() {
        assert_eq!(torture(Fate::Death, seconds), 0, "somebody was not woken");
        return;
    }
    // On a machine that does much else something may come just after a sleep of a second ended: then again.
    let woken = (0..3).any(|_| torture(Fate::Death, QUICK_SECONDS) == 0);
    assert!(woken, "somebody was not woken, three times");
}

#[test]
fn torture_shm_while_processes_are_stopped() {
    // Who was stopped while it slept, or while it should have woken another, tells nothing by how long that was.
    torture(Fate::Stop, asked_seconds().unwrap_or(QUICK_SECONDS));
}
