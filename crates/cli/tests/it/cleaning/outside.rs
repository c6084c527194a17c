//! `clean` from within a PID namespace: who lives outside of it and has a FIFO is not seen.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::json;
use super::proof::starter;
use crate::run::{Ended, Run, binary};

/// Has a FIFO open.
pub(super) fn keeper(arguments: &[String]) {
    let _held = fifo::open_reader(Path::new(&arguments[0])).expect("open");
    report("ready");
    let _ = instruction();
}

/// All that is looked at is this folder: where others have files there is nothing here.
const SCRIPT: &str = "mount --bind \"$0\" /run && cd /run &&
for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs none $folder || exit 99; done &&
exec ./switchboard clean --min-age 0s --json \"$@\"";

fn within(folder: &Path, arguments: &[&str]) -> Ended {
    let starter = starter();
    let mut command = Command::new(starter[0]);
    command.args(&starter[1..]).args(["sh", "-c", SCRIPT]).arg(folder).args(arguments);
    command.env("XDG_STATE_HOME", "/run/state").env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
    Run::command(command).end()
}

#[test]
fn a_fifo_of_somebody_outside_stays() {
    let starter = starter();
    let works = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !works.is_ok_and(|done| done.status.success()) {
        return skip("clean within a PID namespace", "this user may not make namespaces");
    }
    let scratch = Scratch::new();
    std::fs::copy(binary(), scratch.join("switchboard")).expect("copied");
    let path = scratch.join("reply-a1f71b2c3d4e");
    fifo::create(&path, Permissions::new()).expect("a FIFO");
    let socket = scratch.join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a listener"));
    let mut child = Child::role("clean-outside", &[path.to_str().expect("a path")]);
    child.expect("ready");
    let of_fifo = |found: &Value, list: &str| {
        let all = found[list].as_array().expect("a list");
        all.iter().find(|one| one["object"].as_str().expect("an id").starts_with("fifo:")).cloned()
    };
    let shown = json(within(scratch.path(), &[]));
    assert_eq!(of_fifo(&shown, "would_remove"), None, "{shown:#}");
    let left = of_fifo(&shown, "left").expect("said");
    let why = left["why"].as_str().expect("a reason");
    assert!(why.contains("outside of this PID namespace") && why.contains("named"), "{why}");
    let done = json(within(scratch.path(), &["--yes", "--partial"]));
    assert!(path.exists(), "{done:#}");
    // Of the file of a socket the kernel says for all namespaces that nobody has it.
    assert!(!socket.exists(), "{done:#}");
    child.kill();
    // Who names it has decided that.
    let until = std::time::Instant::now() + DEADLINE;
    let name = format!("/run/{}", path.file_name().expect("a name").to_str().expect("text"));
    while path.exists() {
        let ended = within(scratch.path(), &["--yes", "--partial", &name]);
        assert!(std::time::Instant::now() < until, "{ended}");
    }
}
