//! The full-screen view: keys, looks and signals, and a picture after each that changes something.
//!
//! Source: docs/design/top.md, "The terminal"; `poll(2)`, `signal(7)`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGCONT, SIGTSTP};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;

use super::draw::draw;
use super::keys::{Action, pressed};
use super::sample::Sample;
use super::sampler::{Sampler, Wanted};
use super::screen::{Screen, failed, give_back};
use super::view::View;
use super::{Arguments, Pane};
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::Users;
use crate::output::{Failure, Outcome, system};

/// What the threads say.
enum Message {
    Key(Event),
    KeysFailed(std::io::Error),
    Look(Box<Sample>),
    /// A thread ended, which none does by itself.
    Ended,
}

/// What the looking thread is told.
enum Order {
    /// Look now, and then again and again, at these things.
    Look(Wanted),
    Pause,
}

/// A thread that ends with the process.
fn thread(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = std::thread::Builder::new().spawn(work);
    let no_more = |error| Failure::new(Exit::Failed, format!("cannot start a thread: {error}"));
    started.map(drop).map_err(no_more)
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let cannot = |error| system("cannot watch the terminal", error);
    let interrupt = Interrupt::watch_output()?;
    let wake = Arc::new(EventFd::new(0).map_err(cannot)?);
    let (stopped, continued) = (signal_pipe(SIGTSTP)?, signal_pipe(SIGCONT)?);
    let view = View::new(arguments.pane.unwrap_or(Pane::Pressure));
    let (said, messages) = channel();
    let said = Said { said, wake: Arc::clone(&wake) };
    let (orders, ordered) = channel();
    let mut sampler = Sampler::new(arguments.scope.clone());
    let (interval, begin) = (arguments.interval, wanted(&view));
    let screen = Screen::enter()?;
    thread({
        let said = said.clone();
        move || look_again_and_again(&mut sampler, interval, begin, &ordered, &said)
    })?;
    thread(move || read_keys(&said))?;
    let users = Users::of_this_machine();
    let mut live =
        Live { screen, view, sample: None, users, orders, is_asked: false, is_new: true };
    loop {
        // A terminal that takes nothing must not keep signals from being seen.
        let now = Deadline::after(Duration::ZERO);
        let takes = io::wait_for(std::io::stdout(), Interest::Writable, now).unwrap_or(true);
        if live.is_new && takes {
            live.draw()?;
        }
        let until = if live.is_new { Deadline::after(BLOCKED) } else { Deadline::NEVER };
        let ready = io::poll(
            [
                (interrupt.fd(), Interest::Readable),
                (wake.as_fd(), Interest::Readable),
                (stopped.as_fd(), Interest::Readable),
                (continued.as_fd(), Interest::Readable),
            ],
            until,
        );
        let [ended, woken, stop, go_on] = ready.map_err(cannot)?.map(|ready| ready.any());
        if ended {
            return Err(Failure::quiet());
        }
        if stop {
            drain(&stopped);
            live.suspend()?;
        }
        if go_on {
            drain(&continued);
            live.screen.enter_again()?;
            live.is_new = true;
        }
        if woken {
            let _ = wake.try_take();
            while let Ok(message) = messages.try_recv() {
                if live.take(message)? {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}

/// How soon a terminal that took nothing is asked again.
const BLOCKED: Duration = Duration::from_millis(100);

/// What the pane needs.
fn wanted(view: &View) -> Wanted {
    Wanted { channels: view.pane == Pane::Channels, limits: view.pane == Pane::Limits }
}

/// Readable after a signal.
fn signal_pipe(signal: i32) -> Result<OwnedFd, Failure> {
    let cannot = |error| system("cannot watch for signals", error);
    let (read, write) = pipe::pipe_nonblocking().map_err(cannot)?;
    // It fails for signals that cannot be caught, which these are not.
    let _ = signal_hook::low_level::pipe::register(signal, write);
    Ok(read)
}

fn drain(pipe: &OwnedFd) {
    while io::read(pipe, &mut [0; 64]).is_ok_and(|n| n > 0) {}
}

struct Live {
    screen: Screen,
    view: View,
    sample: Option<Sample>,
    users: Users,
    orders: Sender<Order>,
    /// A look was asked for during a pause.
    is_asked: bool,
    /// What is on the screen is not what there is.
    is_new: bool,
}

impl Live {
    fn draw(&mut self) -> Result<(), Failure> {
        let Self { screen, view, sample, users, is_new, .. } = self;
        let shows = screen.shows;
        let drawn = screen.terminal.draw(|frame| {
            draw(frame, view, sample.as_ref(), users);
            shows.reduce(frame.buffer_mut());
        });
        *is_new = false;
        drawn.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Whether that was the end.
    fn take(&mut self, message: Message) -> Result<bool, Failure> {
        match message {
            Message::Look(sample) => {
                let wanted = wanted(&self.view);
                let is_whole = !wanted.channels || sample.channels.is_some();
                // One that was under way when a pause began is not shown, but one that was asked for since.
                if !self.view.is_paused || (self.is_asked && is_whole) {
                    self.is_asked = false;
                    self.sample = Some(*sample);
                    self.update();
                }
            }
            Message::Key(Event::Key(key)) => {
                let action = pressed(&mut self.view, key);
                self.is_new = true;
                match action {
                    Action::Nothing => {}
                    Action::Rows | Action::Look => self.update(),
                    Action::Redraw => self.screen.enter_again()?,
                    Action::Suspend => self.suspend()?,
                    Action::Quit => return Ok(true),
                }
                self.order(action);
            }
            Message::Key(_) => self.is_new = true,
            Message::KeysFailed(error) => return Err(failed(&error)),
            Message::Ended => {
                return Err(Failure::new(Exit::Failed, "a thread of this command has ended"));
            }
        }
        Ok(false)
    }

    /// Tells the looking thread what the key was about.
    fn order(&mut self, action: Action) {
        let order = match action {
            _ if self.view.is_paused && action == Action::Nothing => Order::Pause,
            // Another pane shows other things, also during a pause: then once.
            Action::Look => Order::Look(wanted(&self.view)),
            _ => return,
        };
        // It ends only with this process.
        let _ = self.orders.send(order);
        if self.view.is_paused {
            self.is_asked |= action == Action::Look;
            let _ = self.orders.send(Order::Pause);
        }
    }

    fn update(&mut self) {
        if let Some(sample) = &self.sample {
            self.view.update(sample, &self.users);
        }
        self.is_new = true;
    }

    /// Gives the terminal back and stops, as if nobody had caught the signal; afterwards takes it again.
    fn suspend(&mut self) -> Result<(), Failure> {
        give_back();
        let stopped = signal_hook::low_level::emulate_default_handler(SIGTSTP);
        stopped.map_err(|error| failed(&error))?;
        self.screen.enter_again()?;
        self.is_new = true;
        Ok(())
    }
}

/// Where threads say something.
#[derive(Clone)]
struct Said {
    said: Sender<Message>,
    wake: Arc<EventFd>,
}

impl Said {
    /// Whether somebody hears it.
    fn say(&self, message: Message) -> bool {
        let heard = self.said.send(message).is_ok();
        let _ = self.wake.add(1);
        heard
    }
}

/// Says the end of its thread, also by a panic.
struct SaysEnd<'a>(&'a Said);

impl Drop for SaysEnd<'_> {
    fn drop(&mut self) {
        self.0.say(Message::Ended);
    }
}

fn read_keys(said: &Said) {
    let _end = SaysEnd(said);
    loop {
        let message = match event::read() {
            Ok(event) => Message::Key(event),
            Err(error) => {
                said.say(Message::KeysFailed(error));
                return;
            }
        };
        if !said.say(message) {
            return;
        }
    }
}

fn look_again_and_again(
    sampler: &mut Sampler,
    interval: Duration,
    mut wanted: Wanted,
    orders: &Receiver<Order>,
    said: &Said,
) {
    let _end = SaysEnd(said);
    loop {
        let started = Instant::now();
        if !said.say(Message::Look(Box::new(sampler.look(wanted)))) {
            return;
        }
        // Looks that take longer than the interval are followed by a rest of a part of it.
        let next = (started + interval).max(Instant::now() + interval / 4);
        match next_order(orders, Some(next)) {
            Some(Order::Look(other)) => wanted = other,
            Some(Order::Pause) => match next_order(orders, None) {
                Some(Order::Look(other)) => wanted = other,
                _ => return,
            },
            None => {}
        }
    }
}

/// The last of the orders that came until then; a pause waits for as long as it takes.
fn next_order(orders: &Receiver<Order>, until: Option<Instant>) -> Option<Order> {
    let first = match until {
        Some(until) => match orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        },
        None => loop {
            match orders.recv() {
                Ok(Order::Pause) => {}
                Ok(order) => break order,
                Err(_) => return None,
            }
        },
    };
    Some(first)
}
