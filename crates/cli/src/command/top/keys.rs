//! What keys do.
//!
//! Source: docs/commands.md, `switchboard top`.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Pane;
use super::view::View;

/// The keys, as `?` shows them.
pub(super) const HELP: &[(&str, &str)] = &[
    ("1 2 3 4, Tab", "Pressure, Processes, Channels, Limits"),
    ("Up Down PgUp PgDn Home End", "select a row (also k j g G)"),
    ("Enter", "open it: all about it, and why who waits for it does; Esc closes"),
    ("s, S", "sort by the next column, by the one before; beyond the last: most important first"),
    ("r", "the other way round"),
    ("/", "filter: only rows with this text; Enter keeps it, Esc takes it away"),
    ("p, Space", "pause, and go on"),
    ("l", "look now"),
    ("Ctrl-L", "draw all anew"),
    ("?, h", "this help"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("-", "a dash: not known. The kernel counts what goes through TCP and through processes,"),
    (
        "",
        "not through a pipe, Unix socket or queue; GROWS is what is put in less what is taken out",
    ),
];

/// What has to be done beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// The rows have to be made anew.
    Rows,
    /// Another pane: what it shows has to be read.
    Look,
    /// All has to be drawn, whatever the terminal shows.
    Redraw,
    Suspend,
    Quit,
}

/// A row more than this is another screen.
const PAGE: usize = 10;

/// A key was pressed.
pub(super) fn pressed(view: &mut View, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::Nothing;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Action::Quit,
            KeyCode::Char('z') => Action::Suspend,
            KeyCode::Char('l') => Action::Redraw,
            _ => Action::Nothing,
        };
    }
    if view.is_filtering {
        return filtering(view, key.code);
    }
    if view.is_help {
        view.is_help = false;
        return if key.code == KeyCode::Char('q') { Action::Quit } else { Action::Nothing };
    }
    if view.open.is_some()
        && let Some(action) = opened(view, key.code)
    {
        return action;
    }
    match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') => {
            view.is_help = true;
            Action::Nothing
        }
        KeyCode::Char('p' | ' ') => {
            view.is_paused = !view.is_paused;
            if view.is_paused { Action::Nothing } else { Action::Look }
        }
        KeyCode::Char('l') => Action::Look,
        KeyCode::Char('/') => {
            view.is_filtering = true;
            Action::Nothing
        }
        KeyCode::Char('s') => sorted(view, false),
        KeyCode::Char('S') => sorted(view, true),
        KeyCode::Char('r') => {
            let here = view.here_mut();
            here.is_turned = !here.is_turned && here.sort.is_some();
            Action::Rows
        }
        KeyCode::Esc => {
            view.here_mut().filter.clear();
            Action::Rows
        }
        KeyCode::Enter => {
            view.open_selected();
            Action::Nothing
        }
        code => moved(view, code),
    }
}

fn sorted(view: &mut View, is_back: bool) -> Action {
    view.sort_by_next(is_back);
    Action::Rows
}

fn moved(view: &mut View, code: KeyCode) -> Action {
    let at = view.here().at;
    match code {
        KeyCode::Down | KeyCode::Char('j') => view.select(at.saturating_add(1)),
        KeyCode::Up | KeyCode::Char('k') => view.select(at.saturating_sub(1)),
        KeyCode::PageDown => view.select(at.saturating_add(PAGE)),
        KeyCode::PageUp => view.select(at.saturating_sub(PAGE)),
        KeyCode::Home | KeyCode::Char('g') => view.select(0),
        KeyCode::End | KeyCode::Char('G') => view.select(usize::MAX),
        code => return other_pane(view, code),
    }
    Action::Nothing
}

fn other_pane(view: &mut View, code: KeyCode) -> Action {
    let (at, count) = (view.pane.place(), Pane::ALL.len());
    let next = match code {
        KeyCode::Tab | KeyCode::Right => (at + 1) % count,
        KeyCode::BackTab | KeyCode::Left => (at + count - 1) % count,
        KeyCode::Char('1') => 0,
        KeyCode::Char('2') => 1,
        KeyCode::Char('3') => 2,
        KeyCode::Char('4') => 3,
        _ => return Action::Nothing,
    };
    view.pane = Pane::ALL[next];
    view.open = None;
    Action::Look
}

fn filtering(view: &mut View, code: KeyCode) -> Action {
    /// No name that is looked for is longer.
    const LONGEST: usize = 200;
    match code {
        KeyCode::Enter => view.is_filtering = false,
        KeyCode::Esc => {
            view.is_filtering = false;
            view.here_mut().filter.clear();
        }
        KeyCode::Backspace => {
            view.here_mut().filter.pop();
        }
        KeyCode::Char(c) if view.here().filter.len() < LONGEST && !c.is_control() => {
            view.here_mut().filter.push(c);
        }
        _ => return Action::Nothing,
    }
    Action::Rows
}

/// Keys while a row is open; none: they mean the same as otherwise.
fn opened(view: &mut View, code: KeyCode) -> Option<Action> {
    let (_, scrolled) = view.open.as_mut()?;
    match code {
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') | KeyCode::Backspace => view.open = None,
        KeyCode::Down | KeyCode::Char('j') => *scrolled = scrolled.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => *scrolled = scrolled.saturating_sub(1),
        KeyCode::PageDown => *scrolled = scrolled.saturating_add(PAGE),
        KeyCode::PageUp => *scrolled = scrolled.saturating_sub(PAGE),
        KeyCode::Home | KeyCode::Char('g') => *scrolled = 0,
        KeyCode::End | KeyCode::Char('G') => *scrolled = usize::MAX,
        _ => return None,
    }
    Some(Action::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> Action {
        pressed(view, KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn control(view: &mut View, c: char) -> Action {
        pressed(view, KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn what_each_does() {
        let mut view = View::new(Pane::Pressure);
        for (code, expected) in [
            (KeyCode::Char('q'), Action::Quit),
            (KeyCode::Char('s'), Action::Rows),
            (KeyCode::Char('l'), Action::Look),
            (KeyCode::Tab, Action::Look),
            (KeyCode::Char('3'), Action::Look),
            (KeyCode::Down, Action::Nothing),
            (KeyCode::F(5), Action::Nothing),
            (KeyCode::Char('ü'), Action::Nothing),
        ] {
            assert_eq!(press(&mut view, code), expected, "{code:?}");
        }
        assert_eq!(view.pane, Pane::Channels);
        press(&mut view, KeyCode::BackTab);
        assert_eq!(view.pane, Pane::Processes);
        for _ in 0..4 {
            press(&mut view, KeyCode::Right);
        }
        assert_eq!(view.pane, Pane::Processes);
        for (c, expected) in [
            ('c', Action::Quit),
            ('z', Action::Suspend),
            ('l', Action::Redraw),
            ('x', Action::Nothing),
        ] {
            assert_eq!(control(&mut view, c), expected);
        }
    }

    #[test]
    fn a_filter_is_written_letter_by_letter() {
        let mut view = View::new(Pane::Pressure);
        press(&mut view, KeyCode::Char('/'));
        for c in ['q', 'ü', 'x'] {
            assert_eq!(press(&mut view, KeyCode::Char(c)), Action::Rows);
        }
        press(&mut view, KeyCode::Backspace);
        assert_eq!(view.here().filter, "qü");
        press(&mut view, KeyCode::Enter);
        assert!(!view.is_filtering);
        press(&mut view, KeyCode::Esc);
        assert_eq!(view.here().filter, "");
        press(&mut view, KeyCode::Char('/'));
        for _ in 0..500 {
            press(&mut view, KeyCode::Char('x'));
        }
        assert_eq!(view.here().filter.len(), 200);
        assert_eq!(control(&mut view, 'c'), Action::Quit, "also while it is written");
        press(&mut view, KeyCode::Esc);
        assert!(view.here().filter.is_empty() && !view.is_filtering);
    }

    #[test]
    fn pause_and_help() {
        let mut view = View::new(Pane::Pressure);
        assert_eq!(press(&mut view, KeyCode::Char('p')), Action::Nothing);
        assert!(view.is_paused);
        assert_eq!(press(&mut view, KeyCode::Char(' ')), Action::Look);
        assert!(!view.is_paused);
        press(&mut view, KeyCode::Char('?'));
        assert!(view.is_help);
        assert_eq!(press(&mut view, KeyCode::Char('s')), Action::Nothing, "any key closes it");
        assert!(!view.is_help);
    }
}
