//! Names: found by others, never seen half-made, gone with their last user.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use switchboard_kernel::Permissions;
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::sync::{Name, Permits, RwLock, Semaphore, Shared};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch, unique};

use super::{name_of, until};
use crate::privileges::{become_ordinary_user, is_root};

fn named(path: &Path) -> Name {
    Name::new(path.to_str().expect("a path")).expect("a name")
}

/// Role: uses a semaphore by its name, says the count it finds, and raises it; until told to end.
pub(crate) fn user(arguments: &[String]) {
    let name = Name::new(&arguments[0]).expect("a name");
    if arguments.len() > 1 {
        become_ordinary_user();
    }
    match Semaphore::named(&name, 10) {
        Ok(semaphore) => {
            report(semaphore.value());
            semaphore.post().expect("raised");
            let _ = instruction();
        }
        Err(error) => report(error.name()),
    }
}

fn start(path: &Path) -> Child {
    Child::role("sync_user", &[path.to_str().expect("a path")])
}

#[test]
fn processes_meet_by_name_and_it_goes_with_the_last() {
    let scratch = Scratch::new();
    let path = scratch.join("jobs");
    let semaphore = Semaphore::named(&named(&path), 5).expect("made");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o600);
    let mut one = start(&path);
    one.expect("5");
    until("one has raised it", || semaphore.value() == 6);
    let mut two = start(&path);
    two.expect("6");
    drop(semaphore);
    assert!(path.exists());
    one.tell("end");
    one.wait();
    assert!(path.exists());
    two.tell("end");
    two.wait();
    assert!(!path.exists());
}

#[test]
fn what_killed_users_left_is_made_anew() {
    let scratch = Scratch::new();
    let path = scratch.join("jobs");
    let mut killed = start(&path);
    killed.expect("10");
    let mut other = start(&path);
    assert!(other.line().is_some());
    killed.kill();
    // Somebody still uses it.
    let semaphore = Semaphore::named(&named(&path), 5).expect("opened");
    assert!(semaphore.value() >= 10);
    drop(semaphore);
    other.kill();
    assert!(path.exists());
    let semaphore = Semaphore::named(&named(&path), 5).expect("made anew");
    assert_eq!(semaphore.value(), 5);
    drop(semaphore);
    assert!(!path.exists());
}

#[test]
fn a_plain_name_is_of_the_user_and_leftovers_are_swept() {
    let name = |text: &str| Name::new(text).expect("a name");
    let (left, used) = (name(&unique("left")), name(&unique("used")));
    let mut killed = Child::role(
        "sync_user",
        &[left.path().file_name().and_then(|name| name.to_str()).expect("a name")],
    );
    killed.expect("10");
    killed.kill();
    assert!(left.path().exists());
    let semaphore = Semaphore::named(&used, 0).expect("made");
    assert!(!left.path().exists(), "another name was opened since");
    let folder = used.path().parent().expect("a folder");
    assert_eq!(std::fs::metadata(folder).expect("a folder").permissions().mode() & 0o7777, 0o700);
    drop(semaphore);
    assert!(!used.path().exists());
}

#[test]
fn owner_and_mode_are_those_that_were_asked_for() {
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let path = scratch.join("jobs");
    let group = std::fs::metadata(scratch.path()).expect("a folder").gid();
    let name = named(&path).permissions(Permissions::new().mode(0o640).group(group));
    let semaphore = Semaphore::named(&name, 0).expect("made");
    let found = std::fs::metadata(&path).expect("a file");
    assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o640, group));
    if is_root() {
        let mut outsider = Child::role("sync_user", &[path.to_str().expect("a path"), "nobody"]);
        outsider.expect("EACCES");
        drop(semaphore);
        let name = named(&path).permissions(Permissions::new().mode(0o666));
        let _semaphore = Semaphore::named(&name, 3).expect("made");
        let mut outsider = Child::role("sync_user", &[path.to_str().expect("a path"), "nobody"]);
        outsider.expect("3");
    }
}

#[test]
fn what_a_name_stands_for_is_not_changed() {
    let scratch = Scratch::new();
    let path = scratch.join("slots");
    let _permits = Permits::named(&named(&path), 3).expect("made");
    assert_eq!(name_of(Permits::named(&named(&path), 4)), "EINVAL");
    assert_eq!(name_of(RwLock::named(&named(&path), RwLock::READERS)), "EINVAL");
    assert_eq!(name_of(Permits::named(&named(&path), 3)), "ok");
    assert!(path.exists());
}

#[test]
fn a_file_that_is_no_object_stays_as_it_is() {
    let scratch = Scratch::new();
    for content in ["", "dear diary", "SBS"] {
        let path = scratch.join("diary");
        std::fs::write(&path, content).expect("written");
        assert_eq!(name_of(Semaphore::named(&named(&path), 0)), "EINVAL");
        assert_eq!(std::fs::read(&path).expect("read"), content.as_bytes());
    }
    let folder = scratch.join("folder");
    std::fs::create_dir(&folder).expect("made");
    assert_ne!(name_of(Semaphore::named(&named(&folder), 0)), "ok");
    let link = scratch.join("link");
    std::os::unix::fs::symlink(scratch.join("diary"), &link).expect("made");
    assert_eq!(name_of(Semaphore::named(&named(&link), 0)), "ELOOP");
    let nowhere = scratch.join("no/where");
    assert_eq!(name_of(Semaphore::named(&named(&nowhere), 0)), "ENOENT");
}

#[test]
fn a_file_that_is_no_object_stays_although_others_lock_it() {
    let scratch = Scratch::new();
    let path = scratch.join("precious");
    std::fs::write(&path, [0; 8192]).expect("written");
    let file = std::fs::File::options().read(true).write(true).open(&path).expect("opened");
    let guard = Lock::open_file(Mode::Shared).lock(&file).expect("locked");
    assert_eq!(name_of(Semaphore::named(&named(&path), 0)), "EINVAL");
    drop(guard);
    assert!(path.exists());
    let name = Name::new(&unique("other")).expect("a name");
    let semaphore = Semaphore::named(&name, 0).expect("made");
    let notes = name.path().with_file_name(unique("notes"));
    std::fs::write(&notes, [0; 200]).expect("written");
    drop(Semaphore::named(&Name::new(&unique("third")).expect("a name"), 0).expect("made"));
    assert_eq!(std::fs::read(&notes).expect("still there"), [0; 200]);
    std::fs::remove_file(&notes).expect("removed");
    drop(semaphore);
}

#[test]
fn one_that_may_not_be_removed_is_made_anew_in_its_place() {
    if !is_root() {
        // Only root can play two users; as an ordinary user all files are its own.
        return;
    }
    let scratch = Scratch::new();
    // As /dev/shm is.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o1777)).expect("set");
    let path = scratch.join("jobs");
    let name = named(&path).permissions(Permissions::new().mode(0o666));
    let semaphore = Semaphore::named(&name, 3).expect("made");
    let start = || Child::role("sync_user", &[path.to_str().expect("a path"), "nobody"]);
    let mut other = start();
    other.expect("3");
    // The last user may not remove it.
    drop(semaphore);
    other.tell("end");
    other.wait();
    assert!(path.exists());
    let (mut first, mut second) = (start(), start());
    let counts = [first.line(), second.line()].map(|line| line.expect("a count"));
    assert!(counts.contains(&"10".to_owned()), "{counts:?}");
    first.kill();
    second.kill();
    drop(Semaphore::named(&name, 0).expect("made anew"));
    assert!(!path.exists());
}

#[test]
fn what_is_no_name_is_refused() {
    let long = "x".repeat(256);
    for (name, expected) in [
        ("", "EINVAL"),
        (".", "EINVAL"),
        ("..", "EINVAL"),
        (".hidden", "EINVAL"),
        ("a/b", "EINVAL"),
        ("/tmp/", "EINVAL"),
        ("/tmp/..", "EINVAL"),
        ("a\0b", "EINVAL"),
        (&long, "ENAMETOOLONG"),
    ] {
        assert_eq!(name_of(Name::new(name)), expected, "{name:?}");
    }
    assert_eq!(Name::new("/x/y").expect("a name").path(), PathBuf::from("/x/y"));
}

/// Role: opens a name and lets go of it, as often as told.
pub(crate) fn leaver(arguments: &[String]) {
    let name = Name::new(&arguments[0]).expect("a name");
    for _ in 0..300 {
        let semaphore = Semaphore::named(&name, 0).expect("opened or made");
        semaphore.post().expect("raised");
    }
    report("done");
}

#[test]
fn comings_and_goings_leave_nothing() {
    let scratch = Scratch::new();
    let path = scratch.join("busy");
    let start = || Child::role("sync_leaver", &[path.to_str().expect("a path")]);
    let mut all = [start(), start(), start(), start()];
    all.iter_mut().for_each(|one| one.expect("done"));
    all.iter_mut().for_each(|one| assert!(one.wait().success()));
    assert!(!path.exists());
}
