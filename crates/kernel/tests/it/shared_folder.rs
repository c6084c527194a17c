//! Folders for several users: they have their mode at once, and whoever comes second gets the same.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

use switchboard_kernel::private_folder::names;
use switchboard_kernel::process::effective_group_id;
use switchboard_kernel::shared_folder::{Status, make_at, open_at, set, status};
use switchboard_testkit::Scratch;

use crate::mmap::error_of;

#[test]
fn it_has_its_mode_and_group_whatever_the_umask() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.path()).expect("the parent");
    let group = effective_group_id();
    let made = make_at(&parent, OsStr::new("x"), 0o1770, Some(group)).expect("a folder");
    let found = fs::metadata(scratch.join("x")).expect("it");
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o1770, group));
    let expected = Status { uid: found.uid(), gid: group, mode: 0o1770 };
    assert_eq!(status(&made).expect("a status"), expected);
    assert!(expected.keeps_names() && expected.is_shared());
    // Whoever comes later gets it as it is.
    let again = make_at(&parent, OsStr::new("x"), 0o700, None).expect("the same");
    assert_eq!(status(&again).expect("a status"), expected);
    set(&again, 0o1777, None).expect("wider");
    assert_eq!(status(&made).expect("a status").mode, 0o1777);
    assert_eq!(names(&parent).expect("names"), ["x"]);
}

#[test]
fn names_are_safe_where_only_the_owner_writes_or_with_the_sticky_bit() {
    for (mode, keeps) in [
        (0o700, true),
        (0o755, true),
        (0o770, false),
        (0o777, false),
        (0o1777, true),
        (0o1770, true),
    ] {
        assert_eq!(Status { uid: 0, gid: 0, mode }.keeps_names(), keeps, "{mode:o}");
    }
}

#[test]
fn links_and_files_are_no_folders() {
    let scratch = Scratch::new();
    let parent = File::open(scratch.path()).expect("the parent");
    symlink("/tmp", scratch.join("link")).expect("a link");
    fs::write(scratch.join("file"), "").expect("a file");
    for (name, expected) in
        [("link", "ELOOP"), ("file", "ENOTDIR"), ("..", "EINVAL"), ("a/b", "EINVAL")]
    {
        let name = OsStr::new(name);
        assert_eq!(error_of(make_at(&parent, name, 0o1777, None)), expected);
        assert_eq!(error_of(open_at(&parent, name)), expected);
    }
    assert_eq!(error_of(open_at(&parent, OsStr::new("none"))), "ENOENT");
}
