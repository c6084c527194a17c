//! The recorder: writes every record it gets into its file, and acknowledges it after that.
//!
//! It keeps duplicates: the check at the end is to see them, and their marks. It tells the dashboard how
//! many records are in the file.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard::{Delivery, Options, Queue, Receiver, RecvError, SendError, Text};

use super::words::{Places, Said, checksum, say};

/// Records written with one write.
const MOST_AT_ONCE: usize = 64;
const SAY_EVERY: Duration = Duration::from_millis(50);

/// Records until SIGTERM, and then what is still there.
pub(crate) fn run(places: &Places) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    // The processor dies and another one comes: that is not the end.
    let options = Options::default().follow(true);
    let mut records = Queue::<Text>::open_with("tcp:127.0.0.1:0", options)?.receiver()?;
    let mut progress = Queue::open(&places.progress())?.sender()?;
    let mut file = File::create_new(places.recorded())?;
    say(&Said::Ready { address: records.local_address() })?;
    let (mut recorded, mut again, mut said) = (0, 0, Instant::now());
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let deliveries = some(&mut records)?;
        let text: String = deliveries.iter().map(line).collect();
        file.write_all(text.as_bytes())?;
        let nothing = deliveries.is_empty();
        for delivery in deliveries {
            recorded += 1;
            again += u64::from(is_again(&delivery));
            records.acknowledge(delivery)?;
        }
        let done = stopping && nothing;
        if done || said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&Said::Recorder { recorded, again })?;
            match progress.try_send(&Text(format!("recorded {recorded}"))) {
                // The dashboard is not there yet, or is slow: it gets the next number.
                Ok(()) | Err(SendError::Full) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if done {
            // Whatever the dashboard missed, the last number it gets.
            progress.send(&Text(format!("recorded {recorded}")))?;
            return Ok(progress.finish()?);
        }
    }
}

/// What is there, after waiting a little for the first.
fn some(records: &mut Receiver<Text>) -> Result<Vec<Delivery<Text>>, RecvError> {
    let mut deliveries = Vec::new();
    let mut next = records.recv_timeout(SAY_EVERY);
    loop {
        match next {
            Ok(delivery) => deliveries.push(delivery),
            // A killed processor: its link is gone, and what arrived over it counts.
            Err(RecvError::Empty | RecvError::PeerDied { .. }) => return Ok(deliveries),
            Err(error) => return Err(error),
        }
        if deliveries.len() == MOST_AT_ONCE {
            return Ok(deliveries);
        }
        next = records.try_recv();
    }
}

fn is_again(delivery: &Delivery<Text>) -> bool {
    delivery.redelivered || delivery.message.0.contains(" reading=again ")
}

/// The record as it came, whether it came over this link before, and a checksum of all that.
fn line(delivery: &Delivery<Text>) -> String {
    let link = if delivery.redelivered { "again" } else { "first" };
    let mut line = format!("{} link={link}", delivery.message.0);
    line += &format!(" line={:08x}\n", checksum(line.as_bytes()));
    line
}
