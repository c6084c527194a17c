//! A terminal without anybody at it: a session of tmux, in which programs run that draw on terminals.
//!
//! Source: `tmux(1)`. Each test has a server of its own, which ends with it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{Scratch, skip};

/// How long a test waits for a screen to show something.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A screen that was the same so often, one look after another, is not being drawn.
const STILL: u32 = 10;

/// A terminal.
#[derive(Debug)]
pub struct Tmux {
    scratch: Scratch,
}

impl Tmux {
    /// A terminal of this size with a shell in it, which has these variables, too. None, which is counted as a skip, if there is no
    /// tmux.
    ///
    /// # Panics
    /// When tmux does not start.
    #[must_use]
    pub fn new(
        test: &str,
        (width, height): (u16, u16),
        variables: &[(&str, &str)],
    ) -> Option<Self> {
        let there = Command::new("tmux").arg("-V").stdin(Stdio::null()).output();
        if there.is_err() {
            skip::skip(test, "tmux is not installed");
            return None;
        }
        let tmux = Self { scratch: Scratch::new() };
        let configuration = "set -g status off\nset -g escape-time 0\n\
                             set -g default-terminal screen-256color\nset -g remain-on-exit on\n";
        std::fs::write(tmux.scratch.join("tmux.conf"), configuration).expect("written");
        let mut command = tmux.command();
        command.args(["new-session", "-d", "-x", &width.to_string(), "-y", &height.to_string()]);
        command.args(["env", "-u", "NO_COLOR", "-u", "LC_ALL", "-u", "LC_CTYPE", "LANG=C.UTF-8"]);
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["PS1=ready> ", "sh", "-i"]);
        // Where files can be left.
        command.current_dir(tmux.scratch.path());
        run(&mut command);
        tmux.wait("a prompt", |screen| screen.contains("ready>"));
        Some(tmux)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        let (socket, file) = (self.socket(), self.scratch.join("tmux.conf"));
        command.env_remove("TMUX").env_remove("TMUX_PANE").env("LANG", "C.UTF-8");
        command.arg("-u").arg("-S").arg(socket).arg("-f").arg(file);
        command.stdin(Stdio::null());
        command
    }

    fn socket(&self) -> PathBuf {
        self.scratch.join("t")
    }

    /// Calls tmux; what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn tell(&self, arguments: &[&str]) -> String {
        let output = run(self.command().args(arguments));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, by tmux's names: `Enter`, `C-c`, `Up`, `x`.
    ///
    /// # Panics
    /// As [`Self::tell`].
    pub fn press(&self, keys: &[&str]) {
        let _ = self.tell(&[&["send-keys"], keys].concat());
    }

    /// Writes a line and Enter.
    ///
    /// # Panics
    /// As [`Self::tell`].
    pub fn line(&self, text: &str) {
        let _ = self.tell(&["send-keys", "-l", "--", text]);
        self.press(&["Enter"]);
    }

    /// Makes the terminal as large as this.
    ///
    /// # Panics
    /// As [`Self::tell`].
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        let _ = self.tell(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// What the screen shows.
    ///
    /// # Panics
    /// As [`Self::tell`].
    #[must_use]
    pub fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    /// What the screen shows, with colours as escape sequences.
    ///
    /// # Panics
    /// As [`Self::tell`].
    #[must_use]
    pub fn coloured(&self) -> String {
        self.tell(&["capture-pane", "-p", "-e"])
    }

    /// What tmux knows of the pane: `#{alternate_on}`.
    ///
    /// # Panics
    /// As [`Self::tell`].
    #[must_use]
    pub fn state(&self, format: &str) -> String {
        self.tell(&["display-message", "-p", format]).trim().to_owned()
    }

    /// Waits until the screen is as wanted; that screen.
    ///
    /// # Panics
    /// When it is not in a minute.
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "no {what} in a minute:\n{screen}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until the screen stays as it is, and gives it back: what was seen before may have been half drawn.
    ///
    /// # Panics
    /// When it does not within the tests' deadline.
    pub fn still(&self) -> String {
        let mut last = self.screen();
        let mut same = 0;
        self.wait("still screen", |screen| {
            same = if screen == last { same + 1 } else { 0 };
            screen.clone_into(&mut last);
            same >= STILL
        })
    }

    /// The process id of the shell.
    ///
    /// # Panics
    /// As [`Self::tell`].
    #[must_use]
    pub fn shell(&self) -> u32 {
        self.state("#{pane_pid}").parse().expect("a process id")
    }

    /// Takes the terminal away, as a closed window does.
    pub fn hang_up(&self) {
        let _ = self.command().arg("kill-server").output();
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.hang_up();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("tmux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}
