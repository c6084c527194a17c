//! Which process is at the other end, where the kernel has no pidfd of it: by its id, and a second
//! look.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use switchboard_kernel::pidfd::is_dead;
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_kernel::{Permissions, Result};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::hand_over::ready;
use crate::mmap::error_of;
use crate::privileges::{become_ordinary_user, is_root};

/// Connects, sends a copy of its end over the connection if told, becomes another user if told.
pub(crate) fn peer(arguments: &[String]) {
    let kind = if arguments[0] == "Stream" { Kind::Stream } else { Kind::Seqpacket };
    let address = Address::Path(Path::new(&arguments[1]).to_owned());
    let connection = unix::connect_to(kind, &address, false).expect("a connection");
    unix::send_with_fds(&connection, b"me", &[connection.as_fd()]).expect("sent");
    report("connected");
    let _ = instruction();
    become_ordinary_user();
    report("another");
    let _ = instruction();
}

/// A child, the connection to it, and a copy of its end.
fn connected(kind: Kind) -> (Child, OwnedFd, OwnedFd) {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let address = Address::Path(path.clone());
    let listener = unix::listen_at(kind, &address, Permissions::new(), 1, false);
    let listener = listener.expect("a listener");
    let arguments = [&format!("{kind:?}"), path.to_str().expect("a path")];
    let mut child = Child::role("unix-id-peer", &arguments);
    child.expect("connected");
    let connection = unix::accept(&listener, false).expect("a connection");
    ready(&connection);
    let (_, mut fds) = unix::recv_with_fds(&connection, &mut [0; 8], 1).expect("a copy");
    (child, connection, fds.remove(0))
}

const WAYS: [fn(&OwnedFd) -> Result<OwnedFd>; 2] =
    [|fd| unix::peer_process(fd), |fd| unix::peer_process_by_id(fd)];

#[test]
fn the_process_is_found_and_its_death_seen() {
    for (kind, way) in [Kind::Stream, Kind::Seqpacket].into_iter().zip(WAYS) {
        let (mut child, connection, copy) = connected(kind);
        let process = way(&connection).expect("its process");
        // Who is at the other end of the copy: this process, which listened.
        let own = way(&copy).expect("this process");
        assert_eq!((is_dead(&process), is_dead(&own)), (Ok(false), Ok(false)));
        let flags = rustix::io::fcntl_getfd(&process).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        child.kill();
        ready(&process);
        assert_eq!(is_dead(&own), Ok(false));
    }
}

#[test]
fn by_its_id_no_other_process_is_taken_for_it() {
    // Dead and reaped, with its end of the connection open in this process.
    let (mut child, connection, copy) = connected(Kind::Seqpacket);
    child.kill();
    assert_eq!(error_of(unix::peer_process_by_id(&connection)), "ESRCH");
    drop(copy);
    assert_eq!(error_of(unix::peer_process_by_id(&connection)), "ESRCH");

    // Alive, but its end is closed, so that it might be somebody else.
    let (a, b) = unix::pair(Kind::Stream).expect("a pair");
    assert!(unix::peer_process_by_id(&a).is_ok());
    drop(b);
    // A child that another test starts at this moment has a copy of it until it runs its own program.
    ready(&a);
    assert_eq!(error_of(unix::peer_process_by_id(&a)), "ESRCH");

    // Another user, so perhaps another process.
    let (mut child, connection, _copy) = connected(Kind::Stream);
    assert!(unix::peer_process_by_id(&connection).is_ok());
    child.tell("change");
    child.expect("another");
    let found = unix::peer_process_by_id(&connection);
    assert_eq!(found.is_err(), is_root(), "{found:?}");

    let alone = unix::socket(Kind::Stream, false).expect("a socket");
    assert_eq!(error_of(unix::peer_process_by_id(&alone)), "ENOTCONN");
}

/// A zombie is dead.
#[test]
fn by_its_id_a_zombie_is_nobody() {
    let (child, connection, _copy) = connected(Kind::Stream);
    let process = unix::peer_process_by_id(&connection).expect("its process");
    child.signal(rustix::process::Signal::KILL);
    ready(&process);
    assert_eq!(error_of(unix::peer_process_by_id(&connection)), "ESRCH");
}
