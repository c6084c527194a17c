//! What is known about a running demo: what its screen shows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Role;
use super::words::{Rates, Said};

/// Events that are kept for the screen.
const MOST_EVENTS: usize = 50;
/// Rates of messages are measured over this long.
const WINDOW: Duration = Duration::from_secs(1);

/// How a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not started yet.
    Waiting,
    /// Started, and not ready.
    Starting,
    Running,
    /// Killed; if it is the processor, it is started again.
    Killed,
    /// Ended as it should.
    Ended,
}

/// A channel, as the screen shows it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) from: Role,
    pub(crate) to: Role,
    /// What arrived, by which the rate is measured.
    pub(crate) count: u64,
    /// Of processes that were killed.
    base: u64,
    history: VecDeque<(Instant, u64)>,
}

impl Channel {
    fn new(from: Role, to: Role) -> Self {
        Self { from, to, count: 0, base: 0, history: VecDeque::new() }
    }

    fn set(&mut self, count: u64) {
        self.count = self.base + count;
        let now = Instant::now();
        self.history.push_back((now, self.count));
        while self.history.len() > 2 && now - self.history[1].0 > WINDOW {
            self.history.pop_front();
        }
    }

    /// Messages per second; 0 when nothing was heard of it for a while.
    pub(crate) fn per_second(&self) -> f64 {
        let (Some(first), Some(last)) = (self.history.front(), self.history.back()) else {
            return 0.0;
        };
        let time = last.0.elapsed().max(last.0 - first.0);
        if last.0.elapsed() > WINDOW || time < Duration::from_millis(100) {
            return 0.0;
        }
        (last.1 - first.1) as f64 / time.as_secs_f64()
    }
}

/// Everything that is known.
pub(crate) struct State {
    started: Instant,
    begun: Option<Instant>,
    pub(crate) duration: Duration,
    processes: Vec<(Role, u32, Standing)>,
    pub(crate) recorder: Option<String>,
    /// Readings, ticks, records, news, heartbeats, progress.
    pub(crate) channels: [Channel; 6],
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) waiting: u64,
    /// Taken by the processor and not acknowledged, when it last said so.
    pub(crate) held: u64,
    pub(crate) redelivered: u64,
    redelivered_before: u64,
    pub(crate) alerts: u64,
    pub(crate) recorded: u64,
    pub(crate) rates: Rates,
    pub(crate) events: VecDeque<(Duration, String)>,
    kills: Vec<Value>,
}

impl State {
    pub(crate) fn new(duration: Duration) -> Self {
        use Role::{Dashboard, Processor, Recorder, Sensor};
        let waiting = |role| (role, 0, Standing::Waiting);
        Self {
            started: Instant::now(),
            begun: None,
            duration,
            processes: Role::ALL.into_iter().map(waiting).collect(),
            recorder: None,
            channels: [
                Channel::new(Sensor, Processor),
                Channel::new(Sensor, Dashboard),
                Channel::new(Processor, Recorder),
                Channel::new(Processor, Dashboard),
                Channel::new(Sensor, Dashboard),
                Channel::new(Recorder, Dashboard),
            ],
            sent: 0,
            acknowledged: 0,
            waiting: 0,
            held: 0,
            redelivered: 0,
            redelivered_before: 0,
            alerts: 0,
            recorded: 0,
            rates: Rates::default(),
            events: VecDeque::new(),
            kills: Vec::new(),
        }
    }

    /// Messages flow from now on.
    pub(crate) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// How long messages have flowed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// Since the demo was started.
    pub(crate) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn standing(&self, role: Role) -> Standing {
        self.process(role).map_or(Standing::Waiting, |(_, standing)| standing)
    }

    pub(crate) fn pid(&self, role: Role) -> u32 {
        self.process(role).map_or(0, |(pid, _)| pid)
    }

    fn process(&self, role: Role) -> Option<(u32, Standing)> {
        let found = self.processes.iter().find(|(other, ..)| *other == role);
        found.map(|(_, pid, standing)| (*pid, *standing))
    }

    fn stand(&mut self, role: Role, standing: Standing) {
        if let Some(process) = self.processes.iter_mut().find(|(other, ..)| *other == role) {
            process.2 = standing;
        }
    }

    pub(crate) fn started(&mut self, role: Role, pid: u32) {
        if let Some(process) = self.processes.iter_mut().find(|(other, ..)| *other == role) {
            *process = (role, pid, Standing::Starting);
        }
    }

    pub(crate) fn ready(&mut self, role: Role, address: Option<String>) {
        self.stand(role, Standing::Running);
        if role == Role::Recorder {
            self.recorder = address;
        }
    }

    pub(crate) fn ended(&mut self, role: Role) {
        self.stand(role, Standing::Ended);
    }

    /// Its counts start from 0 again when it is started again.
    pub(crate) fn killed(&mut self, role: Role, pid: u32) {
        self.stand(role, Standing::Killed);
        self.kills.push(json!({
            "process": role.name(),
            "pid": pid,
            "at_seconds": (self.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            "in_hand_at_least": self.held,
        }));
        self.held = 0;
        let readings = &mut self.channels[0];
        readings.base = readings.count;
        self.redelivered_before = self.redelivered;
    }

    /// The kills so far.
    pub(crate) fn kills(&self) -> Value {
        json!(self.kills)
    }

    pub(crate) fn event(&mut self, text: String) {
        self.alerts += u64::from(text.starts_with("alert"));
        self.events.push_back((self.since_start(), text));
        if self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
    }

    pub(crate) fn said(&mut self, role: Role, said: &Said) {
        match *said {
            Said::Sensor { sent, acknowledged, waiting, .. } => {
                (self.sent, self.acknowledged, self.waiting) = (sent, acknowledged, waiting);
            }
            // What a killed process said last may be read after it is known to be dead.
            Said::Processor { taken, again, held, .. } => {
                if self.standing(role) != Standing::Killed {
                    self.held = held;
                    self.channels[0].set(taken);
                    self.redelivered = self.redelivered_before + again;
                }
            }
            Said::Recorder { recorded, .. } => {
                self.recorded = recorded;
                self.channels[2].set(recorded);
            }
            Said::Dashboard { ref rates, told, heartbeats, ticks, progress } => {
                self.rates = rates.clone();
                self.channels[1].set(ticks);
                self.channels[3].set(told);
                self.channels[4].set(heartbeats);
                self.channels[5].set(progress);
            }
            Said::Ready { .. } | Said::Alert { .. } => {}
        }
    }
}
