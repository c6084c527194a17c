//! What lsof, lsfd, ss, ipcs and lslocks say of everything on the machine, at a moment that is quiet for what is compared: what was the
//! same before and after the tool ran.
//!
//! Others open and close meanwhile, so a difference counts only if the same one is found again and again. Where a tool is wrong, that is said
//! and shown; of a descriptor, `/proc` itself says who is wrong.

mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;
use switchboard_inspect::model::{LockKind, Namespaces};
use switchboard_inspect::{Kind, Object, Request, Snapshot, Via};
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::sysv_sem;
use switchboard_testkit::skip::{say, skip};
use switchboard_testkit::{Child, Scratch};

/// What a tool prints; none, counted as a skip, where it is not there. What is no UTF-8 is replaced.
fn said(tool: &str, arguments: &[&str]) -> Option<String> {
    // In other languages tools say other words, and take some bytes for no text.
    let mut command = Command::new(tool);
    match command.args(arguments).env("LC_ALL", "C").stderr(Stdio::null()).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            skip(tool, &format!("no {tool}: {error}"));
            None
        }
    }
}

type Facts = BTreeMap<String, String>;

/// Compares, over and over, what `ours` takes from a snapshot with what `theirs` takes from the tool, by key; a key on one side only is a
/// difference too. `is_of` says whether a key of theirs can be known here at all.
fn agree(
    tool: &str,
    arguments: &[&str],
    kinds: &[Kind],
    ours: impl Fn(&Snapshot) -> Facts,
    theirs: impl Fn(&str) -> Facts,
    is_of: impl Fn(&Snapshot, &str) -> bool,
) {
    let compared = compare(tool, arguments, kinds, ours, theirs, is_of);
    assert_ne!(compared, Some(0), "{tool}: nothing to compare, but this test has made something");
}

fn compare(
    tool: &str,
    arguments: &[&str],
    kinds: &[Kind],
    ours: impl Fn(&Snapshot) -> Facts,
    theirs: impl Fn(&str) -> Facts,
    is_of: impl Fn(&Snapshot, &str) -> bool,
) -> Option<usize> {
    compare_with(tool, || Some(theirs(&said(tool, arguments)?)), kinds, ours, is_of)
}

fn compare_with(
    tool: &str,
    theirs: impl Fn() -> Option<Facts>,
    kinds: &[Kind],
    ours: impl Fn(&Snapshot) -> Facts,
    is_of: impl Fn(&Snapshot, &str) -> bool,
) -> Option<usize> {
    // Who opens and closes a descriptor all the time has it before and after, and often not meanwhile.
    const ROUNDS: usize = 30;
    const IN_A_ROW: usize = 10;
    let mut again: BTreeMap<String, usize> = BTreeMap::new();
    let mut most = 0;
    for _ in 0..ROUNDS {
        let before = Request::of(kinds.iter().copied()).details().take();
        let other = theirs()?;
        let after = Request::of(kinds.iter().copied()).details().take();
        let (first, second) = (ours(&before), ours(&after));
        let (mut compared, mut wrong) = (0, 0);
        let mut different = BTreeSet::new();
        for key in first.keys().chain(second.keys()).chain(other.keys()).collect::<BTreeSet<_>>() {
            let (was, is, said) = (first.get(key), second.get(key), other.get(key));
            // It came, went or changed while the tool ran; or nobody here can know it.
            if was != is || !(is_of(&before, key) && is_of(&after, key)) {
                continue;
            }
            if is != said && is_wrong(key, is, said) {
                wrong += 1;
                continue;
            }
            compared += 1;
            if is != said {
                different.insert(format!("{key}: {is:?} here, {said:?} by {tool}"));
            }
        }
        most = most.max(compared);
        if different.is_empty() && compared > 0 {
            say(&format!(
                "{tool}: {compared} compared, all the same; /proc does not say what it says of {wrong}"
            ));
            return Some(compared);
        }
        again = different
            .into_iter()
            .map(|one| (one.clone(), again.get(&one).unwrap_or(&0) + 1))
            .collect();
        let lasting: Vec<_> = again.iter().filter(|(_, times)| **times >= IN_A_ROW).collect();
        assert!(
            lasting.is_empty(),
            "{} of {most} differ, again and again: {lasting:#?}",
            lasting.len()
        );
    }
    // Each difference went away by itself.
    say(&format!("{tool}: up to {most} compared; what differed did not stay"));
    Some(most)
}

/// Whether `/proc` itself says of the descriptor `PID/FD` what is said here, and not what the tool says. lsof knows no TCP socket that is bound
/// and does not listen, and no process with an odd parenthesis in its name.
fn is_wrong(key: &str, here: Option<&String>, said: Option<&String>) -> bool {
    let Some((pid, fd)) = key.split_once('/') else { return false };
    let (Ok(pid), Ok(fd)) = (pid.parse::<u32>(), fd.parse::<u32>()) else { return false };
    let now = std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok().map(|file| file.ino());
    let is_it = |fact: Option<&String>| match fact {
        Some(fact) => now.is_some() && fact.split(' ').next().and_then(|at| at.parse().ok()) == now,
        None => now.is_none(),
    };
    is_it(here) && !is_it(said)
}

fn inode(object: &Object) -> &str {
    object.id.rsplit(':').next().unwrap_or_default()
}

/// Whether the key `PID/FD` is of a process that could be read, and whose first thread is there: lsof and lsfd know nothing of others.
fn of_a_process(snapshot: &Snapshot, key: &str) -> bool {
    let pid = key.split('/').next().and_then(|pid| pid.parse::<u32>().ok());
    let process = pid.and_then(|pid| snapshot.process(pid));
    process.is_some_and(|process| {
        process.readable && !process.is_zombie() && !has_lost_its_first_thread(process.pid)
    })
}

/// Whether its first thread ended, with or without the others.
fn has_lost_its_first_thread(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(|&byte| byte == b')').next().and_then(|rest| rest.get(1));
    matches!(state, Some(b'Z' | b'X'))
}

#[test]
fn lsof_and_lsfd_know_no_descriptor_of_a_process_whose_first_thread_ended() {
    let (mut keeper, parent) = kept("first-thread-gone", "parent");
    let snapshot = Request::of([Kind::Pipe]).take();
    let worker = snapshot.processes.iter().find(|process| process.parent == parent);
    let worker = worker.expect("its child");
    assert!(has_lost_its_first_thread(worker.pid), "{worker:?}");
    assert!(worker.readable && worker.descriptors > 0, "{worker:?}");
    for (tool, arguments) in [("lsof", ["-w", "-F", "f", "-p"]), ("lsfd", ["-n", "-o", "FD", "-p"])]
    {
        let listed = |pid: u32| {
            let text = said(tool, &[&arguments[..], &[&pid.to_string()]].concat())?;
            let numbers = text.lines().map(|line| line.trim().trim_start_matches('f'));
            Some(numbers.filter(|fd| fd.parse::<u32>().is_ok()).count())
        };
        assert_ne!(listed(parent), Some(0), "{tool} lists descriptors of others");
        let known = listed(worker.pid).unwrap_or(0);
        assert_eq!(known, 0, "{tool} has learned it: compare these, too");
    }
    keeper.tell("end");
    assert!(keeper.wait().success());
}

/// The keeper of a situation of the gallery, and one of its actors.
fn kept(situation: &str, actor: &str) -> (Child, u32) {
    let mut keeper = Child::role("gallery", &[situation]);
    let mut found = None;
    loop {
        let line = keeper.line().expect("a situation");
        match line.strip_prefix(&format!("actor {actor} ")) {
            Some(pid) => found = pid.parse().ok(),
            None if line == "ready" => return (keeper, found.expect("the actor")),
            None => {}
        }
    }
}

/// As [`of_a_process`], of the viewer's own namespace; one that cannot be seen counts as that.
fn of_a_neighbour(
    snapshot: &Snapshot,
    key: &str,
    namespace: impl Fn(&Namespaces) -> Option<u64>,
) -> bool {
    let of = |pid| snapshot.process(pid).and_then(|process| namespace(&process.namespaces));
    let theirs = key.split('/').next().and_then(|pid| of(pid.parse().ok()?));
    of_a_process(snapshot, key) && (theirs.is_none() || theirs == of(snapshot.viewer.pid))
}

/// Of sockets of other network namespaces, lsof does not know what they are.
fn of_this_network(snapshot: &Snapshot, key: &str) -> bool {
    of_a_neighbour(snapshot, key, |namespaces| namespaces.net)
}

/// By `PID/FD`: what it leads to.
fn by_descriptor(
    snapshot: &Snapshot,
    shown: impl Fn(&Object, &switchboard_inspect::End) -> String,
) -> Facts {
    let mut facts = Facts::new();
    for object in &snapshot.objects {
        for end in &object.ends {
            if let Via::Fd(fd) = end.via {
                facts.insert(format!("{}/{fd}", end.pid), shown(object, end));
            }
        }
    }
    facts
}

const WITH_INODE: &[Kind] = &[Kind::Pipe, Kind::Fifo, Kind::Unix, Kind::Tcp, Kind::Udp];

#[test]
fn lsof_says_the_same_of_every_pipe_and_socket() {
    let ours = |snapshot: &Snapshot| {
        by_descriptor(snapshot, |object, end| {
            let way = match (end.reads, end.writes) {
                (true, false) => "r",
                (false, true) => "w",
                _ => "u",
            };
            format!("{} {way}", inode(object))
        })
    };
    let theirs = |text: &str| {
        let (mut facts, mut pid, mut fd) = (Facts::new(), "", "");
        let (mut access, mut device, mut kind) = ("", "", "");
        for line in text.lines() {
            let Some((field, value)) = line.split_at_checked(1) else { continue };
            match field {
                "p" => pid = value,
                "f" => fd = value,
                "a" => access = value.trim(),
                "t" => kind = value,
                "d" => device = value,
                _ => {}
            }
            // Of Internet sockets the device is the inode.
            let number = match (field, kind) {
                ("i", "FIFO" | "unix") => value,
                ("P", "IPv4" | "IPv6") if matches!(value, "TCP" | "UDP") => device,
                _ => continue,
            };
            if fd.bytes().all(|byte| byte.is_ascii_digit()) {
                facts.insert(format!("{pid}/{fd}"), format!("{number} {access}"));
            }
        }
        facts
    };
    let _held = held();
    agree("lsof", &["-n", "-w", "-F", "pfatdiP"], WITH_INODE, ours, theirs, of_this_network);
}

/// A pair of Unix sockets, a TCP socket that listens, and one that is bound and does not, of which lsof knows nothing.
fn held() -> [OwnedFd; 4] {
    let (one, other) = UnixStream::pair().expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let bound = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let bound = bound.expect("a socket");
    rustix::net::bind(&bound, &address).expect("bound");
    [one.into(), other.into(), listener.into(), bound]
}

#[test]
fn lsfd_says_the_same_of_every_pipe_and_socket() {
    let kinds = [Kind::Pipe, Kind::Fifo, Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];
    let ours = |snapshot: &Snapshot| by_descriptor(snapshot, |object, _| inode(object).to_owned());
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        let all: Value = serde_json::from_str(text).unwrap_or_default();
        for row in all["lsfd"].as_array().into_iter().flatten() {
            let word = |name: &str| match &row[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // Newer ones say which family a socket is of.
            let kind = word("type");
            let families =
                ["FIFO", "SOCK", "UNIX", "TCP", "UDP", "NETLINK", "PACKET", "RAW", "PING"];
            let wanted = families.iter().any(|family| kind.starts_with(family));
            if wanted && word("fd").parse::<u32>().is_ok() {
                facts.insert(format!("{}/{}", word("pid"), word("fd")), word("inode"));
            }
        }
        assert!(!facts.is_empty(), "lsfd lists no pipe: {text}");
        facts
    };
    let _held = held();
    agree("lsfd", &["-J", "-o", "PID,FD,TYPE,INODE"], &kinds, ours, theirs, of_a_process);
}

#[test]
fn ss_says_the_same_of_every_unix_socket() {
    let ours = |snapshot: &Snapshot| {
        let own = snapshot
            .objects
            .iter()
            .filter(|object| object.kind == Kind::Unix && object.namespace.is_none());
        let peer = |object: &Object| match object.peer.as_deref() {
            Some(peer) if !object.is_listening() => peer.trim_start_matches("unix:").to_owned(),
            _ => "0".to_owned(),
        };
        own.map(|object| {
            (inode(object).to_owned(), format!("{} {}", object.is_listening(), peer(object)))
        })
        .collect()
    };
    let _pair = UnixStream::pair().expect("a pair");
    // Names that ss prints as they are.
    let scratch = Scratch::new();
    let listeners = ODD_NAMES.map(|name| UnixListener::bind(scratch.join(name)).expect("bound"));
    let clients = ODD_NAMES.map(|name| UnixStream::connect(scratch.join(name)).expect("a client"));
    let accepted = listeners.each_ref().map(|listener| listener.accept().expect("a connection"));
    // A client that nobody has accepted has the listener for a peer here, and none by ss.
    let is_of = |snapshot: &Snapshot, key: &str| {
        snapshot
            .object(&format!("unix:{key}"))
            .is_none_or(|object| object.state.as_deref() != Some("not yet accepted"))
    };
    agree("ss", &["-x", "-a", "-H"], &[Kind::Unix], ours, of_unix_sockets, is_of);
    drop((listeners, clients, accepted));
}

const ODD_NAMES: [&str; 3] = ["two\nlines", "a 7 b", "tab\t8\n9"];

/// What ss says of Unix sockets, by inode: whether it listens, and its peer. A name is printed as it is, with line feeds, spaces and numbers in it.
fn of_unix_sockets(text: &str) -> Facts {
    let mut records: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let words = line.split_whitespace();
        if line.starts_with("u_") {
            records.push(words.collect());
        } else if let Some(record) = records.last_mut() {
            // The rest of a name, and what stands behind it.
            record.extend(words);
        }
    }
    let mut facts = Facts::new();
    for record in records {
        // Kind, state, queues; then name and inode of each side, where a star stands for no name.
        let [_, state, _, _, rest @ ..] = &record[..] else { continue };
        let own = match rest {
            ["*", own, ..] | [.., own, "*", _] => Some(own),
            _ => rest.iter().find(|word| word.parse::<u64>().is_ok()),
        };
        if let (Some(own), Some(peer)) = (own, rest.last()) {
            facts.insert((*own).to_owned(), format!("{} {peer}", *state == "LISTEN"));
        }
    }
    facts
}

#[test]
fn ss_prints_a_line_feed_in_a_name_as_it_is() {
    let scratch = Scratch::new();
    let path = scratch.join("first\nsecond");
    let listener = UnixListener::bind(&path).expect("bound");
    let snapshot = Request::of([Kind::Unix]).take();
    let text = said("ss", &["-x", "-l", "-H"]);
    drop(listener);
    let shown = format!("{}/first\\nsecond", scratch.path().display());
    let found = snapshot.objects.iter().any(|object| object.names.contains(&shown));
    assert!(found, "{shown} is not there");
    let Some(text) = text else { return };
    let torn = text.lines().any(|line| line.starts_with("second "));
    assert!(torn, "ss has learned it: compare it as other names, then\n{text}");
}

#[test]
fn ss_says_the_same_of_every_tcp_and_udp_socket() {
    let ours = |snapshot: &Snapshot| {
        let own = snapshot.objects.iter().filter(|object| {
            matches!(object.kind, Kind::Tcp | Kind::Udp)
                && object.namespace.is_none()
                && !object.id.contains('-')
        });
        own.map(|object| (inode(object).to_owned(), object.kind.name().to_owned())).collect()
    };
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        for line in text.lines() {
            let number = line.split_whitespace().find_map(|word| word.strip_prefix("ino:"));
            if let (Some(kind), Some(number)) = (line.split_whitespace().next(), number)
                && number != "0"
            {
                facts.insert(number.to_owned(), kind.to_owned());
            }
        }
        facts
    };
    let _listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    agree(
        "ss",
        &["-t", "-u", "-a", "-n", "-e", "-H"],
        &[Kind::Tcp, Kind::Udp],
        ours,
        theirs,
        of_a_connection_or_a_server,
    );
}

/// Whether it is not a TCP socket that is only bound: ss knows none of those.
fn of_a_connection_or_a_server(snapshot: &Snapshot, key: &str) -> bool {
    let socket = snapshot.object(&format!("tcp:{key}"));
    socket.is_none_or(|socket| socket.state.as_deref() != Some("closed"))
}

#[test]
fn ipcs_says_the_same_of_every_system_v_object() {
    let kinds = [Kind::SysvMsg, Kind::SysvSem, Kind::SysvShm];
    let ours = |snapshot: &Snapshot| {
        let own = snapshot.objects.iter().filter(|object| object.namespace.is_none());
        own.map(|object| {
            let amount = match object.kind {
                Kind::SysvMsg => object.details.get("messages"),
                Kind::SysvSem => object.details.get("semaphores"),
                _ => object.details.get("attachments"),
            };
            let mode = object.mode.unwrap_or(0);
            (object.id.clone(), format!("{mode:o} {}", amount.unwrap_or_default()))
        })
        .collect()
    };
    let theirs = |text: &str| {
        let (mut facts, mut kind) = (Facts::new(), "");
        for line in text.lines() {
            kind = match line {
                _ if line.contains("Message Queues") => "sysv-msg",
                _ if line.contains("Semaphore Arrays") => "sysv-sem",
                _ if line.contains("Shared Memory") => "sysv-shm",
                _ => kind,
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [key, id, _, mode, ..] = words[..]
                && key.starts_with("0x")
            {
                let amount = match kind {
                    "sysv-sem" => words.get(4),
                    _ => words.get(5),
                };
                facts.insert(format!("{kind}:{id}"), format!("{mode} {}", amount.unwrap_or(&"")));
            }
        }
        facts
    };
    let options = sysv_sem::CreateOptions::new().values([1, 2]);
    let set = sysv_sem::SemaphoreSet::create(&sysv_sem::Key::Private, &options).expect("a set");
    let _removed = Removed(set);
    agree("ipcs", &["-a"], &kinds, ours, theirs, |_, _| true);
}

/// A set that goes away, whatever comes of the test.
struct Removed(sysv_sem::SemaphoreSet);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

#[test]
fn lslocks_says_the_same_of_every_lock() {
    let ours = |snapshot: &Snapshot| {
        let mut facts = Facts::new();
        for object in &snapshot.objects {
            for lock in object.locks.iter().filter(|lock| !lock.waiting) {
                let kind = match lock.kind {
                    LockKind::Flock => "FLOCK",
                    LockKind::Posix => "POSIX",
                    LockKind::OpenFile => "OFDLCK",
                    LockKind::Lease => continue,
                };
                let way = if lock.exclusive { "WRITE" } else { "READ" };
                let taker = lock.taker.map_or(-1, i64::from);
                let end = lock.end.unwrap_or(0);
                // lslocks writes the end of a file as 0.
                facts.insert(
                    format!("{} {kind} {taker} {way} {} {end}", inode(object), lock.start),
                    String::new(),
                );
            }
        }
        facts
    };
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        for line in text.lines() {
            if let [pid, kind, way @ ("READ" | "WRITE"), number, start, end] =
                line.split_whitespace().collect::<Vec<_>>()[..]
            {
                facts.insert(format!("{number} {kind} {pid} {way} {start} {end}"), String::new());
            }
        }
        facts
    };
    let arguments =
        ["--noheadings", "--raw", "--notruncate", "--output", "PID,TYPE,MODE,INODE,START,END"];
    let file = tempfile::tempfile().expect("a file");
    let _lock = Lock::flock(Mode::Exclusive).lock(&file).expect("a lock");
    // Without an inode, lslocks could not look at the file.
    agree("lslocks", &arguments, &[Kind::Lock], ours, theirs, |_, key| !key.starts_with("0 "));
}

#[test]
fn lslocks_knows_nobody_who_waits_for_an_open_file_lock() {
    let (mut keeper, waiter) = kept("open-file-lock-held", "waiter");
    let snapshot = Request::of([Kind::Lock]).take();
    let waits =
        |object: &&Object| object.ends.iter().any(|end| end.pid == waiter && end.via == Via::Waits);
    let found = snapshot.objects.iter().any(|object| waits(&object));
    let text = said("lslocks", &["--noheadings", "--raw", "--output", "PID,TYPE"]);
    keeper.tell("end");
    assert!(keeper.wait().success());
    assert!(found, "{waiter} waits: {:#?}", snapshot.objects);
    let named =
        text.is_some_and(|text| text.lines().any(|line| line.starts_with(&format!("{waiter} "))));
    assert!(!named, "lslocks has learned it: compare it, then");
}

#[test]
fn lsof_calls_a_renamed_semaphore_deleted() {
    // As the C library makes one: under a passing name, which another one takes the place of.
    let name = switchboard_testkit::unique("agreement");
    let (passing, place) = (format!("/dev/shm/sem.{name}-new"), format!("/dev/shm/sem.{name}"));
    let file = std::fs::File::create_new(&passing).expect("a file");
    std::fs::hard_link(&passing, &place).expect("another name");
    std::fs::remove_file(&passing).expect("one name");
    let snapshot = Request::of([Kind::PosixSem]).take();
    let text = said("lsof", &["-n", "-w", "-p", &std::process::id().to_string(), "-F", "n"]);
    std::fs::remove_file(&place).expect("no name");
    drop(file);
    let own = |object: &&Object| object.ends.iter().any(|end| end.pid == std::process::id());
    let found = snapshot.objects.iter().filter(own).any(|object| object.names.contains(&place));
    assert!(found, "{place} in {:#?}", snapshot.objects);
    let Some(text) = text else { return };
    let says = |name: &str| text.lines().any(|line| line == format!("n{name}"));
    assert!(
        !says(&place) && says(&format!("{passing} (deleted)")),
        "lsof has learned it: compare it, then\n{text}"
    );
}
