//! The same of everything that is neither a pipe, nor a socket, nor a System V object: counters, timers, processes, terminals, queues, and
//! memory; and of the addresses of sockets. What no tool lists is compared with /proc itself, read in another way.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use serde_json::Value;
use switchboard_inspect::{Kind, Object, Snapshot, Via};
use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::inotify::Inotify;
use switchboard_kernel::io::Interest;
use switchboard_kernel::memfd::Memfd;
use switchboard_kernel::mmap::{Mapping, Mode};
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_kernel::pty::Master;
use switchboard_kernel::signal::{Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;
use switchboard_kernel::timerfd::TimerFd;
use switchboard_kernel::{Permissions, pidfd, posix_shm};
use switchboard_testkit::{Scratch, unique};

use super::{
    Facts, agree, by_descriptor, compare_with, inode, of_a_connection_or_a_server, of_a_neighbour,
    of_a_process,
};

const WITHOUT_A_FILE: &[Kind] =
    &[Kind::Eventfd, Kind::Epoll, Kind::Signalfd, Kind::Timerfd, Kind::Pidfd, Kind::Inotify];

/// One of each, open while `check` runs.
fn with_one_of_each(check: impl FnOnce()) {
    let event = EventFd::new(3).expect("an eventfd");
    let epoll = Epoll::new().expect("an epoll");
    epoll.add(&event, 1, Interest::Readable).expect("added");
    let signals = SignalFd::new(&SignalSet::empty().with(Signal::USR1)).expect("a signalfd");
    let timer = TimerFd::new().expect("a timer");
    let own = pidfd::open(std::process::id()).expect("a pidfd");
    let watch = Inotify::new().expect("an inotify");
    check();
    let _ =
        (event.as_fd(), epoll.as_fd(), signals.as_fd(), timer.as_fd(), own.as_fd(), watch.as_fd());
}

/// The kernel's word for a kind without a file.
fn word(object: &Object) -> &'static str {
    match object.kind {
        Kind::Epoll => "eventpoll",
        kind => kind.name(),
    }
}

#[test]
fn lsof_says_the_same_of_everything_without_a_file() {
    let ours = |snapshot: &Snapshot| {
        by_descriptor(snapshot, |object, _| {
            let number = match (object.kind, object.state.as_deref()) {
                (Kind::Eventfd, _) => format!(":{}", inode(object)),
                // Of one that has ended, lsof says no number.
                (Kind::Pidfd, Some(state)) => match state.strip_prefix("process ") {
                    Some(pid) => format!(":{pid}"),
                    None => String::new(),
                },
                _ => String::new(),
            };
            format!("{}{number}", word(object))
        })
    };
    let theirs = |text: &str| {
        let (mut facts, mut pid, mut fd, mut kind) = (Facts::new(), "", "", "");
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("p", value)) => pid = value,
                Some(("f", value)) => fd = value,
                Some(("t", value)) => kind = value,
                Some(("n", value)) if kind == "a_inode" => {
                    let name = value.trim_matches(['[', ']']);
                    // What it watches: /proc is compared with that.
                    let name = if name.starts_with("eventpoll") { "eventpoll" } else { name };
                    if WITHOUT_A_FILE.iter().any(|kind| {
                        let object = Object::new(*kind, "");
                        name.split(':').next() == Some(word(&object))
                    }) {
                        facts.insert(format!("{pid}/{fd}"), name.to_owned());
                    }
                }
                _ => {}
            }
        }
        facts
    };
    with_one_of_each(|| {
        agree("lsof", &["-n", "-w", "-F", "pftn"], WITHOUT_A_FILE, ours, theirs, of_a_process);
    });
}

#[test]
fn lsfd_says_the_same_of_everything_without_a_file() {
    let ours = |snapshot: &Snapshot| by_descriptor(snapshot, |object, _| word(object).to_owned());
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        let all: Value = serde_json::from_str(text).unwrap_or_default();
        for row in all["lsfd"].as_array().into_iter().flatten() {
            // Newer ones have words of their own for what stands behind it.
            let name = row["name"].as_str().unwrap_or_default();
            let kind = row["type"].as_str().unwrap_or_default();
            let name = name.strip_prefix("anon_inode:").unwrap_or(kind);
            let name = name.trim_matches(['[', ']']);
            if WITHOUT_A_FILE.iter().any(|kind| word(&Object::new(*kind, "")) == name) {
                facts.insert(format!("{}/{}", row["pid"], row["fd"]), name.to_owned());
            }
        }
        facts
    };
    with_one_of_each(|| {
        let arguments = ["-J", "-o", "PID,FD,TYPE,NAME"];
        agree("lsfd", &arguments, WITHOUT_A_FILE, ours, theirs, of_a_process);
    });
}

/// What /proc says, in lines that a shell's `grep` gives: what each counter, timer, epoll instance and signalfd is about.
#[test]
fn proc_says_the_same_of_everything_without_a_file() {
    let ours = |snapshot: &Snapshot| {
        by_descriptor(snapshot, |object, _| match object.kind {
            Kind::Eventfd => format!("{} holds {}", inode(object), object.fill.unwrap_or(0)),
            Kind::Epoll => {
                format!("watches {}", object.details.get("watches").unwrap_or("nothing"))
            }
            Kind::Signalfd => {
                format!("takes {}", object.details.get("signals").unwrap_or_default())
            }
            Kind::Pidfd => object.state.as_deref().unwrap_or_default().to_owned(),
            _ => String::new(),
        })
        .into_iter()
        .filter(|(_, fact)| !fact.is_empty())
        .collect()
    };
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        for line in text.lines() {
            // /proc/PID/fdinfo/FD:name: value
            let Some((path, rest)) = line.split_once(':') else { continue };
            let parts: Vec<&str> = path.split('/').collect();
            let [_, _, pid, _, fd] = parts[..] else { continue };
            let Some((name, value)) = rest.split_once(':') else { continue };
            let fact: &mut String = facts.entry(format!("{pid}/{fd}")).or_default();
            let value = value.trim();
            match name {
                "eventfd-count" => {
                    let count = u64::from_str_radix(value, 16).unwrap_or(u64::MAX);
                    *fact = format!("holds {count}");
                }
                "eventfd-id" => *fact = format!("{value} {fact}"),
                "sigmask" => {
                    let mask = u64::from_str_radix(value, 16).unwrap_or(0);
                    let signals = (1..=64).filter(|bit| mask >> (bit - 1) & 1 == 1);
                    let signals: Vec<String> = signals.map(|bit: u32| bit.to_string()).collect();
                    *fact = format!("takes {}", signals.join(" "));
                }
                "Pid" => {
                    let ended = matches!(value, "-1" | "0");
                    *fact = if ended { "ended".to_owned() } else { format!("process {value}") };
                }
                "tfd" => {
                    let before = fact.strip_prefix("watches ").and_then(|n| n.parse().ok());
                    *fact = format!("watches {}", before.unwrap_or(0) + 1);
                }
                _ => {}
            }
        }
        facts
    };
    // An instance that watches nothing says nothing.
    let is_of = |snapshot: &Snapshot, key: &str| {
        let facts = by_descriptor(snapshot, |object, _| {
            object.details.get("watches").unwrap_or_default().to_owned()
        });
        of_a_process(snapshot, key) && facts.get(key).is_some_and(|watches| watches != "0")
    };
    with_one_of_each(|| {
        let all = "grep -sHE '^(eventfd-|sigmask|Pid|tfd)' /proc/[0-9]*/fdinfo/*";
        agree("sh", &["-c", all], WITHOUT_A_FILE, ours, theirs, is_of);
    });
}

#[test]
fn lsof_says_the_same_of_terminals_queues_and_memory() {
    let kinds = [Kind::Pty, Kind::Mq, Kind::Memfd, Kind::PosixShm];
    let ours = |snapshot: &Snapshot| {
        by_descriptor(snapshot, |object, _| match object.kind {
            Kind::Pty if object.id.ends_with("/master") => "/dev/ptmx".to_owned(),
            Kind::Pty => object.names.first().cloned().unwrap_or_default(),
            _ => inode(object).to_owned(),
        })
    };
    let theirs = |text: &str| {
        let (mut facts, mut pid, mut fd) = (Facts::new(), "", "");
        let (mut kind, mut number) = ("", "");
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("p", value)) => pid = value,
                Some(("f", value)) => fd = value,
                Some(("t", value)) => kind = value,
                Some(("i", value)) => number = value,
                Some(("n", name)) if fd.parse::<u32>().is_ok() => {
                    let fact = match kind {
                        "CHR" if name == "/dev/ptmx" || name == "/dev/pts/ptmx" => "/dev/ptmx",
                        "CHR" if name.starts_with("/dev/pts/") => name,
                        "REG" => number,
                        _ => continue,
                    };
                    facts.insert(format!("{pid}/{fd}"), fact.to_owned());
                }
                _ => {}
            }
        }
        facts
    };
    // Of other files the inspector knows nothing, and which of them is a queue, lsof does not say.
    let is_of = |snapshot: &Snapshot, key: &str| {
        of_a_process(snapshot, key)
            && by_descriptor(snapshot, |_, _| String::new()).contains_key(key)
    };
    let pty = Master::open().expect("a pty");
    let slave = pty.open_slave().expect("a slave");
    let memory = Memfd::create("kinds", 4096).expect("memory");
    let name = format!("/{}", unique("kinds"));
    let queue = CreateOptions::new().max_messages(2).message_size_bytes(8);
    let queue = MessageQueue::create(&name, Access::Both, &queue).expect("a queue");
    let shared = posix_shm::Segment::create(&name, 4096, Permissions::new()).expect("memory");
    agree("lsof", &["-n", "-w", "-F", "pftin"], &kinds, ours, theirs, is_of);
    let _ = (posix_mq::unlink(&name), posix_shm::unlink(&name));
    drop((pty, slave, memory, queue, shared));
}

/// Shared mappings, by process and inode.
fn mappings(snapshot: &Snapshot) -> Facts {
    let mut facts = Facts::new();
    for object in snapshot.objects.iter().filter(|object| object.kind != Kind::SysvShm) {
        for end in object.ends.iter().filter(|end| matches!(end.via, Via::Map(_))) {
            facts.insert(format!("{}/{}", end.pid, inode(object)), String::new());
        }
    }
    facts
}

const MEMORY: &[Kind] =
    &[Kind::PosixShm, Kind::PosixSem, Kind::Memfd, Kind::Anonymous, Kind::Mapping];

/// Lines of `/proc/PID/maps` of every process, as bytes: names are anything.
fn maps() -> Vec<(u32, Vec<u8>)> {
    let all = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid| Some((pid, std::fs::read(format!("/proc/{pid}/maps")).ok()?));
    let lines = |(pid, text): (u32, Vec<u8>)| {
        text.split(|&byte| byte == b'\n').map(|line| (pid, line.to_vec())).collect::<Vec<_>>()
    };
    pids.filter_map(read).flat_map(lines).collect()
}

/// A file that is mapped, with a name that is no UTF-8.
fn with_an_odd_name(check: impl FnOnce(&[u8])) {
    use std::os::unix::ffi::OsStrExt;
    const NAME: &[u8] = b"odd-\xff\xfe\n-name";
    let scratch = Scratch::new();
    let path = scratch.path().join(std::ffi::OsStr::from_bytes(NAME));
    let file = std::fs::File::create_new(&path).expect("a file");
    file.set_len(4096).expect("a size");
    let mapping = Mapping::of_file(&file, Mode::ReadWrite, 0, 4096).expect("mapped");
    check(&NAME[..6]);
    drop(mapping);
}

/// The inspector asks the kernel for shared mappings alone; this is the text of all.
#[test]
fn proc_says_the_same_of_every_shared_mapping() {
    let memory = Memfd::create("kinds", 4096).expect("memory");
    let mapping = memory.map(Mode::ReadWrite).expect("mapped");
    let theirs = || {
        let mut facts = Facts::new();
        for (pid, line) in maps() {
            let words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            let words: Vec<&[u8]> = words.collect();
            let [_, [_, _, _, b's'], _, _, inode, name @ ..] = &words[..] else { continue };
            // System V segments have ids for inodes, and are compared with ipcs.
            if name.first().is_none_or(|name| !name.starts_with(b"/SYSV")) && *inode != b"0" {
                let inode = String::from_utf8_lossy(inode);
                facts.insert(format!("{pid}/{inode}"), String::new());
            }
        }
        Some(facts)
    };
    with_an_odd_name(|_| {
        let compared = compare_with("/proc/PID/maps", theirs, MEMORY, mappings, of_a_process);
        assert_ne!(compared, Some(0), "nothing to compare, but this test has made something");
    });
    drop((mapping, memory));
}

#[test]
fn grep_takes_maps_with_an_odd_name_for_no_text() {
    with_an_odd_name(|name| {
        let file = format!("/proc/{}/maps", std::process::id());
        let grep = std::process::Command::new("grep")
            .args(["-s", "odd-", &file])
            .env("LC_ALL", "C.UTF-8")
            .output();
        let found = |line: &[u8]| line.windows(name.len()).any(|part| part == name);
        let own = maps().into_iter().filter(|(pid, _)| *pid == std::process::id());
        assert!(own.into_iter().any(|(_, line)| found(&line)), "the name is in the maps");
        let grep = grep.expect("grep").stdout;
        assert!(!found(&grep), "grep has learned it: {}", grep.escape_ascii());
    });
}

/// lsfd leaves out what has no path any more, and what has one among other mounts than its own.
#[test]
fn lsfd_knows_every_shared_mapping_of_a_file() {
    let name = format!("/{}", unique("kinds"));
    posix_shm::Segment::create(&name, 4096, Permissions::new()).expect("memory");
    // As it was made it had no path.
    let shared = posix_shm::Segment::open(&name, posix_shm::Access::ReadWrite).expect("memory");
    let mapping = shared.map(Mode::ReadWrite).expect("mapped");
    let theirs = |text: &str| {
        let all: Value = serde_json::from_str(text).unwrap_or_default();
        let rows = all["lsfd"].as_array().into_iter().flatten();
        let shared = rows.filter(|row| row["assoc"] == "shm");
        shared.map(|row| (format!("{}/{}", row["pid"], row["inode"]), String::new())).collect()
    };
    let with_path = |snapshot: &Snapshot, key: &str| {
        // Another file system may have a file of the same number.
        let mapped = |object: &&Object| {
            object.ends.iter().any(|end| {
                matches!(end.via, Via::Map(_)) && format!("{}/{}", end.pid, inode(object)) == key
            })
        };
        let all = snapshot.objects.iter().filter(mapped);
        let paths: BTreeSet<&str> =
            all.flat_map(|object| &object.names).map(String::as_str).collect();
        of_a_neighbour(snapshot, key, |namespaces| namespaces.mnt)
            && paths.iter().any(|path| path.starts_with('/') && !path.ends_with(" (deleted)"))
    };
    let arguments = ["-J", "-o", "PID,ASSOC,INODE"];
    agree("lsfd", &arguments, MEMORY, mappings, theirs, with_path);
    let _ = posix_shm::unlink(&name);
    drop((mapping, shared));
}

#[test]
fn ss_says_the_same_of_every_address() {
    let ours = |snapshot: &Snapshot| {
        let own = snapshot.objects.iter().filter(|object| {
            object.namespace.is_none() && !object.id.contains('-') && object.names.len() <= 2
        });
        own.map(|object| {
            let local = object.names.first().cloned().unwrap_or_default();
            let remote = object.details.get("remote").unwrap_or("nobody");
            let known = |state: &&str| ["listening", "established"].contains(state);
            let state = object.state.as_deref().filter(known).unwrap_or("");
            (inode(object).to_owned(), format!("{} {state} {local} {remote}", object.kind.name()))
        })
        .collect()
    };
    let theirs = |text: &str| {
        let mut facts = Facts::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = words.iter().find_map(|word| word.strip_prefix("ino:"));
            let ([kind, state, _, _, local, remote, ..], Some(number)) = (&words[..], number)
            else {
                continue;
            };
            // The device that a socket is bound to stands behind its address; every address is a star.
            let place = |text: &str| {
                let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
                let address = address.split('%').next().unwrap_or_default();
                let address = if address == "*" { "[::]" } else { address };
                let open = address.starts_with('[') && !address.ends_with(']');
                format!("{address}{}:{port}", if open { "]" } else { "" })
            };
            let state = match (*kind, *state) {
                ("tcp", "LISTEN") => "listening",
                ("tcp", "ESTAB") => "established",
                _ => "",
            };
            let remote = if remote.ends_with(":*") { "nobody".to_owned() } else { place(remote) };
            if number != "0" {
                let fact = format!("{kind} {state} {} {remote}", place(local));
                facts.insert(number.to_owned(), fact);
            }
        }
        facts
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let client = std::net::TcpStream::connect(place).expect("a client");
    let server = listener.accept().expect("a connection");
    let any =
        std::net::UdpSocket::bind("[::]:0").or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"));
    let connected = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    connected.connect(place).expect("connected");
    let arguments = ["-t", "-u", "-a", "-n", "-e", "-H"];
    agree("ss", &arguments, &[Kind::Tcp, Kind::Udp], ours, theirs, of_a_connection_or_a_server);
    drop((listener, client, server, any, connected));
}
