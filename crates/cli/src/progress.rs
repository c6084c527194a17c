//! Progress of a long transfer, on a terminal that shows nothing else.

use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// What went through, and how fast. Shown from the first second on.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// Bytes only: they are a stream, and its pieces of no interest.
    stream: bool,
    started: Instant,
    next: Instant,
    shown: bool,
}

const FIRST: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);

impl Progress {
    /// Watched when standard error is a terminal and the messages do not go over it.
    pub(crate) fn new(messages_on_terminal: bool, stream: bool) -> Self {
        let started = Instant::now();
        let watched = output::is_watched() && !messages_on_terminal;
        let bar = watched.then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, stream, started, next: started + FIRST, shown: false }
    }

    /// So much went through by now.
    pub(crate) fn at(&mut self, messages: u64, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        self.shown = true;
        bar.set_message(self.account(messages, bytes));
        bar.tick();
    }

    /// Takes the line away; says the total if it was shown.
    pub(crate) fn end(&mut self, messages: u64, bytes: u64) {
        let account = self.account(messages, bytes);
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            if self.shown {
                output::note(&account);
            }
        }
    }

    /// Says something while the line is out of the way.
    pub(crate) fn aside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn account(&self, messages: u64, bytes: u64) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = |n: u64| (n as f64 / seconds) as u64;
        if self.stream {
            return format!("{} ({}/s)", BinaryBytes(bytes), BinaryBytes(rate(bytes)));
        }
        format!(
            "{} message{}, {} ({}/s, {}/s)",
            HumanCount(messages),
            if messages == 1 { "" } else { "s" },
            BinaryBytes(bytes),
            HumanCount(rate(messages)),
            BinaryBytes(rate(bytes))
        )
    }
}
