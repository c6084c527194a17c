//! What the command says: failures with their cause and a hint, notes, and printed results.
//!
//! Messages go to standard error, results to standard output. Colour is for terminals, and not
//! where `NO_COLOR` is set (<https://no-color.org>).

use std::io::{IsTerminal, Write};

use switchboard::{AddressError, Error};
use switchboard_kernel as kernel;

use crate::exit_code::Exit;
use crate::standard_streams::require_stdout;

/// What a command gives back.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Why a command could not be done.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// None: it was said already, or nobody is left to hear it.
    message: Option<String>,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: Some(message.into()), causes: Vec::new(), hint: None }
    }

    /// A failure that needs no words.
    pub(crate) fn quiet() -> Self {
        Self { exit: Exit::Failed, message: None, causes: Vec::new(), hint: None }
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what became of something, too.
    pub(crate) fn adding(mut self, more: &str) -> Self {
        self.message = self.message.map(|message| format!("{message}; {more}"));
        self
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) {
        let Some(message) = &self.message else { return };
        let mut text = format!("{} {message}\n", styled("error:", RED));
        let mut last = message.as_str();
        for cause in self.causes.iter().filter(|cause| !message.contains(cause.as_str())) {
            // A chain often repeats itself: what was said is not said again.
            if !last.contains(cause.as_str()) {
                text += &format!("  because: {cause}\n");
            }
            last = cause;
        }
        say(&text);
        if let Some(hint) = &self.hint {
            advise(hint);
        }
    }

    fn causes_of(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            self.causes.push(cause.to_string());
            source = cause.source();
        }
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(Exit::of(&error), error.to_string()).causes_of(&error);
        failure.hint = error.advice().map(str::to_owned);
        failure
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::new(Exit::Usage, error.to_string().trim_start_matches("error: ").trim_end())
    }
}

/// A failure of a system call that concerns this process alone.
pub(crate) fn system(doing: &str, error: kernel::Error) -> Failure {
    let mut failure = Failure::new(Exit::Failed, format!("{doing}: {error}"));
    failure.hint = error.advice().map(str::to_owned);
    failure
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[1;36m";

/// Says something that does not end the command.
pub(crate) fn warn(message: &str) {
    say(&format!("{} {message}\n", styled("warning:", YELLOW)));
}

/// Says what to do about what was said last.
pub(crate) fn advise(hint: &str) {
    say(&format!("{} {hint}\n", styled("hint:", CYAN)));
}

/// Says what is going on.
pub(crate) fn note(message: &str) {
    say(&format!("{message}\n"));
}

/// Whether somebody watches standard error.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

fn styled(word: &str, style: &str) -> String {
    let plain =
        !is_watched() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { word.to_owned() } else { format!("{style}{word}\x1b[0m") }
}

fn say(text: &str) {
    // When standard error is closed nobody is left to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Text of a peer or a file, safe to show: a terminal must not obey it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// So many of something: `1 message`, `2 messages`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    switchboard_inspect::text::counted(n, noun, &format!("{noun}s"))
}

/// Bytes of a message as they can be shown, cut after some.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 120;
    let cut = &bytes[..bytes.len().min(MOST)];
    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{}\"{more}", cut.escape_ascii())
}

/// Prints a result. A reader that has gone away ends the command quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// As [`print()`], for bytes.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    require_stdout()?;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::quiet()
        } else {
            Failure::new(Exit::Failed, format!("cannot write to standard output: {error}"))
        }
    })
}

/// Prints a JSON value on a line.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}
