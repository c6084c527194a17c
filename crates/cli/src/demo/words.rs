//! What the demo's processes send one another and say to the one that started them.
//!
//! Every reading and every record carries a checksum of its own text, so that the check at the end
//! can tell one that was changed or made up from one that was sent.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Where the channels of one demo are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The private folder of this demo.
    pub(crate) folder: std::path::PathBuf,
    /// The POSIX queue's name, with its slash.
    pub(crate) queue: String,
    /// Where the recorder listens, once it has said so.
    pub(crate) recorder: Option<String>,
}

impl Places {
    /// A queue in shared memory, whose ends meet in the private folder.
    pub(crate) fn readings(&self) -> String {
        format!("shm:readings?scope={}", self.folder.display())
    }

    /// A topic in shared memory.
    pub(crate) fn ticks(&self) -> String {
        format!("shm:ticks?scope={}", self.folder.display())
    }

    /// What the ends of `shm:` make in the private folder, and remove.
    pub(crate) fn meetings(&self) -> std::path::PathBuf {
        self.folder.join("shm")
    }

    pub(crate) fn progress(&self) -> String {
        format!("unix:{}/progress.sock", self.folder.display())
    }

    pub(crate) fn heartbeat(&self) -> String {
        format!("fifo:{}/heartbeat", self.folder.display())
    }

    /// The queue with sizes that every user may have.
    pub(crate) fn queue(&self) -> String {
        format!("mq:{}?max-messages=10&max-message=512", self.queue)
    }

    pub(crate) fn recorded(&self) -> std::path::PathBuf {
        self.folder.join(RECORDED)
    }

    pub(crate) fn ledger(&self) -> std::path::PathBuf {
        self.folder.join(LEDGER)
    }

    pub(crate) fn arrivals(&self) -> std::path::PathBuf {
        self.folder.join(ARRIVALS)
    }
}

/// The recorder's file: a line per record.
pub(crate) const RECORDED: &str = "recorded.txt";
/// The sensor's file: a line per acknowledged reading.
pub(crate) const LEDGER: &str = "ledger.txt";
/// The dashboard's file: a line per message that it got.
pub(crate) const ARRIVALS: &str = "arrivals.txt";

/// What the sensor read, once. What this machine does not have is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// 1 for the first.
    pub(crate) sequence: u64,
    /// Microseconds since the sensor started, by the monotonic clock.
    pub(crate) at_us: u64,
    /// Ticks of all processors since the machine started, idle and in all: `/proc/stat`.
    pub(crate) idle_ticks: Option<u64>,
    pub(crate) all_ticks: Option<u64>,
    /// `/proc/meminfo`.
    pub(crate) memory_total_bytes: Option<u64>,
    pub(crate) memory_available_bytes: Option<u64>,
    /// Of all interfaces but `lo`: `/proc/net/dev`.
    pub(crate) network_in_bytes: Option<u64>,
    pub(crate) network_out_bytes: Option<u64>,
    /// Of everything above.
    pub(crate) checksum: u32,
}

impl Reading {
    /// The checksum that this reading should carry.
    pub(crate) fn right_checksum(&self) -> u32 {
        checksum(
            format!(
                "{} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                self.sequence,
                self.at_us,
                self.idle_ticks,
                self.all_ticks,
                self.memory_total_bytes,
                self.memory_available_bytes,
                self.network_in_bytes,
                self.network_out_bytes
            )
            .as_bytes(),
        )
    }
}

/// What the processor makes of readings: how busy the machine is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) memory_total_bytes: Option<u64>,
    pub(crate) network_in_bytes_per_s: Option<f64>,
    pub(crate) network_out_bytes_per_s: Option<f64>,
}

/// From the processor to the dashboard, over the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// The processor that sent it, and the how many-th of its messages this is.
    pub(crate) pid: u32,
    pub(crate) number: u64,
    pub(crate) rates: Rates,
    /// Something that cannot wait; it comes with a higher priority.
    pub(crate) alert: Option<String>,
}

/// A line that a process says on its standard output, to the process that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It can be reached, where it has an address to tell.
    Ready {
        address: Option<String>,
    },
    Sensor {
        sent: u64,
        acknowledged: u64,
        waiting: u64,
        heartbeats: u64,
    },
    Processor {
        taken: u64,
        again: u64,
        held: u64,
        told: u64,
    },
    Recorder {
        recorded: u64,
        again: u64,
    },
    Dashboard {
        rates: Rates,
        told: u64,
        heartbeats: u64,
        ticks: u64,
        progress: u64,
    },
    Alert {
        text: String,
    },
}

/// Says it, at once.
pub(crate) fn say(said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// CRC-32 as in gzip and Ethernet (ITU-T V.42), by table.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[n] = value;
            n += 1;
        }
        table
    };
    !bytes
        .iter()
        .fold(!0, |crc: u32, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

/// A value, or `-` for what is not known.
pub(crate) struct OrDash<T>(pub(crate) Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_known_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }
}
