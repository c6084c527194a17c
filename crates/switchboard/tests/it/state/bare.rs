//! The layout `bare`, and programs that are not ours on the other side: Python.

use switchboard_testkit::Child;

use super::{Place, ask, each_row_of, open_writer, reading, writing};
use crate::place::{python, run_python};

#[test]
fn bare_memory_holds_the_bytes_and_zeroes() {
    each_row_of("state", |place| {
        let address = place.with("?layout=bare&size=16");
        let mut writer = writing(&address);
        let mut reader = reading(&address);
        assert_eq!(ask(&mut writer, "set a longer one"), "done");
        assert_eq!(ask(&mut reader, "get"), "value 1 16 a longer one\\x00\\x00\\x00\\x00");
        assert_eq!(ask(&mut reader, "forever"), "watching");
        assert_eq!(ask(&mut writer, "set short"), "done");
        reader.expect(&format!("value 2 16 short{}", "\\x00".repeat(11)));
        assert_eq!(ask(&mut reader, "watch 50"), "TimedOut");
        assert_eq!(ask(&mut writer, "version"), "None");
        let answer = ask(&mut writer, "fill 17");
        assert!(answer.starts_with("error LimitReached") && answer.contains("16"), "{answer}");
        // Files have a lock, with any layout; of bare System V memory anybody may be the writer.
        let second = open_writer(&address);
        assert_eq!(second.is_ok(), place.row.scheme == "sysv-shm");
        writer.kill();
        assert_eq!(ask(&mut writing(&address), "set next"), "done");
    });
}

/// Python writes and we read; we write and Python reads. It is told the target.
fn check(test: &str, scheme: &str, module: &str, map: &str) {
    let Some(python) = python(test, module) else { return };
    let place = Place::of(scheme);
    let address = place.with("?layout=bare&size=4096");
    let mut writer = writing(&address);
    let mut reader = reading(&address);
    assert_eq!(ask(&mut writer, "set from us"), "done");
    let program = format!("import {module}, mmap, sys\n{map}\nprint(bytes(m[:8]).decode())");
    assert_eq!(run_python(&python, &program, &[place.target()]), "from us\0");
    assert_eq!(ask(&mut reader, "watch 15000").get(..24), Some("value 1 4096 from us\\x00"));
    assert_eq!(ask(&mut reader, "forever"), "watching");
    let program = format!("import {module}, mmap, sys\n{map}\nm[:9] = b'from them'");
    run_python(&python, &program, &[place.target()]);
    let answer = reader.line().expect("a change");
    assert!(answer.starts_with("value 2 4096 from them\\x00"), "{answer}");
}

#[test]
fn python_and_posix_shared_memory() {
    let map = "s = posix_ipc.SharedMemory(sys.argv[1])\nm = mmap.mmap(s.fd, 4096)";
    check("python_and_posix_shared_memory", "posix-shm", "posix_ipc", map);
}

#[test]
fn python_and_a_mapped_file() {
    let map = "f = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 4096)";
    check("python_and_a_mapped_file", "mmap", "mmap", map);
}

#[test]
fn python_and_system_v_shared_memory() {
    let map = "k = sysv_ipc.ftok(sys.argv[1], 1, silence_warning=True)\n\
               s = sysv_ipc.SharedMemory(k)\nm = memoryview(s).cast('B')";
    check("python_and_system_v_shared_memory", "sysv-shm", "sysv_ipc", map);
}

#[test]
fn python_is_killed_while_it_writes() {
    let Some(python) = python("python_is_killed_while_it_writes", "mmap") else { return };
    let place = Place::of("mmap");
    let address = place.with("?layout=bare&size=4096");
    drop(open_writer(&address).expect("made"));
    let mut reader = reading(&address);
    let mut command = std::process::Command::new(python);
    let program = "import mmap, sys, itertools\nf = open(sys.argv[1], 'r+b')\n\
                   m = mmap.mmap(f.fileno(), 4096)\n\
                   for n in itertools.count(1):\n  m[:] = b'%08d' % n * 512";
    command.args(["-c", program, place.target()]);
    let mut child = Child::command(command);
    let answer = ask(&mut reader, "watch 15000");
    assert!(answer.starts_with("value 1 4096 0"), "{answer}");
    child.kill();
    // What was written stays, and our writer goes on.
    let answer = ask(&mut reader, "get");
    assert!(answer.contains(" 4096 0"), "{answer}");
    assert_eq!(ask(&mut writing(&address), "set ours"), "done");
    let answer = ask(&mut reader, "get");
    assert!(answer.contains(" 4096 ours\\x00"), "{answer}");
}
