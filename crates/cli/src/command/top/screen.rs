//! The terminal: taken over, given back whatever happens, and what it can show.
//!
//! Source: `termios(3)`, `signal(7)` (SIGTSTP, SIGCONT), <https://no-color.org>, `locale(7)`; docs/design/top.md, "The terminal".

use std::io::{Stdout, Write, stdout};
use std::sync::Once;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::ResetColor;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::style::Color;

use crate::exit_code::Exit;
use crate::output::Failure;

/// The terminal while it is ours.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
    pub(super) shows: Shows,
}

/// What a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shows {
    /// Characters beyond ASCII.
    pub(super) unicode: bool,
    pub(super) colour: bool,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It cannot be set up, or is gone.
    pub(super) fn enter() -> Result<Self, Failure> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let screen = take_over().and_then(|()| {
            let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
            Ok(Self { terminal, shows: Shows::here() })
        });
        screen.map_err(|error| {
            give_back();
            failed(&error)
        })
    }

    /// Takes it over again, after others may have used it; all has to be drawn.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) fn enter_again(&mut self) -> Result<(), Failure> {
        // Not `clear`, which asks where the cursor is: the thread that reads keys would have to hear that.
        let again = take_over().and_then(|()| {
            let size = self.terminal.size()?;
            self.terminal.resize(size.into())
        });
        again.map_err(|error| failed(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What went wrong with the terminal.
pub(super) fn failed(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot use the terminal: {error}"))
        .hint("--once prints tables, --json an object for each look")
}

fn take_over() -> std::io::Result<()> {
    // After a stop that gave nothing back it may have other modes than those that it is believed to have.
    let _ = disable_raw_mode();
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// As it was before. A terminal that is gone needs nothing.
pub(super) fn give_back() {
    let _ = execute!(stdout(), ResetColor, Show, LeaveAlternateScreen);
    let _ = stdout().flush();
    let _ = disable_raw_mode();
}

impl Shows {
    /// By the environment.
    fn here() -> Self {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(&variable);
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self { unicode, colour: variable("NO_COLOR").is_none() }
    }

    /// Takes out of a picture what this terminal does not show.
    pub(super) fn reduce(self, picture: &mut Buffer) {
        if self.unicode && self.colour {
            return;
        }
        for cell in &mut picture.content {
            if !self.colour {
                (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
            }
            if !self.unicode && !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or(' ', in_ascii);
                cell.set_char(plain);
            }
        }
    }
}

/// The nearest that there is.
fn in_ascii(c: char) -> char {
    match c {
        '─' | '━' | '–' | '—' => '-',
        '│' | '┃' => '|',
        '┌' | '┐' | '└' | '┘' => '+',
        '…' => '>',
        '±' => '~',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::{Modifier, Style};
    use switchboard_testkit::tmux::Tmux;

    const PANICS: &str = "SWITCHBOARD_TOP_PANICS";

    /// In a terminal of its own: takes that over, and panics.
    #[test]
    fn in_a_terminal() {
        if std::env::var_os(PANICS).is_some() {
            let _screen = Screen::enter().expect("a terminal");
            std::thread::spawn(|| panic!("on purpose")).join().expect_err("a panic");
            panic!("on purpose, too");
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let Some(tmux) = Tmux::new("top: panic", (100, 30), &[]) else { return };
        let program = std::env::current_exe().expect("a path");
        let test = "command::top::screen::tests::in_a_terminal";
        tmux.line(&format!("clear; stty -g > before; {PANICS}=1 {} --exact {test} --nocapture; stty -g > after; cmp before after && echo as it was", program.display()));
        let screen = tmux.wait("its end", |screen| screen.contains("\nas it was"));
        // What it says is to be read where the shell is.
        assert!(screen.contains("on purpose, too") && screen.contains("1 failed"), "{screen}");
        assert_eq!(tmux.state("#{alternate_on} #{cursor_flag}"), "0 1");
    }

    #[test]
    fn what_the_environment_says() {
        let of = |set: &[(&str, &str)]| {
            let shows = Shows::of(|name| {
                set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
            });
            (shows.unicode, shows.colour)
        };
        assert_eq!(of(&[]), (false, true));
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), (true, true));
        assert_eq!(of(&[("LANG", "C.utf8"), ("NO_COLOR", "1")]), (true, false));
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]), (false, true));
        assert_eq!(of(&[("LC_CTYPE", "de_DE.ISO-8859-1")]), (false, true));
    }

    #[test]
    fn what_is_not_shown_is_taken_out() {
        let picture = || {
            let mut picture = Buffer::empty(Rect::new(0, 0, 8, 1));
            picture.set_string(
                0,
                0,
                "┌─x…ü字",
                Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            );
            picture
        };
        let text = |picture: &Buffer| -> String {
            picture.content.iter().map(ratatui::buffer::Cell::symbol).collect()
        };
        let mut same = picture();
        Shows { unicode: true, colour: true }.reduce(&mut same);
        assert_eq!(same, picture());
        let mut plain = picture();
        Shows { unicode: false, colour: false }.reduce(&mut plain);
        assert!(text(&plain).is_ascii() && text(&plain).starts_with("+-x>??"), "{plain:?}");
        assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset));
        assert!(plain.content[0].modifier.contains(Modifier::BOLD));
    }
}
