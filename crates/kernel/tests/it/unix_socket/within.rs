//! Sockets by their names in a folder that is held open.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use switchboard_kernel::Permissions;
use switchboard_kernel::private_folder::{make_at, names, open};
use switchboard_kernel::unix_socket::{self as unix, Kind, connect_in, listen_in, unlink_in};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::hand_over::ready;
use crate::mmap::error_of;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn own() -> Permissions {
    Permissions::new()
}

/// Listens in a folder until killed.
pub(crate) fn listener(arguments: &[String]) {
    let folder = open(Path::new(&arguments[0])).expect("the folder");
    let listener = listen_in(Kind::Seqpacket, &folder, name(&arguments[1]), own(), 8, false);
    let listener = listener.expect("a listener");
    report("listening");
    loop {
        let connection = unix::accept(&listener, false).expect("a connection");
        unix::send(&connection, b"welcome").expect("sent");
        let _ = instruction();
    }
}

/// A folder whose path is longer than a socket's name may be.
fn deep(scratch: &Scratch) -> PathBuf {
    let mut parent: std::os::fd::OwnedFd = File::open(scratch.join("")).expect("a folder").into();
    let part = "f".repeat(150);
    for _ in 0..3 {
        parent = make_at(&parent, name(&part)).expect("a folder");
    }
    scratch.join(&part).join(&part).join(&part)
}

#[test]
fn they_are_found_in_a_deep_folder_and_refuse_when_dead() {
    let scratch = Scratch::new();
    let path = deep(&scratch);
    let longest = "n".repeat(255);
    for name in ["t.p.0123456789abcdef", &longest] {
        let name = OsStr::new(name);
        let arguments = [path.to_str().expect("a path"), name.to_str().expect("a name")];
        let mut child = Child::role("unix-folder-listener", &arguments);
        child.expect("listening");
        let folder = open(&path).expect("the folder");
        assert_eq!(names(&folder).expect("names"), [name]);
        let stat = rustix::fs::statat(&folder, name, rustix::fs::AtFlags::empty()).expect("it");
        assert_eq!(stat.st_mode & 0o7777, 0o600);
        let connection = connect_in(Kind::Seqpacket, &folder, name, false).expect("connected");
        ready(&connection);
        let mut buffer = [0; 16];
        assert_eq!(unix::recv(&connection, &mut buffer), Ok(7));
        assert_eq!(error_of(connect_in(Kind::Stream, &folder, name, false)), "EPROTOTYPE");
        let taken = listen_in(Kind::Seqpacket, &folder, name, own(), 8, false);
        assert_eq!(error_of(taken), "EADDRINUSE");
        child.kill();
        assert_eq!(error_of(connect_in(Kind::Seqpacket, &folder, name, false)), "ECONNREFUSED");
        assert_eq!(unlink_in(&folder, name), Ok(()));
        assert_eq!(error_of(connect_in(Kind::Seqpacket, &folder, name, false)), "ENOENT");
        assert_eq!(names(&folder), Ok(Vec::new()));
    }
}

#[test]
fn only_sockets_and_only_names_in_the_folder() {
    let scratch = Scratch::new();
    let folder = File::open(scratch.join("")).expect("a folder");
    let listener = listen_in(Kind::Stream, &folder, name("s"), own(), 1, true).expect("a listener");
    fs::write(scratch.join("file"), "text").expect("a file");
    symlink("s", scratch.join("link")).expect("a link");
    for (path, connected, removed) in [
        ("file", "ENOTSOCK", "ENOTSOCK"),
        ("link", "ENOTSOCK", "ENOTSOCK"),
        ("nothing", "ENOENT", "ENOENT"),
        ("", "EINVAL", "EINVAL"),
        ("..", "EINVAL", "EINVAL"),
        ("./s", "EINVAL", "EINVAL"),
    ] {
        assert_eq!(error_of(connect_in(Kind::Stream, &folder, name(path), true)), connected);
        assert_eq!(error_of(unlink_in(&folder, name(path))), removed, "{path}");
    }
    for (path, expected) in [("", "EINVAL"), ("../s", "EINVAL"), ("file", "EADDRINUSE")] {
        let listened = listen_in(Kind::Stream, &folder, name(path), own(), 1, true);
        assert_eq!(error_of(listened), expected);
    }
    let long = "x".repeat(256);
    assert_eq!(
        error_of(listen_in(Kind::Stream, &folder, name(&long), own(), 1, true)),
        "ENAMETOOLONG"
    );
    assert_eq!(
        error_of(listen_in(Kind::Datagram, &folder, name("d"), own(), 1, true)),
        "EOPNOTSUPP"
    );
    let metadata = fs::symlink_metadata(scratch.join("s")).expect("the socket");
    assert!(metadata.file_type().is_socket() && metadata.mode() & 0o7777 == 0o600);
    // Nothing of what failed is left, under a hidden name or another.
    let mut left = names(&folder).expect("names");
    left.sort();
    assert_eq!(left, ["file", "link", "s"]);
    drop(listener);
}

#[test]
fn the_folder_may_be_moved_or_gone() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.join("")).expect("a folder");
    let folder = make_at(&parent, name("f")).expect("a folder");
    fs::rename(scratch.join("f"), scratch.join("g")).expect("moved");
    let listener =
        listen_in(Kind::Seqpacket, &folder, name("s"), own(), 1, false).expect("a listener");
    connect_in(Kind::Seqpacket, &folder, name("s"), false).expect("connected");
    assert!(scratch.join("g").join("s").exists());
    drop(listener);
    fs::remove_dir_all(scratch.join("g")).expect("removed");
    assert_eq!(error_of(listen_in(Kind::Seqpacket, &folder, name("s"), own(), 1, false)), "ENOENT");
    assert_eq!(error_of(connect_in(Kind::Seqpacket, &folder, name("s"), false)), "ENOENT");
}
