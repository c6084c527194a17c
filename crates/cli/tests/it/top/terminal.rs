//! `top` in a terminal: what it shows, what keys do, and that the terminal is given back.

use std::path::Path;

use switchboard_kernel::pidfd;
use switchboard_kernel::process::Signal;
use switchboard_testkit::tmux::Tmux;

use super::Full;
use crate::run::{binary, eventually};

const USUAL: (u16, u16) = (110, 40);

/// How `top` is called in a shell.
fn call(arguments: &str) -> String {
    format!("{} top --interval 200ms {arguments}", Path::new(&binary()).display())
}

fn start(tmux: &Tmux, arguments: &str) {
    tmux.line(&call(arguments));
    tmux.wait("rows", |screen| screen.contains("FULL") && screen.contains("BETWEEN"));
}

/// The process in the foreground that draws.
fn drawing(tmux: &Tmux) -> u32 {
    let shell = tmux.shell();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    let children = children.expect("its children");
    let last = children.split_whitespace().last().expect("a child");
    last.parse().expect("a process id")
}

/// The shell is back, with the screen, the cursor and the modes that it had.
#[track_caller]
fn is_given_back(tmux: &Tmux, modes: &str) {
    tmux.wait("a prompt", |screen| screen.trim_end().ends_with("ready>"));
    eventually("the usual screen", || tmux.state("#{alternate_on} #{cursor_flag}") == "0 1");
    assert_eq!(modes_of(tmux), modes);
}

/// The modes of the terminal, as `stty` says them.
fn modes_of(tmux: &Tmux) -> String {
    let device = tmux.state("#{pane_tty}");
    let file = std::fs::File::open(device).expect("a terminal");
    let mut stty = std::process::Command::new("stty");
    let output = stty.arg("-g").stdin(file).output().expect("stty");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn signal(pid: u32, signal: Signal) {
    pidfd::send_signal(pidfd::open(pid).expect("a process"), signal).expect("a signal");
}

#[test]
fn a_planted_pipe_and_every_key() {
    // Tall: other tests of this machine have things that are full, too.
    let Some(tmux) = Tmux::new("top: every key", (110, 150), &[]) else { return };
    let full = Full::new();
    start(&tmux, "");
    let planted = format!("{} ", full.id);
    let line =
        |screen: &str| screen.lines().find(|line| line.contains(&planted)).map(str::to_owned);
    let screen = tmux.wait("the full pipe", |screen| line(screen).is_some());
    assert!(line(&screen).is_some_and(|line| line.trim_start().starts_with("100%")), "{screen}");
    // Whatever stands above it is full as well.
    let above: Vec<&str> =
        screen.lines().skip(3).take_while(|line| !line.contains(&planted)).collect();
    assert!(above.iter().all(|line| line.trim_start().starts_with("100%")), "{screen}");
    assert!(screen.lines().next().is_some_and(|line| line.ends_with(" processes")), "{screen}");

    // Filter: this pipe alone; then it is opened.
    tmux.press(&["/"]);
    tmux.wait("the filter", |screen| screen.contains("/_   Enter keeps"));
    tmux.line(&full.id);
    tmux.wait("one row", |screen| screen.contains("rows, with \"") && line(screen).is_some());
    tmux.press(&["Enter"]);
    let opened = tmux.wait("all about it", |screen| screen.contains("Who waits:"));
    assert!(opened.contains(&format!("{}: anonymous pipe", full.id)), "{opened}");
    assert!(opened.contains(&format!("yes[{}] has waited", full.writer())), "{opened}");
    assert!(opened.contains("the kernel does not count what goes through"), "{opened}");
    tmux.press(&["Escape"]);
    tmux.wait("the row again", |screen| !screen.contains("Who waits:") && line(screen).is_some());
    tmux.press(&["Escape"]);
    tmux.wait("all rows", |screen| !screen.contains("rows, with \""));

    // Sort: by the first column, the second, turned round.
    for (key, shown) in [("s", "FULLv"), ("s", "OBJECTv"), ("r", "OBJECT^"), ("S", "FULLv")] {
        tmux.press(&[key]);
        tmux.wait(shown, |screen| screen.contains(shown));
    }

    tmux.press(&["?"]);
    tmux.wait("the help", |screen| screen.contains("sort by the next column"));
    tmux.press(&["x"]);
    tmux.wait("no help", |screen| !screen.contains("sort by the next column"));

    // The other panes.
    tmux.press(&["2"]);
    let sentence = format!("to write to {}", full.id);
    tmux.press(&["/"]);
    tmux.line(&sentence);
    let screen = tmux.wait("the writer", |screen| {
        screen.contains("DOES") && screen.contains("rows, with") && screen.contains("has waited")
    });
    let writer = screen.lines().find(|line| line.contains("has waited")).expect("a row");
    assert!(writer.trim_start().starts_with(&format!("{}  yes ", full.writer())), "{screen}");
    tmux.press(&["3"]);
    tmux.wait("channels", |screen| screen.contains("CHANNEL") && screen.contains("LAG"));
    tmux.press(&["4"]);
    tmux.wait("limits", |screen| screen.contains("TO RAISE IT") && screen.contains("threads"));
    tmux.press(&["Tab"]);
    tmux.wait("the first pane again", |screen| screen.contains("BETWEEN"));
    tmux.press(&["q"]);
    tmux.wait("a prompt", |screen| screen.trim_end().ends_with("ready>"));
}

/// What changes during a pause is shown after it.
#[test]
fn a_pause() {
    let Some(tmux) = Tmux::new("top: pause", USUAL, &[]) else { return };
    start(&tmux, "");
    tmux.press(&["p"]);
    tmux.wait("PAUSED", |screen| screen.contains("PAUSED"));
    let before = tmux.still();
    let full = Full::new();
    let planted = format!("{} ", full.id);
    // It answers to keys, and shows nothing new.
    tmux.press(&["Down", "Down", "Up", "Up", "?"]);
    tmux.wait("the help", |screen| screen.contains("sort by the next column"));
    tmux.press(&["x"]);
    tmux.wait("no help", |screen| !screen.contains("sort by the next column"));
    let after = tmux.still();
    assert!(after == before && !after.contains(&planted), "{before}\n\nthen\n\n{after}");
    tmux.press(&["l"]);
    tmux.wait("one look", |screen| screen.contains(&planted) && screen.contains("PAUSED"));
    tmux.press(&["p"]);
    tmux.wait("no pause", |screen| !screen.contains("PAUSED"));
    drop(full);
    tmux.wait("it is gone", |screen| !screen.contains(&planted));
}

#[test]
fn it_ends_and_the_terminal_is_as_before() {
    let Some(tmux) = Tmux::new("top: ends", USUAL, &[]) else { return };
    let modes = modes_of(&tmux);
    for key in ["q", "C-c"] {
        start(&tmux, "");
        assert_ne!(modes_of(&tmux), modes, "it reads keys");
        tmux.press(&[key]);
        is_given_back(&tmux, &modes);
    }
    for one in [Signal::TERM, Signal::INT, Signal::HUP] {
        start(&tmux, "");
        signal(drawing(&tmux), one);
        is_given_back(&tmux, &modes);
    }
}

#[test]
fn it_stops_and_goes_on() {
    let Some(tmux) = Tmux::new("top: stops", USUAL, &[]) else { return };
    let modes = modes_of(&tmux);
    start(&tmux, "");
    tmux.press(&["C-z"]);
    is_given_back(&tmux, &modes);
    tmux.line("fg");
    tmux.wait("the screen again", |screen| screen.contains("BETWEEN"));
    signal(drawing(&tmux), Signal::TSTP);
    is_given_back(&tmux, &modes);
    tmux.line("clear; fg");
    tmux.wait("the screen again", |screen| screen.contains("BETWEEN"));
    // Who is stopped without being asked finds its screen again, whatever the shell made of it.
    signal(drawing(&tmux), Signal::STOP);
    tmux.wait("the shell", |screen| screen.contains("ready>"));
    // The terminal is as keys are read one by one: Enter is no end of a line.
    tmux.press(&["f", "g", "C-j"]);
    tmux.wait("the screen again", |screen| {
        screen.contains("BETWEEN") && !screen.contains("ready>")
    });
    tmux.press(&["q"]);
    is_given_back(&tmux, &modes);
}

/// Nobody is left to tell it to end, and it was told to ignore that.
#[test]
fn a_terminal_that_goes_away() {
    for ignores in ["", "trap '' HUP; "] {
        let Some(tmux) = Tmux::new("top: hang-up", USUAL, &[]) else { return };
        tmux.line(&format!("({ignores}exec {})", call("")));
        tmux.wait("rows", |screen| screen.contains("BETWEEN"));
        let process = pidfd::open(drawing(&tmux)).expect("a process");
        tmux.hang_up();
        eventually("its end", || pidfd::is_dead(&process).expect("a status"));
    }
}

#[test]
fn sizes() {
    let Some(tmux) = Tmux::new("top: sizes", USUAL, &[]) else { return };
    let full = Full::new();
    start(&tmux, "");
    let planted = format!("{} ", full.id);
    for (width, height) in [(20, 5), (1, 1), (2, 2), (300, 100), (60, 3), (45, 12), (110, 40)] {
        tmux.resize(width, height);
        // Of the smallest ones nothing can be read.
        if width < 20 {
            eventually("the size", || {
                tmux.state("#{pane_width} #{pane_height}") == format!("{width} {height}")
            });
            continue;
        }
        let screen = tmux.wait("a screen of that size", |screen| {
            let rows = screen.lines().any(|line| line.trim_start().starts_with("100% "));
            let foot = screen.lines().nth(usize::from(height) - 1);
            rows && (height < 5 || foot.is_some_and(|line| line.starts_with("q quit")))
        });
        if height > 90 {
            assert!(screen.contains(&planted), "{screen}");
        }
    }
    tmux.press(&["Enter"]);
    tmux.resize(40, 10);
    tmux.wait("what is open, in a frame", |screen| screen.contains("┌") && screen.contains("└"));
    tmux.press(&["q", "q"]);
    tmux.wait("a prompt", |screen| screen.contains("ready>"));
}

#[test]
fn without_colours_and_without_utf_8() {
    let check = |variables: &[(&str, &str)], colours: bool, unicode: bool| {
        let Some(tmux) = Tmux::new("top: plain", USUAL, variables) else { return };
        let _full = Full::new();
        start(&tmux, "");
        tmux.wait("a full pipe", |screen| screen.contains("100% "));
        let coloured = tmux.coloured();
        // As tmux writes them, in one way or the other.
        let begins = ["\u{1b}[38;5;", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[36m"];
        let has = begins.iter().any(|begin| coloured.contains(begin));
        assert_eq!(has, colours, "{variables:?}: {coloured:?}");
        assert!(coloured.contains("\u{1b}[7m") || coloured.contains(";7m"), "{coloured:?}");
        tmux.press(&["Enter"]);
        let (frame, other) = if unicode { ("┌", "+--") } else { ("+--", "┌") };
        let screen = tmux.wait("a frame", |screen| screen.contains(frame));
        assert!(!screen.contains(other) && screen.is_ascii() != unicode, "{screen}");
    };
    check(&[], true, true);
    check(&[("NO_COLOR", "1")], false, true);
    check(&[("LANG", "C")], true, false);
    check(&[("NO_COLOR", "1"), ("LC_ALL", "C")], false, false);
}

#[test]
fn a_terminal_that_cannot_be_drawn_on() {
    let Some(tmux) = Tmux::new("top: dumb", USUAL, &[("TERM", "dumb")]) else { return };
    tmux.line(&format!("{}; echo ended with $?", call("")));
    let screen = tmux.wait("its end", |screen| screen.contains("ended with 2"));
    assert!(screen.contains("cannot be drawn on") && screen.contains("--once"), "{screen}");
}
