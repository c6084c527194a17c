//! A machine in a few words, for tests of what follows from a snapshot: a line per thread.
//!
//! ```text
//! reader reads pipe:1; waits data pipe:1
//! writer writes pipe:1; waits time
//! ```
//!
//! The first word is a process; a second line of the same name is another thread of it. The first process has number 10, the second
//! one 20 and so on; its threads count on from there. What stands between semicolons:
//!
//! | words | mean |
//! |---|---|
//! | `has O…`, `reads O…`, `writes O…` | descriptors of objects |
//! | `maps O…` | memory that it maps |
//! | `stdin O`, `stdout O` | its standard streams |
//! | `used O…` | it used that last |
//! | `waits NEED O…` | any of these: `data`, `room`, `delivery`, `client`, `acceptance`, `reader`, `writer`, `count`, `change` |
//! | `waits lock O of P…` | until P lets go; `locks` until all of them do, `P+Q` if either has that one; `lock? … of` if that is not sure; `of dead` |
//! | `waits children P…`, `waits signal`, `waits time`, `waits other` | |
//! | `timed`, `once`, `moved`, `doubted` | of the wait: it ends by itself; nobody looked twice; it was another one the second time; it may end by itself |
//! | `runs`, `stopped`, `halted` (by a debugger), `ended` | its state |
//! | `handles N…` | signals, by number |
//! | `child of P`, `traced by P`, `session P`, `ring`, `unreadable`, `user N`, `space N`, `group PATH` | its parent, session, user, PID namespace, control group |
//! | `registers O…`, `hides`, `submits` | with an io_uring: these objects; what is not known; requests that may be under way |
//! | `started S`, `ipc N` | when it was started, its IPC namespace |
//!
//! A line that begins with `!` is about objects: `! peers A B`, `! sends A B` (to an address that others send to), `! listens A`,
//! `! pending A at B` (not accepted yet), `! pidfd A of P`, `! locks A KIND` (`posix` or `flock`); `! fact A NAME VALUE …` says what else is known of one ([`World::fact`]);
//! `! hidden`, `! no host` (a PID namespace's processes only), `! no flights`, `! no waits` are about what was looked at. Seconds are counted from the machine's start, and it is [`NOW`].

use switchboard_inspect::model::{Lock, LockKind};
use switchboard_inspect::{
    Coverage, End, Kind, Need, Object, Process, Snapshot, Target, Thread, Via, Wait, WaitOn,
};

/// When a world is looked at, in seconds.
pub(crate) const NOW: u64 = 100_000;

/// The snapshot of this text.
pub(crate) fn world(text: &str) -> Snapshot {
    let mut world = World::default();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Everybody first, so that a line may name who comes later.
    for line in lines().filter(|line| !line.starts_with('!')) {
        world.thread(line.split([' ', ';']).next().expect("a name"));
    }
    let mut seen = Vec::new();
    for line in lines() {
        match line.strip_prefix('!') {
            Some(rest) => world.about(&rest.split_whitespace().collect::<Vec<_>>()),
            None => {
                let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
                let thread = seen.iter().filter(|&&other| other == name).count();
                seen.push(name);
                for part in rest.split(';') {
                    world.part(name, thread, &part.split_whitespace().collect::<Vec<_>>());
                }
            }
        }
    }
    world.snapshot.finish()
}

#[derive(Default)]
struct World {
    snapshot: Snapshot,
}

trait Finish {
    fn finish(self) -> Snapshot;
}

impl Finish for Snapshot {
    fn finish(mut self) -> Snapshot {
        let all = u32::try_from(self.processes.len()).expect("few");
        let readable = self.processes.iter().filter(|process| process.readable).count();
        let readable = u32::try_from(readable).expect("few");
        self.coverage = Coverage {
            processes: all,
            readable,
            waits_readable: readable,
            waits: true,
            kernel_threads: 1,
            in_flight: true,
            ..self.coverage
        };
        for note in std::mem::take(&mut self.coverage.missing) {
            match note.as_str() {
                "no flights" => self.coverage.in_flight = false,
                "no waits" => self.coverage.waits = false,
                "no host" => self.coverage.outside = true,
                _ => self.coverage.hides_processes = true,
            }
        }
        (self.booted_unix_ms, self.taken_unix_ms) = (Some(0), NOW * 1000);
        self.format = switchboard_inspect::model::FORMAT;
        self
    }
}

impl World {
    fn thread(&mut self, name: &str) {
        let at = self.snapshot.processes.iter().position(|process| process.name == name);
        let at = at.unwrap_or_else(|| {
            let pid = 10 * (u32::try_from(self.snapshot.processes.len()).expect("few") + 1);
            self.snapshot.processes.push(Process {
                pid,
                name: name.to_owned(),
                state: 'S',
                readable: true,
                ..Process::default()
            });
            self.snapshot.processes.len() - 1
        });
        let process = &mut self.snapshot.processes[at];
        let tid = process.pid + u32::try_from(process.threads.len()).expect("few");
        let name = name.to_owned();
        process.threads.push(Thread { tid, name, state: 'S', ..Thread::default() });
    }

    fn pid(&self, name: &str) -> u32 {
        let mut all = self.snapshot.processes.iter();
        all.find(|process| process.name == name).unwrap_or_else(|| panic!("no {name}")).pid
    }

    /// A thread, as `name` or `name.1`.
    fn tid(&self, name: &str) -> u32 {
        match name.split_once('.') {
            Some((name, number)) => self.pid(name) + number.parse::<u32>().expect("a number"),
            None => self.pid(name),
        }
    }

    fn object(&mut self, id: &str) -> &mut Object {
        let found = self.snapshot.objects.iter().position(|object| object.id == id);
        let at = found.unwrap_or_else(|| {
            let scheme = id.split(':').next().expect("a kind");
            let kind = Kind::named(scheme).unwrap_or_else(|| panic!("no kind {scheme}"));
            self.snapshot.objects.push(Object::new(kind, id));
            self.snapshot.objects.len() - 1
        });
        &mut self.snapshot.objects[at]
    }

    fn about(&mut self, words: &[&str]) {
        match words {
            ["peers", a, b] => {
                self.object(a).peer = Some((*b).to_owned());
                self.object(b).peer = Some((*a).to_owned());
            }
            ["sends", a, b] => {
                self.object(b);
                self.object(a).peer = Some((*b).to_owned());
            }
            ["pending", a, "at", listener] => {
                let (a, unaccepted) = ((*a).to_owned(), format!("{a}0"));
                self.object(&a).peer = Some(unaccepted.clone());
                let unaccepted = self.object(&unaccepted);
                unaccepted.peer = Some(a);
                unaccepted.details.insert("listener", (*listener).to_owned());
            }
            ["locks", id, kind] => {
                let kind = if *kind == "posix" { LockKind::Posix } else { LockKind::Flock };
                let (taker, holders) = (None, Vec::new());
                let (start, end, waiting, exclusive) = (0, None, false, true);
                let lock = Lock { kind, exclusive, taker, holders, start, end, waiting };
                self.object(id).locks.push(lock);
            }
            ["listens", id] => self.object(id).state = Some("listening".into()),
            ["pidfd", id, "of", process] => {
                let pid = self.pid(process);
                self.object(id).state = Some(format!("process {pid}").into());
            }
            ["fact", id, facts @ ..] => {
                for fact in facts.chunks(2) {
                    self.fact(id, fact[0], fact[1]);
                }
            }
            ["hidden"] | ["no", _] => self.snapshot.coverage.missing.push(words.join(" ")),
            _ => panic!("not understood: {words:?}"),
        }
    }

    /// A fact about an object: a name (`_` stands for a space) and a value, of which a process may be named.
    fn fact(&mut self, id: &str, name: &str, value: &str) {
        let named = self.snapshot.processes.iter().find(|one| one.name == value);
        let value = named.map_or_else(|| value.to_owned(), |one| one.pid.to_string());
        let ms = || Some(value.parse::<u64>().expect("seconds") * 1000);
        let number = || value.parse().expect("a number");
        let object = self.object(id);
        match name {
            "uid" => object.uid = Some(number()),
            "gid" => object.gid = Some(number()),
            "mode" => object.mode = u32::from_str_radix(&value, 8).ok(),
            "namespace" => object.namespace = Some(number().into()),
            "fill" => object.fill = Some(number().into()),
            "name" => object.names.push(value),
            "state" => object.state = Some(value.replace('_', " ").into()),
            "made" => object.times.made_ms = ms(),
            "changed" => object.times.changed_ms = ms(),
            "used" => object.times.used_ms = ms(),
            "user" => {
                object.ends.push(End { pid: number(), via: Via::Used, reads: true, writes: true })
            }
            _ => object.details.insert(name.replace('_', " "), value),
        }
    }

    fn part(&mut self, name: &str, thread: usize, words: &[&str]) {
        let Some((&verb, rest)) = words.split_first() else { return };
        let pid = self.pid(name);
        match verb {
            "has" | "reads" | "writes" | "maps" => {
                for (at, id) in rest.iter().enumerate() {
                    let via = match verb {
                        "maps" => Via::Map(0x1000),
                        _ => Via::Fd(i32::try_from(at).expect("few") + 3),
                    };
                    let (reads, writes) = (verb != "writes", verb != "reads");
                    self.object(id).ends.push(End { pid, via, reads, writes });
                }
            }
            "stdin" | "stdout" => {
                let (fd, reads) = if verb == "stdin" { (0, true) } else { (1, false) };
                let end = End { pid, via: Via::Fd(fd), reads, writes: !reads };
                self.object(rest[0]).ends.push(end);
            }
            "used" => {
                for id in rest {
                    let end = End { pid, via: Via::Used, reads: true, writes: true };
                    self.object(id).ends.push(end);
                }
            }
            "user" => self.at(name).uid = rest[0].parse().expect("a user"),
            "space" => self.at(name).namespaces.pid = Some(rest[0].parse().expect("a namespace")),
            "group" => self.at(name).cgroup = rest[0].to_owned(),
            "waits" => {
                let wait = self.wait(rest);
                self.at(name).threads[thread].wait = Some(wait);
            }
            "timed" => self.its_wait(name, thread).timed = true,
            "once" => self.its_wait(name, thread).steady = None,
            "moved" => self.its_wait(name, thread).steady = Some(false),
            "doubted" => self.its_wait(name, thread).doubt = Some("a limit".to_owned()),
            "runs" => self.at(name).threads[thread].state = 'R',
            "stopped" => self.at(name).state = 'T',
            "halted" => self.at(name).state = 't',
            "ended" => self.at(name).state = 'Z',
            "ring" => self.at(name).io_uring = true,
            "hides" => self.at(name).rings.unknown = 1,
            "submits" => self.at(name).rings.busy = 1,
            "registers" => {
                for id in rest {
                    let end = End { pid, via: Via::Ring(9), reads: true, writes: true };
                    self.object(id).ends.push(end);
                }
            }
            "unreadable" => {
                let process = self.at(name);
                process.readable = false;
                process.threads.clear();
            }
            "handles" => {
                for signal in rest {
                    let bit = signal.parse::<u32>().expect("a signal") - 1;
                    self.at(name).caught_signals |= 1 << bit;
                }
            }
            "started" => {
                self.at(name).started_ticks = rest[0].parse::<u64>().expect("seconds") * 100;
            }
            "ipc" => self.at(name).namespaces.ipc = rest[0].parse().ok(),
            "child" => self.at(name).parent = self.pid(rest[1]),
            "traced" => self.at(name).tracer = Some(self.pid(rest[1])),
            "session" => self.at(name).session = self.pid(rest[0]),
            _ => panic!("not understood: {words:?}"),
        }
    }

    fn at(&mut self, name: &str) -> &mut Process {
        let mut all = self.snapshot.processes.iter_mut();
        all.find(|process| process.name == name).expect("a process")
    }

    fn its_wait(&mut self, name: &str, thread: usize) -> &mut Wait {
        self.at(name).threads[thread].wait.as_mut().expect("`waits` comes first")
    }

    fn wait(&mut self, words: &[&str]) -> Wait {
        let (&what, rest) = words.split_first().expect("what it waits for");
        let (call, on) = match what {
            "signal" => ("pause", WaitOn::Signal),
            "time" => ("nanosleep", WaitOn::Time),
            "other" => ("io_uring_enter", WaitOn::Other("what is not seen".to_owned())),
            "children" => {
                ("wait", WaitOn::Children(rest.iter().map(|name| self.pid(name)).collect()))
            }
            "lock" | "lock?" | "locks" => {
                let [id, "of", owners @ ..] = rest else { panic!("whose lock? {words:?}") };
                let of_threads = self.object(id).kind == Kind::Futex;
                let mut target = Target::new(*id, Need::Release);
                (target.sure, target.every) = (what != "lock?", what == "locks");
                if what == "locks" {
                    let of = |lock: &&str| lock.split('+').map(|one| self.pid(one)).collect();
                    target.locks = owners.iter().map(of).collect();
                }
                for owner in owners.iter().flat_map(|owner| owner.split('+')) {
                    if owner == "dead" {
                        target.dead_owner = Some(999);
                    } else {
                        let by = if of_threads { self.tid(owner) } else { self.pid(owner) };
                        target.owners.push(by);
                    }
                }
                ("futex", WaitOn::Objects(vec![target]))
            }
            "counted" => {
                let [id, "of", owner] = rest else { panic!("whose semaphore? {words:?}") };
                self.object(id);
                let mut target = Target::new(*id, Need::Count);
                target.owners = vec![self.pid(owner)];
                ("semop", WaitOn::Objects(vec![target]))
            }
            need => {
                let each = rest.iter().map(|id| {
                    self.object(id);
                    Target::new(*id, named(need))
                });
                ("read", WaitOn::Objects(each.collect()))
            }
        };
        Wait {
            call: call.to_owned(),
            channel: None,
            timed: on == WaitOn::Time,
            on,
            doubt: None,
            steady: Some(true),
            since_ms: Some((5_000, 20)),
        }
    }
}

fn named(need: &str) -> Need {
    match need {
        "data" => Need::Data,
        "room" => Need::Room,
        "delivery" => Need::Delivery,
        "client" => Need::Client,
        "acceptance" => Need::Acceptance,
        "reader" => Need::Reader,
        "writer" => Need::Writer,
        "count" => Need::Count,
        "change" => Need::Change,
        _ => panic!("no need {need}"),
    }
}
