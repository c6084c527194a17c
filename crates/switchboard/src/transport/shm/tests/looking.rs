//! Who looks, and ends that answer with what cannot be.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::unix_socket;
use switchboard_testkit::{DEADLINE, Scratch};

use super::raw::Listener;
use crate::address::Address;
use crate::counters::{Counts, End};
use crate::transport::shm::counting::{ANSWER, LONGEST_ANSWER, LOOK, answer, seals};
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::hello::{Id, Pattern, Role};
use crate::transport::shm::looking::look;
use crate::transport::shm::name::Entry;

fn memory(text: &[u8], seals: Seals) -> OwnedFd {
    let memory = Memfd::create("switchboard-test", text.len().max(1) as u64).expect("memory");
    let mut file = File::from(memory.as_fd().try_clone_to_owned().expect("a descriptor"));
    file.write_all(text).expect("written");
    memory.add_seals(seals).expect("sealed");
    memory.into()
}

/// What is made of the answer of an end that is alone in its channel, and what it is asked.
fn told(answers: impl FnOnce(OwnedFd) + Send) -> End {
    told_within(DEADLINE, answers)
}

/// As [`told`], to one that waits so long.
fn told_within(patience: Duration, answers: impl FnOnce(OwnedFd) + Send) -> End {
    let scratch = Scratch::new();
    let base = scratch.join("scope");
    let entry = Entry { pattern: Pattern::Topic, role: Role::Writer, id: Id([7; 16]) };
    let listener = in_scope(&base, entry);
    let address: Address =
        format!("shm:channel?scope={}", base.display()).parse().expect("an address");
    let mut ends = std::thread::scope(|scope| {
        let looker = scope.spawn(|| look(&address, patience).expect("a channel").ends);
        let deadline = Deadline::after(DEADLINE);
        assert!(
            wait_for(&listener.0, Interest::Readable, deadline).expect("a wait"),
            "nobody came"
        );
        let socket = unix_socket::accept(&listener.0, false).expect("a connection");
        let mut bytes = [0; 64];
        let asked = unix_socket::recv_with_fds(&socket, &mut bytes, 1).expect("a question").0;
        assert_eq!(&bytes[..asked.len], LOOK);
        answers(socket);
        looker.join().expect("a result")
    });
    let end = ends.pop().expect("an end");
    assert_eq!((ends.len(), end.pid), (0, Some(std::process::id())));
    assert_eq!((end.id.as_str(), end.role), ("07".repeat(16).as_str(), "publisher"));
    end
}

/// A listener as it is in the folder that a scope has.
fn in_scope(base: &Path, entry: Entry) -> Listener {
    use std::os::unix::fs::DirBuilderExt;
    let folder = base.join("shm/channel");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).expect("a folder");
    let path = unix_socket::Address::Path(folder.join(entry.to_string()));
    let kind = unix_socket::Kind::Seqpacket;
    let mode = switchboard_kernel::Permissions::new();
    Listener(unix_socket::listen_at(kind, &path, mode, 8, false).expect("a listener"))
}

#[test]
fn an_answer_is_taken_as_it_is() {
    let counts = Counts { sent: Some(5), waits: 2, ..Counts::default() };
    let given = counts.clone();
    assert_eq!(told(move |socket| answer(&socket, &given)).answer, Ok(counts));
}

#[test]
fn what_cannot_be_is_told_and_not_shown() {
    let check = |bytes: &[u8], given: Option<OwnedFd>, expected: &str| {
        let end = told(|socket| {
            let fds: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
            unix_socket::send_with_fds(&socket, bytes, &fds).expect("said");
        });
        let why = end.answer.expect_err(expected);
        assert!(why.contains(expected), "{why}");
    };
    let json = b"{\"sent\":1}";
    check(b"hello", None, "something else than it was asked for");
    check(ANSWER, None, "no answer came");
    check(ANSWER, Some(memory(json, Seals::SHRINK | Seals::GROW)), "no memory that stays");
    check(ANSWER, Some(File::open("/dev/null").expect("a file").into()), "no memory that stays");
    check(ANSWER, Some(memory(b"{\"sent\":-1}", seals())), "another form");
    check(ANSWER, Some(memory(b"[[[[[", seals())), "another form");
    check(ANSWER, Some(memory(&vec![b' '; LONGEST_ANSWER as usize + 1], seals())), "too long");
    check(&Datagram::Refuse("not for you".into()).encode(), None, "refuses: not for you");
    check(&Datagram::Denied("no".into()).encode(), None, "refuses: no");
    let why = told(drop).answer.expect_err("it hung up");
    assert_eq!(why, "gone before it answered");
}

#[test]
fn who_does_not_answer_is_waited_for_no_longer_than_was_said() {
    let begun = Instant::now();
    let mut kept = None;
    let patience = Duration::from_secs(1);
    let why = told_within(patience, |socket| kept = Some(socket)).answer.expect_err("no answer");
    assert!(why.starts_with("does not answer"), "{why}");
    assert!(begun.elapsed() >= patience);
}

#[test]
fn names_obey_no_terminal() {
    let text = br#"{"links":[{"peer":"\u001b[2J","name":"\u001b]0;x\u0007\n"}]}"#;
    let end = told(|socket| {
        let memory = memory(text, seals());
        unix_socket::send_with_fds(&socket, ANSWER, &[memory.as_fd()]).expect("said");
    });
    let links = end.answer.expect("an answer").links;
    let has_control = |text: &str| text.chars().any(char::is_control);
    assert!(!has_control(&links[0].peer) && !has_control(&links[0].name), "{links:?}");
}
