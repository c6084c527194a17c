//! Names of sockets: how they appear, what they may look like, and who may remove them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_kernel::{Error, ErrorKind, Permissions};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch, unique};

use super::KINDS;
use crate::fifo::{names, watch};
use crate::hand_over::ready;

fn path_address(path: &Path) -> Address {
    Address::Path(path.to_owned())
}

/// Something that has the name and serves it: a listener, or a bound datagram socket.
fn serve(kind: Kind, address: &Address) -> switchboard_kernel::Result<std::os::fd::OwnedFd> {
    match kind {
        Kind::Datagram => unix::bind_at(kind, address, Permissions::new(), true),
        _ => unix::listen_at(kind, address, Permissions::new(), 4096, true),
    }
}

#[test]
fn a_name_is_seen_only_with_its_mode_and_a_listener() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let mut child = Child::role("unix-many-listeners", &[path.display()]);
    child.expect("ready");
    watch(&mut child, || {
        if let Ok(metadata) = std::fs::symlink_metadata(&path) {
            assert_eq!(metadata.permissions().mode(), 0o140_640);
        }
        let result = unix::connect_to(Kind::Stream, &path_address(&path), true);
        // Nobody accepts, so a backlog may be full.
        match result.map_err(Error::kind) {
            Ok(_) => true,
            Err(ErrorKind::NotFound | ErrorKind::WouldBlock) => false,
            Err(kind) => panic!("{kind:?}"),
        }
    });
    assert!(child.wait().success());
    assert_eq!(names(&scratch), [""; 0]);
}

/// Role: with a umask that forbids what is asked for, listens at a name over and over.
pub(crate) fn many_listeners(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    report("ready");
    let permissions = Permissions::new().mode(0o640);
    let address = path_address(path);
    // None of them is closed while somebody may be connecting to it.
    let mut listeners = Vec::new();
    while let Some(order) = instruction() {
        if order == "rest" {
            unix::unlink(path).unwrap();
            listeners.clear();
            report("rested");
            continue;
        }
        for _ in 0..300 {
            let _ = unix::unlink(path);
            listeners.push(unix::listen_at(Kind::Stream, &address, permissions, 64, true).unwrap());
        }
        report("done");
    }
}

#[test]
fn a_name_that_is_taken_stays() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let (path, file) = (scratch.join("s"), scratch.join("file"));
        std::fs::write(&file, "text").unwrap();
        let _holder = serve(kind, &path_address(&path)).unwrap();
        for taken in [&path, &file] {
            let error = serve(kind, &path_address(taken)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddressInUse);
        }
        unix::connect_to(kind, &path_address(&path), true).unwrap();
        assert_eq!(unix::unlink(&file).unwrap_err().name(), "ENOTSOCK");
        unix::unlink(&path).unwrap();
        assert_eq!(names(&scratch), ["file"]);
    }
}

#[test]
fn nothing_is_left_when_listening_fails() {
    let scratch = Scratch::new();
    let address = path_address(&scratch.join("s"));
    let listen = |kind, permissions| unix::listen_at(kind, &address, permissions, 1, false);
    let error = listen(Kind::Datagram, Permissions::new()).unwrap_err();
    assert_eq!((error.call(), error.kind()), ("listen", ErrorKind::NotSupported));
    let error = listen(Kind::Stream, Permissions::new().group(u32::MAX)).unwrap_err();
    assert_eq!(error.name(), "EINVAL");
    assert_eq!(names(&scratch), [""; 0]);
    let error = serve(Kind::Stream, &path_address(&scratch.join("no/folder"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = unix::connect_to(Kind::Stream, &path_address(Path::new("")), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn paths_of_any_length_work() {
    let scratch = Scratch::new();
    let deep = scratch.join(&"d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&deep).unwrap();
    let fill = |len: usize| scratch.join(&"f".repeat(len - scratch.path().as_os_str().len() - 1));
    let paths =
        [deep.join("s"), deep.join("n".repeat(255)), fill(106), fill(107), fill(108), fill(109)];
    for (path, kind) in paths.iter().flat_map(|path| KINDS.map(|kind| (path, kind))) {
        let address = path_address(path);
        let server = serve(kind, &address).unwrap();
        let client = unix::connect_to(kind, &address, false).unwrap();
        assert_eq!(unix::send(&client, b"hello"), Ok(5));
        let connection = match kind {
            Kind::Datagram => server.try_clone().unwrap(),
            _ => unix::accept(&server, false).unwrap(),
        };
        assert_eq!(unix::recv(&connection, &mut [0; 8]), Ok(5));
        assert_eq!(unix::remove_stale(path, kind), Ok(false));
        drop((server, connection));
        wait_until_stale(path, kind);
    }
}

/// Waits until no process holds the socket: one that was just being started may, for a moment.
fn wait_until_stale(path: &Path, kind: Kind) {
    let until = Instant::now() + DEADLINE;
    while !unix::remove_stale(path, kind).unwrap() {
        assert!(Instant::now() < until, "still held");
    }
    assert!(std::fs::symlink_metadata(path).is_err());
}

#[test]
fn abstract_names() {
    let name = unique("abstract").into_bytes();
    let address = Address::Abstract(name.clone());
    for kind in KINDS {
        let server = serve(kind, &address).unwrap();
        assert_eq!(serve(kind, &address).unwrap_err().kind(), ErrorKind::AddressInUse);
        assert_eq!(unix::local_address(&server), Ok(Some(address.clone())));
        let client = unix::connect_to(kind, &address, true).unwrap();
        assert_eq!(unix::local_address(&client), Ok(None));
        drop(server);
    }
    let longest = |len: usize| {
        let mut name = name.clone();
        name.resize(len, 0);
        Address::Abstract(name)
    };
    serve(Kind::Stream, &longest(107)).unwrap();
    assert_eq!(serve(Kind::Stream, &longest(108)).unwrap_err().name(), "ENAMETOOLONG");
    let error = unix::connect_to(Kind::Stream, &longest(90), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_local_address_is_the_hidden_name() {
    let scratch = Scratch::new();
    let server = serve(Kind::Stream, &path_address(&scratch.join("name"))).unwrap();
    let Some(Address::Path(path)) = unix::local_address(&server).unwrap() else {
        panic!("no path");
    };
    assert_eq!(path.parent(), Some(scratch.path()));
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with(".name."));
    let (pipe, _) = switchboard_kernel::pipe::pipe().unwrap();
    assert_eq!(unix::local_address(&pipe).unwrap_err().name(), "ENOTSOCK");
    let (full, _) = (unix::socket(Kind::Stream, false).unwrap(), ());
    let longest = scratch.join(&"f".repeat(108 - scratch.path().as_os_str().len() - 1));
    // Bound by another program to a name that leaves no room for its final NUL.
    rustix::net::bind(&full, &rustix::net::SocketAddrUnix::new(&longest).unwrap()).unwrap();
    assert_eq!(unix::local_address(&full), Ok(Some(Address::Path(longest))));
}

#[test]
fn the_name_of_a_killed_process_is_stale() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let path = scratch.join("s");
        let word = format!("{kind:?}");
        let mut child = Child::role("unix-listener", &[path.to_str().unwrap(), &word]);
        child.expect("listening");
        assert_eq!(unix::remove_stale(&path, kind), Ok(false));
        for other in KINDS {
            assert_eq!(unix::remove_stale(&path, other), Ok(false), "another kind is alive too");
        }
        unix::connect_to(kind, &path_address(&path), true).unwrap();
        child.kill();
        let error = unix::connect_to(kind, &path_address(&path), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(serve(kind, &path_address(&path)).unwrap_err().kind(), ErrorKind::AddressInUse);
        assert_eq!(unix::remove_stale(&path, kind), Ok(true));
        assert_eq!(names(&scratch), [""; 0]);
        assert_eq!(unix::remove_stale(&path, kind), Ok(true));
    }
}

/// Role: serves a name until it is killed.
pub(crate) fn listener(arguments: &[String]) {
    let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == arguments[1]).unwrap();
    let _server = serve(kind, &path_address(Path::new(&arguments[0]))).unwrap();
    report("listening");
    let _ = instruction();
}

#[test]
fn only_sockets_are_stale() {
    let scratch = Scratch::new();
    let (file, link) = (scratch.join("file"), scratch.join("link"));
    std::fs::write(&file, "text").unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for path in [&file, &link] {
        let error = unix::remove_stale(path, Kind::Stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(names(&scratch), ["file", "link"]);
    let error = unix::remove_stale(&scratch.join("no/folder"), Kind::Stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_folder_that_stays_locked_does_not_hang() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    drop(serve(Kind::Stream, &path_address(&path)).unwrap());
    let folder = std::fs::File::open(scratch.path()).unwrap();
    folder.lock().unwrap();
    let error = unix::remove_stale(&path, Kind::Stream).unwrap_err();
    assert_eq!((error.call(), error.kind()), ("flock", ErrorKind::WouldBlock));
    folder.unlock().unwrap();
    wait_until_stale(&path, Kind::Stream);
}

#[test]
fn racing_binders_never_remove_a_live_socket() {
    const BINDERS: usize = 3;
    const ROUNDS: usize = 600;
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let address = path_address(&path);
    let mut binders: Vec<Child> =
        (0..BINDERS).map(|_| Child::role("unix-binder", &[path.display()])).collect();
    drop(serve(Kind::Stream, &address).unwrap());
    wait_until_refused(&address);
    for round in 0..ROUNDS {
        for binder in &mut binders {
            binder.tell("bind");
        }
        let lines: Vec<String> = binders.iter_mut().map(|b| b.line().unwrap()).collect();
        let winners: Vec<usize> = (0..BINDERS).filter(|i| lines[*i] == "won").collect();
        assert_eq!(winners.len(), 1, "round {round}: {lines:?}");
        let client = unix::connect_to(Kind::Stream, &address, true).unwrap();
        let pid = unix::peer_credentials(&client).unwrap().pid;
        assert_eq!(pid, Some(binders[winners[0]].id()), "the name leads to somebody else");

        // While the losers go on trying, the name never goes away, not even for a moment.
        for (_, loser) in binders.iter_mut().enumerate().filter(|(i, _)| *i != winners[0]) {
            loser.tell("try");
        }
        for _ in 0..20 {
            let result = unix::connect_to(Kind::Stream, &address, true).map_err(Error::kind);
            assert!(matches!(result, Ok(_) | Err(ErrorKind::WouldBlock)), "{result:?}");
        }
        for (_, loser) in binders.iter_mut().enumerate().filter(|(i, _)| *i != winners[0]) {
            loser.expect("tried");
        }
        binders[winners[0]].tell("let go");
        binders[winners[0]].expect("gone");
    }
    drop(binders);
    wait_until_stale(&path, Kind::Stream);
    assert_eq!(names(&scratch), [""; 0]);
}

/// Waits until no process holds the socket: one that was just being started may, for a moment.
fn wait_until_refused(address: &Address) {
    let until = Instant::now() + DEADLINE;
    while unix::connect_to(Kind::Stream, address, true).is_ok() {
        assert!(Instant::now() < until, "still held");
    }
}

/// Role: binds to a name that others bind to, removing it if it is stale.
pub(crate) fn binder(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    let mut held = None;
    while let Some(order) = instruction() {
        match order.as_str() {
            "bind" => {
                held = bind_or_lose(path);
                report(if held.is_some() { "won" } else { "lost" });
            }
            "try" => {
                for _ in 0..5 {
                    assert_eq!(unix::remove_stale(path, Kind::Stream), Ok(false));
                }
                report("tried");
            }
            _ => {
                held = None;
                report("gone");
            }
        }
    }
    drop(held);
}

fn bind_or_lose(path: &Path) -> Option<std::os::fd::OwnedFd> {
    loop {
        match serve(Kind::Stream, &path_address(path)) {
            Ok(listener) => {
                // The others, who found it stale a moment ago, do not take it away again.
                for _ in 0..100 {
                    let result = unix::connect_to(Kind::Stream, &path_address(path), true);
                    let error = result.err().map(Error::kind);
                    assert!(matches!(error, None | Some(ErrorKind::WouldBlock)), "{error:?}");
                }
                return Some(listener);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddressInUse),
        }
        if !unix::remove_stale(path, Kind::Stream).unwrap() {
            return None;
        }
    }
}

#[test]
fn a_child_connects_by_name() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let mut child = Child::role("unix-listener", &[path.to_str().unwrap(), "Seqpacket"]);
    child.expect("listening");
    let client = unix::connect_to(Kind::Seqpacket, &path_address(&path), false).unwrap();
    assert_eq!(unix::peer_credentials(&client).unwrap().pid, Some(child.id()));
    child.kill();
    ready(&client);
}
