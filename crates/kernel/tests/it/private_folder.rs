//! Folders that are one user's alone, made by several processes at once, and what is refused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use switchboard_kernel::private_folder::{make_at, names, open, open_at, remove_at};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::mmap::error_of;
use crate::privileges::{become_ordinary_user, is_root};

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// Makes the folder that others make at the same time, puts a file in it, and removes what it can.
pub(crate) fn maker(arguments: &[String]) {
    let parent = File::open(&arguments[0]).expect("the parent");
    report("ready");
    let _ = instruction();
    let folder = make_at(&parent, name("shared")).expect("the folder");
    let mode = fs::metadata(Path::new(&arguments[0]).join("shared")).expect("it").mode();
    let file = std::process::id().to_string();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&folder, &file, flags, rustix::fs::Mode::RUSR).expect("a file");
    let seen = names(&folder).expect("names").contains(&file.into());
    report(format_args!("{:o} {seen}", mode & 0o7777));
}

#[test]
fn all_who_come_at_once_get_the_same_folder() {
    let scratch = Scratch::new();
    let path = scratch.join("");
    let mut children: Vec<Child> = (0..4)
        .map(|_| Child::role("private_folder-maker", &[path.to_str().expect("a path")]))
        .collect();
    for child in &mut children {
        child.expect("ready");
    }
    for child in &mut children {
        child.tell("go");
    }
    for child in &mut children {
        child.expect("700 true");
    }
    let folder = open(&scratch.join("shared")).expect("the folder");
    assert_eq!(names(&folder).expect("names").len(), 4);
}

/// With a umask that takes everything from others and some from the owner.
pub(crate) fn masked(arguments: &[String]) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let parent = File::open(&arguments[0]).expect("the parent");
    let folder = make_at(&parent, name("masked")).expect("the folder");
    let mode = rustix::fs::fstat(&folder).expect("it").st_mode;
    report(format_args!("{:o}", mode & 0o7777));
    rustix::process::umask(rustix::fs::Mode::empty());
    let open = make_at(&parent, name("open")).expect("the folder");
    report(format_args!("{:o}", rustix::fs::fstat(&open).expect("it").st_mode & 0o7777));
}

#[test]
fn the_umask_does_not_matter() {
    let scratch = Scratch::new();
    let path = scratch.join("");
    let mut child = Child::role("private_folder-masked", &[path.to_str().expect("a path")]);
    child.expect("700");
    child.expect("700");
}

#[test]
fn what_is_not_private_is_refused() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.join("")).expect("the parent");
    for (mode, expected) in [
        (0o700, None),
        (0o2700, None),
        (0o750, Some("fstat st_mode")),
        (0o701, Some("fstat st_mode")),
        (0o1777, Some("fstat st_mode")),
    ] {
        let path = scratch.join("f");
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        for error in [
            open(&path).err(),
            open_at(&parent, name("f")).err(),
            make_at(&parent, name("f")).err(),
        ] {
            assert_eq!(error.map(|error| error.call()), expected, "{mode:o}");
            assert!(error.is_none_or(|error| error.name() == "EPERM"));
        }
        assert_eq!(remove_at(&parent, name("f")), Ok(true));
    }
}

#[test]
fn no_link_is_followed() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.join("")).expect("the parent");
    make_at(&parent, name("real")).expect("a folder");
    fs::DirBuilder::new().mode(0o700).create(scratch.join("real/inner")).expect("a folder");
    symlink("real", scratch.join("link")).expect("a link");
    fs::write(scratch.join("file"), "text").expect("a file");
    for (path, expected) in
        [("link", "ELOOP"), ("link/inner", "ELOOP"), ("file", "ENOTDIR"), ("nothing", "ENOENT")]
    {
        assert_eq!(error_of(open(&scratch.join(path))), expected, "{path}");
    }
    for (path, opened, made, removed) in [
        ("link", "ELOOP", "ELOOP", "ENOTDIR"),
        ("file", "ENOTDIR", "ENOTDIR", "ENOTDIR"),
        ("", "EINVAL", "EINVAL", "EINVAL"),
        (".", "EINVAL", "EINVAL", "EINVAL"),
        ("..", "EINVAL", "EINVAL", "EINVAL"),
        ("real/inner", "EINVAL", "EINVAL", "EINVAL"),
        ("/", "EINVAL", "EINVAL", "EINVAL"),
    ] {
        assert_eq!(error_of(open_at(&parent, name(path))), opened, "{path}");
        assert_eq!(error_of(make_at(&parent, name(path))), made, "{path}");
        assert_eq!(error_of(remove_at(&parent, name(path))), removed, "{path}");
    }
    assert_eq!(error_of(make_at(&parent, name(&"x".repeat(256)))), "ENAMETOOLONG");
    open(&scratch.join("real/inner")).expect("no link in it");
    assert_eq!(remove_at(&parent, name("real")), Ok(false));
    assert_eq!(remove_at(&parent, name("nothing")), Ok(true));
}

/// Becomes another user, and says what it makes of the folders.
pub(crate) fn stranger(arguments: &[String]) {
    become_ordinary_user();
    for path in arguments {
        let error = open(Path::new(path)).expect_err("not private");
        report(format_args!("{}: {}", error.call(), error.name()));
    }
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.join("mine");
    fs::DirBuilder::new().mode(0o700).create(&path).expect("a folder");
    // That of root may be looked into by everybody, which does not make it anybody's.
    let paths = ["/proc", path.to_str().expect("a path")];
    let paths = if is_root() { &paths[..] } else { &paths[..1] };
    let mut child = Child::role("private_folder-stranger", paths);
    child.expect("fstat st_uid: EPERM");
    if is_root() {
        child.expect("openat2: EACCES");
    }
}

/// Holds a folder open, and says what is in it after it was moved.
pub(crate) fn holder(arguments: &[String]) {
    let folder = open(Path::new(&arguments[0])).expect("the folder");
    report("held");
    let _ = instruction();
    report(format_args!("{:?}", names(&folder).expect("names")));
    let _ = instruction();
    report(format_args!("{:?}", names(&folder).expect("names")));
    report(error_of(make_at(&folder, name("late"))));
}

#[test]
fn what_is_open_stays_the_folder_that_was_checked() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.join("")).expect("the parent");
    let folder = make_at(&parent, name("f")).expect("a folder");
    let path = scratch.join("f");
    let mut child = Child::role("private_folder-holder", &[path.to_str().expect("a path")]);
    child.expect("held");
    fs::rename(&path, scratch.join("g")).expect("moved");
    make_at(&parent, name("f")).expect("another");
    fs::write(scratch.join("g/file"), "").expect("a file");
    child.tell("look");
    child.expect("[\"file\"]");
    fs::remove_dir_all(scratch.join("g")).expect("removed");
    child.tell("look");
    child.expect("[]");
    child.expect("ENOENT");
    assert_eq!(names(folder.as_fd()), Ok(Vec::new()));
    assert!(child.wait_within(DEADLINE).is_some_and(|status| status.success()));
}
