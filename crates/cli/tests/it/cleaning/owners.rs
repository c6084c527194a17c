//! An ordinary user and what belongs to another one, also where the kernel would let it go: in a folder of one's own.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use switchboard_kernel::posix_mq;
use switchboard_kernel::sysv_shm;
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::{Scratch, unique};

use super::Generated;
use crate::run::{Ended, Run, binary};

/// Users that nothing runs as.
const USER: u32 = 61_010;
const ANOTHER: u32 = 61_011;

struct Folder {
    scratch: Scratch,
    binary: PathBuf,
}

impl Folder {
    /// A folder of the user, with a command that it can run.
    fn new() -> Self {
        let scratch = Scratch::new();
        let copy = scratch.join("switchboard");
        std::fs::copy(binary(), &copy).expect("copied");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("a mode");
        chown(scratch.path(), Some(USER), Some(USER)).expect("given");
        Self { scratch, binary: copy }
    }

    /// `switchboard ARGUMENTS` as the user, without capabilities.
    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.scratch.path()).uid(USER).gid(USER);
        command.env("XDG_STATE_HOME", self.scratch.join("state")).env_remove("XDG_RUNTIME_DIR");
        Run::command(command).end()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        super::json(self.run(arguments))
    }

    /// A FIFO and the file of a dead socket in the user's folder, and memory, of this owner.
    fn files(&self, owner: u32) -> (Vec<String>, Generated) {
        let fifo = self.scratch.join(&format!("reply-a1f7{owner:08x}1b2c"));
        fifo::create(&fifo, Permissions::new().mode(0o666)).expect("a FIFO");
        let socket = self.scratch.join(&format!("socket-{owner}"));
        drop(UnixListener::bind(&socket).expect("a listener"));
        let memory = Generated::new(b"mine");
        let names = [fifo, socket, memory.path().into()];
        for path in &names {
            chown(path, Some(owner), Some(owner)).expect("given");
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).expect("a mode");
        }
        (names.iter().map(|path| path.to_str().expect("text").to_owned()).collect(), memory)
    }
}

/// A segment and a queue that belong to another user, and that everybody may read and write; gone when it is dropped.
struct Foreign {
    segment: sysv_shm::Segment,
    queue: String,
}

impl Foreign {
    fn new() -> Self {
        let permissions = Permissions::new().mode(0o666).owner(ANOTHER).group(ANOTHER);
        let options = sysv_shm::CreateOptions::new().permissions(permissions);
        let segment = sysv_shm::Segment::create(&sysv_shm::Key::Private, 4096, &options);
        let queue = format!("/{}", unique("foreign"));
        let options = posix_mq::CreateOptions::new().permissions(permissions);
        posix_mq::MessageQueue::create(&queue, posix_mq::Access::Both, &options).expect("a queue");
        Self { segment: segment.expect("a segment"), queue }
    }

    fn is_there(&self) -> bool {
        self.segment.status().is_ok_and(|found| found.mode == 0o666)
            && posix_mq::MessageQueue::open(&self.queue, posix_mq::Access::Both).is_ok()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.segment.remove();
        let _ = posix_mq::unlink(&self.queue);
    }
}

/// Named or not, as a dry run and in earnest.
#[test]
fn what_belongs_to_another_user_stays() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give an object to somebody else.
        return super::an_ordinary_user_is_told_what_it_cannot_see();
    }
    let folder = Folder::new();
    let (own, _own_memory) = folder.files(USER);
    let (mut foreign, _foreign_memory) = folder.files(ANOTHER);
    let kept = Foreign::new();
    foreign.push(format!("sysv-shm:{}", kept.segment.id()));
    let named = |first: &[&'static str]| -> Vec<String> {
        first.iter().map(ToString::to_string).chain(own.clone()).chain(foreign.clone()).collect()
    };
    let ask = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        folder.run(&words)
    };
    // As a dry run: what would go is the user's own, and of each of the others it is said why not.
    let shown = ask(&named(&["clean", "--json", "--min-age", "0s"])).code(5);
    let shown = super::json(shown);
    let would = |name: &String| shown["would_remove"].to_string().contains(name.as_str());
    assert!(own.iter().all(would), "{shown:#}");
    assert!(!foreign.iter().any(would), "{shown:#}");
    let left = shown["left"].as_array().expect("what stays");
    let of_another = |one: &&Value| {
        one["why"] == format!("it belongs to user {ANOTHER}: they or root may remove it").as_str()
    };
    assert_eq!(left.iter().filter(of_another).count(), foreign.len(), "{shown:#}");
    // In earnest, by name and without.
    let is_there = |path: &String| !path.starts_with('/') || Path::new(path).exists();
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    while own.iter().any(is_there) {
        let ended = ask(&named(&["clean", "--yes", "--partial", "--min-age", "0s"]));
        assert!(foreign.iter().all(is_there) && kept.is_there(), "{ended}");
        // Sockets of other tests may have descriptors in flight.
        assert!(std::time::Instant::now() < until, "{ended}");
    }
    let place = folder.scratch.path().to_str().expect("text").to_owned();
    let all = ["clean", "--json", "--min-age", "0s", "--in", &place];
    let shown = folder.json(&all);
    let would = |name: &String| shown["would_remove"].to_string().contains(name.as_str());
    assert!(!foreign.iter().any(would), "{shown:#}");
    folder.run(&["clean", "--yes", "--partial", "--min-age", "0s", "--in", &place]);
    assert!(foreign.iter().all(is_there) && kept.is_there());
}
