//! Limits on files (`RLIMIT_FSIZE`), descriptors and addresses, hit on purpose: an error that names the limit, and nobody is
//! killed by `SIGXFSZ`. And a log that two users share.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Ended, Run, binary, run};

/// `switchboard ARGUMENTS`, whose files have so many blocks of 512 bytes at most; then more of a shell
/// command.
fn limited(folder: &Path, blocks: u32, arguments: &[&str], more: &str) -> Ended {
    limited_to(folder, &format!("-f {blocks}"), arguments, more)
}

/// The same with another limit of `ulimit`.
fn limited_to(folder: &Path, limit: &str, arguments: &[&str], more: &str) -> Ended {
    let mut shell = Command::new("sh");
    let script = format!("ulimit {limit} || exit 99; exec \"$0\" \"$@\" {more}");
    shell.arg("-c").arg(script).arg(binary()).args(arguments).current_dir(folder);
    Run::command(shell).end()
}

#[test]
fn a_sender_that_may_write_no_more_says_so() {
    let scratch = Scratch::new();
    for command in ["send", "publish"] {
        let refused = limited(scratch.path(), 16, &[command, "file:./log", "--message", "x"], "");
        refused.code(1).says("EFBIG").says("RLIMIT_FSIZE").says("ulimit -f");
        // A shorter segment fits.
        let short = [command, "file:./log?segment=8KiB", "--message", "x"];
        limited(scratch.path(), 16, &short, "").code(0);
        run(scratch.path(), &["unlink", "file:./log"], "").code(0);
    }
}

#[test]
fn a_receiver_that_may_write_no_more_says_so_and_loses_nothing() {
    let scratch = Scratch::new();
    run(scratch.path(), &["send", "file:./log", "-m", "one", "-m", "two", "-m", "three"], "")
        .code(0);
    let one = ["recv", "--count", "1", "file:./log"];
    // Without room for the table, and then with room for one of its copies only.
    limited(scratch.path(), 8, &one, "").code(1).prints("").says("RLIMIT_FSIZE");
    run(scratch.path(), &one, "").code(0).prints("one\n");
    let all = ["recv", "--no-wait", "file:./log"];
    limited(scratch.path(), 40, &all, "").code(1).says("EFBIG").says("RLIMIT_FSIZE");
    run(scratch.path(), &all, "").code(0).prints("two\nthree\n");
}

#[test]
fn a_subscriber_that_may_write_no_more_says_so_and_misses_nothing() {
    let scratch = Scratch::new();
    run(scratch.path(), &["publish", "file:./log", "-m", "one", "-m", "two"], "").code(0);
    let named = ["subscribe", "--from", "oldest", "--no-wait", "file:./log?reader=a"];
    limited(scratch.path(), 8, &named, "").code(1).says("EFBIG").says("RLIMIT_FSIZE");
    run(scratch.path(), &named, "").code(0).prints("one\ntwo\n");
    // One who keeps no place writes nothing.
    let unnamed = ["subscribe", "--from", "oldest", "--no-wait", "file:./log"];
    limited(scratch.path(), 0, &unnamed, "").code(0).prints("one\ntwo\n");
}

#[test]
fn memory_that_may_not_be_so_long_is_not_made() {
    let scratch = Scratch::new();
    let name = unique("limits");
    for address in ["mmap:./state".to_owned(), format!("posix-shm:/{name}")] {
        for arguments in [&["set", &address, "x"][..], &["create", &address]] {
            let refused = limited(scratch.path(), 8, arguments, "");
            refused.code(1).says("EFBIG").says("RLIMIT_FSIZE").says("ulimit -f");
            run(scratch.path(), &["get", &address], "").code(3);
        }
    }
    let left = std::fs::read_dir(scratch.path()).expect("a folder").count();
    assert_eq!(left, 0, "half a file is left");
}

#[test]
fn an_output_that_may_not_be_so_long_is_an_error() {
    let scratch = Scratch::new();
    let line = "y".repeat(3000);
    run(scratch.path(), &["send", "file:./log", "-m", &line, "-m", &line, "-m", &line], "").code(0);
    // The table takes 36 KiB at most.
    let all = ["recv", "--count", "3", "file:./log"];
    run(scratch.path(), &["recv", "--count", "1", "file:./log"], "").code(0);
    let blocks = 80;
    std::fs::write(scratch.join("out"), vec![b'x'; 80 * 512 - 100]).expect("nearly full");
    let refused = limited(scratch.path(), blocks, &all, ">> out");
    refused.code(1).says("cannot write to standard output").says("EFBIG");
    // What could not be written was not acknowledged.
    let taken = run(scratch.path(), &["recv", "--count", "2", "file:./log"], "").code(0);
    taken.prints(format!("{line}\n{line}\n"));
}

/// A user at its limit of processes is one who wants to look: a command that can have no more threads does without.
#[test]
fn who_may_start_no_more_threads_can_look() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("open");
    std::fs::copy(binary(), scratch.join("switchboard")).expect("a copy");
    let looks: [(&[&str], &[i32]); 7] = [
        (&["leaks"], &[0, 4]),
        (&["clean", "--json"], &[0, 4]),
        (&["list"], &[0]),
        (&["ps"], &[0]),
        (&["why"], &[0, 4]),
        (&["map"], &[0]),
        (&["top", "--once"], &[0]),
    ];
    for (look, codes) in looks {
        let mut command = Command::new("prlimit");
        command.arg("--nproc=1").arg("--").arg(scratch.join("switchboard")).args(look);
        command.current_dir(folder).env("XDG_STATE_HOME", scratch.join("state"));
        if effective_user_id() == 0 {
            // Root is not limited.
            command.uid(61_012).gid(61_012);
        }
        let ended = Run::command(command).end();
        assert!(!ended.stderr.contains("panicked"), "{look:?}: {ended}");
        assert!(ended.code.is_some_and(|code| codes.contains(&code)), "{look:?}: {ended}");
    }
}

/// `switchboard ARGUMENTS` as another user.
fn as_other(folder: &Path, arguments: &[&str]) -> Ended {
    const NOBODY: u32 = 65_534;
    let mut command = Command::new(folder.join("switchboard"));
    command.uid(NOBODY).gid(NOBODY).args(arguments).current_dir(folder);
    Run::command(command).end()
}

#[test]
fn two_users_share_a_log() {
    // Only root can be two users; another one is both, and nothing is refused.
    let two = effective_user_id() == 0;
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    // Where the command was built, others may not be let in.
    std::fs::copy(binary(), scratch.join("switchboard")).expect("a copy");
    let other = |arguments: &[&str]| match two {
        true => as_other(scratch.path(), arguments),
        false => here(arguments),
    };

    // Nobody else, unless it is said.
    here(&["send", "file:./private", "-m", "x"]).code(0);
    if two {
        other(&["recv", "--no-wait", "file:./private"]).code(5).says("EACCES");
        other(&["unlink", "file:./private"]).code(5).says("EACCES");
    }

    // A queue for all: either sends, either receives; new files are like the first ones.
    here(&["create", "file:./queue", "--mode", "0666"]).code(0);
    here(&["send", "file:./queue", "-m", "one", "-m", "two"]).code(0);
    other(&["send", "file:./queue", "-m", "three"]).code(0);
    other(&["recv", "--count", "1", "file:./queue"]).code(0).prints("one\n");
    here(&["recv", "--no-wait", "file:./queue"]).code(0).prints("two\nthree\n");
    other(&["send", "file:./queue", "-m", "four"]).code(0);
    here(&["recv", "--no-wait", "file:./queue"]).code(0).prints("four\n");

    // A topic that others may read and not write.
    here(&["publish", "file:./topic?mode=0644", "-m", "news"]).code(0);
    let read = ["subscribe", "--from", "oldest", "--no-wait", "file:./topic"];
    other(&read).code(0).prints("news\n");
    if two {
        other(&["publish", "file:./topic", "-m", "forged"]).code(5).says("EACCES");
        let named = "file:./topic?reader=archive";
        other(&["subscribe", "--no-wait", named]).code(5).says("EACCES");
        other(&["unlink", "file:./topic"]).code(5);
    }
    here(&read).code(0).prints("news\n");
    assert!(scratch.join("topic/bell").exists());
    here(&["unlink", "file:./queue", "file:./topic", "file:./private"]).code(0);
}

/// Each command again with a descriptor more, until they are enough: until then it says which limit that is, and exits with 1.
#[test]
fn descriptors_that_run_out_are_named_with_their_limit() {
    let scratch = Scratch::new();
    let name = unique("few");
    let (shm, sem) = (format!("posix-shm:/{name}"), format!("sem:/{name}"));
    let mut opened = Vec::new();
    for arguments in [
        &["create", "file:./new"][..],
        &["publish", "file:./topic", "-m", "x"],
        &["subscribe", "--from", "oldest", "--no-wait", "file:./topic"],
        &["subscribe", "--from", "oldest", "--no-wait", "file:./topic?reader=a"],
        &["send", "file:./queue", "-m", "x"],
        &["recv", "--no-wait", "file:./queue"],
        &["set", "mmap:./state", "x"],
        &["get", "mmap:./state"],
        &["set", &shm, "x"],
        &["get", &shm],
        &["set", "sysv-shm:.", "x"],
        &["get", "sysv-shm:."],
        &["notify", &sem],
        &["wait", "--no-wait", &sem],
        &["notify", "sysv-sem:."],
        &["wait", "--no-wait", "sysv-sem:."],
    ] {
        let mut lacking = 0;
        for most in 4..=40 {
            let ended = limited_to(scratch.path(), &format!("-n {most}"), arguments, "");
            if ended.code == Some(0) {
                break;
            }
            assert!(most < 40, "{arguments:?} needs so many: {ended}");
            ended.code(1).says("Too many open files (EMFILE)").says("RLIMIT_NOFILE").says("hint: ");
            lacking += 1;
        }
        opened.push(lacking);
    }
    assert!(opened.iter().all(|lacking| *lacking > 0), "never lacking: {opened:?}");
    let objects = [&shm, &sem, "sysv-shm:.", "sysv-sem:.", "mmap:./state", "file:./new"];
    run(scratch.path(), &[&["unlink"], &objects[..]].concat(), "").code(0);
}

#[test]
fn addresses_that_run_out_are_named_with_their_limit() {
    let scratch = Scratch::new();
    // 64 MiB of addresses: enough for the program, and not for what it is to map besides.
    let short = |arguments: &[&str]| {
        let ended = limited_to(scratch.path(), "-v 65536", arguments, "").code(1);
        ended.says("Cannot allocate memory (ENOMEM)").says("RLIMIT_AS").says("hint: ")
    };
    let shm = format!("posix-shm:/{}?size=64MiB", unique("narrow"));
    for address in ["mmap:./state?size=64MiB", &shm, "sysv-shm:.?size=64MiB"] {
        short(&["set", address, "x"]);
    }
    let (queue, topic) = ("file:./queue?segment=256MiB", "file:./topic?segment=256MiB");
    run(scratch.path(), &["send", queue, "-m", "one"], "").code(0);
    run(scratch.path(), &["publish", topic, "-m", "one"], "").code(0);
    short(&["send", queue, "-m", "two"]);
    short(&["publish", topic, "-m", "two"]);
    short(&["recv", "--no-wait", queue]).prints("");
    short(&["subscribe", "--from", "oldest", "--no-wait", topic]).prints("");
    run(scratch.path(), &["recv", "--no-wait", queue], "").code(0).prints("one\n");
}
