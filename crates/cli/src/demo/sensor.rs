//! The sensor: reads how busy this machine is, many times a second, and keeps a ledger of what was
//! acknowledged.
//!
//! Source: `proc_stat(5)`, `proc_meminfo(5)`, `proc_pid_net(5)`. What a file does not have is left
//! out, never made up.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard::{Json, Options, Publisher, Queue, SendError, Sender, Text, Topic};

use super::words::{Places, Reading, Said, say};

use crate::output::counted;

/// How often it reads.
pub(crate) const READINGS_PER_SECOND: u32 = 200;
const EVERY: Duration = Duration::from_micros(1_000_000 / READINGS_PER_SECOND as u64);
/// Every how many readings it sends a heartbeat, and says how far it is.
const HEARTBEAT_EVERY: u64 = 20;
const SAY_EVERY: u64 = 10;
/// How long the dashboard may take to meet the sensor.
const MEET_WITHIN: Duration = Duration::from_secs(5);
/// Readings that wait while nobody takes them. With more, it pauses.
const MOST_WAITING: usize = 4096;

/// Reads and sends until SIGTERM; then waits until everything is acknowledged.
pub(crate) fn run(places: &Places) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    // It has to end some day if the processor never comes back.
    let options = Options::default().linger(Some(Duration::from_secs(8)));
    let readings = Queue::open_with(&places.readings(), options.clone())?.sender()?;
    let mut heartbeat = Queue::<Text>::open_with(&places.heartbeat(), options)?.sender()?;
    let mut ticks = Topic::open(&places.ticks())?.publisher()?;
    // A topic tells whoever is there: the first tick waits for the dashboard.
    ticks.wait_for_peers(1, Some(MEET_WITHIN))?;
    let mut sensor = Sensor {
        readings,
        ticks,
        ledger: File::create_new(places.ledger())?,
        waiting: VecDeque::new(),
        unsettled: VecDeque::new(),
        entered: 0,
        next: 1,
        started: Instant::now(),
    };
    let mut heartbeats = 0;
    say(&Said::Ready { address: None })?;
    let mut due = Instant::now();
    for tick in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sensor.read()?;
        sensor.move_on()?;
        if tick.is_multiple_of(HEARTBEAT_EVERY) {
            heartbeats += 1;
            heartbeat.send(&Text(format!("heartbeat {heartbeats}")))?;
        }
        if tick.is_multiple_of(SAY_EVERY) {
            say(&sensor.said(heartbeats))?;
        }
        due += EVERY;
        // After a pause it goes on from now instead of catching up.
        due = due.max(Instant::now().checked_sub(EVERY).unwrap_or(due));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    heartbeat.close()?;
    sensor.finish(heartbeats)
}

struct Sensor {
    readings: Sender<Json<Reading>>,
    ticks: Publisher<Text>,
    ledger: File,
    /// Read and not accepted by the sender yet: nobody is there, or it has enough in its hands.
    waiting: VecDeque<Reading>,
    /// Sequence and checksum of what was sent and is not in the ledger.
    unsettled: VecDeque<(u64, u32)>,
    /// Entered into the ledger.
    entered: u64,
    next: u64,
    started: Instant,
}

impl Sensor {
    fn read(&mut self) -> Result<(), SendError> {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(take_reading(self.next, self.started));
            self.ticks.send(&Text(format!("tick {}", self.next)))?;
            self.next += 1;
        }
        Ok(())
    }

    /// Sends what can be sent without waiting, and enters into the ledger what was acknowledged.
    fn move_on(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(reading) = self.waiting.pop_front() {
            let key = (reading.sequence, reading.checksum);
            let message = Json(reading);
            match self.readings.try_send(&message) {
                Ok(()) => self.unsettled.push_back(key),
                Err(SendError::Full) => {
                    self.waiting.push_front(message.0);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.readings.drive()?;
        self.enter()
    }

    /// One sender's acknowledgements come in the order of its messages.
    fn enter(&mut self) -> Result<(), Box<dyn Error>> {
        let mut lines = String::new();
        while self.entered < self.readings.acknowledged() {
            let Some((sequence, checksum)) = self.unsettled.pop_front() else { break };
            self.entered += 1;
            lines += &format!("acknowledged {sequence} {checksum:08x}\n");
        }
        Ok(self.ledger.write_all(lines.as_bytes())?)
    }

    fn said(&self, heartbeats: u64) -> Said {
        Said::Sensor {
            sent: self.readings.sent(),
            acknowledged: self.readings.acknowledged(),
            waiting: self.waiting.len() as u64,
            heartbeats,
        }
    }

    /// Sends the rest and waits until all of it is acknowledged.
    fn finish(mut self, heartbeats: u64) -> Result<(), Box<dyn Error>> {
        let give_up = Instant::now() + Duration::from_secs(8);
        while !self.waiting.is_empty() && Instant::now() < give_up {
            self.move_on()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let finished = self.readings.finish();
        self.enter()?;
        finished?;
        if !self.waiting.is_empty() {
            let readings = counted(self.waiting.len() as u64, "reading");
            return Err(format!("{readings} could not be sent").into());
        }
        self.ticks.finish()?;
        writeln!(self.ledger, "ticks {}", self.next - 1)?;
        writeln!(self.ledger, "heartbeats {heartbeats}")?;
        say(&self.said(heartbeats))?;
        Ok(())
    }
}

fn take_reading(sequence: u64, started: Instant) -> Reading {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let ticks = ticks(&file("/proc/stat"));
    let meminfo = file("/proc/meminfo");
    let network = network_bytes(&file("/proc/net/dev"));
    let mut reading = Reading {
        sequence,
        at_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        idle_ticks: ticks.map(|(idle, _)| idle),
        all_ticks: ticks.map(|(_, all)| all),
        memory_total_bytes: memory_bytes(&meminfo, "MemTotal:"),
        memory_available_bytes: memory_bytes(&meminfo, "MemAvailable:"),
        network_in_bytes: network.map(|(received, _)| received),
        network_out_bytes: network.map(|(_, sent)| sent),
        checksum: 0,
    };
    reading.checksum = reading.right_checksum();
    reading
}

/// `cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL …`: idle ticks (with iowait) and all ticks.
/// What guests use is contained in user and nice.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.lines().find(|line| line.starts_with("cpu "))?.split_whitespace().skip(1);
    let numbers: Vec<u64> = words.by_ref().take(8).map_while(|word| word.parse().ok()).collect();
    if numbers.len() < 4 {
        return None;
    }
    let idle = numbers[3].saturating_add(numbers.get(4).copied().unwrap_or(0));
    Some((idle, numbers.iter().fold(0, |sum: u64, n| sum.saturating_add(*n))))
}

/// `MemTotal:  16384 kB`.
fn memory_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// `eth0: BYTES PACKETS …×7 BYTES …`: received and sent, of all interfaces but `lo`; `None` if
/// there is no other.
fn network_bytes(dev: &str) -> Option<(u64, u64)> {
    let mut sum = None;
    for line in dev.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let number = |at| numbers.split_whitespace().nth(at).and_then(|n| n.parse::<u64>().ok());
        if let (Some(received), Some(sent)) = (number(0), number(8))
            && name.trim() != "lo"
        {
            let (all_received, all_sent) = sum.unwrap_or((0_u64, 0_u64));
            sum = Some((all_received.wrapping_add(received), all_sent.wrapping_add(sent)));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let stat = "cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 1 1 1\nintr 5\n";
        assert_eq!(ticks(stat), Some((340, 389)));
        assert_eq!(ticks("cpu  10 1 20\n"), None);
        assert_eq!(ticks("cpux 1 2 3 4\n"), None);
        assert_eq!(ticks(""), None);
        let meminfo = "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(memory_bytes(meminfo, "MemTotal:"), Some(2 << 20));
        assert_eq!(memory_bytes(meminfo, "MemAvailable:"), Some(1 << 20));
        assert_eq!(memory_bytes("MemTotal: many kB", "MemTotal:"), None);
        assert_eq!(memory_bytes("MemTotal: 18446744073709551615 kB", "MemTotal:"), None);
        let dev = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
                   lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  \
                   eth0:100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n  wlan0: 1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(network_bytes(dev), Some((101, 202)));
        assert_eq!(network_bytes("lo: 9 1 0 0 0 0 0 0 9\n"), None);
        assert_eq!(network_bytes("eth0: nonsense\n"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let reading = take_reading(7, Instant::now());
        assert_eq!(reading.sequence, 7);
        assert!(reading.all_ticks >= reading.idle_ticks && reading.all_ticks.is_some());
        assert!(reading.memory_total_bytes >= reading.memory_available_bytes);
        assert_eq!(reading.checksum, reading.right_checksum());
    }
}
