//! The processor: turns readings into rates. It is the one that is killed.
//!
//! It acknowledges a reading only after the recorder has acknowledged its record, so that what the
//! sensor sees acknowledged is in the recorder's file. It waits for the recorder once per batch; what
//! is in the batch when it dies comes again, marked.

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use switchboard::{Delivery, Json, Options, Queue, Receiver, RecvError, Sender, Text};

use super::words::{News, OrDash, Places, Rates, Reading, Said, checksum, say};

use crate::output::counted;

/// A batch is complete with this many readings, or this long after its first.
const BATCH: usize = 40;
const BATCH_TIME: Duration = Duration::from_millis(300);
/// How many readings the sensor may have sent beyond the last acknowledged one.
const PREFETCH: u32 = 64;
const RECORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Rates are measured over about this long.
const WINDOW_US: u64 = 1_000_000;
const SHORTEST_WINDOW_US: u64 = 200_000;
/// An alert is given when the processors become busier than this, and again after they were idler
/// than the other.
const BUSY_PERCENT: f64 = 90.0;
const NO_LONGER_BUSY_PERCENT: f64 = 80.0;
/// Alerts overtake other news in the queue.
const ALERT_PRIORITY: u32 = 9;

/// Works until the sensor says the end.
pub(crate) fn run(places: &Places) -> Result<(), Box<dyn Error>> {
    let recorder = places.recorder.as_deref().ok_or("--recorder is missing")?;
    let linger = Some(RECORDER_TIMEOUT);
    let options = Options::default().prefetch(PREFETCH).acknowledge_every(BATCH as u32);
    let mut processor = Processor {
        readings: Queue::open_with(&places.readings(), options)?.receiver()?,
        recorder: Queue::open_with(recorder, Options::default().linger(linger))?.sender()?,
        dashboard: Queue::open(&places.queue())?.sender()?,
        window: VecDeque::new(),
        held: Vec::new(),
        busy: false,
        taken: 0,
        again: 0,
        told: 0,
    };
    say(&Said::Ready { address: None })?;
    while processor.batch()? {}
    processor.recorder.finish()?;
    processor.dashboard.finish()?;
    say(&processor.said())?;
    Ok(())
}

struct Processor {
    readings: Receiver<Json<Reading>>,
    recorder: Sender<Text>,
    dashboard: Sender<Json<News>>,
    /// The readings of the last second, to measure against.
    window: VecDeque<Reading>,
    /// Recorded perhaps, and not acknowledged.
    held: Vec<Delivery<Json<Reading>>>,
    busy: bool,
    taken: u64,
    again: u64,
    told: u64,
}

impl Processor {
    /// Takes readings, sends their records, waits for the recorder, acknowledges. `false` after the
    /// last one.
    fn batch(&mut self) -> Result<bool, Box<dyn Error>> {
        let again_before = self.again;
        let mut ended = false;
        let mut until: Option<Instant> = None;
        while self.held.len() < BATCH {
            let left = until.map_or(BATCH_TIME, |at| at.saturating_duration_since(Instant::now()));
            match self.readings.recv_timeout(left) {
                Ok(delivery) => {
                    until.get_or_insert_with(|| Instant::now() + BATCH_TIME);
                    self.take(delivery)?;
                }
                Err(RecvError::Empty) => break,
                Err(RecvError::Ended) => {
                    ended = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.recorder
            .flush(Some(RECORDER_TIMEOUT))
            .map_err(|error| format!("the recorder does not acknowledge: {error}"))?;
        for delivery in self.held.drain(..) {
            self.readings.acknowledge(delivery)?;
        }
        self.readings.flush()?;
        if self.again > again_before {
            let readings = counted(self.again - again_before, "reading");
            let text = format!("{readings} redelivered, marked");
            self.tell(Rates::default(), Some(text))?;
        }
        say(&self.said())?;
        Ok(!ended)
    }

    fn take(&mut self, delivery: Delivery<Json<Reading>>) -> Result<(), Box<dyn Error>> {
        let reading = &delivery.message.0;
        if reading.checksum != reading.right_checksum() {
            return Err(format!("reading {} came with a wrong checksum", reading.sequence).into());
        }
        self.taken += 1;
        self.again += u64::from(delivery.redelivered);
        let rates = rates(&self.window, reading);
        let record = record(reading, delivery.redelivered, &rates);
        self.window.push_back(reading.clone());
        let oldest = reading.at_us.saturating_sub(WINDOW_US);
        while self.window.front().is_some_and(|old| old.at_us < oldest) {
            self.window.pop_front();
        }
        self.held.push(delivery);
        self.recorder.send(&Text(record))?;
        let alert = self.alert(&rates);
        self.tell(rates, alert)?;
        if self.held.len() == BATCH / 2 {
            say(&self.said())?;
        }
        Ok(())
    }

    fn alert(&mut self, rates: &Rates) -> Option<String> {
        let percent = rates.cpu_percent?;
        let was_busy = self.busy;
        self.busy = percent > if was_busy { NO_LONGER_BUSY_PERCENT } else { BUSY_PERCENT };
        (self.busy && !was_busy).then(|| format!("the processors are {percent:.0} % busy"))
    }

    /// Waits while the queue is full: nothing is dropped.
    fn tell(&mut self, rates: Rates, alert: Option<String>) -> Result<(), Box<dyn Error>> {
        let priority = if alert.is_some() { ALERT_PRIORITY } else { 0 };
        let news = News { pid: std::process::id(), number: self.told + 1, rates, alert };
        self.dashboard.send_with_priority(&Json(news), priority)?;
        self.told += 1;
        Ok(())
    }

    fn said(&self) -> Said {
        Said::Processor {
            taken: self.taken,
            again: self.again,
            held: self.held.len() as u64,
            told: self.told,
        }
    }
}

/// What changed between the oldest reading of the window and this one.
fn rates(window: &VecDeque<Reading>, now: &Reading) -> Rates {
    let mut rates = Rates {
        memory_used_bytes: difference(now.memory_total_bytes, now.memory_available_bytes),
        memory_total_bytes: now.memory_total_bytes,
        ..Rates::default()
    };
    let Some(then) = window.front() else { return rates };
    let time_us = now.at_us.saturating_sub(then.at_us);
    if time_us < SHORTEST_WINDOW_US {
        return rates;
    }
    let per_second = |bytes: u64| bytes as f64 * 1e6 / time_us as f64;
    rates.network_in_bytes_per_s =
        difference(now.network_in_bytes, then.network_in_bytes).map(per_second);
    rates.network_out_bytes_per_s =
        difference(now.network_out_bytes, then.network_out_bytes).map(per_second);
    let all = difference(now.all_ticks, then.all_ticks);
    // The kernel's count of idle time can go back a little.
    let idle = difference(now.idle_ticks, then.idle_ticks);
    rates.cpu_percent = all
        .zip(idle)
        .filter(|(all, idle)| *all > 0 && idle <= all)
        .map(|(all, idle)| 100.0 * (all - idle) as f64 / all as f64);
    rates
}

fn difference(more: Option<u64>, less: Option<u64>) -> Option<u64> {
    more?.checked_sub(less?)
}

/// The record as the recorder gets it; see the check for how it is read.
fn record(reading: &Reading, redelivered: bool, rates: &Rates) -> String {
    let mut record = format!(
        "sequence={} reading={} at_us={} cpu={:.1} memory={} in={:.0} out={:.0} by={} source={:08x}",
        reading.sequence,
        if redelivered { "again" } else { "first" },
        reading.at_us,
        OrDash(rates.cpu_percent),
        OrDash(rates.memory_used_bytes),
        OrDash(rates.network_in_bytes_per_s),
        OrDash(rates.network_out_bytes_per_s),
        std::process::id(),
        reading.checksum,
    );
    record += &format!(" checksum={:08x}", checksum(record.as_bytes()));
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_us: u64, idle: u64, all: u64, received: u64) -> Reading {
        Reading {
            sequence: 1,
            at_us,
            idle_ticks: Some(idle),
            all_ticks: Some(all),
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(400),
            network_in_bytes: Some(received),
            network_out_bytes: None,
            checksum: 0,
        }
    }

    #[test]
    fn rates_follow_from_two_readings() {
        let window = VecDeque::from([reading(0, 100, 200, 5000)]);
        let found = rates(&window, &reading(500_000, 125, 300, 6000));
        assert_eq!(found.cpu_percent, Some(75.0));
        assert_eq!(found.memory_used_bytes, Some(600));
        assert_eq!(found.network_in_bytes_per_s, Some(2000.0));
        assert_eq!(found.network_out_bytes_per_s, None);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        assert_eq!(rates(&VecDeque::new(), &reading(9, 9, 9, 9)).cpu_percent, None);
        let window = VecDeque::from([reading(0, 100, 200, 5000)]);
        let too_soon = rates(&window, &reading(1000, 101, 201, 5001));
        assert_eq!((too_soon.cpu_percent, too_soon.network_in_bytes_per_s), (None, None));
        let backwards = rates(&window, &reading(500_000, 90, 200, 4000));
        assert_eq!((backwards.cpu_percent, backwards.network_in_bytes_per_s), (None, None));
    }
}
