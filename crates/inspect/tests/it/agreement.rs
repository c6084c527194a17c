//! What lsof, lsfd, ss, ipcs and lslocks say of the same objects at the same quiet moment. Only objects of this test are
//! compared: those of others come and go meanwhile.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use switchboard_inspect::model::LockKind;
use switchboard_inspect::{Kind, Object, Request, Snapshot, Via};
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::sysv_sem;
use switchboard_kernel::{pipe, sysv_msg};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::skip::skip;

fn pid() -> String {
    std::process::id().to_string()
}

/// What a tool prints; none, counted as a skip, where it is not there or does not know its options.
fn said(test: &str, tool: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(arguments).stderr(Stdio::null()).output();
    match output {
        Ok(output) if !output.stdout.is_empty() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            skip(test, &format!("{tool} {} says nothing ({})", arguments.join(" "), output.status));
            None
        }
        Err(error) => {
            skip(test, &format!("no {tool}: {error}"));
            None
        }
    }
}

fn of_fd(snapshot: &Snapshot, fd: i32) -> &Object {
    let own = |object: &&Object| {
        object.ends.iter().any(|end| end.pid == std::process::id() && end.via == Via::Fd(fd))
    };
    snapshot.objects.iter().find(own).expect("an object of this descriptor")
}

fn inode(object: &Object) -> &str {
    object.id.rsplit(':').next().expect("a number")
}

/// Pipes and sockets of this test, open while `check` runs.
fn with_descriptors(check: impl FnOnce(&Snapshot, &[i32])) {
    let (read, write) = pipe::pipe().expect("a pipe");
    let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let all: [OwnedFd; 5] = [read, write, here.into(), there.into(), listener.into()];
    let fds = all.each_ref().map(AsRawFd::as_raw_fd);
    let snapshot = Request::of([Kind::Pipe, Kind::Unix, Kind::Tcp]).take();
    check(&snapshot, &fds);
}

#[test]
fn lsof_names_the_same_inodes_and_directions() {
    with_descriptors(|snapshot, fds| {
        let Some(text) = said("lsof", "lsof", &["-n", "-P", "-w", "-p", &pid(), "-F", "fati"])
        else {
            return;
        };
        // Each descriptor begins with a line `f`; its fields follow.
        let mut by_fd: BTreeMap<i32, (String, String)> = BTreeMap::new();
        let mut fd = -1;
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("f", number)) => fd = number.parse().unwrap_or(-1),
                Some(("a", access)) => by_fd.entry(fd).or_default().0 = access.trim().to_owned(),
                Some(("i", number)) => by_fd.entry(fd).or_default().1 = number.to_owned(),
                _ => {}
            }
        }
        // For TCP, lsof gives no inode in this field.
        for &fd in &fds[..4] {
            let object = of_fd(snapshot, fd);
            let (access, number) = &by_fd[&fd];
            assert_eq!(number, inode(object), "{fd}: {object:?}");
            let end = object
                .ends
                .iter()
                .find(|end| end.via == Via::Fd(fd) && end.pid == std::process::id());
            let end = end.expect("an end");
            let expected = match (end.reads, end.writes) {
                (true, false) => "r",
                (false, true) => "w",
                _ => "u",
            };
            assert_eq!(access, expected, "{fd}: {object:?}");
        }
    });
}

#[test]
fn lsfd_names_the_same_inodes() {
    with_descriptors(|snapshot, fds| {
        let arguments = ["--pid", &pid(), "--noheadings", "--raw", "--output", "FD,INODE"];
        let Some(text) = said("lsfd", "lsfd", &arguments) else { return };
        let pairs: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        for &fd in fds {
            let wanted = (fd.to_string(), inode(of_fd(snapshot, fd)).to_owned());
            let found = pairs.iter().any(|(fd, inode)| *fd == wanted.0 && inode.trim() == wanted.1);
            assert!(found, "{wanted:?} in {text}");
        }
    });
}

#[test]
fn ss_names_the_same_peers_and_queues() {
    with_descriptors(|snapshot, fds| {
        let Some(text) = said("ss", "ss", &["-x", "-a", "-H"]) else { return };
        let (a, b) = (of_fd(snapshot, fds[2]), of_fd(snapshot, fds[3]));
        // Kind, state, queues, then address and inode of each side.
        let connected = text.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() >= 8 && words[1] == "ESTAB" && words[5] == inode(a) && words[7] == inode(b)
        });
        assert!(connected, "{} and {} in {text}", a.id, b.id);
        assert_eq!(a.peer.as_deref(), Some(b.id.as_str()));
        let Some(text) = said("ss", "ss", &["-t", "-l", "-n", "-e", "-H"]) else { return };
        let listener = of_fd(snapshot, fds[4]);
        let line = text.lines().find(|line| line.contains(&format!("ino:{} ", inode(listener))));
        let line = line.unwrap_or_else(|| panic!("{} in {text}", listener.id));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], listener.fill.expect("waiting").to_string(), "{line}");
        assert_eq!(words[2], listener.size.expect("a limit").to_string(), "{line}");
        assert!(listener.names.iter().any(|name| name == words[3]), "{line}");
    });
}

#[test]
fn ipcs_lists_the_same_ids() {
    let set = sysv_sem::SemaphoreSet::create(
        &sysv_sem::Key::Private,
        &sysv_sem::CreateOptions::new().values([1, 2, 3]),
    );
    let set = set.expect("a set");
    let queue =
        sysv_msg::MessageQueue::create(&sysv_msg::Key::Private, &sysv_msg::CreateOptions::new());
    let queue = queue.expect("a queue");
    queue.send(1, b"hello").expect("sent");
    let snapshot = Request::of([Kind::SysvSem, Kind::SysvMsg]).take();
    let sets = said("ipcs", "ipcs", &["-s"]);
    let queues = said("ipcs", "ipcs", &["-q"]);
    let (set_id, queue_id) = (set.id().to_string(), queue.id().to_string());
    let (_, _) = (set.remove(), queue.remove());
    let row = |text: &str, id: &str| -> Vec<String> {
        let of = |line: &&str| line.split_whitespace().nth(1) == Some(id);
        let line = text.lines().find(of).unwrap_or_else(|| panic!("{id} in {text}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let object = |id: &str| snapshot.object(id).unwrap_or_else(|| panic!("no {id}"));
    if let Some(sets) = sets {
        let row = row(&sets, &set_id);
        let object = object(&format!("sysv-sem:{set_id}"));
        assert_eq!(Some(row[4].as_str()), object.details.get("semaphores"));
        assert_eq!(row[3], format!("{:o}", object.mode.expect("a mode")));
        let third = object.details.get("semaphore 2").unwrap_or_default();
        assert!(third.starts_with("count 3,"), "{object:?}");
    }
    if let Some(queues) = queues {
        let row = row(&queues, &queue_id);
        let object = object(&format!("sysv-msg:{queue_id}"));
        assert_eq!(row[4], "5");
        assert_eq!(Some(row[5].as_str()), object.details.get("messages"));
        assert_eq!(object.fill, Some(5));
    }
}

#[test]
fn lslocks_lists_the_same_locks_but_knows_no_holder_of_open_file_locks() {
    let (one, two) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let _flock = Lock::flock(Mode::Exclusive).lock(&one).expect("a lock");
    let _open = Lock::open_file(Mode::Shared).lock(&two).expect("a lock");
    // The kernel gives the table of locks in parts: what others lock and release meanwhile can hide a line of it, from
    // the tool as from the inspector.
    let until = Instant::now() + DEADLINE;
    loop {
        let snapshot = Request::of([Kind::Lock]).take();
        let arguments =
            ["--noheadings", "--raw", "--notruncate", "--output", "PID,TYPE,MODE,INODE"];
        let Some(text) = said("lslocks", "lslocks", &arguments) else { return };
        let agrees = agrees(&snapshot, &text, &one, LockKind::Flock, &["FLOCK", "WRITE"])
            .and_then(|()| agrees(&snapshot, &text, &two, LockKind::OpenFile, &["OFDLCK", "READ"]));
        match agrees {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < until, "{why}"),
        }
    }
}

/// Whether both say the same of the lock on a file.
fn agrees(
    snapshot: &Snapshot,
    text: &str,
    file: &std::fs::File,
    kind: LockKind,
    words: &[&str; 2],
) -> Result<(), String> {
    let number = file.metadata().map_err(|error| error.to_string())?.ino().to_string();
    let of_file = |object: &&Object| inode(object) == number;
    let object = snapshot.objects.iter().find(of_file).ok_or(format!("no lock of {number}"))?;
    let own = |lock: &&switchboard_inspect::model::Lock| {
        lock.kind == kind && lock.holders.contains(&std::process::id())
    };
    let lock = object.locks.iter().find(own).ok_or(format!("no holder: {object:?}"))?;
    let of_it = |line: &&str| line.split_whitespace().last() == Some(number.as_str());
    let line = text.lines().find(of_it).ok_or(format!("{number} is not in {text}"))?;
    let said: Vec<&str> = line.split_whitespace().collect();
    let by_process = kind != LockKind::Flock || said[0] == pid();
    if said.get(1..3) == Some(&words[..]) && lock.exclusive == (words[1] == "WRITE") && by_process {
        Ok(())
    } else {
        Err(format!("{line}, but {lock:?}"))
    }
}
