//! The pictures of `top`: what tmux shows of it, as SVG, with processes in namespaces of their own.
//!
//! Source: `tmux(1)`, `unshare(1)`, `console_codes(4)`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;

use switchboard_testkit::tmux::Tmux;

use crate::executables;
use crate::workspace::Workspace;

/// What happens in them: a pipe that nobody reads, a topic with a slow subscriber, a queue, a service, and a stream over TCP.
const SCENE: &str = "
ip link set lo up
mkdir -m 0700 run
export XDG_RUNTIME_DIR=$PWD/run TMPDIR=$PWD/run
exec 9>&2 2> /dev/null
yes | sleep 1000 &
while :; do echo 21.5; sleep 0.02; done | ./sensor publish shm:engine/temperature &
./dashboard subscribe shm:engine/temperature > /dev/null &
./recorder subscribe shm:engine/temperature > /dev/null &
while :; do echo press; sleep 0.05; done | ./planner send shm:jobs &
./worker recv shm:jobs > /dev/null &
./worker recv shm:jobs > /dev/null &
./store recv --raw tcp:127.0.0.1:7000 > /dev/null &
while :; do head -c 200000 /dev/zero; sleep 0.1; done | ./backup send --raw tcp:127.0.0.1:7000 &
./prices serve shm:prices -- cat &
sleep 3
kill -STOP $(pidof recorder)
exec 2>&9 9>&-
exec ./switchboard top
";

const SIZE: (u16, u16) = (120, 30);
const NAMES: [&str; 9] = [
    "sensor",
    "dashboard",
    "recorder",
    "planner",
    "worker",
    "store",
    "backup",
    "prices",
    "switchboard",
];

/// Makes them; what was made.
pub(super) fn make(workspace: &Workspace) -> Result<Vec<String>, String> {
    let switchboard = executables::command(workspace)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for name in NAMES {
        symlink(&switchboard, folder.path().join(name)).map_err(|error| error.to_string())?;
    }
    let scene = folder.path().join("scene");
    fs::write(&scene, SCENE).map_err(|error| error.to_string())?;
    let tmux = Tmux::new("screenshots", SIZE, &[]).ok_or("no tmux: install it")?;
    tmux.line(&format!(
        "cd {} && exec unshare --pid --fork --kill-child --mount-proc --net --ipc sh scene",
        folder.path().display()
    ));
    let docs = workspace.root.join("docs");
    let mut made = Vec::new();
    let mut save = |name: &str| {
        let picture = svg(&tmux.coloured(), SIZE);
        let path = docs.join(name);
        fs::write(&path, &picture).map_err(|error| format!("{}: {error}", path.display()))?;
        made.push(format!("docs/{name}: {} bytes", picture.len()));
        Ok::<(), String>(())
    };
    tmux.wait("a full pipe and a connection", |screen| {
        screen.contains("100%") && screen.contains("127.0.0.1:7000")
    });
    rates(&tmux, "tcp:");
    save("top.svg")?;
    tmux.press(&["2"]);
    tmux.wait("who is blocked", |screen| screen.contains("is stopped") && screen.contains("DOES"));
    save("top-processes.svg")?;
    tmux.press(&["3"]);
    tmux.wait("channels", |screen| screen.contains("shm:engine/temperature"));
    rates(&tmux, "shm:engine/temperature");
    save("top-channels.svg")?;
    tmux.press(&["q"]);
    Ok(made)
}

/// Waits until a row has rates.
fn rates(tmux: &Tmux, row: &str) {
    tmux.wait("rates", |screen| {
        let lines = screen.lines().filter(|line| line.contains(row));
        lines.into_iter().any(|line| {
            line.split_whitespace().any(|word| {
                word.ends_with('M') || word == "4" || word.len() == 2 && word.parse::<u32>().is_ok()
            })
        })
    });
}

/// How a letter looks.
#[derive(Clone, Copy, Default, PartialEq)]
struct Look {
    colour: Option<u8>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

const BACKGROUND: &str = "#16181d";
const LETTERS: &str = "#d6d9e0";
const COLOURS: [&str; 8] =
    ["#16181d", "#ff6b68", "#8bd17c", "#e8c35c", "#6aa7ff", "#d58ce0", "#5ecbd3", "#d6d9e0"];
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
const EDGE: f64 = 12.0;

/// What a terminal shows, as a picture.
fn svg(screen: &str, (columns, rows): (u16, u16)) -> String {
    let (width, height) =
        (f64::from(columns) * WIDTH + 2.0 * EDGE, f64::from(rows) * HEIGHT + 2.0 * EDGE);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    let mut look = Look::default();
    for (row, line) in screen.lines().take(rows.into()).enumerate() {
        let y = EDGE + row as f64 * HEIGHT;
        let mut column = 0;
        for (letters, after) in pieces(line, &mut look) {
            let count = letters.chars().count();
            let x = EDGE + column as f64 * WIDTH;
            draw(&mut picture, (x, y), &letters, count, after);
            column += count;
        }
    }
    picture + "</svg>\n"
}

fn draw(picture: &mut String, (x, y): (f64, f64), letters: &str, count: usize, look: Look) {
    let wide = count as f64 * WIDTH;
    let colour = look.colour.map_or(LETTERS, |at| COLOURS[usize::from(at % 8)]);
    let (front, back) = if look.reversed { (BACKGROUND, Some(colour)) } else { (colour, None) };
    if let Some(back) = back {
        // A String takes whatever is written to it.
        let _ = writeln!(
            picture,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{HEIGHT}\" fill=\"{back}\"/>"
        );
    }
    if letters.trim().is_empty() {
        return;
    }
    let bold = if look.bold { " font-weight=\"bold\"" } else { "" };
    let dim = if look.dim { " opacity=\"0.65\"" } else { "" };
    let text = letters.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        picture,
        "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\" xml:space=\"preserve\" fill=\"{front}\"{bold}{dim}>{text}</text>",
        y + HEIGHT - 5.0
    );
}

/// Letters that look the same, with how they look.
fn pieces(line: &str, look: &mut Look) -> Vec<(String, Look)> {
    let mut all: Vec<(String, Look)> = Vec::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(code) = rest.strip_prefix("\u{1b}[")
            && let Some((numbers, after)) = code.split_once('m')
        {
            change(look, numbers);
            rest = after;
            continue;
        }
        match all.last_mut() {
            Some((letters, other)) if other == look => letters.push(c),
            _ => all.push((c.to_string(), *look)),
        }
        rest = &rest[c.len_utf8()..];
    }
    all
}

fn change(look: &mut Look, numbers: &str) {
    let mut numbers = numbers.split([';', ':']).map(|number| number.parse::<u8>().unwrap_or(0));
    while let Some(number) = numbers.next() {
        match number {
            0 => *look = Look::default(),
            1 => look.bold = true,
            2 => look.dim = true,
            7 => look.reversed = true,
            22 => (look.bold, look.dim) = (false, false),
            27 => look.reversed = false,
            30..=37 => look.colour = Some(number - 30),
            38 => {
                let kind = numbers.next();
                look.colour = numbers.next().filter(|_| kind == Some(5));
            }
            39 => look.colour = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_a_picture() {
        let picture = svg("a\u{1b}[1m\u{1b}[38;5;1mb<\u{1b}[0;7mc\u{1b}[0m \n", (10, 2));
        assert!(picture.contains(">a</text>"), "{picture}");
        let red = COLOURS[1];
        assert!(picture.contains(&format!("fill=\"{red}\" font-weight=\"bold\">b&lt;</text>")));
        assert!(picture.contains(&format!("fill=\"{BACKGROUND}\">c</text>")), "{picture}");
        assert_eq!(picture.matches("<rect").count(), 2);
    }
}
