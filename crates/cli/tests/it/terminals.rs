//! What the commands under "See" print on a terminal, and where there is nothing to see.

use std::process::{Command, Stdio};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::effective_user_id;
use switchboard_kernel::pty::{Master, WindowSize, set_window_size};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{DEADLINE, Scratch};

use crate::run::{Run, binary, run};

/// What the command prints on a terminal of this width.
fn on_a_terminal(columns: u16, arguments: &[&str]) -> String {
    let master = Master::open().expect("a terminal");
    let slave = master.open_slave().expect("its other side");
    set_window_size(&slave, WindowSize { rows: 24, columns }).expect("set");
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(slave).stderr(Stdio::null());
    let mut child = command.spawn().expect("started");
    // Its own copy of the terminal would keep it open.
    drop(command);
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match master.read_until(&mut buffer, Deadline::after(DEADLINE)) {
            Ok(n) if n > 0 => all.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    child.wait().expect("an end");
    String::from_utf8_lossy(&all).replace('\r', "")
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn a_list_fits_the_terminal() {
    let scratch = Scratch::new();
    let path = scratch.join(&"long-".repeat(12));
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    let pid = std::process::id().to_string();
    let list = ["list", "unix", "--pid", &pid];
    let narrow = on_a_terminal(100, &list);
    assert!(narrow.contains('…') && narrow.contains(" processes"), "{narrow}");
    assert!(widest(&narrow) <= 100, "{narrow}");
    let path = path.to_str().expect("a path");
    let wide = on_a_terminal(100, &[&list[..], &["--wide"]].concat());
    assert!(wide.contains(path), "{wide}");
    let piped = run(scratch.path(), &list, "").code(0).text();
    assert!(piped.contains(path) && !piped.contains('…'), "{piped}");
    drop(listener);
}

#[test]
fn what_the_doctor_says_is_broken_between_words() {
    let narrow = on_a_terminal(80, &["doctor"]);
    assert!(narrow.contains("Limits:") && narrow.lines().count() > 10, "{narrow}");
    // A command line or a path may be one long word.
    let long = narrow.lines().filter(|line| line.chars().count() > 80);
    let broken = |line: &str| line.trim().split(' ').count() > 6;
    let long: Vec<&str> = long.filter(|line| broken(line)).collect();
    assert!(long.len() < 3, "{long:#?}");
}

/// A file system of processes that is none: nothing can be said, and that is an error.
#[test]
fn where_no_process_can_be_seen() {
    const TEST: &str = "where_no_process_can_be_seen";
    let root = effective_user_id() == 0;
    let way: &[&str] = if root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    let without = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(way).args(["sh", "-c", script, "sh"]).arg(binary());
        Run::command(command).end()
    };
    if without("mount -t tmpfs none /proc").code != Some(0) {
        return skip(TEST, "mount namespaces are refused");
    }
    for command in ["list", "why", "ps", "deadlocks", "doctor", "show pipe:1", "who 1", "map"] {
        let ended = without(&format!("mount -t tmpfs none /proc && exec \"$1\" {command}"));
        ended.code(1).says("no process can be seen: /proc is empty").prints("");
    }
}
