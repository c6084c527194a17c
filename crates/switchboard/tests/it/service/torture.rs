//! Clients and servers that are killed at random, and stopped and let go on: each call ends with its reply or with an
//! honest word, by its deadline, and none is begun twice.
//!
//! `cargo xtask prove torture service` runs this for longer: `SWITCHBOARD_TORTURE_SECONDS`. Servers write down what
//! they begin, clients how their calls ended, each line with one write: so what the dead wrote counts, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard::{Call, CallError, Code, Options, Pending, Progress, ReplyError, Text};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::skip::say;

use super::worker::Words;
use crate::conformance::contents::Random;
use crate::conformance::death;

/// How long a run is where nobody asks for longer.
const QUICK: Duration = Duration::from_millis(1500);
/// Time between two deaths or stops: up to this many milliseconds.
const EVERY_MS: u64 = 60;
/// How long somebody is stopped, at most.
const STOPPED_MS: u64 = 300;
/// A call may end so much after its deadline: processes are stopped, and the machine is busy.
const LATE: Duration = Duration::from_secs(10);
const CLIENTS: usize = 4;

fn append(file: &mut std::fs::File, line: &str) {
    file.write_all(format!("{line}\n").as_bytes()).expect("written");
}

fn open(path: &str) -> std::fs::File {
    OpenOptions::new().append(true).open(path).expect("a file")
}

/// What is called: which call it is, how long the work takes, how many parts the reply has, and how long it is.
struct Request {
    id: String,
    work_us: u64,
    parts: u64,
    len_bytes: usize,
}

impl Request {
    fn random(random: &mut Random, id: String) -> Self {
        let work_us = if random.below(20) == 0 { random.below(30_000) } else { 0 };
        let parts = if random.below(8) == 0 { random.below(5) } else { 1 };
        let len_bytes = [0, 8, 300, 9_000][random.below(4) as usize];
        Self { id, work_us, parts, len_bytes }
    }

    fn text(&self) -> Text {
        let filling = "q".repeat(self.len_bytes);
        Text(format!("{} {} {} {} {filling}", self.id, self.work_us, self.parts, self.len_bytes))
    }

    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let len_bytes = number(3) as usize;
        assert!(words.len() == 5 && words[4].len() == len_bytes, "a torn request");
        Self { id: words[0].to_owned(), work_us: number(1), parts: number(2), len_bytes }
    }

    /// A part of the reply.
    fn part(&self, at: u64) -> Text {
        Text(format!("{} {at} {}", self.id, "r".repeat(self.len_bytes)))
    }
}

/// Role: serves until it is killed. Arguments: the address, the file of what is begun.
pub(crate) fn mortal_server(arguments: &[String]) {
    let server = Words::open_with(&arguments[0], Options::default()).and_then(|one| one.server());
    let server = server.expect("a server");
    let mut begun = open(&arguments[1]);
    loop {
        let call = server.recv_call().expect("a call");
        let request = Request::parse(&call.request.0);
        append(&mut begun, &request.id);
        // Its client may be dead, or wait no more.
        let _ = answer(&request, call);
    }
}

fn answer(request: &Request, mut call: Call<'_, Text, Text>) -> Result<(), ReplyError> {
    if request.work_us > 0 {
        std::thread::sleep(Duration::from_micros(request.work_us));
    }
    if request.parts == 1 {
        return call.reply(&request.part(0));
    }
    for at in 0..request.parts {
        call.send(&request.part(at))?;
    }
    call.finish()
}

/// Role: calls until a file is there. Arguments: the address, the file of how calls ended, its name, the file.
pub(crate) fn mortal_client(arguments: &[String]) {
    let [address, ends, name, stop] = [0, 1, 2, 3].map(|at| arguments[at].as_str());
    let mut random = Random::new(Random::seed());
    let client = Words::open(address).and_then(|words| words.client()).expect("a client");
    let (mut ends, mut number, mut latest) = (open(ends), 0_u64, Duration::ZERO);
    while !Path::new(stop).exists() {
        let calls: Vec<_> = (0..1 + random.below(5))
            .map(|_| {
                number += 1;
                let request = Request::random(&mut random, format!("{name}.{number}"));
                let time = Duration::from_millis([3, 50, 400, 5_000][random.below(4) as usize]);
                let until = Instant::now() + time;
                (client.start_timeout(&request.text(), time), request, until)
            })
            .collect();
        for (call, request, until) in calls {
            let end = if random.below(30) == 0 {
                drop(call.map(Pending::cancel));
                "cancelled".to_owned()
            } else {
                outcome(call, &request)
            };
            latest = latest.max(Instant::now().saturating_duration_since(until));
            append(&mut ends, &format!("{} {end}", request.id));
        }
    }
    report(format!("{}", latest.as_micros()));
}

/// How a call ended, in a word; it panics where that is none of what may be.
fn outcome(call: Result<Pending<'_, Text, Text>, CallError>, request: &Request) -> String {
    let word = |progress| if progress == Progress::NotStarted { "not-started" } else { "unknown" };
    let error = match call {
        Err(error) => error,
        Ok(call) => {
            let mut parts = 0;
            let mut error = None;
            for part in call.into_replies() {
                match part {
                    Ok(part) => assert_eq!(part.0, request.part(parts).0, "another call's reply"),
                    Err(other) => error = Some(other),
                }
                parts += 1;
            }
            let Some(error) = error else {
                assert_eq!(parts, request.parts, "a reply of {}", request.id);
                return "replied".to_owned();
            };
            error
        }
    };
    match error {
        CallError::TimedOut { progress } | CallError::ServerGone { progress, .. } => {
            word(progress).to_owned()
        }
        CallError::Status(status) if status.code == Code::DeadlineExceeded => {
            // It was too late before it began.
            "not-started".to_owned()
        }
        error => panic!("{}: {error:?}", request.id),
    }
}

struct Seat {
    child: Child,
    stopped_until: Option<Instant>,
}

impl Seat {
    fn new(child: Child) -> Self {
        Self { child, stopped_until: None }
    }
}

fn torture(scheme: &str, servers: usize) {
    let seed = death::Seed(Random::seed());
    let mut random = Random::new(seed.0);
    let asked =
        std::env::var("SWITCHBOARD_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = asked.map_or(QUICK, Duration::from_secs);
    let meeting = super::meeting_of(scheme);
    let file = |name: &str| {
        let path = meeting.scratch.join(name).display().to_string();
        std::fs::write(&path, "").expect("a file");
        path
    };
    let (begun, ends) = (file("begun"), file("ends"));
    let stop = meeting.scratch.join("stop").display().to_string();
    let server = || Seat::new(Child::role("service-mortal-server", &[meeting.address(), &begun]));
    let mut lives = 0;
    let mut client = || {
        lives += 1;
        let name = format!("{lives}");
        let arguments = [meeting.address(), &ends, &name, &stop];
        Seat::new(Child::role("service-mortal-client", &arguments))
    };
    let mut seats: Vec<Seat> = (0..servers).map(|_| server()).collect();
    seats.extend((0..CLIENTS).map(|_| client()));
    let (mut killed, mut stops) = ([0, 0], 0);
    let since = Instant::now();
    while since.elapsed() < lasts {
        // What comes when is what varies: every moment has to do.
        std::thread::sleep(Duration::from_millis(1 + random.below(EVERY_MS)));
        let now = Instant::now();
        for seat in &mut seats {
            if seat.stopped_until.take_if(|until| *until <= now).is_some() {
                seat.child.signal(Signal::CONT);
            }
        }
        let at = random.below(seats.len() as u64) as usize;
        if random.below(3) == 0 && seats[at].stopped_until.is_none() {
            seats[at].child.stop();
            let until = now + Duration::from_millis(random.below(STOPPED_MS));
            seats[at].stopped_until = Some(until);
            stops += 1;
        } else {
            seats[at].child.kill();
            seats[at] = if at < servers { server() } else { client() };
            killed[usize::from(at >= servers)] += 1;
        }
    }
    for seat in seats.iter().filter(|seat| seat.stopped_until.is_some()) {
        seat.child.signal(Signal::CONT);
    }
    std::fs::write(&stop, "").expect("a file");
    let latest = seats.drain(servers..).map(|mut client| {
        let latest = client.child.line_within(2 * DEADLINE);
        assert!(client.child.wait().success(), "a client that saw what may not be");
        latest.and_then(|line| line.parse().ok()).expect("a number")
    });
    let latest = Duration::from_micros(latest.max().expect("clients"));
    assert!(latest < LATE, "a call ended {latest:?} after its deadline");
    drop(seats);
    let counts = compare(&begun, &ends);
    say(&format!(
        "{scheme}: {counts:?} calls while {} servers and {} clients were killed, and {stops} processes stopped, in \
         {:.1} s; none ended later than {latest:?} after its deadline; seed {}",
        killed[0],
        killed[1],
        since.elapsed().as_secs_f64(),
        seed.0
    ));
}

/// What servers began is what clients were told. How many calls ended how.
fn compare(begun: &str, ends: &str) -> BTreeMap<String, u64> {
    let begun = std::fs::read_to_string(begun).expect("a file");
    let mut once = BTreeSet::new();
    for id in begun.lines() {
        assert!(once.insert(id), "call {id} was begun twice");
    }
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(ends).expect("a file").lines() {
        let (id, end) = line.split_once(' ').expect("two words");
        match end {
            "replied" => assert!(once.contains(id), "call {id} was answered, not done"),
            "not-started" => assert!(!once.contains(id), "call {id} was begun"),
            _ => {}
        }
        *counts.entry(end.to_owned()).or_default() += 1;
    }
    assert!(counts.get("replied").is_some_and(|count| *count > 0), "no replies: {counts:?}");
    counts
}

#[test]
fn torture_of_calls_over_shm_each_ends_honestly() {
    torture("shm", 3);
}

#[test]
fn torture_of_calls_over_unix_each_ends_honestly() {
    // The name is one server's.
    torture("unix", 1);
}
