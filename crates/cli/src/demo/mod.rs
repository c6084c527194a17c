//! The demo: real processes over five transports, one of them killed while messages flow, and a
//! proof at the end.
//!
//! ```text
//!            shm             tcp
//!   sensor ───────▶ processor ───────▶ recorder ──▶ file ─┐
//!     │                │ mq               │ unix          ├──▶ check
//!     │ fifo, shm      ▼                  │               │
//!     ├───────────▶ dashboard ◀───────────┘               │
//!     │                └────────────────▶ arrivals ───────┤
//!     └─────────────────────────────────▶ ledger ─────────┘
//! ```
//!
//! The sensor's readings are a queue in shared memory, its ticks a topic there.
//!
//! This file starts the processes, kills one, and follows what they say. They are this same program,
//! started again with a role.

pub(crate) mod check;
mod dashboard;
mod leftovers;
mod processor;
mod recorder;
mod screen;
mod sensor;
mod stage;
mod state;
mod words;

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_kernel::process::Signal;

use screen::Screen;
use stage::{Event, Stage};
use state::{Standing, State};
pub(crate) use words::Places;

use crate::interrupt::ending_signals;
use crate::output::counted;
use words::{ARRIVALS, LEDGER, RECORDED, Said};

/// How the demo is to run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long messages flow.
    pub(crate) duration: Duration,
    /// Nothing but one JSON object at the end.
    pub(crate) json: bool,
    /// Where to leave the three files.
    pub(crate) keep: Option<PathBuf>,
}

/// What one process of the demo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sensor,
    Processor,
    Dashboard,
    Recorder,
    Check,
}

impl Role {
    const ALL: [Self; 5] =
        [Self::Sensor, Self::Processor, Self::Dashboard, Self::Recorder, Self::Check];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Processor => "processor",
            Self::Dashboard => "dashboard",
            Self::Recorder => "recorder",
            Self::Check => "check",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The part of one of the demo's own processes. Whether all is well; only the check may say no.
pub(crate) fn play(role: Role, places: &Places) -> Result<bool, Box<dyn Error>> {
    match role {
        Role::Sensor => sensor::run(places)?,
        Role::Processor => processor::run(places)?,
        Role::Dashboard => dashboard::run(places)?,
        Role::Recorder => recorder::run(places)?,
        Role::Check => {
            let proof = check::check(places)?;
            screen::print(&format!("{}\n", proof.to_json()))?;
            return Ok(proof.holds());
        }
    }
    Ok(true)
}

/// The processor is killed after this part of the time.
const KILLED_AFTER: f64 = 1.0 / 3.0;
/// It is started again this long after its death.
const DEAD_FOR: Duration = Duration::from_millis(500);
/// At least this many readings are to be in its hands when it is killed; after a while without, it is
/// killed anyway.
const HELD_AT_KILL: u64 = 15;
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// So often, if nothing was there at a kill.
const MOST_KILLS: u32 = 3;
/// It may be killed by others too, this often.
const MOST_RESTARTS: u32 = 10;
/// How long a process may take to be ready, and all of them to end.
const READY_WITHIN: Duration = Duration::from_secs(10);
const END_WITHIN: Duration = Duration::from_secs(9);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const MOST_COMPLAINTS: usize = 8;

/// Runs the demo. Whether the proof holds.
///
/// # Errors
/// Whatever keeps it from running to its end, and Ctrl-C.
pub(crate) fn run(settings: &Settings) -> Result<bool, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in ending_signals() {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let screen = if settings.json { Screen::Silent } else { Screen::of_stdout() };
    let mut demo = Demo {
        stage: Stage::set_up()?,
        screen,
        state: State::new(settings.duration),
        interrupted,
        killing: Killing::NotYet,
        restart_at: None,
        restarts: 0,
        ending: Vec::new(),
        complaints: Vec::new(),
        report: None,
    };
    let result = demo.play(settings);
    demo.screen.leave()?;
    let Demo { stage, screen, state, .. } = demo;
    drop(stage);
    let report = result?;
    screen.report(&report, &state)?;
    Ok(report["holds"] == json!(true))
}

/// Ctrl-C, or another request to end.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted: the processes, the queue and the folder are removed")
    }
}

impl Error for Interrupted {}

enum Killing {
    NotYet,
    /// As soon as enough is under way, or the time is over.
    Armed(Instant),
    Done,
}

struct Demo {
    stage: Stage,
    screen: Screen,
    state: State,
    interrupted: Arc<AtomicBool>,
    killing: Killing,
    /// When the processor is to be started again.
    restart_at: Option<Instant>,
    restarts: u32,
    /// Who may end now.
    ending: Vec<Role>,
    /// The first things that processes said on standard error.
    complaints: Vec<String>,
    /// What the check said.
    report: Option<Value>,
}

impl Demo {
    fn play(&mut self, settings: &Settings) -> Result<Value, Box<dyn Error>> {
        for role in [Role::Recorder, Role::Dashboard, Role::Processor, Role::Sensor] {
            self.start(role)?;
            self.until(READY_WITHIN, |demo| demo.state.standing(role) == Standing::Running)
                .map_err(|error| {
                    self.explain(error, &format!("the {} is not ready", role.name()))
                })?;
        }
        self.state.begin();
        let kill_at = settings.duration.mul_f64(KILLED_AFTER);
        self.until(settings.duration, |demo| demo.state.elapsed() >= kill_at)?;
        self.killing = Killing::Armed(Instant::now() + KILL_PATIENCE);
        let rest = settings.duration.saturating_sub(self.state.elapsed());
        let killed = |demo: &Self| matches!(demo.killing, Killing::Done);
        let total = settings.duration;
        self.until(rest + KILL_PATIENCE * 2 + DEAD_FOR + READY_WITHIN, |demo| {
            killed(demo)
                && demo.state.elapsed() >= total
                && (demo.state.redelivered > 0 || demo.state.elapsed() >= total + KILL_PATIENCE)
                && demo.state.standing(Role::Processor) == Standing::Running
        })
        .map_err(|error| self.explain(error, "the processor did not come back"))?;
        self.end()?;
        self.keep_files(settings)?;
        self.prove(settings)
    }

    /// Ends the processes from the source on, so that each can finish what it has.
    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        let give_up = Instant::now() + END_WITHIN;
        self.event("the sensor is asked to end; whatever is under way is finished".to_owned())?;
        self.ending = vec![Role::Sensor, Role::Processor];
        self.stage.signal(Role::Sensor, Signal::TERM)?;
        self.until_gone(&[Role::Sensor, Role::Processor], give_up)?;
        for role in [Role::Recorder, Role::Dashboard] {
            self.ending = vec![role];
            self.stage.signal(role, Signal::TERM)?;
            self.until_gone(&[role], give_up)?;
        }
        self.event("all have ended; another process reads their files again".to_owned())
    }

    fn until_gone(&mut self, roles: &[Role], give_up: Instant) -> Result<(), Box<dyn Error>> {
        let left = give_up.saturating_duration_since(Instant::now());
        let ended = |demo: &Self, role: &Role| demo.state.standing(*role) == Standing::Ended;
        self.until(left, |demo| roles.iter().all(|role| ended(demo, role))).map_err(|error| {
            let slow = roles.iter().find(|role| !ended(self, role)).map_or("", |role| role.name());
            self.explain(error, &format!("the {slow} did not end"))
        })
    }

    fn keep_files(&self, settings: &Settings) -> Result<(), Box<dyn Error>> {
        let Some(folder) = &settings.keep else { return Ok(()) };
        let failed = |error| format!("cannot keep the files in {}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        for name in [RECORDED, LEDGER, ARRIVALS] {
            std::fs::copy(self.stage.places.folder.join(name), folder.join(name))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Starts the check, and adds to its findings what was done.
    fn prove(&mut self, settings: &Settings) -> Result<Value, Box<dyn Error>> {
        self.ending = vec![Role::Check];
        self.start(Role::Check)?;
        self.until(READY_WITHIN, |demo| demo.state.standing(Role::Check) == Standing::Ended)
            .map_err(|error| self.explain(error, "the check did not end"))?;
        let mut report = self.report.take().ok_or("the check said nothing")?;
        report["seconds"] = json!(settings.duration.as_secs_f64());
        report["kills"] = self.state.kills();
        report["restarts"] = json!(self.restarts);
        Ok(report)
    }

    fn start(&mut self, role: Role) -> Result<(), Box<dyn Error>> {
        let pid = self.stage.start(role)?;
        self.state.started(role, pid);
        if role != Role::Check {
            let again = if self.restarts > 0 { "again, " } else { "" };
            self.event(format!("{} started {again}as process {pid}", role.name()))?;
        }
        Ok(())
    }

    fn event(&mut self, text: String) -> Result<(), Box<dyn Error>> {
        self.state.event(text.clone());
        self.screen.event(&self.state, &text)?;
        Ok(())
    }

    /// Follows what happens until `done` says so.
    fn until(
        &mut self,
        at_most: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let give_up = Instant::now() + at_most;
        while !done(self) {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Interrupted.into());
            }
            if Instant::now() >= give_up {
                return Err(TooLate(at_most).into());
            }
            match self.stage.events.recv_timeout(LOOK_EVERY) {
                Ok((pid, event)) => self.happened(pid, event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("no process is left".into()),
            }
            self.kill_if_due()?;
            if self.restart_at.is_some_and(|at| Instant::now() >= at) {
                self.restart_at = None;
                self.restarts += 1;
                self.start(Role::Processor)?;
            }
            self.screen.tick(&self.state)?;
        }
        Ok(())
    }

    fn happened(&mut self, pid: u32, event: Event) -> Result<(), Box<dyn Error>> {
        let Some(role) = self.stage.role_of(pid) else { return Ok(()) };
        match event {
            Event::Line(line) if role == Role::Check => {
                self.report = Some(serde_json::from_str(&line)?);
            }
            Event::Line(line) => match serde_json::from_str(&line)? {
                Said::Ready { address } => {
                    if role == Role::Recorder {
                        self.stage.places.recorder = address.clone();
                    }
                    self.state.ready(role, address);
                }
                Said::Alert { text } => self.event(format!("alert: {text}"))?,
                said => {
                    self.state.said(role, &said);
                    self.kill_again_if_in_vain(&said);
                }
            },
            Event::Complaint(line) => {
                self.complaints.push(format!("{}: {line}", role.name()));
                self.complaints.truncate(MOST_COMPLAINTS);
            }
            Event::Gone => {
                if let Some(status) = self.stage.reap(pid)? {
                    self.gone(role, pid, status)?;
                }
            }
        }
        Ok(())
    }

    /// A process has ended. A killed processor is started again; of the others none may be missing.
    fn gone(&mut self, role: Role, pid: u32, status: ExitStatus) -> Result<(), Box<dyn Error>> {
        let may_end = self.ending.contains(&role);
        if may_end && (status.success() || (role == Role::Check && status.code() == Some(1))) {
            self.state.ended(role);
            return Ok(());
        }
        if role == Role::Processor && status.signal().is_some() && self.restarts < MOST_RESTARTS {
            if self.state.standing(role) != Standing::Killed {
                self.state.killed(role, pid);
                self.event(format!("processor {pid} was killed by somebody ({})", how(status)))?;
            }
            self.restart_at = Some(Instant::now() + DEAD_FOR);
            return Ok(());
        }
        let complaints = self.complaints();
        let (name, how) = (role.name(), how(status));
        Err(format!("the {name} (process {pid}) ended early ({how}){complaints}").into())
    }

    /// The processor may have settled what it said was in its hands by the time it was killed, on a busy machine:
    /// then nothing came again to the one after it.
    fn kill_again_if_in_vain(&mut self, said: &Said) {
        let Said::Processor { taken, again: 0, .. } = *said else { return };
        let is_second = self.restarts > 0 && matches!(self.killing, Killing::Done);
        if is_second && taken > 0 && self.state.redelivered == 0 && self.restarts < MOST_KILLS {
            self.killing = Killing::Armed(Instant::now() + KILL_PATIENCE);
        }
    }

    /// Kills the processor once enough is in its hands.
    fn kill_if_due(&mut self) -> Result<(), Box<dyn Error>> {
        let Killing::Armed(latest) = self.killing else { return Ok(()) };
        let running = self.state.standing(Role::Processor) == Standing::Running;
        if !running || (self.state.held < HELD_AT_KILL && Instant::now() < latest) {
            return Ok(());
        }
        self.killing = Killing::Done;
        let (pid, held) = (self.state.pid(Role::Processor), self.state.held);
        self.stage.signal(Role::Processor, Signal::KILL)?;
        self.state.killed(Role::Processor, pid);
        let held = counted(held, "reading");
        self.event(format!("processor {pid} killed (SIGKILL), at least {held} in hand"))
    }

    /// Says what took too long, and adds what processes complained about.
    fn explain(&self, error: Box<dyn Error>, what: &str) -> Box<dyn Error> {
        if !error.is::<TooLate>() {
            return error;
        }
        format!("{what}: {error}{}", self.complaints()).into()
    }

    fn complaints(&self) -> String {
        self.complaints.iter().map(|complaint| format!("\n  {complaint}")).collect()
    }
}

#[derive(Debug)]
struct TooLate(Duration);

impl std::fmt::Display for TooLate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not within {:.0} s", self.0.as_secs_f64().ceil())
    }
}

impl Error for TooLate {}

fn how(status: ExitStatus) -> String {
    match status.signal() {
        Some(9) => "SIGKILL".to_owned(),
        Some(number) => format!("signal {number}"),
        None => format!("exit code {}", status.code().unwrap_or(-1)),
    }
}
