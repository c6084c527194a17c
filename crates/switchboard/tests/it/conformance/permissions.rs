//! Who may use what these transports make: nobody else, unless the address says so.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use switchboard::{RecvError, SendError};
use switchboard_kernel::process::{effective_group_id, effective_user_id};
use switchboard_kernel::sysv_msg::{Key, MessageQueue};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use super::{Meeting, each_row};

/// `nobody`, or what stands in for it.
const NOBODY: u32 = 65_534;

/// Whether what an address names has the mode that it says. That of `shm:` is about its ends: `shm/access.rs`.
fn makes_what_has_a_mode(meeting: &Meeting) -> bool {
    meeting.row.options.contains(&"mode") && meeting.row.scheme != "shm"
}

/// The permission bits of what an address names.
fn mode_of(meeting: &Meeting) -> Option<u32> {
    if meeting.is_given() {
        return None;
    }
    match meeting.row.scheme {
        "sysv" => {
            let key = Key::Path { path: meeting.scratch.path().into(), id: 1 };
            Some(MessageQueue::open(&key).and_then(|queue| queue.status()).expect("a queue").mode)
        }
        "mq" => {
            // The file system of message queues shows them; where it is not mounted, `fstat` does.
            let name = meeting.address().strip_prefix("mq:/").expect("a name");
            use std::os::fd::AsFd;
            use switchboard_kernel::posix_mq::{Access, MessageQueue};
            let name = format!("/{name}");
            let queue = MessageQueue::open(&name, Access::Receive).expect("a queue");
            Some(rustix::fs::fstat(queue.as_fd()).expect("its status").st_mode)
        }
        _ => {
            let metadata = std::fs::symlink_metadata(meeting.owned()?).expect("a name");
            Some(metadata.permissions().mode())
        }
    }
    .map(|mode| mode & 0o777)
}

#[test]
fn what_is_made_is_its_owners_alone() {
    each_row(|meeting| {
        let _receiver = meeting.receiver("");
        if let Some(mode) = mode_of(meeting) {
            assert_eq!(mode, 0o600, "{mode:o}");
        }
    });
}

/// Role: a receiver in a process with a umask that takes everything from others.
pub(crate) fn strict_receiver(arguments: &[String]) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    super::ends::receiver(arguments);
}

#[test]
fn the_mode_of_the_address_counts_whatever_the_umask() {
    each_row(|meeting| {
        if meeting.is_given() || !makes_what_has_a_mode(meeting) {
            return;
        }
        let mut receiver = meeting.start("strict-receiver", "?mode=0640", "");
        receiver.expect("open");
        let mode = mode_of(meeting).expect("a mode");
        assert_eq!(mode, 0o640, "{mode:o}");
    });
}

/// Makes this thread another user's, if it may.
pub(crate) fn become_nobody() {
    if effective_user_id() == 0 {
        use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
        set_thread_groups(&[]).expect("no groups");
        set_thread_gid(rustix::fs::Gid::from_raw(NOBODY)).expect("another group");
        set_thread_uid(rustix::fs::Uid::from_raw(NOBODY)).expect("another user");
    }
}

/// Role: becomes another user, if it may, and tries both ends.
pub(crate) fn stranger(arguments: &[String]) {
    become_nobody();
    let queue = switchboard::Queue::<switchboard::Bytes>::open_with(
        &arguments[0],
        switchboard::Options::default().linger(Some(std::time::Duration::from_millis(10))),
    )
    .expect("a queue");
    // A System V queue can be named by everybody; it is its use that is refused.
    let mut sent = queue.sender().map_err(said);
    report(match &mut sent {
        Err(error) => error.clone(),
        Ok(sender) => match sender.try_send(&switchboard::Bytes(vec![1])) {
            Err(SendError::Failed(error)) => format!("{:?} {error}", error.kind()),
            other => format!("open {other:?}"),
        },
    });
    let received = queue.receiver().map_err(said);
    report(match received.map(|mut receiver| receiver.try_recv()) {
        Err(error) => error,
        Ok(Err(RecvError::Failed(error))) => format!("{:?} {error}", error.kind()),
        Ok(other) => format!("open {other:?}"),
    });
}

/// Kind, text and advice of an error.
fn said(error: switchboard::Error) -> String {
    format!("{:?} {error}; {}", error.kind(), error.advice().unwrap_or_default())
}

#[test]
fn others_are_refused() {
    each_row(|meeting| {
        if meeting.is_given() || !makes_what_has_a_mode(meeting) {
            return;
        }
        // Root is let in everywhere, so it sends somebody else; an ordinary user locks itself out.
        let root = effective_user_id() == 0;
        if root {
            set_folder_mode(meeting, 0o755);
        }
        let _receiver = match (root, meeting.row.scheme) {
            (true, _) => meeting.receiver(""),
            // It could not use what it made itself.
            (false, "mq" | "sysv" | "fifo") => {
                let address = format!("{}?mode=0000", meeting.address());
                let address = address.parse().expect("an address");
                switchboard::object::create(&address).expect("created");
                let mut stranger = Child::role("stranger", &[meeting.address()]);
                refused(&mut stranger);
                return;
            }
            // It makes files in its folder for as long as it lives.
            (false, "file") => {
                let address = meeting.address().parse().expect("an address");
                switchboard::object::create(&address).expect("created");
                let path = meeting.path().expect("a folder");
                let set = |mode| {
                    let mode = std::fs::Permissions::from_mode(mode);
                    std::fs::set_permissions(&path, mode).expect("a mode");
                };
                set(0o000);
                let mut stranger = Child::role("stranger", &[meeting.address()]);
                refused(&mut stranger);
                set(0o700);
                return;
            }
            (false, _) => meeting.receiver_at("?mode=0000", ""),
        };
        let mut stranger = Child::role("stranger", &[meeting.address()]);
        refused(&mut stranger);
    });
}

fn refused(stranger: &mut Child) {
    for end in ["sender", "receiver"] {
        let answer = stranger.line().expect("an answer");
        assert!(answer.starts_with("PermissionDenied "), "{end}: {answer}");
    }
}

fn set_folder_mode(meeting: &Meeting, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(meeting.scratch.path(), mode).expect("a mode");
}

/// What the address opens to everybody can be used by those who may not write its folder.
#[test]
fn others_may_use_what_was_opened_to_them() {
    each_row(|meeting| {
        if meeting.is_given() || !makes_what_has_a_mode(meeting) {
            return;
        }
        // An ordinary user is no other user, but its own folder can be closed to it.
        let closed = if effective_user_id() == 0 { 0o755 } else { 0o555 };
        let (mut sender, mut receiver);
        if ["fifo", "mq", "sysv"].contains(&meeting.row.scheme) {
            let address = format!("{}?mode=0666", meeting.address());
            let address = address.parse().expect("an address");
            switchboard::object::create(&address).expect("created");
            set_folder_mode(meeting, closed);
            receiver = meeting.receiver("stranger");
            sender = meeting.sender("stranger");
        } else {
            receiver = meeting.receiver_at("?mode=0666", "");
            set_folder_mode(meeting, closed);
            sender = meeting.sender("stranger");
        }
        sender.tell("send 1 0 100");
        assert_eq!(receiver.recv(1).of(1), [0]);
        sender.expect("sent");
        meeting.finish(&mut sender, &mut receiver);
        set_folder_mode(meeting, 0o755);
    });
}

#[test]
fn a_fifo_that_may_not_be_made_is_an_error_that_names_the_way() {
    let meeting = Meeting::of("fifo");
    set_folder_mode(&meeting, if effective_user_id() == 0 { 0o755 } else { 0o555 });
    let mut stranger = Child::role("stranger", &[meeting.address()]);
    for end in ["sender", "receiver"] {
        let answer = stranger.line().expect("an answer");
        assert!(answer.starts_with("PermissionDenied "), "{end}: {answer}");
        assert!(answer.contains("switchboard create"), "{end}: {answer}");
    }
    set_folder_mode(&meeting, 0o755);
}

#[test]
fn the_group_of_the_address_counts() {
    each_row(|meeting| {
        if meeting.is_given() || !makes_what_has_a_mode(meeting) {
            return;
        }
        // Only root may give things to groups that it is not in.
        let root = effective_user_id() == 0;
        let group = if root { NOBODY } else { effective_group_id() };
        let _receiver = meeting.receiver_at(&format!("?mode=0660&group={group}"), "");
        assert_eq!(mode_of(meeting), Some(0o660));
        if let Some(path) = meeting.owned() {
            let found = Command::new("stat").args(["-c", "%g %a"]).arg(path).output();
            let found = String::from_utf8(found.expect("stat").stdout).expect("text");
            assert_eq!(found.trim(), format!("{group} 660"));
        }
    });
}
