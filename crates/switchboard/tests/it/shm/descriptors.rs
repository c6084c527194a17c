//! How many descriptors each end takes, and each link of it: the table of docs/design/shm.md, "Limits".

use std::time::{Duration, Instant};

use switchboard::pattern::state::{Reader, Writer};
use switchboard::{
    Bytes, Client, Event, Listener, Notifier, Options, Receiver, Sender, Server, Service, State,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch, unique};

use super::ends::{self, Pattern};
use super::process;

/// What an end does, who comes to it, and how many descriptors it takes alone and for each of them.
const TABLE: [(&str, &str, usize, usize); 10] = [
    ("publish", "subscribe", 9, 2),
    ("subscribe", "publish", 6, 2),
    ("send", "receive", 8, 3),
    ("receive", "send", 6, 2),
    ("call", "serve", 14, 5),
    ("serve", "call", 14, 5),
    ("notify", "wait", 9, 2),
    ("wait", "notify", 6, 2),
    ("set", "get", 9, 2),
    ("get", "set", 6, 2),
];

/// Over links, ends that bind: docs/design/service.md and link.md, "Limits".
const OF_LINKS: [(&str, &str, usize, usize); 2] =
    [("serve", "call", 3, 1), ("publish", "subscribe", 3, 1)];
/// What the I/O thread of a process takes, however many ends there are.
const OF_THREAD: usize = 2;
/// How many come.
const PEERS: usize = 3;

enum End {
    Writes(Sender<Bytes>),
    Reads(Receiver<Bytes>),
    Calls(Client<Bytes, Bytes>),
    Serves(Server<Bytes, Bytes>),
    Notifies(Notifier),
    Listens(Listener),
    Sets(Writer),
    Gets(Reader),
}

fn open(verb: &str, address: &str) -> End {
    let options = Options::default;
    let pattern =
        if verb.ends_with("scribe") || verb == "publish" { Pattern::Topic } else { Pattern::Queue };
    let service = || Service::<Bytes, Bytes>::open(address).expect("a service");
    let event = || Event::open(address).expect("an event");
    let state = || State::open(address).expect("a state");
    match verb {
        "publish" | "send" => {
            End::Writes(ends::writer(pattern, address, options()).expect("an end"))
        }
        "subscribe" | "receive" => {
            End::Reads(ends::reader(pattern, address, options()).expect("an end"))
        }
        "call" => End::Calls(service().client().expect("a client")),
        "serve" => End::Serves(service().server().expect("a server")),
        "notify" => End::Notifies(event().notifier().expect("a notifier")),
        "wait" => End::Listens(event().listener().expect("a listener")),
        "set" => End::Sets(state().writer().expect("a writer")),
        _ => End::Gets(state().reader().expect("a reader")),
    }
}

impl End {
    /// Over links nobody else does it.
    fn drive(&mut self) {
        match self {
            Self::Writes(end) => end.drive().expect("driven"),
            Self::Serves(end) => end.drive().expect("driven"),
            _ => {}
        }
    }

    fn peers(&self) -> usize {
        match self {
            Self::Writes(end) => end.peers(),
            Self::Reads(end) => end.peers(),
            Self::Calls(end) => end.peers(),
            Self::Serves(end) => end.peers(),
            Self::Notifies(end) => end.peers().expect("links"),
            Self::Listens(end) => end.peers().expect("links"),
            Self::Sets(end) => end.peers().expect("links"),
            Self::Gets(end) => end.peers().expect("links"),
        }
    }
}

/// The descriptors of this process beside those of before, once they are as many as expected; else, after a while, what
/// there is. Connections that are under way take some for a moment.
fn descriptors(before: usize, expected: usize) -> usize {
    let since = Instant::now();
    loop {
        let now = process::descriptors().saturating_sub(before);
        if now == expected || since.elapsed() > DEADLINE / 6 {
            return now;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Role: an end whose descriptors are counted. Arguments: what it does, its address, that of one before it, how many
/// it is to take, and how many for each link; and the thread.
pub(crate) fn counted(arguments: &[String]) {
    let [alone, each, of_thread] =
        [3, 4, 5].map(|at| arguments[at].parse::<usize>().expect("a number"));
    let none = process::descriptors();
    // The first end brings the thread, which stays.
    let _first = open(&arguments[0], &arguments[2]);
    let thread = descriptors(none + alone, of_thread);
    let before = process::descriptors();
    let mut end = open(&arguments[0], &arguments[1]);
    report(format!("thread {thread}, alone {}", descriptors(before, alone)));
    let since = Instant::now();
    while end.peers() < PEERS && since.elapsed() < DEADLINE {
        end.drive();
        std::thread::sleep(Duration::from_millis(2));
    }
    report(format!("{} peers, {}", end.peers(), descriptors(before, alone + PEERS * each)));
    let _ = instruction();
}

/// Role: an end that comes to another one. Arguments: what it does, its address.
pub(crate) fn comer(arguments: &[String]) {
    let _end = open(&arguments[0], &arguments[1]);
    report("open");
    let _ = instruction();
}

/// Whether an end takes so many alone, and so many for each of those who come; besides, those of the process's thread.
fn check(scheme: &str, (verb, other, alone, each): (&str, &str, usize, usize), thread: usize) {
    let scratch = Scratch::new();
    let at = |name: &str| match scheme {
        "shm" => format!("shm:{}", unique(name)),
        _ => format!("{scheme}:{}", scratch.join(name).display()),
    };
    let address = at("counted");
    let numbers = [alone, each, thread].map(|number| number.to_string());
    let arguments = [&[verb.to_owned(), address.clone(), at("first")][..], &numbers].concat();
    let mut end = Child::role("shm-descriptors", &arguments);
    end.expect(&format!("thread {thread}, alone {alone}"));
    let mut others: Vec<Child> = (0..PEERS)
        .map(|_| Child::role("shm-comer", &[other.to_owned(), address.clone()]))
        .collect();
    end.expect(&format!("{PEERS} peers, {}", alone + PEERS * each));
    others.iter_mut().for_each(|other| other.expect("open"));
    // They go by themselves, and take their names along.
    for mut one in others.into_iter().chain([end]) {
        one.tell("close");
        assert!(one.wait().success());
    }
}

#[test]
fn each_end_takes_as_many_descriptors_as_is_written() {
    std::thread::scope(|threads| {
        for row in TABLE {
            threads.spawn(move || check("shm", row, OF_THREAD));
        }
        for row in OF_LINKS {
            threads.spawn(move || check("unix", row, 0));
        }
    });
}
