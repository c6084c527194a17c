//! What is refused: strangers, what is not there, what holds something else, limits, and files that
//! are cut short.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, setrlimit};
use switchboard::{ErrorKind, Options, State, object};
use switchboard_kernel::process::effective_user_id;
use switchboard_kernel::sysv_shm::{Key, Segment};
use switchboard_testkit::child::{Child, report};

use super::{Place, ask, each_row_of, failed, open_reader, open_writer, reading, writing};
use crate::place::become_ordinary_user;

#[test]
fn what_is_not_there() {
    each_row_of("state", |place| {
        let refused = open_reader(&place.address).expect_err("nothing there");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
        let options = Options::default().wait_for_peer(false);
        let state = State::open_with(&place.address, options).expect("an address");
        let refused = state.writer().expect_err("nothing there");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
        let refused = object::unlink(&place.parsed("")).expect_err("nothing there");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");

        object::create(&place.parsed("?size=100")).expect("created");
        let refused = object::create(&place.parsed("")).expect_err("it is there");
        assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{refused}");
        assert_eq!(ask(&mut reading(&place.address), "get"), "value 0 0 ");
        // The size is that of who made it.
        let writer = open_writer(&place.with("?size=5000")).expect("a writer");
        assert_eq!(writer.capacity_bytes(), 100);
    });
}

/// The file of a place, where it has one.
fn file_of(place: &Place) -> Option<PathBuf> {
    match place.row.scheme {
        "posix-shm" => Some(PathBuf::from(format!("/dev/shm{}", place.target()))),
        "mmap" => Some(PathBuf::from(place.target())),
        _ => None,
    }
}

fn mode_of(place: &Place) -> u32 {
    match file_of(place) {
        Some(file) => file.metadata().expect("a file").permissions().mode() & 0o777,
        None => {
            let key = Key::Path { path: place.target().into(), id: 1 };
            Segment::open(&key).and_then(|segment| segment.status()).expect("a segment").mode
        }
    }
}

/// Role: another user, who tries both ends.
pub(crate) fn stranger(arguments: &[String]) {
    become_ordinary_user();
    let state = State::open(&arguments[0]).expect("a state");
    report(state.writer().map_or_else(|error| failed(&error), |_| "open".to_owned()));
    report(state.reader().map_or_else(|error| failed(&error), |_| "open".to_owned()));
}

#[test]
fn others_are_kept_out() {
    each_row_of("state", |place| {
        let root = effective_user_id() == 0;
        let folder = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.scratch.path(), folder).expect("an open folder");
        drop(open_writer(&place.address).expect("made"));
        assert_eq!(mode_of(place), 0o600);
        object::unlink(&place.parsed("")).expect("unlinked");

        // Made under another umask, which does not count.
        object::create(&place.parsed("?mode=0644")).expect("created");
        assert_eq!(mode_of(place), 0o644);
        if root {
            let mut stranger = Child::role("state-stranger", &[&place.address]);
            let answer = stranger.line().expect("an answer");
            assert!(answer.starts_with("error PermissionDenied"), "{answer}");
            stranger.expect("open");
        }
        object::unlink(&place.parsed("")).expect("unlinked");

        // An ordinary user locks itself out.
        if !root {
            make_useless(place);
        } else {
            object::create(&place.parsed("")).expect("created");
        }
        let mut stranger = Child::role("state-stranger", &[&place.address]);
        for end in ["writer", "reader"] {
            let answer = stranger.line().expect("an answer");
            assert!(answer.starts_with("error PermissionDenied"), "{end}: {answer}");
        }
    });
}

fn make_useless(place: &Place) {
    match file_of(place) {
        Some(file) => {
            object::create(&place.parsed("")).expect("created");
            let nobody = std::fs::Permissions::from_mode(0o000);
            std::fs::set_permissions(file, nobody).expect("a mode");
        }
        None => {
            let key = Key::Path { path: place.target().into(), id: 1 };
            let options = switchboard_kernel::sysv_shm::CreateOptions::new()
                .permissions(switchboard_kernel::Permissions::new().mode(0));
            Segment::create(&key, 4096, &options).expect("created");
        }
    }
}

#[test]
fn what_holds_something_else_is_refused_and_left_alone() {
    each_row_of("state", |place| {
        let bare = place.with("?layout=bare&size=300");
        let mut foreign = open_writer(&bare).expect("bare memory");
        foreign.set(b"#!/bin/sh").expect("set");
        drop(foreign);
        for refused in [
            open_writer(&place.address).expect_err("something else"),
            open_reader(&place.address).expect_err("something else"),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Mismatch, "{refused}");
            assert!(refused.advice().is_some_and(|advice| advice.contains("?layout=bare")));
        }
        let value = open_reader(&bare).expect("a reader").get().expect("a value");
        assert!(value.bytes.starts_with(b"#!/bin/sh\0"));
        object::unlink(&place.parsed("?layout=bare")).expect("unlinked");

        drop(open_writer(&place.address).expect("made"));
        let refused = open_writer(&bare).expect_err("versions");
        assert_eq!(refused.kind(), ErrorKind::Mismatch, "{refused}");
    });
}

#[test]
fn a_file_that_holds_no_state_is_not_unlinked() {
    let place = Place::of("mmap");
    let path = Path::new(place.target());
    let unlink = |query: &str| object::unlink(&place.parsed(query));
    let mut almost = vec![0; 4096];
    almost[4095] = 1;
    for content in [&b"#!/bin/sh\n"[..], b"", b"\x89SWS\r\n\x1a", &[0; 63], &almost] {
        std::fs::write(path, content).expect("a file");
        let refused = unlink("").expect_err("no state");
        assert_eq!(refused.kind(), ErrorKind::Mismatch, "{refused}");
        assert!(refused.to_string().contains("holds no state"), "{refused}");
        assert!(refused.advice().is_some_and(|advice| advice.contains("rm")), "{refused}");
        assert_eq!(std::fs::read(path).expect("a file"), content);
    }
    // What is meant is removed.
    unlink("?layout=bare").expect("any bytes are a state without versions");

    let target = place.scratch.join("target");
    drop(open_writer(&format!("mmap:{}", target.display())).expect("a state"));
    std::os::unix::fs::symlink(&target, path).expect("a link");
    std::fs::create_dir(place.scratch.join("folder")).expect("a folder");
    for (name, what) in [("a", "symbolic link"), ("folder", "not a file")] {
        let address = format!("mmap:{}", place.scratch.join(name).display());
        for query in ["", "?layout=bare"] {
            let address = format!("{address}{query}").parse().expect("an address");
            let refused = object::unlink(&address).expect_err(what);
            assert_eq!(refused.kind(), ErrorKind::Mismatch, "{refused}");
            assert!(refused.to_string().contains(what), "{refused}");
        }
    }
    std::fs::remove_file(path).expect("removed");

    // Damaged, of another version, or left by a maker that was killed: a state all the same.
    let mut state = std::fs::read(&target).expect("a state");
    state[8] ^= 2;
    for content in [&state[..], &state[..80], &[0; 8384]] {
        std::fs::write(path, content).expect("a file");
        unlink("").expect("removed");
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_is_cut_short_is_an_error() {
    each_row_of("state", |place| {
        let Some(file) = file_of(place) else { return };
        let mut writer = writing(&place.address);
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut writer, "set whole"), "done");
        let cut = std::fs::File::options().write(true).open(&file).expect("a file");
        cut.set_len(0).expect("cut");
        for answer in [ask(&mut reader, "get"), ask(&mut writer, "set more")] {
            assert!(answer.starts_with("error System"), "{answer}");
            assert!(answer.contains("cut short") && answer.contains("truncated"), "{answer}");
        }
        let refused = open_writer(&place.address).expect_err("an empty file");
        assert!(
            matches!(refused.kind(), ErrorKind::Mismatch | ErrorKind::AddressInUse),
            "{refused}"
        );
    });
}

/// Role: makes memory in a process whose files may not be long.
pub(crate) fn small_files(arguments: &[String]) {
    setrlimit(Resource::Fsize, Rlimit { current: Some(10_000), maximum: Some(10_000) })
        .expect("a lower limit");
    let state = State::open(&arguments[0]).expect("a state");
    report(state.writer().map_or_else(|error| failed(&error), |_| "open".to_owned()));
}

#[test]
fn a_limit_on_files_is_named() {
    each_row_of("state", |place| {
        if file_of(place).is_none() {
            return;
        }
        let mut child = Child::role("small-files", &[place.with("?size=64KiB")]);
        let answer = child.line().expect("an answer");
        assert!(answer.starts_with("error LimitReached"), "{answer}");
        assert!(answer.contains("RLIMIT_FSIZE"), "{answer}");
        let mut child = Child::role("small-files", &[place.with("?size=1KiB")]);
        child.expect("open");
    });
}

#[test]
fn other_patterns_are_refused() {
    let refused = open_reader("sem:/x").expect_err("a semaphore");
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    assert!(refused.to_string().contains("it carries event"), "{refused}");
}
