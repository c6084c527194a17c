//! `clean` and `restore`: what is left behind goes, what is in use stays, and comes back.

mod outside;
mod owners;
mod proof;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_shm::{self, Access, Segment};
use switchboard_kernel::sysv_msg::{self, MessageQueue};
use switchboard_kernel::sysv_sem;
use switchboard_kernel::{Permissions, random};
use switchboard_testkit::child::{Role, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

/// What the child processes of these tests do.
pub(crate) const ROLES: [(&str, Role); 5] = [
    ("clean-stage", proof::stage::stage),
    ("clean-elsewhere", proof::actors::elsewhere),
    ("clean-set", make_set),
    ("clean-set-user", use_set),
    ("clean-outside", outside::keeper),
];

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

/// Makes a set of this key and ends.
fn make_set(arguments: &[String]) {
    let key = sysv_sem::Key::Value(arguments[0].parse().expect("a key"));
    let options = sysv_sem::CreateOptions::new().exclusive(true).values([1]);
    report(sysv_sem::SemaphoreSet::create(&key, &options).expect("a set").id());
}

/// Operates on a set, and ends.
fn use_set(arguments: &[String]) {
    let set = sysv_sem::SemaphoreSet::from_id(arguments[0].parse().expect("an id"));
    set.operate(&[sysv_sem::Operation::add_one(0)]).expect("added");
    report("done");
}

/// Who has operations to undo on a set is shown nowhere: it is said, and that one has to know it.
#[test]
fn a_set_on_which_something_may_be_undone() {
    let scratch = Scratch::new();
    let mut digits = [0; 4];
    random::fill(&mut digits).expect("random bytes");
    let key = i32::from_ne_bytes(digits) | 1;
    let mut maker = Child::role("clean-set", &[key.to_string()]);
    let set = sysv_sem::SemaphoreSet::from_id(maker.line().expect("an id").parse().expect("an id"));
    maker.wait();
    let id = format!("sysv-sem:{}", set.id());
    // This one lives, and was not the last.
    set.operate(&[sysv_sem::Operation::take_one(0).undo()]).expect("taken");
    let kept =
        with_journal(scratch.path(), &["clean", "--yes", "--partial", "--min-age", "0s", &id]);
    kept.code(5).says("in use");
    let id_text = set.id().to_string();
    let mut last = Child::role("clean-set-user", &[id_text]);
    last.expect("done");
    last.wait();
    let until = std::time::Instant::now() + DEADLINE;
    let mut clean = vec!["clean", "--min-age", "2s", &id];
    let shown = loop {
        let shown = with_journal(scratch.path(), &clean);
        if shown.code != Some(5) {
            break shown.code(4);
        }
        // It was used a moment ago.
        assert!(std::time::Instant::now() < until, "{shown}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(shown.text().contains("not checked: whether one who used it before lives"), "{shown}");
    assert!(shown.stderr.contains("clean --yes --partial --min-age 2s"), "{shown}");
    clean.push("--yes");
    let kept = with_journal(scratch.path(), &clean).code(5);
    assert!(
        kept.stderr.contains("operations to undo") && kept.stderr.contains("--partial"),
        "{kept}"
    );
    assert!(set.values().is_ok());
    clean.push("--partial");
    with_journal(scratch.path(), &clean).code(0);
    assert!(set.values().is_err());
}

/// The command line that a dry run ends with does what was shown, in a shell, whatever the names are.
#[test]
fn the_command_that_is_suggested_removes_what_was_shown() {
    let scratch = Scratch::new();
    let memory = Generated::new(b"shown");
    let folder = scratch.join("it's a $folder");
    std::fs::create_dir(&folder).expect("a folder");
    let sockets = ["-a \"socket\"", "another"].map(|name| folder.join(name));
    for path in &sockets {
        drop(std::os::unix::net::UnixListener::bind(path).expect("a listener"));
    }
    let words = [folder.to_str(), sockets[0].to_str()].map(|word| word.expect("a path"));
    let clean = ["clean", "--min-age", "0s", "--journal-limit", "1MiB", "--in", words[0], words[1]];
    let path = memory.path();
    let clean: Vec<&str> = clean.into_iter().chain([path.as_str()]).collect();
    let ended = with_journal(scratch.path(), &clean).code(4);
    let command =
        ended.stderr.lines().find_map(|line| line.split_once("2 objects would be removed: "));
    let command = command.unwrap_or_else(|| panic!("{ended}")).1.to_owned();
    let shown = json(with_journal(scratch.path(), &[&clean[..], &["--json"]].concat()).code(4));
    assert_eq!(shown["command"], command.as_str());
    // Not in the text: standard options that were not given.
    assert!(command.starts_with("switchboard clean --yes ") && !command.contains("--json"));
    std::os::unix::fs::symlink(binary(), scratch.join("switchboard")).expect("a link");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("PATH=.:$PATH; {command}")]).current_dir(scratch.path());
    shell.env("XDG_STATE_HOME", scratch.join("state"));
    Run::command(shell).end().code(0).says("2 objects removed");
    assert!(!sockets[0].exists() && sockets[1].exists() && !memory.is_there());
    // Nothing to remove, nothing to suggest.
    let nothing = json(with_journal(
        scratch.path(),
        &["clean", "--json", "--min-age", "240000h", "--in", words[0]],
    ));
    assert_eq!(nothing["command"], Value::Null, "{nothing:#}");
}
