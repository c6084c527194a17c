//! Machines that were made up, for tests of the map: as many processes as one likes, with pipes, sockets, memory and locks among them.

// The command's own tests take some of it, the integration tests take other parts.
#![allow(dead_code)]

use switchboard_inspect::analysis::graph::{Graph, Options};
use switchboard_inspect::{
    Coverage, End, Kind, Need, Object, Process, Snapshot, Target, Thread, Via, Wait, WaitOn,
};

/// So many processes of some trees, with channels between them by a rule that begins with a seed.
pub(crate) fn snapshot(processes: u32, seed: u64) -> Snapshot {
    const NAMES: &[&str] = &["postgres", "nginx", "sensor", "python3", "a very long name", "sh"];
    let mut random = Random(seed);
    let mut snapshot = Snapshot {
        format: switchboard_inspect::model::FORMAT,
        machine: "made-up (Linux)".to_owned(),
        ..Snapshot::default()
    };
    for n in 1..=processes {
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        let parent = if n % 40 == 1 { 1 } else { 10 * (n - 1 - (n - 2) % 40 / 4) };
        let mut process = process(10 * n, name);
        process.parent = if parent == 10 * n { 1 } else { parent };
        process.uid = 1_000 + n % 5;
        snapshot.processes.push(process);
    }
    let any = |random: &mut Random| 10 * (1 + random.below(processes.into()) as u32);
    for n in 0..processes {
        let (a, b) = (any(&mut random), any(&mut random));
        match n % 4 {
            0 => pipe(&mut snapshot, n, a, b),
            1 => sockets(&mut snapshot, n, a, b),
            2 if n % 20 == 2 => {
                let all: Vec<u32> = (0..6).map(|_| any(&mut random)).collect();
                memory(&mut snapshot, n, &all);
            }
            // Neighbours talk more than others.
            _ => {
                let a = 10 * (n + 1);
                pipe(&mut snapshot, n, a, if n + 1 < processes { a + 10 } else { b });
            }
        }
    }
    finish(snapshot)
}

/// The graph of [`snapshot`].
pub(crate) fn graph(processes: usize, seed: u64) -> Graph {
    let processes = u32::try_from(processes).expect("few");
    Graph::new(&snapshot(processes, seed), &Options::default())
}

/// Processes in a row, each of which reads what the one before it writes.
pub(crate) fn pipeline(processes: u32) -> Graph {
    let mut snapshot = Snapshot::default();
    for n in 1..=processes {
        let mut one = process(10 * n, "stage");
        one.parent = if n > 1 { 10 } else { 1 };
        snapshot.processes.push(one);
    }
    (1..processes).for_each(|n| pipe(&mut snapshot, n, 10 * n, 10 * n + 10));
    Graph::new(&finish(snapshot), &Options::default())
}

/// Two processes with these names, that wait for each other for ever, and a queue that has a name, too.
pub(crate) fn stuck_pair(names: [&str; 2], queue: &str) -> Snapshot {
    let mut snapshot = Snapshot { format: 1, ..Snapshot::default() };
    for (at, name) in names.iter().enumerate() {
        let mut one = process(10 + 10 * at as u32, name);
        one.command = vec![(*name).to_owned(), (*name).to_owned()];
        let object = format!("pipe:{}", at + 1);
        one.threads[0].wait = Some(Wait {
            call: "read".to_owned(),
            channel: None,
            on: WaitOn::Objects(vec![Target::new(object, Need::Data)]),
            timed: false,
            doubt: None,
            steady: Some(true),
            since_ms: Some((65_000, 20)),
        });
        snapshot.processes.push(one);
    }
    pipe(&mut snapshot, 1, 20, 10);
    pipe(&mut snapshot, 2, 10, 20);
    let mut shared = Object::new(Kind::Mq, "mq:0:1:5");
    shared.add_name(queue.to_owned());
    for pid in [10, 20] {
        shared.ends.push(End { pid, via: Via::Fd(9), reads: true, writes: true });
    }
    snapshot.objects.push(shared);
    finish(snapshot)
}

fn process(pid: u32, name: &str) -> Process {
    let thread = Thread { tid: pid, name: name.to_owned(), state: 'S', ..Thread::default() };
    Process {
        pid,
        parent: 1,
        name: name.to_owned(),
        command: vec![format!("/usr/bin/{name}"), "--serve".to_owned()],
        state: 'S',
        readable: true,
        threads: vec![thread],
        ..Process::default()
    }
}

fn pipe(snapshot: &mut Snapshot, number: u32, from: u32, to: u32) {
    let mut object = Object::new(Kind::Pipe, format!("pipe:{number}"));
    (object.fill, object.size) = (Some(u64::from(number % 7) * 10_000), Some(65_536));
    object.ends.push(End { pid: from, via: Via::Fd(1), reads: false, writes: true });
    object.ends.push(End { pid: to, via: Via::Fd(0), reads: true, writes: false });
    snapshot.objects.push(object);
}

fn sockets(snapshot: &mut Snapshot, number: u32, a: u32, b: u32) {
    let ids = [format!("unix:{}", 2 * number), format!("unix:{}", 2 * number + 1)];
    for (at, pid) in [a, b].into_iter().enumerate() {
        let mut object = Object::new(Kind::Unix, ids[at].clone());
        object.peer = Some(ids[1 - at].clone());
        object.state = Some("established".into());
        object.ends.push(End { pid, via: Via::Fd(3), reads: true, writes: true });
        snapshot.objects.push(object);
    }
}

fn memory(snapshot: &mut Snapshot, number: u32, pids: &[u32]) {
    let mut object = Object::new(Kind::PosixShm, format!("posix-shm:0:25:{number}"));
    object.add_name(format!("/dev/shm/segment-{number}"));
    object.size = Some(4_096);
    for &pid in pids {
        object.ends.push(End { pid, via: Via::Map(0x7000), reads: true, writes: true });
    }
    snapshot.objects.push(object);
}

fn finish(mut snapshot: Snapshot) -> Snapshot {
    let all = u32::try_from(snapshot.processes.len()).expect("few");
    snapshot.coverage = Coverage {
        processes: all,
        readable: all,
        waits_readable: all,
        waits: true,
        ..Coverage::default()
    };
    snapshot
}

/// Numbers that look like chance and are the same each time (Marsaglia, "Xorshift RNGs", 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0 ^ (self.0 >> 33);
        x ^= x << 13;
        x ^= x >> 7;
        x % most.max(1)
    }
}
