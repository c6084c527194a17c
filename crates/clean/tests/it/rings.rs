//! FIFOs that somebody has by an io_uring alone.

use std::os::fd::AsFd;

use switchboard_clean::error::Reason;
use switchboard_inspect::Kind;
use switchboard_kernel::{Permissions, fifo, unix_socket};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::ring::{Ring, is_possible};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, DEADLINE};

use crate::files::of_file;
use crate::stage::Stage;

/// Has a FIFO by a ring in some way, until its input ends.
pub(crate) fn holder(arguments: &[String]) {
    let [how, path, other] = arguments else { return };
    // Both ways, so that nobody is waited for.
    let open = |path: &str| {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
        opened.expect("open")
    };
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    match how.as_str() {
        "registered" => kept.push(Box::new(Ring::holding(&[&open(path)]).expect("a ring"))),
        "by another name" => {
            std::fs::hard_link(path, other).expect("a link");
            kept.push(Box::new(Ring::holding(&[&open(other)]).expect("a ring")));
            std::fs::remove_file(other).expect("removed");
        }
        "mapped" => Ring::holding(&[&open(path)]).expect("a ring").keep_mapped_only(),
        "waited for" => {
            let file = open(path);
            let (pipe, _) = std::io::pipe().expect("a pipe");
            let mut ring = Ring::holding(&[&pipe]).expect("a ring");
            ring.wait_to_read(&file).expect("submitted");
            kept.push(Box::new(ring));
        }
        "in flight in a registered socket" => {
            let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let file = open(path);
            unix_socket::send_with_fds(&here, b"x", &[file.as_fd()]).expect("sent");
            kept.push(Box::new((Ring::holding(&[&there]).expect("a ring"), here)));
        }
        other => panic!("no {other}"),
    }
    report("ready");
    let _ = instruction();
    drop(kept);
}

#[test]
fn a_fifo_that_an_io_uring_has_stays() {
    if !is_possible() {
        return skip("io_uring", "this user may have no io_uring");
    }
    let stage = Stage::new();
    let path = stage.path("a name\twith marks");
    fifo::create(&path, Permissions::new().mode(0o620)).expect("a FIFO");
    let other = stage.path("other");
    let names = [&path, &other].map(|path| path.to_str().expect("a path").to_owned());
    let mut child = Child::role("clean-ring", &["registered", &names[0], &names[1]]);
    child.expect("ready");
    let error = stage.remove(&of_file(Kind::Fifo, &path)).1.expect_err("registered");
    let text = error.to_string();
    assert_eq!(error.reason(), Reason::InUse, "{text}");
    assert!(text.contains(&format!("process {} has it registered", child.id())), "{text}");
    child.kill();
    // What cannot be told is in the way as well, also of who asks for the rest with `partial`.
    for how in ["by another name", "mapped", "waited for", "in flight in a registered socket"] {
        let mut child = Child::role("clean-ring", &[how, &names[0], &names[1]]);
        child.expect("ready");
        let error = stage.remove(&of_file(Kind::Fifo, &path)).1.expect_err(how);
        assert_eq!(error.reason(), Reason::Unseen, "{how}: {error}");
        assert!(path.exists(), "{how}");
        child.kill();
    }
    let target = of_file(Kind::Fifo, &path);
    let until = std::time::Instant::now() + DEADLINE;
    // Sockets of other tests may have descriptors in flight.
    while let Err(error) = stage.remove(&target).1 {
        assert_eq!(error.reason(), Reason::Unseen, "{error}");
        assert!(std::time::Instant::now() < until, "nobody has it: {error}");
    }
    assert!(!path.exists());
}

/// Another FIFO of the same name, in another folder, and files that are no FIFO, are in nobody's way.
#[test]
fn what_else_an_io_uring_has_is_in_nobodys_way() {
    if !is_possible() {
        return skip("io_uring", "this user may have no io_uring");
    }
    let stage = Stage::new();
    let path = stage.path("fifo");
    let folder = stage.path("folder");
    std::fs::create_dir(&folder).expect("a folder");
    fifo::create(&path, Permissions::new()).expect("a FIFO");
    fifo::create(&folder.join("fifo"), Permissions::new()).expect("a FIFO");
    let held = std::fs::OpenOptions::new().read(true).write(true).open(folder.join("fifo"));
    let plain = std::fs::File::create_new(folder.join("plain")).expect("a file");
    let (pipe, _) = std::io::pipe().expect("a pipe");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let ring = Ring::holding(&[&held.expect("open"), &plain, &pipe, &tcp]).expect("a ring");
    drop((plain, pipe, tcp));
    let target = of_file(Kind::Fifo, &path);
    let until = std::time::Instant::now() + DEADLINE;
    while let Err(error) = stage.remove(&target).1 {
        assert_eq!(error.reason(), Reason::Unseen, "{error}");
        assert!(std::time::Instant::now() < until, "nobody has it: {error}");
    }
    assert!(!path.exists() && folder.join("fifo").exists());
    drop(ring);
}
