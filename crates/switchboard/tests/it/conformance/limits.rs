//! Limits, hit on purpose: the error names the limit and how to raise it.

use std::process::Command;

use switchboard::{Bytes, ErrorKind, Queue};
use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::child::report;
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, Scratch};

use super::{Meeting, each_row};

#[test]
fn no_more_descriptors() {
    each_row(|meeting| {
        for role in ["receiver", "sender"] {
            let answer = meeting.start(role, "", "spare-files=0").line();
            assert!(answer.contains("kind: LimitReached"), "{role}: {answer}");
            assert!(answer.contains("RLIMIT_NOFILE"), "{role}: {answer}");
            assert!(answer.contains("ulimit -n") || meeting.row.scheme == "mq", "{role}: {answer}");
        }
    });
}

#[test]
fn no_more_bytes_in_queues() {
    let mut meeting = Meeting::of("mq");
    let answer = meeting.start("receiver", "", "queue-bytes=1000").line();
    assert!(answer.contains("kind: LimitReached"), "{answer}");
    assert!(answer.contains("RLIMIT_MSGQUEUE") && answer.contains("ulimit -q"), "{answer}");
    meeting.receiver("");
}

#[test]
fn more_messages_than_a_queue_may_hold() {
    // More than even root may have.
    let mut meeting = Meeting::of("mq");
    let answer = meeting.start("receiver", "?max-messages=70000", "").line();
    assert!(answer.contains("kind: LimitReached"), "{answer}");
    assert!(answer.contains("70000 messages: fs.mqueue.msg_max allows"), "{answer}");
    assert!(answer.contains("sysctl fs.mqueue.msg_max"), "{answer}");
    let answer = meeting.start("receiver", "?max-message=32MiB", "").line();
    assert!(answer.contains("kind: LimitReached"), "{answer}");
    assert!(answer.contains("fs.mqueue.msgsize_max allows"), "{answer}");
}

#[test]
fn more_bytes_than_a_system_v_queue_may_hold() {
    let mut meeting = Meeting::of("sysv");
    let limits = switchboard_kernel::sysv_msg::limits();
    let query = format!("?capacity={}", limits.default_queue_bytes * 2);
    let mut receiver = meeting.start("receiver", &query, "");
    let answer = receiver.line();
    if answer == "open" {
        assert!(has_capability(CAP_SYS_RESOURCE), "more than a user may have");
        return;
    }
    assert!(answer.contains("kind: PermissionDenied"), "{answer}");
    assert!(answer.contains("kernel.msgmnb"), "{answer}");
}

/// From `linux/capability.h`.
const CAP_SYS_RESOURCE: u32 = 24;

fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a set");
    u64::from_str_radix(line.trim(), 16).expect("a number") >> number & 1 == 1
}

#[test]
fn ports_below_a_thousand() {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let start = std::fs::read_to_string(path).expect("a limit");
    if start.trim().parse::<u16>().is_ok_and(|start| start <= 7) {
        return skip("ports_below_a_thousand", "every user may bind every port here");
    }
    for scheme in ["tcp", "udp"] {
        let address = format!("{scheme}:{}:7", super::own_host());
        let mut receiver = Child::role("receiver", &[address.as_str(), "stranger", "bytes"]);
        let answer = receiver.line().expect("an answer");
        assert!(answer.contains("kind: PermissionDenied"), "{answer}");
        assert!(answer.contains("CAP_NET_BIND_SERVICE"), "{answer}");
        assert!(answer.contains("net.ipv4.ip_unprivileged_port_start=7"), "{answer}");
        assert!(!answer.contains("ls -l"), "{answer}");
    }
}

/// Role: in a mount namespace of its own, names in a file system without room for them.
pub(crate) fn full_file_system(arguments: &[String]) {
    let folder = &arguments[0];
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=2", "tmpfs", folder])
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return report("no mount");
    }
    report("mounted");
    std::fs::write(format!("{folder}/last"), "").expect("the last inode");
    for scheme in ["fifo", "unix", "unix-seqpacket", "unix-dgram"] {
        let queue = Queue::<Bytes>::open(&format!("{scheme}:{folder}/a")).expect("a queue");
        let Err(error) = queue.receiver() else { return report(format!("{scheme}: open")) };
        let advice = error.advice().unwrap_or_default();
        let right = error.kind() == ErrorKind::LimitReached && advice.contains("df -i");
        let rest = std::fs::read_dir(folder).expect("a folder").count();
        report(format!("{scheme}: {right} {rest} {error}"));
    }
}

#[test]
fn a_file_system_without_room_for_a_name() {
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().expect("a path").to_owned();
    let starter: &[&str] =
        if effective_user_id() == 0 { &["unshare", "-m"] } else { &["unshare", "-U", "-r", "-m"] };
    let mut child = Child::role_under(starter, "full-file-system", &[folder]);
    if child.line().as_deref() != Some("mounted") {
        skip("a_file_system_without_room_for_a_name", "no mount namespace may be made here");
        return;
    }
    for scheme in ["fifo", "unix", "unix-seqpacket", "unix-dgram"] {
        let answer = child.line().expect("an answer");
        assert!(answer.starts_with(&format!("{scheme}: true 1 ")), "{answer}");
        assert!(answer.contains("ENOSPC"), "{answer}");
    }
}
