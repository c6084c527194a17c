//! `clean` and `restore`: what is left behind goes, what is in use stays, and comes back.

mod owners;
mod proof;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_shm::{self, Access, Segment};
use switchboard_kernel::sysv_msg::{self, MessageQueue};
use switchboard_kernel::{Permissions, random};
use switchboard_testkit::Scratch;

pub(crate) use proof::ROLES;

use crate::run::{Ended, Run, binary};

/// `switchboard ARGUMENTS` with a journal in this folder.
fn with_journal(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env("XDG_STATE_HOME", folder.join("state"));
    Run::command(command).end()
}

fn json(ended: Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

/// A segment with a name as programs generate them; its name goes when it is dropped.
struct Generated(String);

impl Generated {
    fn new(bytes: &[u8]) -> Self {
        let mut digits = [0; 8];
        random::fill(&mut digits).expect("random bytes");
        let name = format!("/psm_{:016x}", u64::from_ne_bytes(digits));
        let permissions = Permissions::new().mode(0o640);
        let segment = Segment::create(&name, bytes.len() as u64, permissions).expect("a segment");
        let memory = segment.map(Mode::ReadWrite).expect("a mapping");
        memory.write_at(0, bytes).expect("written");
        Self(name)
    }

    fn path(&self) -> String {
        format!("/dev/shm{}", self.0)
    }

    fn is_there(&self) -> bool {
        Path::new(&self.path()).exists()
    }
}

impl Drop for Generated {
    fn drop(&mut self) {
        let _ = posix_shm::unlink(&self.0);
    }
}

#[test]
fn what_is_left_behind_goes_and_comes_back() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    let memory = Generated::new(b"precious");
    let path = memory.path();
    // Young: shown, and left by the removal.
    let young = with_journal(folder, &["clean", "--yes", "--partial", &path]);
    young.code(5).says("it was made or used");
    assert!(memory.is_there());
    with_journal(folder, &["clean", &path]).code(5).says("it was made or used");
    // There is something to remove: a script can tell by the exit code.
    let shown = with_journal(folder, &["clean", "--min-age", "0s", &path]).code(4);
    assert!(shown.text().contains(&path) && memory.is_there(), "{shown}");
    let shown = json(with_journal(folder, &["clean", "--json", "--min-age", "0s", &path]).code(4));
    assert_eq!(shown["would_remove"][0]["name"], path.as_str());
    let removed = json(
        with_journal(folder, &["clean", "--yes", "--partial", "--json", "--min-age", "0s", &path])
            .code(0),
    );
    assert_eq!((&removed["removed"][0]["kept_bytes"], memory.is_there()), (&8.into(), false));
    let run = removed["run"].as_str().expect("a run").to_owned();
    with_journal(folder, &["clean", "--min-age", "0s", &path]).code(3);
    let list = with_journal(folder, &["restore"]).code(0).text();
    assert!(list.contains(&run) && list.contains(&path) && list.contains("removed"), "{list}");
    with_journal(folder, &["restore", &run, &path]).code(0).says("").prints(format!(
        "restored {} as {path}\n  never brought back: its inode, times, extended attributes\n",
        title(&list, &path)
    ));
    assert_eq!(std::fs::read(&path).expect("there"), b"precious");
    with_journal(folder, &["restore", "last", "1"]).code(5).says("restored already");
    with_journal(folder, &["restore", &run]).code(0).says("there again, or was never removed");
    with_journal(folder, &["restore", "--forget", &run]).code(0);
    with_journal(folder, &["restore", &run]).code(3).says("restore");
    with_journal(folder, &["restore", "last"]).code(3).says("the journal is empty");
}

/// What the list calls an object of this name.
fn title(list: &str, name: &str) -> String {
    let line = list.lines().find(|line| line.contains(name)).expect("a line");
    let after = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    after[..after.find(name).expect("the name") + name.len()].to_owned()
}

#[test]
fn what_is_in_use_stays() {
    let scratch = Scratch::new();
    let memory = Generated::new(b"used");
    let held = Segment::open(&memory.0, Access::ReadOnly).expect("open");
    let clean = ["clean", "--yes", "--partial", "--min-age", "0s", &memory.path()];
    let kept = with_journal(scratch.path(), &clean).code(5);
    assert!(kept.stderr.contains("in use"), "{kept}");
    assert!(memory.is_there());
    drop(held);
    with_journal(scratch.path(), &clean).code(0);
    assert!(!memory.is_there());
    with_journal(scratch.path(), &["clean", "--yes", &memory.path()]).code(3);
    with_journal(scratch.path(), &["clean", "pid:1"]).code(2).says("is a process");
    with_journal(scratch.path(), &["clean", "--journal-limit", "much"]).code(2);
    with_journal(scratch.path(), &["clean", "--in", "nowhere"]).code(2).says("cannot look in");
}

/// With nowhere to say what was done, nothing is done.
#[test]
fn without_an_output_nothing_is_removed() {
    let scratch = Scratch::new();
    let memory = Generated::new(b"kept");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(binary());
    command.args(["clean", "--yes", "--partial", "--min-age", "0s", &memory.path()]);
    command.current_dir(scratch.path()).env("XDG_STATE_HOME", scratch.join("state"));
    Run::command(command).end().code(1).says("standard output is closed");
    assert!(memory.is_there());
}

#[test]
fn a_queue_that_is_named() {
    let scratch = Scratch::new();
    let options = sysv_msg::CreateOptions::new();
    let queue = MessageQueue::create(&sysv_msg::Key::Private, &options).expect("a queue");
    let id = format!("sysv-msg:{}", queue.id());
    queue.send(4, b"four").expect("sent");
    // Who sent last lives: it is this test.
    let kept = with_journal(scratch.path(), &["clean", "--yes", "--partial", &id]).code(5);
    assert!(kept.stderr.contains("in use"), "{kept}");
    assert_eq!(queue.status().expect("there").queued_messages, 1);
    queue.remove().expect("removed");
}

/// Without `--partial` nothing goes where not everything can be seen, and it is said what cannot.
#[test]
fn an_ordinary_user_is_told_what_it_cannot_see() {
    let scratch = Scratch::new();
    let memory = Generated::new(b"mine");
    let clean = ["clean", "--yes", "--min-age", "0s", &memory.path()];
    let ended = with_journal(scratch.path(), &clean);
    let complete = json(with_journal(scratch.path(), &["clean", "--json"]))["not_seen"]
        == serde_json::json!([]);
    if complete {
        assert!(ended.code == Some(0) && !memory.is_there(), "{ended}");
    } else {
        let ended = ended.code(5).says("not seen: ").says("--partial");
        assert!(memory.is_there(), "{ended}");
    }
}

/// A journal that others can write to is none.
#[test]
fn a_journal_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let folder = scratch.join("state/switchboard");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    with_journal(scratch.path(), &["restore"]).code(5).says("journal");
    let memory = Generated::new(b"kept");
    let clean = ["clean", "--yes", "--partial", "--min-age", "0s", &memory.path()];
    with_journal(scratch.path(), &clean).code(5).says("journal");
    assert!(memory.is_there());
}
