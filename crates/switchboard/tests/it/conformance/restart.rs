//! Who starts first, who starts again, and the names they meet under.

use std::os::unix::fs::FileTypeExt;

use super::{Meeting, each_row};

#[test]
fn either_side_may_start_first() {
    each_row(|meeting| {
        // The receiver first is what all other tests do.
        let mut sender = meeting.sender("");
        if !meeting.row.capabilities.reliable {
            // A datagram for nobody is gone; the ones that find somebody arrive, with the gap.
            sender.must("send 1 0 100", "sent");
            let mut receiver = meeting.receiver("");
            let mut n = 1;
            let haul = loop {
                sender.ask(&format!("send 1 {n} 100"));
                receiver.tell("recv 1 100");
                let haul = receiver.haul();
                if !haul.got.is_empty() {
                    break haul;
                }
                n += 1;
                assert!(n < 100, "it never arrives");
            };
            assert!(haul.got[0].lost_before >= 1, "{haul:?}");
            return;
        }
        sender.tell("send 1 0 100");
        // Where the kernel keeps messages without a receiver, it is sent already.
        let kept = meeting.row.capabilities.outlives_processes || meeting.is_given();
        let answer = if meeting.row.capabilities.outlives_processes {
            sender.expect("sent");
            Some("sent".to_owned())
        } else {
            sender.child.line_within(std::time::Duration::from_millis(100))
        };
        let mut receiver = meeting.receiver("");
        let haul = receiver.recv(1);
        assert_eq!(haul.of(1), [0], "{:?}", haul.errors);
        if answer.is_none() {
            sender.expect("sent");
        } else {
            assert!(kept, "{answer:?} without a receiver");
        }
        meeting.finish(&mut sender, &mut receiver);
    });
}

#[test]
fn a_side_that_was_not_to_wait_says_so() {
    each_row(|meeting| {
        if meeting.is_given() || meeting.row.scheme == "udp" {
            return;
        }
        let mut sender = meeting.start("sender", "", "no-wait");
        let mut answer = sender.line();
        if answer == "open" {
            // A connection over the network is decided a moment later.
            assert_eq!(meeting.row.scheme, "tcp");
            answer = sender.ask("send 1 0 10");
        }
        assert!(answer.starts_with("error") && answer.contains("kind: NotFound"), "{answer}");
        if meeting.row.capabilities.outlives_processes {
            assert!(answer.contains("there is no "), "{answer}");
        }
    });
}

#[test]
fn a_new_sender_goes_on_where_one_was_killed() {
    each_row(|meeting| {
        if meeting.is_given() {
            return;
        }
        let mut receiver = meeting.receiver("follow");
        for round in 0..3 {
            let mut sender = meeting.sender("");
            sender.tell(&format!("stream {round} 0 50 100"));
            let haul = receiver.recv(50);
            assert!(haul.of(round).into_iter().eq(0..50), "{round}: {haul:?}");
            sender.expect("streamed");
            sender.kill();
            if meeting.is_link() {
                // Who follows is told of the death too, once.
                let died = receiver.must("timeout 15000", "error PeerDied");
                assert!(died.contains("received: 50 }"), "{died}");
            }
        }
        receiver.must("timeout 30", "empty");
    });
}

#[test]
fn a_new_receiver_replaces_one_that_was_killed() {
    each_row(|meeting| {
        if meeting.is_given() {
            return;
        }
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("retry");
        for round in 0..3 {
            let (from, to) = (round * 20, round * 20 + 20);
            if !meeting.row.capabilities.reliable || meeting.row.scheme == "fifo" {
                // What is sent before somebody notices goes nowhere: only what follows is certain.
                until_it_arrives(&mut sender, &mut receiver, 100 + round);
            }
            sender.tell(&format!("stream 1 {from} {to} 100"));
            let haul = receiver.recv(20);
            assert!(haul.of(1).into_iter().eq(from..to), "{round}: {haul:?}");
            sender.expect("streamed");
            if meeting.acknowledges() {
                sender.must("flush 15000", "flushed");
            }
            receiver.kill();
            // Its socket is still there, and dead.
            if meeting.row.target == switchboard::address::TargetForm::PathOrAbstract {
                let path = meeting.path().expect("a path");
                let kind = std::fs::symlink_metadata(path).expect("a stale name").file_type();
                assert!(kind.is_socket());
            }
            receiver = meeting.receiver("");
        }
    });
}

/// Sends marks until the receiver got one, and takes what is left of them.
fn until_it_arrives(sender: &mut super::End, receiver: &mut super::End, mark: u64) {
    for n in 0..200 {
        sender.ask(&format!("timeout {mark} {n} 100 50"));
        receiver.tell("recv 1 20");
        if !receiver.haul().got.is_empty() {
            while !receiver.recv_all(std::time::Duration::from_millis(50)).got.is_empty() {}
            return;
        }
    }
    panic!("nothing arrives any more");
}

#[test]
fn a_second_binder_is_told_who_has_the_name() {
    each_row(|meeting| {
        if meeting.is_given() || meeting.row.capabilities.outlives_processes {
            return;
        }
        let receiver = meeting.receiver("");
        let mut second = meeting.start("receiver", "", "");
        if matches!(meeting.row.scheme, "fifo" | "shm") {
            // Nobody binds these.
            second.expect("open");
            return;
        }
        let answer = second.line();
        assert!(answer.contains("kind: AddressInUse"), "{answer}");
        let holder = format!("process {} (", receiver.child.id());
        assert!(answer.contains(&holder), "{holder}: {answer}");
        assert!(
            !answer.contains("?connect") || meeting.row.options.contains(&"connect"),
            "an option that it does not take: {answer}"
        );
        if meeting.path().is_some() {
            let address = meeting.address().parse().expect("an address");
            let error = switchboard::object::unlink(&address).expect_err("it is alive");
            assert_eq!(error.kind(), switchboard::ErrorKind::AddressInUse);
            assert!(error.to_string().contains(&holder), "{holder}: {error}");
            let advice = error.advice().unwrap_or_default();
            assert!(advice.contains("stop it first") && !advice.contains("?connect"), "{advice}");
        }
        drop(receiver);
        drop(second);
        meeting.receiver("");
    });
}

#[test]
fn something_else_under_the_name_is_left_alone() {
    for scheme in ["unix", "unix-seqpacket", "unix-dgram", "fifo"] {
        let mut meeting = Meeting::of(scheme);
        let path = meeting.path().expect("a path");
        std::fs::write(&path, "precious").expect("a file");
        for role in ["sender", "receiver"] {
            let answer = meeting.start(role, "", "").line();
            assert!(answer.contains("kind: AddressInUse"), "{scheme} {role}: {answer}");
            assert!(answer.contains("something that is not a"), "{scheme} {role}: {answer}");
        }
        let address = meeting.address().parse().expect("an address");
        let error = switchboard::object::unlink(&address).expect_err("not its own");
        assert_eq!(error.kind(), switchboard::ErrorKind::Mismatch);
        assert!(error.to_string().contains("something that is not a"), "{scheme}: {error}");
        assert_eq!(std::fs::read(&path).expect("a file"), b"precious");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("a folder");
        let answer = meeting.start("sender", "", "").line();
        assert!(answer.contains("something that is not a"), "{scheme}: {answer}");
        std::fs::remove_dir(&path).expect("removed");
    }
}

/// An endpoint removes the name that it made, not one that somebody else gave to something new.
#[test]
fn a_name_that_was_replaced_meanwhile_survives() {
    each_row(|meeting| {
        let stays = meeting.is_given() || meeting.row.capabilities.outlives_processes;
        let Some(path) = (!stays).then(|| meeting.path()).flatten() else { return };
        let mut receiver = meeting.receiver("");
        std::fs::remove_file(&path).expect("its name");
        let socket = match meeting.row.scheme {
            "fifo" => {
                let permissions = switchboard_kernel::Permissions::new();
                switchboard_kernel::fifo::create(&path, permissions).expect("another FIFO");
                None
            }
            _ => Some(std::os::unix::net::UnixListener::bind(&path).expect("another socket")),
        };
        let identity = || {
            use std::os::unix::fs::MetadataExt;
            std::fs::symlink_metadata(&path).map(|metadata| metadata.ino()).ok()
        };
        let before = identity();
        receiver.close();
        receiver.child.wait();
        assert!(before.is_some() && identity() == before, "it removed what is not its own");
        drop(socket);
        std::fs::remove_file(&path).expect("removed");
    });
}

#[test]
fn names_are_gone_when_both_sides_have_ended() {
    each_row(|meeting| {
        let stays = meeting.is_given() || meeting.row.capabilities.outlives_processes;
        let Some(path) = (!stays).then(|| meeting.path()).flatten() else {
            // Queue objects stay until they are unlinked, addresses of the network leave nothing.
            return;
        };
        for first in ["sender", "receiver"] {
            let (mut sender, mut receiver);
            if first == "sender" {
                sender = meeting.sender("");
                receiver = meeting.receiver("");
            } else {
                receiver = meeting.receiver("");
                sender = meeting.sender("");
            }
            sender.tell("send 1 0 10");
            assert_eq!(receiver.recv(1).of(1), [0]);
            sender.expect("sent");
            assert!(path.exists());
            meeting.finish(&mut sender, &mut receiver);
            receiver.close();
            assert!(!path.exists(), "{first} first: the name is still there");
            let rest: Vec<_> =
                std::fs::read_dir(meeting.scratch.path()).expect("a folder").flatten().collect();
            assert!(rest.is_empty(), "{rest:?}");
        }
    });
}

#[test]
fn queue_objects_keep_their_messages_without_any_process() {
    each_row(|meeting| {
        if meeting.is_given() || !meeting.row.capabilities.outlives_processes {
            return;
        }
        let mut sender = meeting.sender("");
        sender.tell("stream 1 0 8 100");
        sender.expect("streamed");
        sender.close();
        sender.child.wait();
        let mut receiver = meeting.receiver("");
        assert!(receiver.recv(8).of(1).into_iter().eq(0..8));
        receiver.close();
        receiver.child.wait();
        // The name stays until it is removed, and goes then.
        let address = meeting.address().parse().expect("an address");
        switchboard::object::unlink(&address).expect("unlinked");
        let error = switchboard::object::unlink(&address).expect_err("gone");
        assert_eq!(error.kind(), switchboard::ErrorKind::NotFound);
    });
}

#[test]
fn a_queue_that_was_removed_is_said_to_be() {
    let mut meeting = Meeting::of("sysv");
    let mut receiver = meeting.receiver("");
    let mut sender = meeting.sender("");
    sender.must("send 1 0 100", "sent");
    assert_eq!(receiver.recv(1).of(1), [0]);
    let address = meeting.address().parse().expect("an address");
    switchboard::object::unlink(&address).expect("removed");
    for (end, does) in [(&mut receiver, "timeout 15000"), (&mut sender, "send 1 1 100")] {
        let answer = end.must(does, "error Failed");
        assert!(answer.contains("kind: NotFound"), "{answer}");
        assert!(answer.contains("the queue was removed"), "{answer}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_at_once() {
    for scheme in ["unix", "unix-seqpacket", "unix-dgram", "fifo"] {
        for role in ["sender", "receiver"] {
            let mut meeting = Meeting::of(scheme);
            let answer = meeting.start(role, "/missing/a", "").line();
            assert!(answer.contains("kind: NotFound"), "{scheme} {role}: {answer}");
            assert!(answer.contains("there is no folder"), "{scheme} {role}: {answer}");
        }
    }
}
