//! What the demo shows: a display that is redrawn on a terminal, plain lines otherwise, or nothing
//! but the report as JSON.
//!
//! Source: `console_codes(4)`, ECMA-48.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::state::{Standing, State};
use super::{Role, sensor};

use crate::output::counted;

const DRAW_EVERY: Duration = Duration::from_millis(100);
const SUMMARY_EVERY: Duration = Duration::from_secs(1);
/// Lines are not longer than this, however wide the terminal.
const WIDEST: usize = 110;
/// Events that are shown, at most and where there is room.
const MOST_EVENTS: usize = 10;

/// Where the demo is shown.
#[derive(Debug)]
pub(crate) enum Screen {
    Live(Live),
    Plain {
        next: Instant,
    },
    /// Only the report, as JSON.
    Silent,
}

#[derive(Debug)]
pub(crate) struct Live {
    color: bool,
    drawn: Option<Instant>,
    /// Lines on the screen that belong to the display.
    lines: usize,
}

impl Screen {
    /// What fits standard output.
    pub(crate) fn of_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !io::stdout().is_terminal() || dumb {
            return Self::Plain { next: Instant::now() + SUMMARY_EVERY };
        }
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::Live(Live { color, drawn: None, lines: 0 })
    }

    /// Something happened; it is in the state already.
    pub(crate) fn event(&mut self, state: &State, text: &str) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(state),
            Self::Plain { .. } => {
                print(&format!("{:5.1} s  {text}\n", state.since_start().as_secs_f64()))
            }
            Self::Silent => Ok(()),
        }
    }

    /// Shows how it stands, if it is time.
    pub(crate) fn tick(&mut self, state: &State) -> io::Result<()> {
        match self {
            Self::Live(live) if live.drawn.is_none_or(|at| at.elapsed() >= DRAW_EVERY) => {
                live.draw(state)
            }
            Self::Plain { next } if Instant::now() >= *next => {
                *next += SUMMARY_EVERY;
                print(&summary(state))
            }
            _ => Ok(()),
        }
    }

    /// Gives the terminal back. The last picture stays.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        match self {
            Self::Live(live) => live.leave(),
            _ => Ok(()),
        }
    }

    /// The proof, and what it was about.
    pub(crate) fn report(&self, report: &Value, state: &State) -> io::Result<()> {
        if matches!(self, Self::Silent) {
            return print(&format!("{report}\n"));
        }
        let color = matches!(self, Self::Live(live) if live.color);
        let mut text = "\nProof, from the files as an independent process reads them:\n".to_owned();
        for line in report["proof"].as_array().into_iter().flatten() {
            let holds = line["holds"] == Value::Bool(true);
            let (word, style) = if holds { ("ok    ", GREEN) } else { ("FAILED", RED) };
            text += &styled(color, style, word);
            text += &format!("  {}\n", line["text"].as_str().unwrap_or_default());
        }
        text += &explanation(state);
        print(&text)
    }
}

/// Writes to standard output, at once.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

impl Live {
    fn draw(&mut self, state: &State) -> io::Result<()> {
        self.drawn = Some(Instant::now());
        let (width, height) = terminal_size();
        let picture = picture(state, width, height.saturating_sub(1));
        // Hide the cursor, go to the first line, write each and clear the rest of it.
        let mut text = String::from("\x1b[?25l");
        if self.lines > 0 {
            text += &format!("\x1b[{}F", self.lines);
        }
        for (style, line) in &picture {
            let line: String = line.chars().take(width.saturating_sub(1)).collect();
            text += &styled(self.color, style, &line);
            text += "\x1b[K\n";
        }
        // A shorter picture than the last one leaves lines below.
        text += "\x1b[J";
        self.lines = picture.len();
        print(&text)
    }

    fn leave(&mut self) -> io::Result<()> {
        self.lines = 0;
        if self.drawn.take().is_some() { print("\r\x1b[K\x1b[?25h") } else { Ok(()) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

fn terminal_size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((terminal_size::Width(width), terminal_size::Height(height))) if width > 0 => {
            (width.into(), height.into())
        }
        _ => (80, 24),
    }
}

const PLAIN: &str = "";
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

fn styled(color: bool, style: &str, text: &str) -> String {
    if color && !style.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

type Picture = Vec<(&'static str, String)>;

/// The whole display, of at most `height` lines.
fn picture(state: &State, width: usize, height: usize) -> Picture {
    let width = width.clamp(20, WIDEST);
    let mut picture = vec![(BOLD, heading(state, width)), (PLAIN, String::new())];
    picture.push((DIM, format!(" {:<11}{:>8}  {}", "PROCESS", "PID", "STATE")));
    picture.extend(Role::ALL.into_iter().filter(|role| *role != Role::Check).map(|role| {
        let (style, standing) = standing(state, role);
        let pid = state.pid(role);
        let pid = if pid == 0 { "-".to_owned() } else { pid.to_string() };
        (style, format!(" {:<11}{pid:>8}  {standing}", role.name()))
    }));
    picture.push((PLAIN, String::new()));
    picture.push((
        DIM,
        format!(" {:<24}{:<6}{:>9}{:>7}  {}", "CHANNEL", "OVER", "MESSAGES", "PER S", "NOW"),
    ));
    picture.extend(channels(state).map(|line| (PLAIN, line)));
    picture.push((PLAIN, String::new()));
    picture.extend(bars(state, width).map(|line| (PLAIN, line)));
    picture.push((PLAIN, String::new()));
    let room = height.saturating_sub(picture.len()).min(MOST_EVENTS);
    let skipped = state.events.len().saturating_sub(room);
    picture.extend(state.events.iter().skip(skipped).map(|(at, text)| {
        let style = match text {
            text if text.contains("killed") => RED,
            text if text.starts_with("alert") => YELLOW,
            _ => PLAIN,
        };
        (style, format!(" {:5.1} s  {text}", at.as_secs_f64()))
    }));
    picture.truncate(height);
    picture
}

fn heading(state: &State, width: usize) -> String {
    let left = " switchboard demo";
    let elapsed = state.elapsed().min(state.duration).as_secs_f64();
    let right = format!("{elapsed:.1} of {:.0} s", state.duration.as_secs_f64());
    let gap = width.saturating_sub(left.len() + right.len() + 1).max(1);
    format!("{left}{}{right}", " ".repeat(gap))
}

fn standing(state: &State, role: Role) -> (&'static str, String) {
    match state.standing(role) {
        Standing::Waiting => (DIM, "not started".to_owned()),
        Standing::Starting => (YELLOW, "starting".to_owned()),
        Standing::Killed => (RED, "KILLED; it is started again in half a second".to_owned()),
        Standing::Ended => (DIM, "ended".to_owned()),
        Standing::Running => {
            let each = sensor::READINGS_PER_SECOND;
            let doing = match role {
                Role::Sensor => format!("reads /proc {each} times a second"),
                Role::Processor => "computes rates; acknowledges what is recorded".to_owned(),
                Role::Dashboard => "shows the newest rates below".to_owned(),
                _ => format!("wrote {}", counted(state.recorded, "record")),
            };
            (GREEN, doing)
        }
    }
}

fn channels(state: &State) -> impl Iterator<Item = String> {
    let on_the_way = state.sent.saturating_sub(state.acknowledged);
    let again = match state.redelivered {
        0 => String::new(),
        n => format!(", {n} came again"),
    };
    let notes = [
        format!("{} under way{again}", on_the_way + state.waiting),
        "a topic".to_owned(),
        state.recorder.clone().unwrap_or_default().replace("tcp:", ""),
        counted(state.alerts, "alert"),
        String::new(),
        counted(state.recorded, "record"),
    ];
    let schemes = ["shm", "shm", "tcp", "mq", "fifo", "unix"];
    state.channels.iter().zip(schemes).zip(notes).map(|((channel, scheme), note)| {
        let name = format!("{} → {}", channel.from.name(), channel.to.name());
        let (count, rate) = (channel.count, channel.per_second());
        format!(" {name:<24}{scheme:<6}{count:>9}{rate:>7.0}  {note}")
    })
}

fn bars(state: &State, width: usize) -> impl Iterator<Item = String> {
    let rates = &state.rates;
    let cells = width.saturating_sub(42).clamp(10, 50);
    let memory = rates.memory_used_bytes.zip(rates.memory_total_bytes);
    let network = rates.network_in_bytes_per_s.zip(rates.network_out_bytes_per_s);
    let cpu = bar(rates.cpu_percent.map(|percent| percent / 100.0), cells);
    let used = bar(memory.map(|(used, total)| used as f64 / total.max(1) as f64), cells);
    // By powers of ten: empty at 100 bytes a second, full at 1 GB.
    let part = |bytes: f64| ((bytes.max(1.0).log10() - 2.0) / 7.0).clamp(0.0, 1.0);
    let moved = bar(network.map(|(received, sent)| part(received + sent)), cells);
    [
        format!(" cpu      {cpu}  {}", percent(rates.cpu_percent)),
        format!(
            " memory   {used}  {}",
            memory.map_or("unknown".to_owned(), |(used, total)| {
                format!("{} of {}", bytes(used as f64), bytes(total as f64))
            })
        ),
        format!(
            " network  {moved}  {}",
            network.map_or("unknown".to_owned(), |(received, sent)| {
                format!("{}/s in, {}/s out", bytes(received), bytes(sent))
            })
        ),
    ]
    .into_iter()
}

fn bar(part: Option<f64>, cells: usize) -> String {
    let full = (part.unwrap_or(0.0).clamp(0.0, 1.0) * cells as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("unknown".to_owned(), |value| format!("{value:.0} %"))
}

fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1000.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && count < 100.0);
    format!("{count:.digits$} {}", units[unit])
}

/// One line a second, for who is no terminal.
fn summary(state: &State) -> String {
    let rates = &state.rates;
    format!(
        "{:5.1} s  {} sent, {} acknowledged, {} recorded, {} redelivered | cpu {}, memory \
         {}, network {} in, {} out\n",
        state.since_start().as_secs_f64(),
        counted(state.sent, "reading"),
        state.acknowledged,
        state.recorded,
        state.redelivered,
        percent(rates.cpu_percent),
        rates.memory_used_bytes.map_or("unknown".to_owned(), |used| bytes(used as f64)),
        speed(rates.network_in_bytes_per_s),
        speed(rates.network_out_bytes_per_s),
    )
}

fn speed(rate: Option<f64>) -> String {
    rate.map_or("unknown".to_owned(), |rate| format!("{}/s", bytes(rate)))
}

fn explanation(state: &State) -> String {
    let seconds = state.since_start().as_secs_f64();
    format!(
        "
In {seconds:.1} s: four processes talked in shared memory (a queue and a topic) and
over TCP, a POSIX queue, a FIFO and a Unix socket, with one API. One was killed:
what it had taken from the queue in shared memory and not acknowledged went to
its successor, marked. Nothing is left: no process, memory, queue or folder.

Try next, in two terminals, either one first:
  switchboard recv shm:jobs             or unix:./jobs.sock, fifo:./jobs, mq:/jobs, tcp:…
  date | switchboard send shm:jobs
  switchboard recv shm:jobs -- wc -c    a command for each message
  switchboard transports                what each one can do
"
    )
}
