//! Progress of a removal, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// How many of so many are done.
#[derive(Debug)]
pub(super) struct Steps(Option<ProgressBar>);

impl Steps {
    /// None done yet. Shown when standard error is a terminal.
    pub(super) fn new(all: u64) -> Self {
        Self(output::is_watched().then(|| {
            let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
            match ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        }))
    }

    /// Begins with the next.
    pub(super) fn at(&self, name: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(name.to_owned());
            bar.inc(1);
        }
    }

    /// Says something while the line is out of the way.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
