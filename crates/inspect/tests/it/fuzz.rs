//! Every parser on text that nobody meant: what the kernel really says, changed at random, and what is made of numbers, words and marks
//! that parsers look for. What is understood in a new way is kept and changed further.
//!
//! `cargo xtask prove fuzz-inspect` runs this for longer: `SWITCHBOARD_FUZZ_SECONDS`, in sum. What is random follows from a seed, which is
//! said when something fails, with the text: `SWITCHBOARD_FUZZ_SEED` takes it again.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use serde_json::Value;
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{deadlocks, difference, stuck, why};
use switchboard_inspect::name;
use switchboard_inspect::source::descriptors::{anonymous, direction};
use switchboard_inspect::source::{
    inet, locks, maps, netlink, numbers, own_limits, process, schedule, system_call, sysv, unix,
};
use switchboard_inspect::text::{escaped, tamed};
use switchboard_inspect::{Kind, Kinds, Need, Request, Snapshot, Target, Wait, WaitOn};
use switchboard_testkit::skip::say;

/// A parser: what it is called, what it really reads, and a reading of any bytes. What comes back says in which way the text was
/// understood: a new one is worth keeping.
struct Parser {
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    read: fn(&[u8]) -> u64,
}

const TABLE: &[Parser] = &[
    Parser {
        name: "stat",
        seeds: || files(&["self/stat", "1/stat"]),
        read: |text| {
            let found = process::stat(text);
            found.iter().for_each(|stat| safe(&stat.name));
            shape(&found.map(|stat| (stat.state, stat.kernel, stat.threads.min(3))))
        },
    },
    Parser {
        name: "status",
        seeds: || files(&["self/status", "1/status"]),
        read: |text| shape(&process::status(text).map(|status| status.inner_pids.len())),
    },
    Parser {
        name: "limits",
        seeds: || files(&["self/limits", "self/status"]),
        read: |text| {
            shape(&(own_limits::bounds(text).is_some(), own_limits::usage(text).is_some()))
        },
    },
    Parser {
        name: "cmdline",
        seeds: || files(&["self/cmdline"]),
        read: |text| {
            let found = process::arguments(text);
            found.iter().for_each(|one| safe(one));
            shape(&found.len().min(300))
        },
    },
    Parser {
        name: "maps",
        seeds: maps_seeds,
        read: |text| {
            let found = maps::shared(text, 1);
            found.iter().for_each(|one| safe(&one.name));
            shape(&found.iter().map(|one| (one.kind, one.writes)).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "fdinfo",
        seeds: fdinfo_seeds,
        read: |text| {
            let all = Kinds::ALL.iter().filter_map(|kind| anonymous(kind, text).map(|_| kind));
            shape(&(all.collect::<Vec<_>>(), direction(text), locks::of_descriptor(text).len()))
        },
    },
    Parser {
        name: "locks",
        seeds: locks_seeds,
        read: |text| {
            let found = locks::table(text);
            shape(
                &found
                    .iter()
                    .map(|one| (one.kind, one.waiting, one.end.is_some()))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "net/unix",
        seeds: || files(&["net/unix"]),
        read: |text| {
            let found = unix::table(text);
            found.iter().flat_map(|one| &one.name).for_each(|name| safe(name));
            shape(
                &found
                    .iter()
                    .map(|one| (one.kind, one.listening, one.name.is_some()))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "net/tcp",
        seeds: inet_seeds,
        read: |text| {
            let found = inet::table(text);
            shape(&found.iter().map(|one| (one.state, one.local.is_ipv6())).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "sock_diag",
        seeds: datagram_seeds,
        read: |text| {
            let mut ways = Vec::new();
            let ended = netlink::messages(text, &mut |body| {
                let found = unix::one(body);
                found.iter().flat_map(|one| &one.name).for_each(|name| safe(name));
                let understood =
                    found.map(|one| (one.listening, one.clients.len().min(9), one.name.is_some()));
                ways.push((understood, inet::one(body).map(|one| one.local.is_ipv6())));
            });
            shape(&(ways, ended.is_ok()))
        },
    },
    Parser {
        name: "sysvipc",
        seeds: sysv_seeds,
        read: |text| {
            let tables = [sysv::Table::Messages, sysv::Table::Semaphores, sysv::Table::Memory];
            shape(&tables.map(|table| sysv::table(table, text).len().min(9)))
        },
    },
    Parser {
        name: "syscall",
        seeds: || files(&["self/syscall", "1/syscall"]),
        read: |text| {
            shape(&match system_call::line(text) {
                None => 0,
                Some(system_call::Line::Running) => 1,
                Some(system_call::Line::Outside) => 2,
                Some(system_call::Line::Inside(inside)) => {
                    let small = (0..6).map(|at| inside.small(at)).fold(0, i32::wrapping_add);
                    3 + u8::from(inside.is_compatible()) + u8::from(small < 0)
                }
            })
        },
    },
    Parser {
        name: "sched",
        seeds: || files(&["self/sched", "self/schedstat", "self/status"]),
        read: |text| {
            let found =
                [schedule::runs(text), schedule::last_ran_ms(text), schedule::switches(text)];
            shape(&found.map(|one| one.is_some()))
        },
    },
    Parser {
        name: "numbers",
        seeds: || vec![b"18446744073709551615 -9223372036854775808 fe:01".to_vec()],
        read: |text| {
            let numbers =
                [numbers::decimal(text), numbers::hexadecimal(text), numbers::octal(text)];
            let signed = numbers::signed(text).map(|number| number < 0);
            let device = numbers::device_in_text(text).is_some();
            shape(&(
                numbers.map(|one| one.is_some()),
                signed,
                device,
                numbers::words(text).count().min(9),
            ))
        },
    },
    Parser {
        name: "text",
        seeds: || vec!["grün\u{202e}\x1b[0m\\".as_bytes().to_vec()],
        read: |text| {
            let shown = escaped(text);
            safe(&shown);
            safe(&tamed(String::from_utf8_lossy(text).into_owned()));
            shape(&(shown.len() == text.len()))
        },
    },
    Parser {
        name: "snapshot",
        seeds: || vec![snapshot_seed()],
        read: |text| shape(&snapshot(text)),
    },
    Parser {
        name: "snapshot, changed",
        seeds: || vec![b"0".to_vec()],
        read: |text| shape(&snapshot(&changed_snapshot(shape(&text)))),
    },
    Parser {
        name: "object",
        seeds: name_seeds,
        read: |text| {
            let words = String::from_utf8_lossy(text);
            let found = own_snapshot(|snapshot| match name::find(snapshot, &words, None) {
                name::Named::Process(_) => 1000,
                name::Named::Objects(objects) => objects.len().min(9),
            });
            shape(&(found, Kind::named(&words)))
        },
    },
];

fn shape(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Text that is shown: nothing in it moves a cursor or turns the direction of writing.
fn safe(text: &str) {
    let harmful = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(harmful), "not escaped: {text:?}");
}

/// Reads a file as a snapshot, and concludes from it whatever it says.
fn snapshot(text: &[u8]) -> (bool, usize, usize) {
    let Ok(snapshot) = Snapshot::from_json(text) else { return (false, 0, 0) };
    let index = Index::new(&snapshot);
    let set = stuck::set(&index);
    let found = deadlocks::find(&snapshot);
    for process in &snapshot.processes {
        safe(&process.label());
        for thread in &process.threads {
            safe(&why::sentence(&index, &set, process, thread));
            let _ = why::looks_stuck(&index, &set, process, thread, Duration::ZERO);
        }
    }
    let changes = own_snapshot(|own| {
        difference::between(own, &snapshot).changed.len()
            + difference::between(&snapshot, own).changed.len()
    });
    (true, found.len().min(9), changes.min(9))
}

/// A small one of this process, with a deadlock written into it.
fn own_snapshot<T>(with: impl FnOnce(&Snapshot) -> T) -> T {
    thread_local!(static OWN: Snapshot = small_snapshot());
    OWN.with(with)
}

fn small_snapshot() -> Snapshot {
    let (read, write) = switchboard_kernel::pipe::pipe().expect("a pipe");
    let mut snapshot = Request::everything().twice(Duration::from_millis(1)).take();
    let own = std::process::id();
    snapshot.processes.retain(|process| process.pid == own || process.pid == 1);
    snapshot.objects.retain(|object| object.ends.iter().any(|end| end.pid == own));
    snapshot.objects.truncate(12);
    // Who waits for itself, for a lock it has, and for a child.
    let ids: Vec<String> = snapshot.objects.iter().map(|object| object.id.clone()).collect();
    for process in &mut snapshot.processes {
        let pid = process.pid;
        for (thread, id) in process.threads.iter_mut().zip(ids.iter().cycle()) {
            let mut target = Target::new(id.clone(), Need::Data);
            (target.owners, target.sure) = (vec![pid], true);
            thread.wait = Some(Wait {
                call: "read".to_owned(),
                channel: None,
                on: WaitOn::Objects(vec![target]),
                timed: false,
                doubt: None,
                steady: Some(true),
                since_ms: Some((1, 1)),
            });
        }
    }
    drop((read, write));
    snapshot
}

fn snapshot_seed() -> Vec<u8> {
    own_snapshot(Snapshot::to_json)
}

/// A snapshot in which values stand in places of others of their kind: ids, numbers of processes, states.
fn changed_snapshot(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    thread_local!(static SEED: Value = serde_json::from_slice(&snapshot_seed()).expect("a snapshot"));
    let mut value = SEED.with(Value::clone);
    for _ in 0..=noise.below(12) {
        let mut other = place(&mut noise, &mut value).clone();
        let here = place(&mut noise, &mut value);
        match (&mut *here, &mut other) {
            (Value::Array(all), _) if noise.below(3) == 0 => all.push(other),
            (Value::Array(all), Value::Array(more)) => all.append(more),
            (Value::Number(_), _) if noise.below(3) == 0 => {
                *here = [0, 1, u64::MAX, 1 << 32][noise.below(4)].into();
            }
            (Value::Null | Value::Bool(_), _)
            | (Value::Number(_), Value::Number(_))
            | (Value::String(_), Value::String(_))
            | (Value::Object(_), Value::Object(_)) => *here = other,
            _ => {}
        }
    }
    serde_json::to_vec(&value).expect("JSON")
}

/// Somewhere in a value.
fn place<'a>(noise: &mut Noise, mut value: &'a mut Value) -> &'a mut Value {
    loop {
        let inside = match value {
            Value::Array(all) => all.len(),
            Value::Object(all) => all.len(),
            _ => 0,
        };
        if inside == 0 || noise.below(12) == 0 {
            return value;
        }
        let at = noise.below(inside);
        value = match value {
            Value::Array(all) => &mut all[at],
            Value::Object(all) => all.values_mut().nth(at).expect("a value"),
            leaf => return leaf,
        };
    }
}

fn name_seeds() -> Vec<Vec<u8>> {
    let words =
        ["pid:1", "pid:1/fd:3", "tcp:8080", "0xbeef", "unix:@x", "mq:/q", "[::1]:80", "4471"];
    let own = own_snapshot(|snapshot| {
        snapshot.objects.iter().map(|object| object.id.clone().into_bytes()).collect::<Vec<_>>()
    });
    words.iter().map(|word| word.as_bytes().to_vec()).chain(own).collect()
}

fn files(names: &[&str]) -> Vec<Vec<u8>> {
    let read = |name: &&str| std::fs::read(format!("/proc/{name}")).ok();
    let all = names.iter().filter_map(read);
    all.map(|text| text[..text.len().min(2000)].to_vec()).filter(|text| !text.is_empty()).collect()
}

fn maps_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["self/maps"]);
    all.push(
        b"7f10-7f20 rw-s 00001000 00:01 77 /memfd:a b (deleted)\n7f20-7f30 rw-s 0 00:01 3 /SYSV00000000 (deleted)\n\
          7f40-7f50 rw-s 00000000 00:19 5                  /dev/shm/sem.x\n7f50-7f60 rw-s 0 00:01 6 /dev/zero (deleted)\n"
            .to_vec(),
    );
    all
}

fn fdinfo_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "pos:\t0\nflags:\t02000001\nmnt_id:\t9\nino:\t77\n",
        "pos:\t0\nflags:\t04002\neventfd-count:               1f\neventfd-id: 9\neventfd-semaphore: 0\n",
        "pos:\t0\nflags:\t02\ntfd:        4 events:       1f data:                4  pos:0 ino:41234df sdev:f\n",
        "flags:\t02\nsigmask:\t0000000000000200\n",
        "clockid: 0\nticks: 0\nsettime flags: 01\nit_value: (0, 90)\nit_interval: (1, 0)\n",
        "inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8\n",
        "Pid:\t812\nNSpid:\t812\nino:\t77\n",
        "tty-index:\t3\nlock:\t1: FLOCK  ADVISORY  WRITE 17537 fe:00:10534959 0 EOF\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(files(&["self/fdinfo/0"])).collect()
}

fn locks_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["locks"]);
    all.push(
        b"1: FLOCK  ADVISORY  WRITE 17537 fe:00:10534959 0 EOF\n1: -> FLOCK  ADVISORY  READ 17538 fe:00:10534959 0 EOF\n\
          2: OFDLCK ADVISORY  READ -1 00:19:7 5 9\n3: POSIX  ADVISORY  WRITE 12 00:19:7 0 0\n4: LEASE  ACTIVE  READ 9 fe:00:3 0 EOF\n"
            .to_vec(),
    );
    all
}

fn sysv_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["sysvipc/shm", "sysvipc/sem", "sysvipc/msg"]);
    all.push(
        b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
          -559038737          3  1600                  4096    10    11      2     7     8     7     8 0 0 0\n"
            .to_vec(),
    );
    all.push(
        b"key msqid perms cbytes qnum lspid lrpid uid gid\n 1 2 600 4 5 6 7 8 9 0 0 0 0 0\n"
            .to_vec(),
    );
    all
}

fn inet_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["net/tcp", "net/udp", "net/tcp6"]);
    all.push(
        b"  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4242 1\n\
          1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C350 01 00000001:00000002 00:00000000 00000000 0 0 7 1\n"
            .to_vec(),
    );
    all
}

/// Answers as the kernel writes them: a Unix socket that listens, a connection, and the end.
fn datagram_seeds() -> Vec<Vec<u8>> {
    let attribute = |kind: u16, value: &[u8]| {
        let len = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u16, body: &[u8]| {
        let len = u32::try_from(16 + body.len()).expect("short");
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut unix = vec![1, 1, 10, 0, 7, 0, 0, 0];
    unix.extend([0; 8]);
    unix.extend(attribute(0, b"\0name\n"));
    unix.extend(attribute(2, &77_u32.to_ne_bytes()));
    unix.extend(attribute(3, &[8, 0, 0, 0, 9, 0, 0, 0]));
    unix.extend(attribute(4, &[3, 0, 0, 0, 5, 0, 0, 0]));
    unix.extend(attribute(5, &[1; 36]));
    unix.extend(attribute(6, &[3]));
    unix.extend(attribute(7, &1000_u32.to_ne_bytes()));
    let mut inet = vec![2, 1, 0, 0, 0x1f, 0x90, 0xc3, 0x50, 127, 0, 0, 1];
    inet.resize(72, 0);
    let error = (-2_i32).to_ne_bytes();
    let done = message(3, &[0; 4]);
    vec![
        [message(20, &unix), message(20, &inet), done.clone()].concat(),
        [message(20, &inet), message(2, &error)].concat(),
        done,
    ]
}

/// What comes out of a seed; quick, and the same for the same seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() >> 8).unwrap_or(0) % most.max(1)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Words and marks that some parser looks for, numbers at their limits, and bytes that hurt a terminal.
const WORDS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"4294967295",
    b"4294967296",
    b"0xffffffffffffffff",
    b"7fffffffffffffff",
    b"ffffffffffffffffffff",
    b"1777777777777777777777",
    b":",
    b"\n",
    b"\t",
    b" ",
    b"(",
    b")",
    b"->",
    b"EOF",
    b"POSIX",
    b"FLOCK",
    b"OFDLCK",
    b"LEASE",
    b"READ",
    b"WRITE",
    b"rw-s",
    b"r--p",
    b"fe:01",
    b"ff:ff",
    b"/dev/shm/sem.",
    b"/memfd:",
    b" (deleted)",
    b"/SYSV",
    b"/dev/zero",
    b"running",
    b"tfd:",
    b"ino:",
    b"flags:",
    b"Uid:",
    b"NSpid:",
    b"SigCgt:",
    b"eventfd-id: ",
    b"eventfd-count: ",
    b"sigmask: ",
    b"Pid: ",
    b"lock:\t",
    b"se.exec_start :",
    b"\x1b[2J",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"",
    b"\\u202e",
    b",",
    b"1e999",
    b"certain",
    b"pid:",
    b"/fd:",
];

/// A text made of others.
fn changed(noise: &mut Noise, texts: &[Vec<u8>]) -> Vec<u8> {
    let mut text = noise.pick(texts).clone();
    for _ in 0..=noise.below(6) {
        let (at, end) = (noise.below(text.len() + 1), noise.below(text.len() + 1));
        let (at, end) = (at.min(end), at.max(end));
        match noise.below(9) {
            0 if at < text.len() => text[at] = noise.next().to_le_bytes()[3],
            1 if at < text.len() => text[at] ^= 1 << noise.below(8),
            2 => text.truncate(at),
            3 => drop(text.drain(at..end)),
            4 => drop(text.splice(at..at, noise.pick(WORDS).iter().copied())),
            5 => {
                // A whole word in place of another one.
                let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
                let from = text[..at].iter().rposition(blank).map_or(0, |place| place + 1);
                let to = text[at..].iter().position(blank).map_or(text.len(), |place| at + place);
                text.splice(from..to, noise.pick(WORDS).iter().copied());
            }
            6 if end - at < 400 => {
                let again = text[at..end].to_vec();
                text.splice(at..at, again);
            }
            7 => {
                let other = noise.pick(texts);
                let from = noise.below(other.len());
                let to = from + noise.below((other.len() - from).min(300) + 1);
                text.splice(at..at, other[from..to].iter().copied());
            }
            _ => text.extend(noise.next().to_le_bytes()),
        }
    }
    text.truncate(1 << 16);
    text
}

fn seconds() -> f64 {
    let asked = std::env::var("SWITCHBOARD_FUZZ_SECONDS").ok();
    asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(3.0)
}

fn seed() -> u64 {
    let asked = std::env::var("SWITCHBOARD_FUZZ_SEED").ok();
    asked.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()) | 1)
    })
}

/// Reads what is made of a parser's seeds, until the time is over; how many texts, and how many ways they were understood in.
fn fuzz(parser: &Parser, seed: u64, time: Duration) -> (u64, usize) {
    const MOST_KEPT: usize = 4000;
    let mut texts = (parser.seeds)();
    assert!(!texts.is_empty(), "{}: nothing to begin with", parser.name);
    let mut ways: HashSet<u64> = texts.iter().map(|text| (parser.read)(text)).collect();
    let (mut noise, mut count, start) = (Noise(seed), 0, Instant::now());
    while count < 20 || start.elapsed() < time {
        let text = changed(&mut noise, &texts);
        let read = catch_unwind(AssertUnwindSafe(|| (parser.read)(&text)));
        let way = read.unwrap_or_else(|panic| {
            say(&format!(
                "{}, with SWITCHBOARD_FUZZ_SEED={seed}: \"{}\"",
                parser.name,
                text.escape_ascii()
            ));
            resume_unwind(panic)
        });
        if ways.insert(way) && texts.len() < MOST_KEPT {
            texts.push(text);
        }
        count += 1;
    }
    (count, ways.len())
}

#[test]
fn fuzz_inspect_every_parser() {
    let (seed, each) = (seed(), Duration::from_secs_f64(seconds() / TABLE.len() as f64));
    for parser in TABLE {
        let (texts, ways) = fuzz(parser, seed, each);
        say(&format!("{}: {texts} texts, understood in {ways} ways", parser.name));
        assert!(ways > 1, "{}: whatever is read, it is all the same", parser.name);
    }
}
