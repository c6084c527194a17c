//! The dashboard: gets news over the queue, heartbeats over the FIFO, ticks in shared memory and the
//! recorder's progress over a socket, and says them to the process that started it, which draws. It
//! writes down what arrived, for the check at the end.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard::{Json, Options, Queue, Receiver, RecvError, Start, Subscriber, Text, Topic};
use switchboard_kernel::io::{Deadline, Interest, poll};

use super::words::{News, Places, Rates, Said, say};

const SAY_EVERY: Duration = Duration::from_millis(100);

/// Shows until SIGTERM, and then what is still there.
pub(crate) fn run(places: &Places) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let options = Options::default().follow(true);
    let mut dashboard = Dashboard {
        news: Queue::open(&places.queue())?.receiver()?,
        heartbeats: Queue::open_with(&places.heartbeat(), options.clone())?.receiver()?,
        ticks: Topic::open_with(&places.ticks(), options.clone())?.subscriber(Start::New)?,
        progress: Queue::open_with(&places.progress(), options)?.receiver()?,
        arrivals: File::create_new(places.arrivals())?,
        rates: Rates::default(),
        told: 0,
        beats: 0,
        ticked: 0,
        reports: 0,
    };
    say(&Said::Ready { address: None })?;
    let mut said = Instant::now();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let nothing = !(dashboard.take_news()?
            | dashboard.take_heartbeats()?
            | dashboard.take_ticks()?
            | dashboard.take_progress()?);
        if (stopping && nothing) || said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&dashboard.said())?;
        }
        if stopping && nothing {
            return Ok(());
        }
        if nothing {
            dashboard.wait()?;
        }
    }
}

struct Dashboard {
    news: Receiver<Json<News>>,
    heartbeats: Receiver<Text>,
    ticks: Subscriber<Text>,
    progress: Receiver<Text>,
    arrivals: File,
    rates: Rates,
    told: u64,
    beats: u64,
    ticked: u64,
    reports: u64,
}

impl Dashboard {
    /// Takes what the queue has. Whether it had anything.
    fn take_news(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut lines = String::new();
        loop {
            let delivery = match self.news.try_recv() {
                Ok(delivery) => delivery,
                Err(RecvError::Empty) => break,
                Err(error) => return Err(error.into()),
            };
            let priority = delivery.priority;
            let news = self.news.acknowledge(delivery)?.0;
            lines += &format!("news {} {} priority {priority}\n", news.pid, news.number);
            self.told += 1;
            match news.alert {
                Some(text) => say(&Said::Alert { text })?,
                None => self.rates = news.rates,
            }
        }
        self.arrivals.write_all(lines.as_bytes())?;
        Ok(!lines.is_empty())
    }

    fn take_heartbeats(&mut self) -> Result<bool, Box<dyn Error>> {
        let beats = take(&mut self.heartbeats, &mut self.arrivals)?;
        self.beats += beats;
        Ok(beats > 0)
    }

    fn take_progress(&mut self) -> Result<bool, Box<dyn Error>> {
        let reports = take(&mut self.progress, &mut self.arrivals)?;
        self.reports += reports;
        Ok(reports > 0)
    }

    fn take_ticks(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut lines = String::new();
        loop {
            match self.ticks.try_recv() {
                Ok(sample) => lines += &format!("{}\n", sample.message.0),
                Err(RecvError::Empty | RecvError::Ended) => break,
                Err(error) => return Err(error.into()),
            }
            self.ticked += 1;
        }
        self.arrivals.write_all(lines.as_bytes())?;
        Ok(!lines.is_empty())
    }

    /// Waits until one of them may have something.
    fn wait(&self) -> switchboard_kernel::Result<()> {
        let all = [
            (self.news.as_fd(), Interest::Readable),
            (self.heartbeats.as_fd(), Interest::Readable),
            (self.ticks.as_fd(), Interest::Readable),
            (self.progress.as_fd(), Interest::Readable),
        ];
        poll(all, Deadline::after(SAY_EVERY / 2)).map(drop)
    }

    fn said(&self) -> Said {
        Said::Dashboard {
            rates: self.rates.clone(),
            told: self.told,
            heartbeats: self.beats,
            ticks: self.ticked,
            progress: self.reports,
        }
    }
}

/// Takes what a queue of lines has, and writes it down. How many there were.
fn take(receiver: &mut Receiver<Text>, arrivals: &mut File) -> Result<u64, Box<dyn Error>> {
    let (mut lines, mut count) = (String::new(), 0);
    loop {
        let delivery = match receiver.try_recv() {
            Ok(delivery) => delivery,
            Err(RecvError::Empty | RecvError::Ended) => break,
            Err(error) => return Err(error.into()),
        };
        lines += &receiver.acknowledge(delivery)?.0;
        lines += "\n";
        count += 1;
    }
    arrivals.write_all(lines.as_bytes())?;
    Ok(count)
}
