//! How progress looks: one line per step, colour only on a terminal.

use std::io::IsTerminal;
use std::sync::LazyLock;

static COLOUR: LazyLock<bool> = LazyLock::new(|| {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
});

/// A step begins.
pub(crate) fn step(text: &str) {
    println!("{} {text}", paint("1", "==>"));
}

/// Something is as it should be.
pub(crate) fn good(text: &str) {
    println!("    {}  {text}", paint("32", "ok"));
}

/// Something is not.
pub(crate) fn bad(text: &str) {
    println!("    {}  {text}", paint("31;1", "FAILED"));
}

/// Something worth knowing that changes no count.
pub(crate) fn note(text: &str) {
    println!("    {}  {text}", paint("33", "note"));
}

/// More about what was just said.
pub(crate) fn detail(text: &str) {
    println!("        {text}");
}

fn paint(colour: &str, text: &str) -> String {
    if *COLOUR { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}
