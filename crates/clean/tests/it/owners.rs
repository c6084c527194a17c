//! What belongs to another user, also where the kernel would let this one remove it: a file in a folder of one's own.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, chown};
use switchboard_clean::remove::{may_remove, remove};
use switchboard_clean::{Journal, Limits};
use switchboard_inspect::Kind;
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use crate::files::of_file;
use crate::stage::{NOW, Stage};

/// A user that nothing runs as, and another one.
const USER: u32 = 61_008;
const ANOTHER: u32 = 61_009;

/// Becomes this user, and removes a file in a run of its own.
pub(crate) fn remover(arguments: &[String]) {
    let [user, state, kind, path] = arguments else { return };
    let user: u32 = user.parse().expect("a number");
    // Of this thread alone, which does all that follows.
    rustix::thread::set_thread_groups(&[]).expect("no groups");
    rustix::thread::set_thread_gid(Gid::from_raw(user)).expect("a group");
    rustix::thread::set_thread_uid(Uid::from_raw(user)).expect("a user");
    let journal = Journal::open_in(Path::new(state)).expect("a journal");
    let mut run = journal.begin(Limits::default()).expect("a run");
    let target = of_file(Kind::named(kind).expect("a kind"), Path::new(path));
    let done = remove(&mut run, &target, &[], NOW);
    run.end().expect("ended");
    report(done.map_or_else(|error| format!("{error}"), |_| "removed".to_owned()));
}

#[test]
fn only_its_owner_or_root() {
    assert!(may_remove(USER, &[USER]) && may_remove(USER, &[ANOTHER, USER]));
    assert!(!may_remove(USER, &[ANOTHER]) && !may_remove(USER, &[0]) && !may_remove(USER, &[]));
    assert!(may_remove(0, &[ANOTHER]));
}

/// The kernel lets the owner of a folder remove what others have in it; `clean` does not.
#[test]
fn what_others_have_in_an_own_folder_stays() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give a file to another user.
        return only_its_owner_or_root();
    }
    let stage = Stage::new();
    let give = |path: &Path, user: u32| {
        chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user))).expect("given");
    };
    give(&stage.path("."), USER);
    let state = stage.path("own-state");
    std::fs::create_dir(&state).expect("a folder");
    give(&state, USER);
    let make = |kind: Kind, owner: u32| -> PathBuf {
        let path = stage.path(&format!("{kind}-{owner}"));
        match kind {
            Kind::Fifo => fifo::create(&path, Permissions::new().mode(0o666)).expect("a FIFO"),
            _ => drop(UnixListener::bind(&path).expect("a listener")),
        }
        give(&path, owner);
        path
    };
    let ask = |kind: Kind, path: &Path| {
        let (state, path) = (state.to_str().expect("text"), path.to_str().expect("text"));
        let arguments = [&USER.to_string(), state, kind.name(), path];
        Child::role("clean-as-another", &arguments).line().expect("a line")
    };
    for kind in [Kind::Fifo, Kind::Unix] {
        let (own, foreign) = (make(kind, USER), make(kind, ANOTHER));
        let said = ask(kind, &foreign);
        assert!(foreign.exists(), "{kind}: {said}");
        assert_eq!(said, format!("it belongs to user {ANOTHER}: they or root may remove it"));
        // The same user may remove its own there, so that it is the owner that kept the other.
        let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
        while own.exists() {
            let said = ask(kind, &own);
            // Sockets of other tests may have descriptors in flight.
            assert!(said == "removed" || said.contains("in flight"), "{kind}: {said}");
            assert!(std::time::Instant::now() < until, "{said}");
        }
    }
}
