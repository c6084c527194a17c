//! The sockets of a folder: who is there, who is dead, and what is none of ours.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::unix_socket::{self, Address, Kind};
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::{Child, Scratch};

use super::ends::{channel, folder};
use super::raw::wait_dead;
use crate::transport::shm::folder::{Dialled, Folder};
use crate::transport::shm::hello::{Id, Pattern, Role};
use crate::transport::shm::name::Entry;

fn entry(role: Role) -> Entry {
    Entry { pattern: Pattern::Topic, role, id: Id::random().expect("random bytes") }
}

fn place(scratch: &Scratch) -> PathBuf {
    channel(scratch.path())
}

fn names(scratch: &Scratch) -> Vec<String> {
    super::ends::names(scratch.path())
}

#[test]
fn who_listens_is_found_and_the_dead_are_removed() {
    let scratch = Scratch::new();
    let mut folder = folder(scratch.path(), "channel");
    let (alive, dead) = (entry(Role::Writer), entry(Role::Reader));
    let _listener = folder.listen(alive).expect("a listener");
    drop(folder.listen(dead).expect("a listener"));
    wait_dead(&place(&scratch).join(dead.to_string()));
    assert_eq!(names(&scratch).len(), 2);
    assert_eq!(folder.scan().expect("a scan"), [alive]);
    assert_eq!(names(&scratch), [alive.to_string()]);
    let Dialled::Connected(_) = folder.dial(alive) else { panic!("it listens") };
    // One that died since it was found.
    drop(folder.listen(dead).expect("a listener"));
    wait_dead(&place(&scratch).join(dead.to_string()));
    let Dialled::Gone = folder.dial(dead) else { panic!("nobody is there") };
    let Dialled::Gone = folder.dial(dead) else { panic!("nothing is there") };
    assert_eq!(names(&scratch), [alive.to_string()]);
    folder.remove(alive);
    drop(folder);
    assert!(!place(&scratch).exists());
}

#[test]
fn a_hidden_name_stays_while_its_process_lives() {
    let scratch = Scratch::new();
    let folder = folder(scratch.path(), "channel");
    let path = place(&scratch).join(".t.p.0123.0123");
    let socket = unix_socket::socket(Kind::Seqpacket, true).expect("a socket");
    // Bound and not listening: what an endpoint is for a moment, before it shows its name.
    unix_socket::bind(&socket, &Address::Path(path.clone()), Permissions::new()).expect("bound");
    assert_eq!(folder.scan().expect("a scan"), []);
    assert_eq!(names(&scratch).len(), 1);
    drop(socket);
    wait_dead(&path);
    assert_eq!(folder.scan().expect("a scan"), []);
    assert_eq!(names(&scratch).len(), 0);
}

#[test]
fn what_is_none_of_ours_is_left_alone() {
    let scratch = Scratch::new();
    let folder = folder(scratch.path(), "channel");
    let at = |name: &str| place(&scratch).join(name);
    let fake = || at(&entry(Role::Writer).to_string());
    std::fs::write(fake(), "").expect("a file");
    std::fs::create_dir(fake()).expect("a folder");
    fifo::create(&fake(), Permissions::new()).expect("a FIFO");
    // Links: to nothing, to a live socket, to a dead one.
    symlink("nowhere", fake()).expect("a link");
    let elsewhere = Scratch::new();
    let listen = |name: &str, kind| {
        let address = Address::Path(elsewhere.join(name));
        unix_socket::bind_at(kind, &address, Permissions::new(), true).expect("a socket")
    };
    let _live = std::os::unix::net::UnixListener::bind(elsewhere.join("live")).expect("a socket");
    drop(std::os::unix::net::UnixListener::bind(elsewhere.join("dead")).expect("a socket"));
    symlink(elsewhere.join("live"), fake()).expect("a link");
    symlink(elsewhere.join("dead"), fake()).expect("a link");
    let _datagrams = listen("datagrams", Kind::Datagram);
    std::fs::rename(elsewhere.join("datagrams"), fake()).expect("a datagram socket");
    drop(std::os::unix::net::UnixListener::bind(at("socket-of-another-name")).expect("a socket"));
    std::fs::write(at(".hidden"), "").expect("a file");
    let before = names(&scratch);
    assert_eq!(before.len(), 9);
    assert_eq!(folder.scan().expect("a scan"), []);
    assert_eq!(names(&scratch), before);
    assert!(elsewhere.join("dead").exists() && elsewhere.join("live").exists());
    drop(folder);
    assert_eq!(names(&scratch), before, "the folder is not empty, and stays");
}

#[test]
fn what_a_name_became_since_it_was_found_does_no_harm() {
    let scratch = Scratch::new();
    let folder = folder(scratch.path(), "channel");
    for change in ["file", "folder", "FIFO", "link", "datagrams"] {
        let entry = entry(Role::Writer);
        let path = place(&scratch).join(entry.to_string());
        let _kept = match change {
            "file" => std::fs::write(&path, "").map(|()| None),
            "folder" => std::fs::create_dir(&path).map(|()| None),
            "FIFO" => Ok(fifo::create(&path, Permissions::new()).map(|()| None).expect("a FIFO")),
            "link" => symlink("nowhere", &path).map(|()| None),
            _ => std::os::unix::net::UnixDatagram::bind(&path).map(Some),
        }
        .expect("it is there");
        let dialled = folder.dial(entry);
        assert!(matches!(dialled, Dialled::Gone), "{change}: {dialled:?}");
        assert!(path.symlink_metadata().is_ok(), "{change} is still there");
    }
}

#[test]
fn an_open_folder_is_locked_against_cleaners() {
    let scratch = Scratch::new();
    let (one, other) = (folder(scratch.path(), "channel"), folder(scratch.path(), "channel"));
    let cleaner = std::fs::File::open(place(&scratch)).expect("the folder");
    let is_free = || Lock::flock(Mode::Exclusive).try_lock(&cleaner).expect("a lock").is_some();
    assert!(!is_free());
    drop(one);
    assert!(!is_free(), "somebody else has it");
    drop(other);
}

#[test]
fn long_paths_are_no_matter() {
    let scratch = Scratch::new();
    let deep = scratch.join(&["d".repeat(200), "e".repeat(200)].join("/"));
    std::fs::create_dir_all(&deep).expect("a folder");
    let mut folder = folder(&deep, &"/".repeat(500));
    let entry = entry(Role::Writer);
    let _listener = folder.listen(entry).expect("a listener");
    assert_eq!(folder.scan().expect("a scan"), [entry]);
    let Dialled::Connected(_) = folder.dial(entry) else { panic!("it listens") };
}

#[test]
fn who_comes_while_the_last_one_goes_makes_the_folder_anew() {
    let scratch = Scratch::new();
    let mut children: Vec<Child> =
        (0..4).map(|_| Child::role("shm-come-and-go", &[scratch.path().display()])).collect();
    for child in &mut children {
        child.expect("came and went");
    }
    assert!(!place(&scratch).exists());
}

/// Role: listens, looks, and goes, many times.
pub(super) fn come_and_go(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    for _ in 0..500 {
        let mut folder: Folder = folder(&base, "channel");
        let entry = entry(Role::Writer);
        let listener = folder.listen(entry).expect("a listener");
        assert!(folder.scan().expect("a scan").contains(&entry), "who listens is found");
        folder.remove(entry);
        drop(listener);
    }
    switchboard_testkit::child::report("came and went");
}
