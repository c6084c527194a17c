//! `set`, `get` and `watch`.

use std::os::unix::fs::PermissionsExt;

use switchboard::State;
use switchboard_kernel::process::Signal;
use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, eventually, run};

#[test]
fn what_is_set_is_printed() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str], input: &str| run(scratch.path(), arguments, input);
    here(&["get", "mmap:./s"], "").code(3).says("no such file");
    here(&["set", "mmap:./s", "hello"], "").code(0).prints("");
    here(&["get", "mmap:./s"], "").code(0).prints("hello");
    here(&["set", "--sync", "mmap:./s"], "two\nlines\n").code(0);
    here(&["get", "mmap:./s"], "").code(0).prints("two\nlines\n");
    let json = "{\"len_bytes\":10,\"text\":\"two\\nlines\\n\",\"version\":2}\n";
    here(&["get", "--json", "mmap:./s"], "").code(0).prints(json);
    let json = "{\"address\":\"mmap:./s\",\"len_bytes\":0,\"version\":3}\n";
    here(&["set", "--json", "mmap:./s", ""], "").code(0).prints(json);
    here(&["get", "mmap:./s"], "").code(0).prints("");
    here(&["set", "mmap:./s"], &"x".repeat(4097)).code(1).says("4096 bytes at most");
    let mode = scratch.join("s").metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    here(&["unlink", "mmap:./s"], "").code(0);
    here(&["unlink", "mmap:./s"], "").code(3);
}

#[test]
fn values_that_live_with_their_writer() {
    for address in ["unix:./s", "unix-seqpacket:./s", "shm:s?scope=SCRATCH/at"] {
        let scratch = Scratch::new();
        let address = &address.replace("SCRATCH", scratch.path().to_str().expect("a path"));
        let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
        here(&["get", "--no-wait", address]).code(3);
        here(&["get", "--timeout", "30ms", address]).code(3).says("no writer for 30ms");
        // Either side may start first.
        let watch = ["watch", "--initial", "--count", "1", address, "speed"];
        let watching = Run::start(scratch.path(), &watch);
        let writer = Run::start(scratch.path(), &["set", "--pairs", address]);
        let writer = writer.feed("speed=7\nname=long = name\n=alone\n");
        watching.wait().code(0).prints("7\n");
        here(&["get", address, "speed"]).code(0).prints("7");
        eventually("all is set", || here(&["get", "--keys", address]).text() == "\nname\nspeed\n");
        here(&["get", address, "name"]).code(0).prints("long = name");
        here(&["get", address]).code(0).prints("alone");
        here(&["get", address, "none"]).code(3).says("no value of \"none\" was set");
        let json = "{\"len_bytes\":1,\"text\":\"7\",\"version\":1}\n";
        here(&["get", "--json", address, "speed"]).code(0).prints(json);
        // Of a socket's name, or of the key.
        let taken =
            if address.starts_with("shm") { "the writer of its value" } else { "has bound it" };
        here(&["set", "--no-wait", address, "x"]).code(1).says(taken).says("one process at a time");
        let keys = format!("{{\"address\":\"{address}\",\"keys\":[\"\",\"name\",\"speed\"]}}\n");
        here(&["get", "--keys", "--json", address]).code(0).prints(keys);
        // What can never be is said at once, whoever the writer is, and is not waited for.
        let long = "k".repeat(256);
        for (key, problem) in [(long.as_str(), "256"), ("a\tb", "U+0009")] {
            here(&["set", "--key", key, address, "x"]).code(2).says(problem);
            here(&["get", address, key]).code(2).says(problem);
            here(&["watch", address, key]).code(2).says(problem);
        }
        let all = ["watch", "--all", "--initial", "--json", "--timeout", "5s", address];
        let said = here(&all).code(0).text();
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(said.contains("\"key\":\"name\",\"len_bytes\":11,"), "{said}");
        writer.signal(Signal::TERM);
        writer.wait().code(0);
        here(&["get", "--no-wait", address]).code(3);
        here(&["set", "--stay", "10ms", "--json", "--key", "k", address, "v"]).code(0).prints(
            format!("{{\"address\":\"{address}\",\"key\":\"k\",\"len_bytes\":1,\"version\":1}}\n"),
        );
        here(&["set", "--pairs", "--stay", "1ms", address]).code(0);
        run(scratch.path(), &["set", "--pairs", address], "nothing\n").code(1).says("line 1");
    }
    let scratch = Scratch::new();
    run(scratch.path(), &["set", "--key", "k", "mmap:./s", "v"], "").code(2).says("no keys");
    run(scratch.path(), &["get", "mmap:./s", "k"], "").code(3);
}

#[test]
fn bytes_that_are_no_text() {
    let scratch = Scratch::new();
    let set = Run::start(scratch.path(), &["set", "mmap:./s"]);
    set.feed(vec![0, 0xff, 0x80]).wait().code(0);
    let json = "{\"hex\":\"00ff80\",\"len_bytes\":3,\"version\":1}\n";
    run(scratch.path(), &["get", "--json", "mmap:./s"], "").code(0).prints(json);
}

#[test]
fn objects_with_their_sizes() {
    let scratch = Scratch::new();
    let posix = format!("posix-shm:/{}", unique("states"));
    for address in [posix.as_str(), "sysv-shm:.", "mmap:./s"] {
        let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
        here(&["create", "--size", "8", "--mode", "0640", address]).code(0).prints("");
        here(&["create", address]).code(1).says("exists already");
        here(&["get", address]).code(3).says("nothing was set yet");
        here(&["set", address, "123456789"]).code(1).says("8 bytes at most");
        here(&["set", address, "12345678"]).code(0);
        here(&["get", address]).code(0).prints("12345678");
        here(&["unlink", address]).code(0);
        here(&["get", address]).code(3);
    }
}

#[test]
fn watch_prints_each_value() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    // Either side may start first: it waits for memory that is not there.
    let watch = ["watch", "--initial", "--count", "3", "mmap:./s"];
    let watching = Run::start(scratch.path(), &watch);
    for (value, seen) in [("one", "one\n"), ("two", "one\ntwo\n"), ("three", "one\ntwo\nthree\n")] {
        here(&["set", "mmap:./s", value]).code(0);
        watching.wait_stdout(value, |out| out == seen.as_bytes());
    }
    watching.wait().code(0);

    let initial = ["watch", "--initial", "--json", "--timeout", "50ms", "mmap:./s"];
    let json = "{\"len_bytes\":5,\"text\":\"three\",\"version\":3}\n";
    here(&initial).code(0).prints(json);
    let silence = here(&["watch", "--timeout", "30ms", "mmap:./s"]).code(3);
    silence.says("nothing changed for 30ms; 0 values seen");
    here(&["watch", "--no-wait", "mmap:./none"]).code(3).says("no such file");
    here(&["watch", "--timeout", "30ms", "mmap:./none"]).code(3).says("no such file");
}

#[test]
fn a_command_for_each_value() {
    let scratch = Scratch::new();
    run(scratch.path(), &["set", "mmap:./s", "first"], "").code(0);
    let command = ["sh", "-c", "cat; echo \" $SWITCHBOARD_VERSION\""];
    let watch = ["watch", "--initial", "--count", "2", "mmap:./s", "--"];
    let watching = Run::start(scratch.path(), &[&watch[..], &command[..]].concat());
    watching.wait_stdout("the first", |out| out == b"first 1\n");
    let large = "y".repeat(4000);
    run(scratch.path(), &["set", "mmap:./s", &large], "").code(0);
    watching.wait().code(0).prints(format!("first 1\n{large} 2\n"));
    let fails = ["watch", "--initial", "--count", "1", "mmap:./s", "--", "false"];
    run(scratch.path(), &fails, "").code(1).says("value 1: false exited with 1");
}

#[test]
fn one_sets_at_a_time() {
    let scratch = Scratch::new();
    let address = format!("mmap:{}", scratch.join("s").display());
    let writer = State::open(&address).and_then(|state| state.writer()).expect("a writer");
    let holder = format!("process {} is its writer", std::process::id());
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["set", "--no-wait", &address, "x"]).code(1).says(&holder);
    here(&["set", "--timeout", "30ms", &address, "x"]).code(3).says(&holder);
    let setting = Run::start(scratch.path(), &["set", &address, "at last"]);
    drop(writer);
    setting.wait().code(0);
    here(&["get", &address]).code(0).prints("at last");
    // Many at once take turns.
    let many: Vec<Run> =
        (0..6).map(|n| Run::start(scratch.path(), &["set", &address, &n.to_string()])).collect();
    many.into_iter().for_each(|set| drop(set.wait().code(0)));
    let said = here(&["get", "--json", &address]).code(0).text();
    assert!(said.contains("\"version\":7"), "{said}");
}

#[test]
fn foreign_memory_only_bare() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("f"), "their bytes").expect("a file");
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["get", "mmap:./f"]).code(1).says("?layout=bare");
    here(&["set", "mmap:./f", "x"]).code(1).says("?layout=bare");
    here(&["get", "mmap:./f?layout=bare"]).code(0).prints("their bytes");
    here(&["set", "mmap:./f?layout=bare", "ours"]).code(0);
    assert_eq!(std::fs::read(scratch.join("f")).expect("a file"), b"ours\0\0\0\0\0\0\0");
    here(&["set", "mmap:./f?layout=bare", "more than before"]).code(1).says("11 bytes at most");
    here(&["get", "mmap:./f?layout=round"]).code(2).says("slots or bare");
    here(&["get", "mmap:."]).code(1);
    here(&["get", "mq:/jobs"]).code(2).says("posix-shm, sysv-shm, mmap");
}

#[test]
fn a_damaged_value_is_told() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["set", "mmap:./s?size=64", "old"]).code(0);
    here(&["set", "mmap:./s", "new"]).code(0);
    let mut bytes = std::fs::read(scratch.join("s")).expect("a file");
    let at = bytes.windows(3).position(|part| part == b"new").expect("the newest value");
    bytes[at] = b'N';
    std::fs::write(scratch.join("s"), &bytes).expect("written");
    here(&["get", "mmap:./s"]).code(1).prints("old").says("newest value that is whole");
    here(&["set", "mmap:./s", "newer"]).code(0);
    here(&["get", "mmap:./s"]).code(0).prints("newer");
}

#[test]
fn ended_by_a_signal() {
    let scratch = Scratch::new();
    for signal in [Signal::INT, Signal::TERM] {
        let watching = Run::start(scratch.path(), &["watch", "--initial", "mmap:./s"]);
        run(scratch.path(), &["set", "mmap:./s", "x"], "").code(0);
        watching.wait_stdout("a value", |out| out.ends_with(b"x\n"));
        watching.signal(signal);
        watching.wait().code(1).says("interrupted: ");
    }
    let mut setting = Run::start(scratch.path(), &["set", "mmap:./t"]);
    setting.write(b"half of ");
    // It takes over the signals before it reads.
    let pipe = format!("/proc/{}/status", setting.id());
    eventually("it watches for signals", || {
        std::fs::read_to_string(&pipe).is_ok_and(|status| {
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
            caught & (1 << 14) != 0
        })
    });
    setting.signal(Signal::TERM);
    setting.wait().code(1).says("nothing was set");
    assert!(!scratch.join("t").exists());
}

#[test]
fn a_command_that_is_not_there_is_said_before_a_value_comes() {
    let scratch = Scratch::new();
    let watch = ["watch", "mmap:./s", "--", "/nowhere/at/all"];
    run(scratch.path(), &watch, "").code(2).says("cannot run /nowhere/at/all");
}

#[test]
fn more_than_a_state_can_have_is_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    let name = unique("large");
    for address in [
        "mmap:./s?size=1073741825".to_owned(),
        "mmap:./s?size=2GiB&layout=bare".to_owned(),
        format!("posix-shm:/{name}?size=3GiB"),
        format!("sysv-shm:{}?size=2GiB", scratch.path().display()),
    ] {
        for arguments in [&["create", &address][..], &["set", &address, "x"]] {
            run(scratch.path(), arguments, "").code(2).says("^ a state has 1 GiB at most");
        }
    }
    assert!(!scratch.join("s").exists());
    assert!(!std::path::Path::new("/dev/shm").join(name).exists());
}

#[test]
fn memory_too_small_for_the_value_is_not_made() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str], value: &str| run(scratch.path(), arguments, value);
    let large = "y".repeat(5000);
    for (address, most) in [("mmap:./s", "4096"), ("mmap:./s?size=9&layout=bare", "9")] {
        let refused = here(&["set", address], &large).code(1);
        refused.says(&format!("up to {most} bytes")).says("this one has 5000").says("?size=5000");
        assert!(!scratch.join("s").exists());
    }
    here(&["set", "--no-wait", "mmap:./s"], &large).code(3).says("no such file");
    here(&["set", "mmap:./s?size=5000"], &large).code(0);
    // What is there has its own size.
    here(&["set", "mmap:./s"], &large).code(0);
    here(&["get", "mmap:./s"], "").code(0).prints(large);
}

/// What cannot be made ready is removed again: here, memory that may be made and not be mapped.
#[test]
fn memory_that_cannot_be_used_does_not_stay() {
    let scratch = Scratch::new();
    for command in ["set", "create"] {
        for address in [
            "mmap:./s?size=64MiB".to_owned(),
            format!("sysv-shm:{}?size=64MiB", scratch.path().display()),
        ] {
            let mut shell = std::process::Command::new("sh");
            // 64 MiB of addresses: enough for the program, and not for the memory besides.
            let limit = "ulimit -v 65536; exec \"$0\" \"$@\"";
            let value: &[&str] = if command == "set" { &["x"] } else { &[] };
            shell.arg("-c").arg(limit).arg(crate::run::binary());
            shell.args([command, &address]).args(value).current_dir(scratch.path());
            Run::command(shell).end().code(1).says("ENOMEM");
            let (bare, _) = address.split_once('?').expect("options");
            run(scratch.path(), &["get", bare], "").code(3);
        }
    }
}

#[test]
fn a_large_state_is_made_without_touching_its_memory() {
    let scratch = Scratch::new();
    // Looking at all of it would take as much memory as it has.
    let mut shell = std::process::Command::new("sh");
    let limit = "ulimit -t 1; exec \"$0\" set --json 'mmap:./s?size=64MiB' x";
    shell.arg("-c").arg(limit).arg(crate::run::binary()).current_dir(scratch.path());
    let said = Run::command(shell).end().code(0).text();
    assert!(said.contains("\"version\":1"), "{said}");
    let metadata = std::fs::metadata(scratch.join("s")).expect("a file");
    assert!(metadata.len() > 2 * (64 << 20));
}

#[test]
fn a_look_through_large_memory_can_be_ended() {
    let scratch = Scratch::new();
    let file = std::fs::File::create(scratch.join("s")).expect("a file");
    // A hole of so many zeroes takes seconds to read.
    file.set_len(4 << 30).expect("a length");
    let setting = Run::start(scratch.path(), &["set", "mmap:./s", "x"]);
    let maps = format!("/proc/{}/maps", setting.id());
    eventually("it is mapped", || {
        std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("/s\n"))
    });
    setting.signal(Signal::TERM);
    setting.wait().code(1).says("interrupted: nothing was set");
    let mut first = [0xff; 64];
    std::os::unix::fs::FileExt::read_exact_at(
        &std::fs::File::open(scratch.join("s")).expect("a file"),
        &mut first,
        0,
    )
    .expect("read");
    assert_eq!(first, [0; 64], "it was not prepared");
}

/// Memory whose maker reserved no room for it, on a file system that has none.
#[test]
fn a_file_system_that_is_full_is_named() {
    let scratch = Scratch::new();
    let root = switchboard_kernel::process::effective_user_id() == 0;
    let unshare: &[&str] = if root { &["-m"] } else { &["-U", "-r", "-m"] };
    let script = "
        mkdir small && mount -t tmpfs -o size=64k none small || { echo not mounted; exit; }
        cd small && truncate -s 16k state && { head -c 100000 /dev/zero > filler; } 2> /dev/null
        S='mmap:./state?layout=bare'
        \"$0\" set $S value; echo set $?
        \"$0\" get $S; echo get $?
        \"$0\" watch --initial --count 1 $S; echo watch $?
        rm filler; \"$0\" set $S value && \"$0\" get $S | tr -d '\\0'; echo $?
        truncate -s 0 state; \"$0\" get $S; echo cut $?";
    let mut command = std::process::Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script]).arg(crate::run::binary());
    let ended = Run::command({
        command.current_dir(scratch.path());
        command
    })
    .end();
    if ended.code != Some(0) || ended.text().contains("not mounted") {
        return switchboard_testkit::skip::skip(
            "states::a_file_system_that_is_full_is_named",
            "no mount namespace may be made here",
        );
    }
    assert_eq!(ended.text(), "set 1\nget 1\nwatch 1\nvalue0\ncut 1\n", "{ended}");
    let said = ended.stderr.matches("mmap: No space left on device (ENOSPC)").count();
    assert_eq!(said, 3, "{ended}");
    assert!(!ended.stderr.contains("cut short") && !ended.stderr.contains("truncated"), "{ended}");
    ended
        .says("there is no room for its memory")
        .says("hint: ")
        .says("df")
        .says("the file is empty");
}
