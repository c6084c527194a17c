//! Files of a folder, and what stands in their place.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use switchboard_kernel::folder_file::{self as files, Access, Kind, is_no_file};
use switchboard_kernel::permissions::Permissions;
use switchboard_testkit::Scratch;

use crate::mmap::error_of;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

#[test]
fn only_a_plain_file_is_opened_and_nothing_waits() {
    let scratch = Scratch::new();
    let folder = files::open_folder(scratch.path()).expect("a folder");
    fs::write(scratch.join("file"), "mine").expect("a file");
    fs::write(scratch.join("twice"), "mine").expect("a file");
    fs::hard_link(scratch.join("twice"), scratch.join("again")).expect("a second name");
    symlink("file", scratch.join("link")).expect("a link");
    fs::create_dir(scratch.join("folder")).expect("a folder");
    switchboard_kernel::fifo::create(&scratch.join("fifo"), Permissions::new()).expect("a FIFO");
    for access in [Access::Read, Access::ReadWrite] {
        for (of, expected) in [
            ("link", "ELOOP"),
            ("folder", "EISDIR"),
            ("fifo", "ENXIO"),
            ("twice", "EMLINK"),
            ("none", "ENOENT"),
            ("..", "EINVAL"),
            ("folder/x", "EINVAL"),
        ] {
            let opened = files::open(&folder, name(of), access);
            let refused = opened.as_ref().is_err_and(|error| is_no_file(*error));
            assert_eq!(refused, !["ENOENT", "EINVAL"].contains(&expected), "{of}");
            assert_eq!(error_of(opened), expected, "{of}");
        }
        files::open(&folder, name("file"), access).expect("the file");
    }
    let mut entries = files::entries(&folder).expect("entries");
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("again", Kind::File),
        ("fifo", Kind::Other),
        ("file", Kind::File),
        ("folder", Kind::Folder),
        ("link", Kind::Other),
        ("twice", Kind::File),
    ];
    assert!(
        entries
            .iter()
            .map(|(of, kind)| (of.as_os_str(), *kind))
            .eq(expected.map(|(of, kind)| (name(of), kind)))
    );
}

#[test]
fn names_are_given_once() {
    let scratch = Scratch::new();
    let folder = files::open_folder(scratch.path()).expect("a folder");
    files::create(&folder, name("new")).expect("a file");
    assert_eq!(error_of(files::create(&folder, name("new"))), "EEXIST");
    files::rename_new(&folder, name("new"), &folder, name("known")).expect("renamed");
    files::create(&folder, name("new")).expect("another");
    assert_eq!(error_of(files::rename_new(&folder, name("new"), &folder, name("known"))), "EEXIST");
    files::rename(&folder, name("new"), &folder, name("known")).expect("replaced");
    assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 1);
    files::remove(&folder, name("known")).expect("removed");
    assert_eq!(error_of(files::remove(&folder, name("known"))), "ENOENT");
    files::sync(&folder).and_then(|()| files::sync_parent(&folder)).expect("on the disk");
}

#[test]
fn a_folder_is_made_with_its_mode_and_links_are_none() {
    let scratch = Scratch::new();
    let folder = files::open_folder(scratch.path()).expect("a folder");
    let ours = Permissions::new().mode(0o770);
    files::make_folder_at(&folder, name("ours"), ours).expect("made");
    assert_eq!(fs::metadata(scratch.join("ours")).expect("it").mode() & 0o7777, 0o770);
    assert_eq!(error_of(files::make_folder_at(&folder, name("ours"), ours)), "EEXIST");
    symlink("ours", scratch.join("link")).expect("a link");
    assert_eq!(error_of(files::open_folder_at(&folder, name("link"))), "ENOTDIR");
    assert_eq!(error_of(files::open_folder(Path::new("/etc/passwd"))), "ENOTDIR");
    files::open_folder_at(&folder, name("ours")).expect("it");
}
