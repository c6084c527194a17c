//! A shell on a pseudo-terminal: this process types, and reads the screen.
//!
//! Source: `pty(7)`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::Spawn;
use switchboard_kernel::pty::{Master, Modes, WindowSize, set_window_size};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What the shell shows when it waits for a line.
const PROMPT: &str = "ready> ";

fn main() -> Outcome {
    let master = Master::open_nonblocking()?;
    set_window_size(&master, WindowSize { rows: 30, columns: 100 })?;
    // What is typed is not shown, so that the screen has the answers only.
    Modes::of(&master)?.echo(false).set(&master)?;
    let mut shell = Spawn::new("sh")
        .env("PS1", PROMPT)
        .env("ENV", "")
        .env("TERM", "dumb")
        .terminal(master.open_slave()?)
        .die_with_parent()
        .spawn()?;
    println!("shell {} on {}", shell.id(), master.slave_path()?.display());
    screen(&master, PROMPT)?;
    for line in ["tty", "stty size", "echo $((6 * 7))"] {
        master.write_all(format!("{line}\n").as_bytes())?;
        let answer = screen(&master, PROMPT)?;
        println!("typed {line:?}: {:?}", answer.trim_end_matches(PROMPT).trim());
    }

    master.write_all(b"cat\nto cat\n")?;
    println!("typed to cat: {:?}", screen(&master, "\n")?.trim());
    master.write_all(&[3])?;
    screen(&master, PROMPT)?;
    println!("typed Ctrl-C: the shell is back, cat is not");

    master.write_all(b"exit 3\n")?;
    screen(&master, "")?;
    println!("end of file: nobody has the terminal any more");
    if let Some(status) = shell.wait(Deadline::NEVER)? {
        println!("shell: {status}");
    }
    Ok(())
}

/// What is shown up to a text, or up to the end if that is empty.
fn screen(master: &Master, up_to: &str) -> Result<String, Box<dyn std::error::Error>> {
    let deadline = Deadline::after(Duration::from_secs(10));
    let mut shown = String::new();
    let mut buffer = [0; 1000];
    while up_to.is_empty() || !shown.contains(up_to) {
        let len = master.read_until(&mut buffer, deadline)?;
        if len == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    Ok(shown)
}
