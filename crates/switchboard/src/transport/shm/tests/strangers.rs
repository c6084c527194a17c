//! Who has no business with an endpoint, or is not where it is: another pattern, a forked child, a
//! socket without its process, another user, another namespace.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use switchboard_kernel::{process, unix_socket};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, channel, hello, names, publisher, subscriber};
use super::raw::{Listener, Raw, entry_of, wait_dead};
use crate::error::ErrorKind;
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::name::Entry;

#[test]
fn another_pattern_is_told_who_was_first() {
    let scratch = Scratch::new();
    let mut first = publisher(&scratch);
    for role in [Role::Writer, Role::Reader] {
        let error = End::with(scratch.path(), hello(Pattern::Queue, role)).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let who = format!("process {} (", std::process::id());
        assert!(error.to_string().contains(&who), "{error}");
        assert!(error.to_string().contains("has this name as a topic"), "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("another name")));
    }
    assert_eq!(names(scratch.path()), [entry_of(&first).to_string()]);
    first.turn(Instant::now());
    assert_eq!(first.said, Vec::<String>::new(), "a look is no news");
    drop(first);
    // The dead are in nobody's way.
    let other = publisher(&scratch);
    let dead = Entry { pattern: Pattern::Queue, role: Role::Writer, id: Id([3; 16]) };
    drop(Listener::at(scratch.path(), dead));
    wait_dead(&channel(scratch.path()).join(dead.to_string()));
    publisher(&scratch);
    assert_eq!(names(scratch.path()), [entry_of(&other).to_string()]);
}

#[test]
fn a_child_of_fork_leaves_the_name_alone() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let before = names(scratch.path());
    end.meeting.generation += 1;
    let error = end
        .meeting
        .poll(Instant::now(), &mut end.tokens, &mut Vec::new())
        .expect_err("it is the parent's");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.to_string().contains("before a fork"), "{error}");
    end.meeting.leave();
    drop(end);
    assert_eq!(names(scratch.path()), before);
}

#[test]
fn a_socket_that_outlives_its_process_is_removed() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let (ours, theirs) = unix_socket::pair(unix_socket::Kind::Seqpacket).expect("a pair");
    let through = unix_socket::Address::Path(scratch.join("through"));
    let receiver = unix_socket::listen_at(
        unix_socket::Kind::Seqpacket,
        &through,
        switchboard_kernel::Permissions::new(),
        1,
        false,
    )
    .expect("a listener");
    drop((ours, theirs));
    let mut keeper = Child::role("shm-keeper", &[scratch.path().display()]);
    let connection = unix_socket::accept(&receiver, false).expect("a connection");
    let (_, kept) = unix_socket::recv_with_fds(&connection, &mut [0; 8], 1).expect("a listener");
    assert_eq!((kept.len(), names(scratch.path()).len()), (1, 2));
    // While it lives it is dialled.
    end.meeting.look_around(Instant::now()).expect("a scan");
    end.turn(Instant::now());
    assert_eq!(end.meeting.unanswered().count(), 1);
    // Its death is noticed, though its socket is still there.
    keeper.kill();
    end.until("it is dead", |end| end.meeting.wanted() == 0);
    assert_eq!(names(scratch.path()), [entry_of(&end).to_string()]);
    assert_eq!(end.said, Vec::<String>::new());
}

/// Role: listens, gives its socket away, and stays.
pub(super) fn keeper(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(&base, entry);
    let through = unix_socket::Address::Path(base.join("through"));
    let connection =
        unix_socket::connect_to(unix_socket::Kind::Seqpacket, &through, false).expect("connected");
    let given: [BorrowedFd<'_>; 1] = [listener.0.as_fd()];
    unix_socket::send_with_fds(&connection, b"x", &given).expect("given");
    let _ = instruction();
}

#[test]
fn who_answered_and_died_was_met() {
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let mut last = Child::role("shm-last-words", &[scratch.path().display()]);
    last.expect("listens");
    end.meeting.look_around(Instant::now()).expect("a scan");
    end.turn(Instant::now());
    assert_eq!(end.meeting.unanswered().count(), 1);
    last.tell("answer");
    assert!(last.wait().success());
    end.turn(Instant::now());
    // What it may have left in its memory is still to be read.
    assert_eq!((end.met.len(), end.said.len(), end.meeting.wanted()), (1, 0, 0));
    let process = end.met[0].process.as_ref().expect("a process");
    assert_eq!(switchboard_kernel::pidfd::is_dead(process), Ok(true));
}

/// Role: answers who dials, and ends.
pub(super) fn last_words(arguments: &[String]) {
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(&PathBuf::from(&arguments[0]), entry);
    report("listens");
    let _ = instruction();
    let raw = listener.accept().expect("a connection");
    raw.say_hello(&Hello { id: entry.id, ..subscriber() });
}

#[test]
fn another_user_is_refused() {
    let user = process::effective_user_id();
    if user != 0 {
        // Only root can be somebody else, for the rest.
        return;
    }
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let listener = entry_of(&end).to_string();
    let open_up = |mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let below = ["", "switchboard", "switchboard/shm", "switchboard/shm/channel"];
        for folder in below {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(scratch.join(folder), mode).expect("a mode");
        }
        let socket = channel(scratch.path()).join(&listener);
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    };
    let expected =
        "user nobody (65534), groups 65534, may not subscribe here: user root (0) says who";
    // Who should not have come in at all.
    open_up(0o777);
    let base = scratch.path().display().to_string();
    let mut stranger = Child::role("shm-stranger", &[base, listener.clone()]);
    stranger.expect("here");
    end.turn(Instant::now());
    let told = stranger.line().expect("what it was told");
    assert!(told.contains(expected), "{told}");
    assert!(
        end.said[0].starts_with(&format!("refused: process {}", stranger.id())),
        "{:?}",
        end.said
    );
    assert!(end.said[0].contains(expected), "{:?}", end.said);
    // Who listens there.
    open_up(0o700);
    let mut other = publisher(&scratch);
    other.turn(Instant::now());
    assert!(other.said[0].contains(expected), "{:?}", other.said);
    assert_eq!(other.meeting.wanted(), 0);
    let told = stranger.line().expect("what it was told");
    assert!(told.contains(expected), "{told}");
}

/// Role: as another user, connects to an endpoint, and listens beside it.
pub(super) fn stranger(arguments: &[String]) {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    set_thread_groups(&[]).expect("no groups");
    set_thread_gid(rustix::fs::Gid::from_raw(65534)).expect("another group");
    set_thread_uid(rustix::fs::Uid::from_raw(65534)).expect("another user");
    let base = PathBuf::from(&arguments[0]);
    let address = unix_socket::Address::Path(channel(&base).join(&arguments[1]));
    let connected = unix_socket::connect_to(unix_socket::Kind::Seqpacket, &address, true);
    let raw = Raw(connected.expect("connected"));
    raw.say_hello(&subscriber());
    let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([9; 16]) };
    let listener = Listener::at(&base, entry);
    report("here");
    report(format!("{:?}", raw.hear_next()));
    let raw = listener.accept_within(switchboard_testkit::DEADLINE).expect("a connection");
    report(format!("{:?}", raw.hear_next()));
}

#[test]
fn a_process_of_another_namespace_is_met() {
    let test = "a_process_of_another_namespace_is_met";
    let user: &[&str] = if process::effective_user_id() == 0 {
        &["unshare"]
    } else {
        &["unshare", "--user", "--map-current-user"]
    };
    let starter = [user, &["--pid", "--fork", "--kill-child"]].concat();
    let probe = std::process::Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip(test, "no PID namespace can be made here");
    }
    let scratch = Scratch::new();
    let mut end = publisher(&scratch);
    let base = scratch.path().display().to_string();
    let mut inner = Child::role_under(&starter, "shm-inner", &[base]);
    end.until("it is met", |end| !end.met.is_empty());
    assert!(end.met[0].peer.pid.is_some(), "it has an id here, too");
    assert!(end.met[0].process.is_some());
    inner.expect("None a process of another PID namespace (test)");
}

/// Role: meets one whose process id it cannot know.
pub(super) fn inner(arguments: &[String]) {
    let mut end = End::open(&PathBuf::from(&arguments[0]), Pattern::Topic, Role::Reader);
    end.until("it is met", |end| !end.met.is_empty());
    assert_eq!(end.said, Vec::<String>::new());
    let peer = &end.met[0].peer;
    report(format!("{:?} {peer}", peer.pid));
    let _ = instruction();
}
