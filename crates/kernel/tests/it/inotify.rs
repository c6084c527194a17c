//! Tests of `inotify.rs`: what other processes do to files, and the limits.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::inotify::{Buffer, Event, Inotify, Mask, limits};
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::process::Spawn;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::privileges::{become_ordinary_user, wait_until_blocked_in};
use crate::python;

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

fn text(event: &Event<'_>) -> String {
    match event {
        Event::Seen { what, is_folder, name, .. } => {
            let name = name.map_or("-".into(), OsStr::to_string_lossy);
            format!("{what:?} {name}{}", if *is_folder { "/" } else { "" })
        }
        other => format!("{other:?}").split(' ').next().unwrap().to_owned(),
    }
}

/// All that is queued.
fn seen(inotify: &Inotify) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = Buffer::new();
    while inotify.try_read(&mut buffer).unwrap() > 0 {
        all.extend(buffer.events().map(|event| text(&event)));
    }
    all
}

fn shell(folder: &Path, script: &str) {
    let spawn = Spawn::new("sh").args(["-c", script]).current_dir(folder).die_with_parent();
    let status = spawn.spawn().unwrap().wait(soon()).unwrap().unwrap();
    assert!(status.success(), "{script}: {status}");
}

#[test]
fn what_another_process_does_is_seen_in_order() {
    let changes = Mask::CREATE | Mask::DELETE | Mask::MOVED_FROM | Mask::MOVED_TO;
    let check = |mask: Mask, script: &str, expected: &[&str]| {
        let scratch = Scratch::new();
        let inotify = Inotify::new().unwrap();
        fs::write(scratch.join("old"), "text").unwrap();
        inotify.watch(scratch.path(), mask).unwrap();
        shell(scratch.path(), script);
        assert_eq!(seen(&inotify), expected, "{script}");
    };
    check(changes, "echo > a; rm a", &["CREATE a", "DELETE a"]);
    check(changes, "mkdir d; echo > d/below; mv old d", &["CREATE d/", "MOVED_FROM old"]);
    check(changes, "mv old new", &["MOVED_FROM old", "MOVED_TO new"]);
    check(changes, "cat old; chmod 600 old", &[]);
    check(
        Mask::OPEN | Mask::MODIFY | Mask::CLOSE_WRITE,
        "echo 1 >> old",
        &["OPEN old", "MODIFY old", "CLOSE_WRITE old"],
    );
    check(
        Mask::ACCESS | Mask::CLOSE_NO_WRITE,
        "cat old > /dev/null",
        &["ACCESS old", "CLOSE_NO_WRITE old"],
    );
    check(Mask::ATTRIBUTES, "chmod 640 old", &["ATTRIBUTES old"]);
    check(Mask::MODIFY | Mask::ONCE, "echo > old; echo > old", &["MODIFY old", "Removed"]);
    check(
        changes,
        "echo > name\\ with\\ space; ln old link",
        &["CREATE name with space", "CREATE link"],
    );
}

#[test]
fn a_renaming_has_one_cookie_and_any_name() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let strange = OsStr::from_bytes(b"\xff\xfe and \x01");
    let longest = "n".repeat(255);
    fs::write(scratch.path().join(strange), "").unwrap();
    let watch = inotify.watch(scratch.path(), Mask::MOVED_FROM | Mask::MOVED_TO).unwrap();
    fs::rename(scratch.path().join(strange), scratch.join(&longest)).unwrap();
    fs::rename(scratch.join(&longest), scratch.join("short")).unwrap();

    // A buffer of the least size takes an event with the longest name.
    let mut buffer = Buffer::with_capacity(0);
    let mut all = Vec::new();
    while inotify.try_read(&mut buffer).unwrap() > 0 {
        for event in buffer.events() {
            let Event::Seen { watch: by, what, cookie, name, .. } = event else {
                panic!("{event:?}");
            };
            assert_eq!(by, watch);
            all.push((what, cookie, name.unwrap().to_owned()));
        }
    }
    let names: Vec<&OsStr> = all.iter().map(|(_, _, name)| name.as_os_str()).collect();
    assert_eq!(names, [strange, longest.as_ref(), longest.as_ref(), "short".as_ref()]);
    let cookies: Vec<u32> = all.iter().map(|(_, cookie, _)| *cookie).collect();
    assert!(cookies[0] != 0 && cookies[0] == cookies[1] && cookies[2] == cookies[3]);
    assert_ne!(cookies[0], cookies[2]);
}

#[test]
fn a_watch_is_on_the_file_and_not_on_its_name() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let (path, moved) = (scratch.join("file"), scratch.join("moved"));
    fs::write(&path, "text").unwrap();
    let mask = Mask::MODIFY | Mask::MOVE_SELF | Mask::DELETE_SELF;
    let watch = inotify.watch(&path, mask).unwrap();
    shell(scratch.path(), "mv file moved; echo 1 > file; echo 2 >> moved; rm moved");
    assert_eq!(seen(&inotify), ["MOVE_SELF -", "MODIFY -", "DELETE_SELF -", "Removed"]);
    assert_eq!(inotify.unwatch(watch).unwrap_err().name(), "EINVAL");
    assert!(!moved.exists());
}

#[test]
fn a_file_without_a_name_can_be_watched() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let path = scratch.join("file");
    let file = File::create(&path).unwrap();
    fs::remove_file(&path).unwrap();
    inotify.watch_fd(&file, Mask::MODIFY | Mask::DELETE_SELF | Mask::NO_FOLLOW).unwrap();
    std::io::Write::write_all(&mut &file, b"text").unwrap();
    drop(file);
    // A child that another test starts may have a copy for a moment.
    let (mut events, mut buffer) = (Vec::new(), Buffer::new());
    while events.len() < 3 && inotify.read(&mut buffer, soon()).unwrap() > 0 {
        events.extend(buffer.events().map(|event| text(&event)));
    }
    assert_eq!(events, ["MODIFY -", "DELETE_SELF -", "Removed"]);
}

#[test]
fn a_file_is_watched_once() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let (path, link) = (scratch.join("file"), scratch.join("link"));
    fs::write(&path, "").unwrap();
    fs::hard_link(&path, &link).unwrap();
    let watch = inotify.watch(&path, Mask::MODIFY).unwrap();
    assert_eq!(inotify.watch(&link, Mask::OPEN).unwrap_err().name(), "EEXIST");
    assert_eq!(inotify.watch_instead(&link, Mask::OPEN), Ok(watch));
    fs::write(&path, "text").unwrap();
    assert_eq!(seen(&inotify), ["OPEN -"]);
    inotify.unwatch(watch).unwrap();
    fs::write(&path, "text").unwrap();
    assert_eq!(seen(&inotify), ["Removed"]);
    assert_ne!(inotify.watch(&path, Mask::MODIFY), Ok(watch));
}

#[test]
fn an_epoll_and_a_wait_are_woken_by_another_process() {
    let scratch = Scratch::new();
    let mut child = Child::role("inotify-watcher", &[scratch.path().display()]);
    child.expect("watching");
    wait_until_blocked_in(child.id(), libc::SYS_epoll_pwait);
    fs::write(scratch.join("first"), "").unwrap();
    child.expect("CREATE first");
    wait_until_blocked_in(child.id(), libc::SYS_ppoll);
    fs::write(scratch.join("second"), "").unwrap();
    child.expect("CREATE second");
    child.expect("nothing more");

    // Its watch dies with it; who is watched does not notice.
    child.kill();
    fs::write(scratch.join("third"), "").unwrap();
}

/// Role: watches a folder, first in an epoll, then by itself.
pub(crate) fn watcher(arguments: &[String]) {
    let inotify = Inotify::new().unwrap();
    inotify.watch(Path::new(&arguments[0]), Mask::CREATE | Mask::ONLY_FOLDER).unwrap();
    let epoll = Epoll::new().unwrap();
    epoll.add(&inotify, 1, Interest::Readable).unwrap();
    let mut events = Events::with_capacity(1);
    report("watching");
    assert_eq!(epoll.wait(&mut events, soon()), Ok(1));
    report(seen(&inotify).join(", "));
    let mut buffer = Buffer::default();
    assert!(inotify.read(&mut buffer, soon()).unwrap() > 0);
    report(buffer.events().map(|event| text(&event)).collect::<Vec<_>>().join(", "));
    assert_eq!(inotify.read(&mut buffer, Deadline::after(Duration::from_millis(5))), Ok(0));
    assert_eq!(buffer.events().count(), 0);
    report("nothing more");
    let _ = instruction();
}

#[test]
fn a_killed_writer_closes_its_file() {
    let scratch = Scratch::new();
    let path = scratch.join("file");
    fs::write(&path, "").unwrap();
    let inotify = Inotify::new().unwrap();
    inotify.watch(&path, Mask::CLOSE_WRITE).unwrap();
    let mut child = Child::role("inotify-writer", &[path.display()]);
    child.expect("open");
    assert_eq!(seen(&inotify), [""; 0]);
    child.kill();
    let mut buffer = Buffer::new();
    assert!(inotify.read(&mut buffer, soon()).unwrap() > 0);
    let events: Vec<_> = buffer.events().map(|event| text(&event)).collect();
    assert_eq!(events, ["CLOSE_WRITE -"]);
}

/// Role: has a file open for writing, and stays.
pub(crate) fn writer(arguments: &[String]) {
    let _file = File::options().write(true).open(&arguments[0]).unwrap();
    report("open");
    let _ = instruction();
}

#[test]
fn equal_events_merge_and_too_many_overflow() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let paths = [scratch.join("a"), scratch.join("b")];
    for path in &paths {
        fs::write(path, "").unwrap();
    }
    let watch = inotify.watch(scratch.path(), Mask::ATTRIBUTES).unwrap();
    let change = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    change(&paths[0]);
    change(&paths[0]);
    assert_eq!(seen(&inotify), ["ATTRIBUTES a"]);

    let most = usize::try_from(limits().unwrap().max_queued_events).unwrap();
    for path in paths.iter().cycle().take(most + 10) {
        change(path);
    }
    let events = seen(&inotify);
    assert_eq!(events.len(), most + 1);
    assert_eq!(events.last().unwrap(), "Overflow");
    change(&paths[0]);
    assert_eq!(seen(&inotify), ["ATTRIBUTES a"], "it goes on after it was read");
    inotify.unwatch(watch).unwrap();
}

#[test]
fn what_cannot_be_watched() {
    let scratch = Scratch::new();
    let inotify = Inotify::new().unwrap();
    let (file, link) = (scratch.join("file"), scratch.join("link"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let name = |path: &Path, mask| inotify.watch(path, mask).unwrap_err().name();
    assert_eq!(name(&scratch.join("none"), Mask::ALL), "ENOENT");
    assert_eq!(name(&file, Mask::ALL | Mask::ONLY_FOLDER), "ENOTDIR");
    assert_eq!(name(&link, Mask::ALL), "ELOOP");
    assert!(inotify.watch(&link, Mask::ALL | Mask::NO_FOLLOW).is_ok());
    assert_eq!(name(&file, Mask::EMPTY), "EINVAL");

    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let mut child = Child::role("inotify-stranger", &[file.display()]);
    child.expect("EACCES");
}

/// Role: as an ordinary user, watches a file that it may not read.
pub(crate) fn stranger(arguments: &[String]) {
    become_ordinary_user();
    let watched = Inotify::new().unwrap().watch(Path::new(&arguments[0]), Mask::MODIFY);
    report(watched.unwrap_err().name());
}

#[test]
fn the_limits_are_named_when_they_are_hit() {
    let namespace = ["unshare", "--user", "--map-root-user"];
    let scratch = Scratch::new();
    let mut child = Child::role_under(&namespace, "inotify-limits", &[scratch.path().display()]);
    child.expect(
        "instance 4: inotify_init1 (/proc/sys/fs/inotify/max_user_instances): \
         Too many open files (EMFILE)",
    );
    child.expect(
        "watch 6: inotify_add_watch (/proc/sys/fs/inotify/max_user_watches): \
         No space left on device (ENOSPC)",
    );
    child.expect("a watch that goes makes room");
    child.expect("descriptors: inotify_init1: Too many open files (EMFILE)");
}

/// Role: in a user namespace of its own, with low limits, asks for one of everything too many.
pub(crate) fn limits_role(arguments: &[String]) {
    let folder = Path::new(&arguments[0]);
    fs::write("/proc/sys/user/max_inotify_instances", "3").unwrap();
    fs::write("/proc/sys/user/max_inotify_watches", "5").unwrap();
    let mut instances = Vec::new();
    let error = loop {
        match Inotify::new() {
            Ok(instance) => instances.push(instance),
            Err(error) => break error,
        }
    };
    report(format_args!("instance {}: {error}", instances.len() + 1));

    let inotify = &instances[0];
    let mut watches = Vec::new();
    let error = loop {
        let path = folder.join(watches.len().to_string());
        fs::write(&path, "").unwrap();
        match inotify.watch(&path, Mask::MODIFY) {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
    };
    report(format_args!("watch {}: {error}", watches.len() + 1));
    inotify.unwatch(watches[0]).unwrap();
    inotify.watch(folder, Mask::CREATE).unwrap();
    report("a watch that goes makes room");

    instances.truncate(1);
    switchboard_kernel::process::set_file_limit(3).unwrap();
    report(format_args!("descriptors: {}", Inotify::new().unwrap_err()));
}

#[test]
fn masks_print_what_is_in_them() {
    assert_eq!(format!("{:?}", Mask::EMPTY), "EMPTY");
    assert_eq!(format!("{:?}", Mask::CREATE | Mask::ONCE), "CREATE | ONCE");
    assert!(Mask::ALL.contains(Mask::OPEN | Mask::MOVE_SELF) && !Mask::ALL.contains(Mask::ONCE));
    assert_eq!(Mask::ALL.without(Mask::ALL), Mask::EMPTY);
    assert_eq!((Mask::OPEN | Mask::ACCESS).bits(), libc::IN_OPEN | libc::IN_ACCESS);
}

/// Watches a folder by the C library's calls, for IN_CREATE and IN_CLOSE_WRITE. A struct inotify_event
/// is four words, the last of which is the length of the name after it.
const PYTHON: &str = "
import struct
watcher = c('inotify_init1', os.O_CLOEXEC)
assert c('inotify_add_watch', watcher, os.fsencode(sys.argv[1]), 0x100 | 0x8) == 1
say('watching')
while events := os.read(watcher, 4096):
    while events:
        watch, mask, cookie, length = struct.unpack_from('iIII', events)
        name, events = events[16:16 + length], events[16 + length:]
        say({0x100: 'CREATE', 0x8: 'CLOSE_WRITE'}[mask], os.fsdecode(name.rstrip(bytes(1))))
";

#[test]
fn python_sees_our_death_and_we_see_that_of_python() {
    let scratch = Scratch::new();
    let (path, folder) = (scratch.join("file"), scratch.path().to_str().unwrap());
    fs::write(&path, "").unwrap();
    let test = "python_sees_our_death_and_we_see_that_of_python";
    let Some(mut python) = python::start(test, "ctypes", PYTHON, &[folder]) else { return };
    python.expect("watching");
    let mut ours = Child::role("inotify-writer", &[path.display()]);
    ours.expect("open");
    fs::hard_link(&path, scratch.join("other")).unwrap();
    python.expect("CREATE other");
    ours.kill();
    python.expect("CLOSE_WRITE file");
    python.kill();

    let inotify = Inotify::new().unwrap();
    inotify.watch(scratch.path(), Mask::CLOSE_WRITE).unwrap();
    let program = "file = open(sys.argv[1], 'w')\nsay('open')\ntold()";
    let mut python = python::start(test, "ctypes", program, &[path.to_str().unwrap()]).unwrap();
    python.expect("open");
    assert_eq!(seen(&inotify), [""; 0]);
    python.kill();
    let mut buffer = Buffer::new();
    assert!(inotify.read(&mut buffer, soon()).unwrap() > 0);
    let events: Vec<_> = buffer.events().map(|event| text(&event)).collect();
    assert_eq!(events, ["CLOSE_WRITE file"]);
}
