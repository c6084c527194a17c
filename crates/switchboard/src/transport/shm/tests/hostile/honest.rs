//! Honest processes, next to which peers lie: they go on, lose nothing, and say what they were told.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver as Told, channel as queue};
use std::time::{Duration, Instant};

use switchboard_testkit::child::{DEADLINE, instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::error::{RecvError, SendError};
use crate::message::Bytes;
use crate::options::Options;
use crate::pattern::queue::{Queue, Receiver, Sender};
use crate::pattern::topic::{Start, Topic};
use crate::transport::shm::hello::{Pattern, Role};

/// Each of them is longer than a frame may be, and so is in the arena.
const LARGE_EVERY: u64 = 51;
const LARGE_BYTES: usize = 12_000;

/// Messages in a row, and the pause after them: a stream that leaves the machine to others.
const IN_A_ROW: u64 = 20;
/// So many are taken together.
const MANY: usize = 12;
const PAUSE: Duration = Duration::from_millis(2);

/// How long a call waits, so that it hears what it is asked.
const PATIENCE: Duration = Duration::from_millis(100);
const MOMENT: Duration = Duration::from_millis(10);

/// An honest process, as its test has it.
#[derive(Debug)]
pub(super) struct Honest {
    pub(super) child: Child,
    /// What it says of liars is counted, and nothing else.
    forgives: bool,
    told: u64,
}

/// What an honest reader says that it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) messages: u64,
    /// Of nobody honest.
    pub(super) foreign: u64,
    /// The longest time without any since it was asked last.
    pub(super) pause: Duration,
}

/// What a process has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resources {
    pub(super) resident_kib: u64,
    pub(super) descriptors: u64,
    pub(super) mappings: u64,
}

impl Honest {
    /// Starts one. It knows the others by `secret`.
    pub(super) fn start(
        scratch: &Scratch,
        pattern: Pattern,
        role: Role,
        secret: &str,
        query: &str,
    ) -> Self {
        Self::start_with(scratch, pattern, role, secret, query, true)
    }

    /// The same, perhaps without a thread of the library's own.
    pub(super) fn start_with(
        scratch: &Scratch,
        pattern: Pattern,
        role: Role,
        secret: &str,
        query: &str,
        io_thread: bool,
    ) -> Self {
        let end = match (pattern, role) {
            (Pattern::Topic, Role::Writer) => "publisher",
            (Pattern::Topic, Role::Reader) => "subscriber",
            (Pattern::Queue, Role::Writer) => "sender",
            (Pattern::Queue, Role::Reader) => "receiver",
            (Pattern::Service | Pattern::Answers | Pattern::Event | Pattern::State, _) => {
                panic!("it is lied to elsewhere")
            }
        };
        let address = format!("shm:channel?scope={}{query}", scratch.path().display());
        let thread = if io_thread { "thread" } else { "alone" };
        let mut child = Child::role("shm-honest", &[end, address.as_str(), secret, thread]);
        child.expect("open");
        Self { child, forgives: false, told: 0 }
    }

    /// What it answers.
    ///
    /// # Panics
    /// If it says anything else, as of an error that it was told.
    #[track_caller]
    pub(super) fn ask(&mut self, question: &str) -> Vec<u64> {
        self.child.tell(question);
        let liar = liar();
        let line = loop {
            let line = self.child.line().unwrap_or_else(|| panic!("{question}: it has died"));
            if !(self.forgives && is_of_liar(&line, &liar)) {
                break line;
            }
            self.told += 1;
        };
        let answer = line.strip_prefix("is ").unwrap_or_else(|| panic!("{question}: {line}"));
        answer.split(' ').map(|number| number.parse().expect("a number")).collect()
    }

    /// What it says of the peers that lie is no failure from now on.
    pub(super) fn forgive(&mut self) {
        self.forgives = true;
    }

    /// How often it said something of the peers that lie.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Messages that it has sent, or received.
    #[track_caller]
    pub(super) fn count(&mut self) -> Count {
        let [messages, foreign, pause] = self.ask("count")[..] else { panic!("no count") };
        Count { messages, foreign, pause: Duration::from_millis(pause) }
    }

    #[track_caller]
    pub(super) fn resources(&mut self) -> Resources {
        let [resident_kib, descriptors, mappings] = self.ask("resources")[..] else {
            panic!("no resources")
        };
        Resources { resident_kib, descriptors, mappings }
    }

    /// Waits until it has peers, so many.
    #[track_caller]
    pub(super) fn until_peers(&mut self, peers: u64) {
        let since = Instant::now();
        while self.ask("peers") != [peers] {
            assert!(since.elapsed() < DEADLINE, "never {peers} peers, but {:?}", self.ask("peers"));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it has sent or received so many more.
    #[track_caller]
    pub(super) fn until_more(&mut self, more: u64) -> Count {
        let (since, begin) = (Instant::now(), self.count().messages);
        loop {
            let count = self.count();
            if count.messages >= begin + more {
                return count;
            }
            assert!(since.elapsed() < DEADLINE, "it stands still at {count:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// It says how many messages of the peer that lies are missing.
    #[track_caller]
    pub(super) fn expect_gap(&mut self) {
        let line = self.child.line().unwrap_or_default();
        assert!(
            line.contains(&format!(" of {}", liar())) && line.ends_with("missing"),
            "{line} where a gap was expected"
        );
    }

    /// It says of each of so many links to the liar that they ended.
    #[track_caller]
    pub(super) fn expect_ends(&mut self, count: usize) {
        (0..count).for_each(|_| self.expect_error("died", ""));
    }

    /// It says that a process died.
    #[track_caller]
    pub(super) fn expect_death_of(&mut self, pid: u32) {
        let line = self.child.line().unwrap_or_default();
        let expected = format!("error process {pid} (");
        assert!(line.starts_with(&expected) && line.contains("died"), "{line} and not {expected}");
    }

    /// It says so of the peer that lies until it has nothing more to say. How often.
    #[track_caller]
    pub(super) fn until_quiet(&mut self, problem: &str) -> usize {
        let (liar, mut count) = (liar(), 0);
        while let Some(line) = self.child.line_within(Duration::from_millis(500)) {
            let is_crowd = line.starts_with(CROWD);
            assert!(is_crowd || (is_of_liar(&line, &liar) && line.contains(problem)), "{line}");
            count += 1;
        }
        count
    }

    /// It says so often something of the peers that lie, and then has nothing more to say.
    #[track_caller]
    pub(super) fn until_said(&mut self, count: usize) {
        let liar = liar();
        for said in 0..count {
            let line = self.child.line().unwrap_or_else(|| panic!("{said} and it has died"));
            assert!(is_of_liar(&line, &liar), "{line}");
        }
        assert_eq!(self.until_quiet(""), 0, "more than {count}");
    }

    /// It says, of the peer that lies, and in time.
    #[track_caller]
    pub(super) fn expect_error(&mut self, kind: &str, problem: &str) {
        let line = self.child.line().unwrap_or_else(|| panic!("{problem}: it has died"));
        assert!(
            line.starts_with(&format!("error {}", liar()))
                && line.contains(kind)
                && line.contains(problem),
            "{line} where {kind} {problem} was expected"
        );
    }
}

/// How the peers that lie are called: they are of this process.
fn liar() -> String {
    format!("process {} (", std::process::id())
}

const CROWD: &str = "error a crowd of peers";

fn is_of_liar(line: &str, liar: &str) -> bool {
    let said = line.strip_prefix("error ");
    // Or so many messages of it are missing.
    let of_it = |said: &str| said.starts_with(liar) || said.contains(&format!(" of {liar}"));
    said.is_some_and(of_it) || line.starts_with(CROWD)
}

/// Role: an end of each kind.
pub(in crate::transport::shm::tests) fn honest(arguments: &[String]) {
    let [end, address, secret, thread] = arguments else { panic!("{arguments:?}") };
    let (tell, told) = queue();
    std::thread::spawn(move || while instruction().is_some_and(|line| tell.send(line).is_ok()) {});
    // What liars give back often is no less worth.
    let options = Options::default().follow(true).max_deliveries(u16::MAX);
    let options = options.io_thread(thread == "thread");
    let topic = || Topic::<Bytes>::at(address.parse().expect("an address"), options.clone());
    let jobs = || Queue::<Bytes>::at(address.parse().expect("an address"), options.clone());
    let mut state = State::new(secret, told);
    state.is_lossy = address.contains("overflow=drop-oldest");
    match end.as_str() {
        "publisher" => state.write(topic().publisher().expect("a publisher").into()),
        "subscriber" => {
            state.is_topic = true;
            state.read(topic().subscriber(Start::New).expect("a subscriber").into());
        }
        "sender" => state.write(jobs().sender().expect("a sender")),
        _ => state.read(jobs().receiver().expect("a receiver")),
    }
}

struct State {
    secret: Vec<u8>,
    told: Told<String>,
    is_topic: bool,
    /// It may be overtaken, which it is told.
    is_lossy: bool,
    messages: u64,
    foreign: u64,
    last: Instant,
    pause: Duration,
    /// Received messages: all up to this number, and these.
    through: u64,
    beyond: BTreeSet<u64>,
    /// The last one that came for the first time.
    newest: u64,
}

impl State {
    fn new(secret: &str, told: Told<String>) -> Self {
        Self {
            secret: secret.as_bytes().to_vec(),
            told,
            is_topic: false,
            is_lossy: false,
            messages: 0,
            foreign: 0,
            last: Instant::now(),
            pause: Duration::ZERO,
            through: 0,
            beyond: BTreeSet::new(),
            newest: 0,
        }
    }

    /// Message `number`: the secret, the number, and bytes that follow from it.
    fn message(&self, number: u64, len: Option<usize>) -> Vec<u8> {
        let large = number.is_multiple_of(LARGE_EVERY);
        let usual = if large { LARGE_BYTES } else { (number * 37 % 200) as usize };
        let mut bytes = self.secret.clone();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.resize(bytes.len() + len.unwrap_or(usual), number as u8);
        bytes
    }

    fn moved(&mut self) {
        self.pause = self.pause.max(self.last.elapsed());
        self.last = Instant::now();
    }

    /// Answers what is the same for all; gives what is not.
    fn answer(&mut self, peers: impl FnOnce() -> usize) -> Option<String> {
        let question = self.told.try_recv().ok()?;
        match question.as_str() {
            "count" => {
                self.moved();
                let pause = std::mem::take(&mut self.pause).as_millis();
                report(format!("is {} {} {pause}", self.messages, self.foreign));
            }
            "resources" => {
                let resident = resident_kib();
                let (descriptors, mappings) = (count_lines("fd"), count_lines("maps"));
                report(format!("is {resident} {descriptors} {mappings}"));
            }
            "peers" => report(format!("is {}", peers())),
            "through" => report(format!("is {}", self.through)),
            _ => return Some(question),
        }
        None
    }

    fn write(&mut self, mut end: Sender<Bytes>) {
        report("open");
        let mut quiet = false;
        loop {
            let mut len = None;
            match self.answer(|| end.peers()).as_deref() {
                Some("quiet") => {
                    quiet = true;
                    report(format!("is {}", self.messages));
                }
                Some("go") => {
                    quiet = false;
                    report("is 0");
                }
                Some("finish") => {
                    let finished = end.finish();
                    let rejected = end.rejected();
                    match finished {
                        Ok(()) => report(format!("is {}", self.messages)),
                        Err(error) => report(format!("error {error}, {rejected} rejected")),
                    }
                    return;
                }
                Some(other) => {
                    len = other.strip_prefix("large ").map(|len| len.parse().expect("a number"));
                }
                None => {}
            }
            if quiet && len.is_none() {
                let _ = end.drive();
                std::thread::sleep(PAUSE);
                continue;
            }
            let message = self.message(self.messages + 1, len);
            // In turns copied, and built where it is read.
            let sent = if self.messages.is_multiple_of(2) {
                end.loan_bytes_timeout(message.len(), PATIENCE).and_then(|mut loan| {
                    loan.copy_from_slice(&message);
                    loan.send()
                })
            } else {
                end.send_timeout(&Bytes(message), PATIENCE)
            };
            match sent {
                Ok(()) => {
                    self.messages += 1;
                    self.moved();
                    if len.is_some() {
                        report(format!("is {}", self.messages));
                    } else if self.messages.is_multiple_of(IN_A_ROW) {
                        std::thread::sleep(PAUSE);
                    }
                }
                Err(SendError::Full | SendError::Slow { .. }) => {
                    if len.is_some() {
                        report("too slow");
                    }
                }
                Err(error) => report(format!("error {error}")),
            }
        }
    }

    fn read(&mut self, mut end: Receiver<Bytes>) {
        report("open");
        let (mut deaf, mut turn) = (false, 0_u32);
        loop {
            match self.answer(|| end.peers()).as_deref() {
                Some(word @ ("deaf" | "hear")) => {
                    deaf = word == "deaf";
                    report("is 0");
                }
                Some("finish") => {
                    // All up to the last one, each once or marked.
                    report(format!("is {} {}", self.through, self.beyond.len()));
                    return;
                }
                _ => {}
            }
            if deaf {
                std::thread::sleep(PAUSE);
                continue;
            }
            // In turns copied, where it lies, and many together.
            turn = turn.wrapping_add(1);
            let received = match turn % 3 {
                0 => end.borrow_timeout(MOMENT).and_then(|borrowed| {
                    self.take(&borrowed, borrowed.redelivered());
                    borrowed.acknowledge()
                }),
                1 => end.recv_timeout(MOMENT).and_then(|delivery| {
                    self.take(&delivery.message.0, delivery.redelivered);
                    end.acknowledge(delivery).map(drop)
                }),
                _ => {
                    let each = end.recv_each(MANY, Some(MOMENT), |incoming, _| {
                        self.take(incoming.bytes, incoming.redelivered);
                        true
                    });
                    each.map(drop)
                }
            };
            match received {
                Ok(()) | Err(RecvError::Empty) => {}
                Err(RecvError::Gap { missing, .. }) if self.is_lossy && self.messages > 0 => {
                    // The next one has to come right after these.
                    self.newest += missing;
                    self.through += missing;
                }
                Err(error) => report(format!("error {error}")),
            }
        }
    }

    fn take(&mut self, message: &[u8], redelivered: bool) {
        let number = message
            .strip_prefix(&self.secret[..])
            .and_then(|rest| rest.first_chunk())
            .map(|number| u64::from_le_bytes(*number));
        let Some(number) = number else {
            self.foreign += 1;
            return;
        };
        let (header, filling) = message.split_at(self.secret.len() + 8);
        let is_whole = filling.iter().all(|byte| *byte == number as u8) && header.len() > 8;
        if !is_whole {
            report(format!("error message {number} is garbled, {redelivered}: {message:x?}"));
        }
        let begins = self.messages == 0 && self.is_topic;
        if begins {
            self.through = number - 1;
        } else if !redelivered && number <= self.newest {
            report(format!("error message {number} after {}", self.newest));
        } else if self.is_topic && number != self.newest + 1 {
            report(format!("error message {number} right after {}", self.newest));
        }
        if !redelivered {
            self.newest = number;
        }
        self.messages += 1;
        self.moved();
        self.beyond.insert(number);
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }
}

fn count_lines(what: &str) -> usize {
    let path = format!("/proc/self/{what}");
    if what == "fd" {
        return std::fs::read_dir(path).expect("descriptors").count();
    }
    std::fs::read_to_string(path).expect("a file of the kernel's").lines().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a file of the kernel's");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
