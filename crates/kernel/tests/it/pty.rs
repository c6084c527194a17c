//! Tests of `pty.rs`, with real shells.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::process::{Child, Signal, Spawn, effective_user_id};
use switchboard_kernel::pty::{
    Master, Modes, WindowSize, is_terminal, set_window_size, window_size,
};
use switchboard_kernel::{ErrorKind, pidfd, pipe};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{DEADLINE, Scratch};

use crate::pipe::limit_descriptors;
use crate::privileges::is_root;
use crate::python;

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

/// A program on a new terminal.
fn start(spawn: Spawn) -> (Master, Child) {
    let master = Master::open_nonblocking().unwrap();
    let child = spawn.terminal(master.open_slave().unwrap()).die_with_parent().spawn().unwrap();
    (master, child)
}

fn shell(script: &str) -> (Master, Child) {
    start(Spawn::new("sh").args(["-c", script]))
}

/// What the terminal shows up to `text`; up to the end if that is empty.
fn shown(master: &Master, text: &str) -> String {
    let mut screen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = master.read_until(&mut buffer, soon()).unwrap();
        screen.extend(&buffer[..len]);
        let all = String::from_utf8_lossy(&screen);
        if len == 0 || (!text.is_empty() && all.contains(text)) {
            assert!(all.contains(text), "{text:?} was not shown but {all:?}");
            return all.into_owned();
        }
    }
}

fn ended(mut child: Child) -> std::process::ExitStatus {
    child.wait(soon()).unwrap().expect("its end")
}

#[test]
fn a_shell_on_a_terminal() {
    let (master, child) = start(Spawn::new("sh").env("PS1", "ready> ").env("ENV", ""));
    shown(&master, "ready> ");
    master.write_all(b"tty; echo $((6 * 7))\n").unwrap();
    let screen = shown(&master, "\n42\r\nready> ");
    assert!(screen.starts_with("tty; echo $((6 * 7))\r\n"), "no echo: {screen:?}");
    assert!(screen.contains(master.slave_path().unwrap().to_str().unwrap()), "{screen:?}");
    master.write_all(b"echo by name >/dev/tty; exit 3\n").unwrap();
    assert!(shown(&master, "").contains("\r\nby name\r\n"));
    assert_eq!(ended(child).code(), Some(3));
    assert_eq!(master.read(&mut [0; 8]), Ok(0));
}

#[test]
fn control_keys_are_signals_of_the_foreground() {
    let (master, child) = start(Spawn::new("cat"));
    assert_eq!(master.foreground_group(), Ok(Some(child.id())));
    master.write_all(&[3]).unwrap();
    assert_eq!(ended(child).signal(), Some(libc::SIGINT));
    shown(&master, "");

    let (master, child) = start(Spawn::new("cat"));
    Modes::of(&master).unwrap().signals(false).set(&master).unwrap();
    master.write_all(b"\x03\n\x04").unwrap();
    assert!(ended(child).success(), "Ctrl-C is a byte now, Ctrl-D still the end");
    assert!(shown(&master, "").ends_with("\x03\r\n"));
    assert_eq!(Master::open().unwrap().foreground_group(), Ok(None));
}

#[test]
fn a_killed_child_is_end_of_file_after_its_last_words() {
    const LAST_WORDS: u64 = 500;
    let script = "echo ready; read x; i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done";
    let (master, mut child) = shell(&format!("{script}; read x"));
    shown(&master, "ready\r\n");
    master.write_all(b"\n").unwrap();
    let since = Instant::now();
    while io::bytes_waiting(&master).unwrap() < LAST_WORDS {
        assert!(since.elapsed() < DEADLINE, "the shell says too little");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let rest = shown(&master, "");
    assert!(rest.len() as u64 >= LAST_WORDS, "{rest:?}");
    assert_eq!(master.read_until(&mut [0; 8], soon()), Ok(0));
}

/// Role: has a shell on a terminal, and is killed.
pub(crate) fn master(arguments: &[String]) {
    let script =
        format!("trap 'echo hung up >{}; exit 0' HUP; echo ready; read x; read x", arguments[0]);
    let master = Master::open().unwrap();
    let slave = master.open_slave().unwrap();
    let child = Spawn::new("sh").args(["-c", &script]).terminal(slave).spawn().unwrap();
    shown(&master, "ready");
    report(child.id());
    let _ = instruction();
}

#[test]
fn a_killed_master_hangs_up() {
    let scratch = Scratch::new();
    let note = scratch.join("note");
    let mut master = switchboard_testkit::Child::role("pty-master", &[note.display()]);
    let shell = pidfd::open(master.line().unwrap().parse().unwrap()).unwrap();
    assert_eq!(pidfd::is_dead(&shell), Ok(false));
    master.kill();
    assert_eq!(pidfd::wait_dead(&shell, soon()), Ok(true));
    assert_eq!(std::fs::read_to_string(note).unwrap(), "hung up\n");
}

#[test]
fn a_closed_master_kills_who_does_not_listen() {
    let (master, child) = start(Spawn::new("cat"));
    drop(master);
    assert_eq!(ended(child).signal(), Some(libc::SIGHUP));

    let master = Master::open().unwrap();
    let slave = master.open_slave().unwrap();
    drop(master);
    assert_eq!(io::read(&slave, &mut [0; 8]), Ok(0));
    assert_eq!(io::write(&slave, b"x").unwrap_err().name(), "EIO");
    assert_eq!(Modes::of(&slave).map(drop).unwrap_err().name(), "EIO");
}

#[test]
fn the_end_of_file_ends_when_the_slave_is_opened_again() {
    let master = Master::open_nonblocking().unwrap();
    let mut buffer = [0; 32];
    assert_eq!(master.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(master.open_slave().unwrap());
    assert_eq!(master.read(&mut buffer), Ok(0));
    assert_eq!(master.write(b"typed early\n"), Ok(12));
    let slave = master.open_slave().unwrap();
    assert_eq!(io::read(&slave, &mut buffer), Ok(12));
    let echo = master.read_until(&mut buffer, soon()).unwrap();
    assert_eq!(&buffer[..echo], b"typed early\r\n");
    let error = master.read_until(&mut buffer, Deadline::after(Duration::from_millis(20)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
    io::write_all(&slave, b"bye\n").unwrap();
    drop(slave);
    assert_eq!(master.read_until(&mut buffer, soon()), Ok(5));
    assert_eq!(master.read_until(&mut buffer, soon()), Ok(0));
}

/// Types keys in modes made from a new terminal's; what the program then reads, and what is shown.
fn check_keys(modes: impl Fn(Modes) -> Modes, keys: &[u8], read: &str, shown: &str) {
    let master = Master::open_nonblocking().unwrap();
    let slave = master.open_slave().unwrap();
    io::set_nonblocking(&slave, true).unwrap();
    modes(Modes::of(&slave).unwrap()).set(&slave).unwrap();
    master.write_all(keys).unwrap();
    // What is shown comes after it was taken in, so nothing more can come to be read then.
    assert_eq!(arrived(&master, shown.len()), shown, "{keys:?}");
    assert_eq!(arrived(&slave, read.len()), read, "{keys:?}");
    for fd in [master.as_fd(), slave.as_fd()] {
        assert_eq!(io::read(fd, &mut [0; 8]).unwrap_err().name(), "EAGAIN", "{keys:?}");
    }
}

/// The next so many bytes, as they come.
fn arrived(fd: impl AsFd, len_bytes: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < len_bytes {
        assert!(io::wait_for(fd.as_fd(), Interest::Readable, soon()).unwrap());
        let mut buffer = [0; 8192];
        let len = io::read(fd.as_fd(), &mut buffer).unwrap();
        bytes.extend(&buffer[..len]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn modes_say_what_becomes_of_keys() {
    check_keys(|modes| modes, b"ab\x7fc\r", "ac\n", "ab\x08 \x08c\r\n");
    check_keys(|modes| modes, b"no line yet", "", "no line yet");
    check_keys(|modes| modes.echo(false), b"secret\n", "secret\n", "");
    check_keys(|modes| modes.lines(false), b"key", "key", "key");
    check_keys(Modes::raw, b"a\r\x03\x7f", "a\r\x03\x7f", "");

    let master = Master::open().unwrap();
    let (plain, raw) = (Modes::of(&master).unwrap(), Modes::of(&master).unwrap().raw());
    assert!(plain.echoes() && plain.has_lines() && plain.has_signals());
    assert!(!(raw.echoes() || raw.has_lines() || raw.has_signals()));
}

#[test]
fn a_line_too_long_loses_its_rest() {
    let (fits, rest) = ("x".repeat(4095), "y".repeat(200));
    let quiet = |modes: Modes| modes.echo(false);
    check_keys(quiet, format!("{fits}\n").as_bytes(), &format!("{fits}\n"), "");
    check_keys(quiet, format!("{fits}{rest}\n").as_bytes(), &format!("{fits}\n"), "");
}

#[test]
fn a_master_that_types_too_fast_would_block() {
    let master = Master::open_nonblocking().unwrap();
    let slave = master.open_slave().unwrap();
    Modes::of(&slave).unwrap().raw().set(&slave).unwrap();
    let mut typed = 0;
    let error = loop {
        match master.write(&[b'x'; 512]) {
            Ok(n) => typed += n,
            Err(error) => break error,
        }
        assert!(typed < 1 << 24, "no limit");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(typed > 1024, "{typed}");
}

#[test]
fn the_window_has_a_size_and_tells_its_change() {
    let (master, child) =
        shell("trap 'stty size; exit 0' WINCH; stty size; echo ready; while :; do read x; done");
    assert!(shown(&master, "ready").contains("0 0"));
    let size = WindowSize { rows: 50, columns: 132 };
    set_window_size(&master, size).unwrap();
    assert_eq!(window_size(&master), Ok(size));
    assert!(shown(&master, "").contains("50 132"));
    assert!(ended(child).success());
    let (reader, _writer) = pipe::pipe().unwrap();
    assert!(is_terminal(&master) && !is_terminal(&reader));
    for error in [
        window_size(&reader).map(drop),
        set_window_size(&reader, size),
        Modes::of(&reader).map(drop),
        Modes::of(&master).unwrap().set(&reader),
    ] {
        assert_eq!(error.unwrap_err().name(), "ENOTTY");
    }
}

#[test]
fn the_slave_is_the_users_own() {
    let master = Master::open().unwrap();
    let slave = std::fs::metadata(master.slave_path().unwrap()).unwrap();
    assert_eq!((slave.uid(), slave.mode() & 0o007), (effective_user_id(), 0));
    let slave = master.open_slave().unwrap();
    for fd in [OwnedFd::from(master), slave] {
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}

#[test]
fn only_a_free_terminal_can_be_taken() {
    let (reader, _writer) = pipe::pipe().unwrap();
    let error = Spawn::new("true").terminal(reader).spawn().unwrap_err();
    assert_eq!((error.name(), error.call()), ("ENOTTY", "ioctl TIOCSCTTY"));

    let (master, mut child) = start(Spawn::new("cat"));
    let again = Spawn::new("true").terminal(master.open_slave().unwrap()).spawn();
    assert_eq!(again.unwrap_err().name(), "EPERM");
    child.signal(Signal::TERM).unwrap();
    child.wait(soon()).unwrap().expect("its end");
    // Its session ended with it, and the terminal is free.
    let spawn = Spawn::new("tty").new_process_group().terminal(master.open_slave().unwrap());
    assert!(ended(spawn.spawn().unwrap()).success());
}

/// Role: opens terminals until there are no more.
pub(crate) fn limit(arguments: &[String]) {
    if arguments[0] == "descriptors" {
        limit_descriptors(20);
    }
    let mut masters = Vec::new();
    let error = loop {
        match Master::open() {
            Ok(master) => masters.push(master),
            Err(error) => break error,
        }
    };
    assert!(masters.len() < 20);
    report(format_args!("{:?} {}", error.kind(), error.name()));
}

#[test]
fn there_is_a_limit_of_terminals_and_of_descriptors() {
    let mut child = switchboard_testkit::Child::role("pty-limit", &["descriptors"]);
    child.expect("TooManyFiles EMFILE");

    // A file system of its own, with a limit of its own.
    const MOUNT: &str = "mount -t devpts -o newinstance,ptmxmode=0666,max=2 none /dev/pts && \
                         mount --bind /dev/pts/ptmx /dev/ptmx && exec \"$0\" \"$@\"";
    let mut starter = vec!["unshare", "--mount"];
    if !is_root() {
        starter.extend(["--user", "--map-root-user"]);
    }
    let can = std::process::Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("there_is_a_limit_of_terminals_and_of_descriptors", "no mount namespaces");
    }
    starter.extend(["sh", "-c", MOUNT]);
    let mut child = switchboard_testkit::Child::role_under(&starter, "pty-limit", &["terminals"]);
    child.expect("NoSpace ENOSPC");
}

const PYTHON: &str = "
import os, sys, termios
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
modes = termios.tcgetattr(fd)
assert os.ttyname(fd) == sys.argv[1]
assert tuple(os.get_terminal_size(fd)) == (80, 24)
assert not modes[3] & termios.ECHO and modes[3] & termios.ICANON
line = os.read(fd, 100)
os.write(fd, line.upper())
print(line)
";

#[test]
fn python_on_the_slave() {
    let master = Master::open_nonblocking().unwrap();
    let _slave = master.open_slave().unwrap();
    set_window_size(&master, WindowSize { rows: 24, columns: 80 }).unwrap();
    Modes::of(&master).unwrap().echo(false).set(&master).unwrap();
    master.write_all(b"from here\n").unwrap();
    let path = master.slave_path().unwrap();
    let said = python::run("python_on_the_slave", "termios", PYTHON, &[path.to_str().unwrap()]);
    assert_eq!(said.as_deref(), Some("b'from here\\n'"));
    assert_eq!(shown(&master, "\n"), "FROM HERE\r\n");
    assert!(Path::new("/dev/pts").is_dir());
}

/// Has the master, and what it types comes to us.
const PYTHON_MASTER: &str = "
master, slave = os.openpty()
say(os.ttyname(slave))
told()
os.close(slave)
os.write(master, b'typed\\n')
shown = b''
while not shown.endswith(b'\\n'):
    shown += os.read(master, 100)
say(shown)
told()
";

#[test]
fn python_on_the_master_is_killed() {
    let test = "python_on_the_master_is_killed";
    let Some(mut python) = python::start(test, "termios", PYTHON_MASTER, &[]) else { return };
    let slave = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(python.line().expect("a path"))
        .unwrap();
    assert!(is_terminal(&slave));
    Modes::of(&slave).unwrap().echo(false).set(&slave).unwrap();
    python.tell("type");
    let mut buffer = [0; 32];
    assert_eq!(io::read(&slave, &mut buffer), Ok(6));
    assert_eq!(&buffer[..6], b"typed\n");
    io::write_all(&slave, b"shown\n").unwrap();
    python.expect("b'shown\\r\\n'");
    python.kill();
    assert_eq!(io::read(&slave, &mut buffer), Ok(0));
    assert_eq!(io::write(&slave, b"anybody?").unwrap_err().name(), "EIO");
}
