//! `file:`, the log on disk: a queue's rate against a POSIX queue, and synced batches against bare
//! `write` and `fdatasync`: of the same messages, gathered in memory and written with one call as a
//! program without a log would; and of bytes that are there already, which nobody has to gather.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use switchboard::{Bytes, Options, Queue, Receiver, Sender};
use switchboard_kernel::posix_mq::{Access, CreateOptions, MessageQueue, unlink};

use crate::figures::{median, median_ratio, ratio_range, table};
use crate::{Failure, LOG_PEER, load, pin, two_cpus};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; 11 unless said otherwise, 3 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Where the logs are made; a folder on a disk
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: std::path::PathBuf,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

/// The size of a message.
const BYTES: usize = 64;
/// Messages of one run over a POSIX queue, and over a log.
const QUEUE_MESSAGES: u64 = 200_000;
const LOG_MESSAGES: u64 = 4_000_000;
/// Messages that are sent off at once.
const BATCH: u64 = 1024;
/// Large and small messages that are synced, and how many in a batch.
const LARGE: (usize, u64) = (4096, 64);
const SMALL: (usize, u64) = (BYTES, BATCH);
/// More small ones than go into one batch of the log.
const MANY_SMALL: (usize, u64) = (BYTES, 16 * BATCH);
/// Batches of one synced run.
const SYNCED_BATCHES: u64 = 256;

const MOST_RATE: f64 = 10.0;
const LEAST_SYNCED: f64 = 0.9;

/// What a line compares.
#[derive(Clone, Copy)]
enum Compared {
    /// A queue between two processes with a POSIX queue.
    Queue { same_core: bool },
    /// Synced batches with those of a bare program.
    Synced { shape: (usize, u64), bare: &'static str },
}

/// A bare program that gathers messages, and one that has their bytes already.
const GATHERED: &str = "bare-gathered";
const READY: &str = "bare-ready";

/// One line of the result.
struct Line {
    name: &'static str,
    compared: Compared,
    ours: Vec<f64>,
    others: Vec<f64>,
    /// What is to be reached, where anything is.
    target: Option<f64>,
}

impl Line {
    fn ratio(&self) -> f64 {
        median_ratio(&self.ours, &self.others)
    }
}

/// Whether the log is as fast as it should be.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 11 });
    let (first, second) = two_cpus()?;
    let folder = arguments.folder.join(format!("switchboard-bench-log-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let measured = measure(rounds, (first, second), &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let lines = measured?;
    if arguments.json {
        let lines: Vec<_> = lines
            .iter()
            .map(
                |l| json!({ "what": l.name, "log": l.ours, "other": l.others, "ratio": l.ratio() }),
            )
            .collect();
        println!("{:#}", json!(lines));
    } else {
        print(&lines);
    }
    Ok(lines.iter().all(|line| line.target.is_none_or(|target| line.ratio() >= target)))
}

fn measure(rounds: usize, cpus: (usize, usize), folder: &Path) -> Result<Vec<Line>, Failure> {
    let line = |name, compared, target| Line {
        name,
        compared,
        ours: Vec::new(),
        others: Vec::new(),
        target,
    };
    let queue = |same_core| Compared::Queue { same_core };
    let synced = |shape, bare| Compared::Synced { shape, bare };
    let least = Some(LEAST_SYNCED);
    let mut lines = [
        line("64 B, two cores, against a POSIX queue", queue(false), Some(MOST_RATE)),
        line("64 B, same core, against a POSIX queue", queue(true), None),
        line("4 KiB, synced each 64", synced(LARGE, GATHERED), least),
        line("4 KiB, synced each 64, against ready bytes", synced(LARGE, READY), least),
        line("64 B, synced each 1024", synced(SMALL, GATHERED), least),
        line("64 B, synced each 1024, against ready bytes", synced(SMALL, READY), least),
        line("64 B, synced each 16384", synced(MANY_SMALL, GATHERED), least),
        line("64 B, synced each 16384, against ready bytes", synced(MANY_SMALL, READY), least),
    ];
    // The first round warms up.
    for round in 0..=rounds {
        eprintln!("round {round} of {rounds}, load {}", load());
        for line in &mut lines {
            // Whoever goes first alternates.
            let mut figures = [0.0; 2];
            for step in 0..2 {
                let ours = (round + step) % 2 == 0;
                figures[usize::from(!ours)] = match line.compared {
                    Compared::Queue { same_core } => {
                        let cpus = if same_core { (cpus.0, cpus.0) } else { cpus };
                        if ours {
                            pair("log", LOG_MESSAGES, cpus, folder)?
                        } else {
                            pair("queue", QUEUE_MESSAGES, cpus, folder)?
                        }
                    }
                    Compared::Synced { shape, bare } => {
                        let what = if ours { "log-synced" } else { bare };
                        alone(what, shape, cpus.0, folder)?
                    }
                };
            }
            if round > 0 {
                line.ours.push(figures[0]);
                line.others.push(figures[1]);
            }
        }
    }
    Ok(lines.into())
}

/// Messages a second of a run with two processes.
fn pair(what: &str, count: u64, cpus: (usize, usize), folder: &Path) -> Result<f64, Failure> {
    let place = folder.join("log");
    let name = format!("/switchboard-bench-{}", std::process::id());
    let count_text = count.to_string();
    let words = |side: &str, cpu: usize| {
        let place = if what == "log" { place.display().to_string() } else { name.clone() };
        [what.to_owned(), side.to_owned(), count_text.clone(), cpu.to_string(), place]
    };
    let (mut receiver, mut heard) = start(&words("receive", cpus.1))?;
    expect(&mut heard, "ready")?;
    let (mut sender, _) = start(&words("send", cpus.0))?;
    let mut line = String::new();
    heard.read_line(&mut line)?;
    let ended = sender.wait()?.success() && receiver.wait()?.success();
    let _ = unlink(&name);
    let _ = std::fs::remove_dir_all(&place);
    let elapsed_ns: f64 = line.trim().parse().map_err(|_| format!("a receiver said {line:?}"))?;
    if ended { Ok(count as f64 * 1e9 / elapsed_ns) } else { Err("a side failed".into()) }
}

/// Messages a second of a run with one process.
fn alone(
    what: &str,
    (bytes, batch): (usize, u64),
    cpu: usize,
    folder: &Path,
) -> Result<f64, Failure> {
    let place = folder.join("alone");
    let words = [what, &bytes.to_string(), &batch.to_string(), &cpu.to_string()].map(str::to_owned);
    let words = [&words[..], &[place.display().to_string()]].concat();
    let (mut child, mut heard) = start(&words)?;
    let mut line = String::new();
    heard.read_line(&mut line)?;
    let ended = child.wait()?.success();
    let _ = std::fs::remove_dir_all(&place);
    let _ = std::fs::remove_file(&place);
    let elapsed_ns: f64 = line.trim().parse().map_err(|_| format!("a sender said {line:?}"))?;
    let count = (SYNCED_BATCHES * batch) as f64;
    if ended { Ok(count * 1e9 / elapsed_ns) } else { Err("the sender failed".into()) }
}

type Heard = BufReader<std::process::ChildStdout>;

fn start(words: &[String]) -> Result<(Child, Heard), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(LOG_PEER)
        .args(words)
        .stdout(Stdio::piped())
        .spawn()?;
    let heard = child.stdout.take().ok_or("no standard output")?;
    Ok((child, BufReader::new(heard)))
}

fn expect(heard: &mut Heard, expected: &str) -> Result<(), Failure> {
    let mut line = String::new();
    heard.read_line(&mut line)?;
    if line.trim() == expected { Ok(()) } else { Err(format!("{line:?}, not {expected}").into()) }
}

/// One side: `WHAT SIDE COUNT CPU PLACE`; of the synced ones `WHAT BYTES BATCH CPU PLACE`.
pub(crate) fn peer(words: &[String]) -> Result<(), Failure> {
    let [what, side, count, cpu, place] = words else { return Err("five words are needed".into()) };
    pin(cpu.parse()?)?;
    let count: u64 = count.parse()?;
    match (what.as_str(), side.as_str()) {
        ("log", "send") => {
            let mut sender = log_queue(place, "")?.sender()?;
            log_batches(&mut sender, vec![7; BYTES], count, BATCH)?;
            Ok(sender.close()?)
        }
        ("log", _) => log_receive(&log_queue(place, "")?, count),
        ("log-synced", bytes) => {
            let mut sender = log_queue(place, "?durability=synced")?.sender()?;
            // A first batch, so that files and folders are there.
            let message = vec![7; bytes.parse()?];
            log_batches(&mut sender, message.clone(), count, count)?;
            let started = Instant::now();
            log_batches(&mut sender, message, SYNCED_BATCHES * count, count)?;
            say(started)
        }
        (GATHERED, bytes) => bare_gathered(place, &vec![7; bytes.parse()?], count),
        (READY, bytes) => bare_ready(place, bytes.parse::<usize>()? * count as usize),
        (_, "send") => queue_send(place, count),
        _ => queue_receive(place, count),
    }
}

fn log_queue(place: &str, query: &str) -> Result<Queue<Bytes>, Failure> {
    let options = Options::default().prefetch(32_768).acknowledge_every(4096);
    Ok(Queue::open_with(&format!("file:{place}{query}"), options)?)
}

/// Sends messages, and sends them off in batches.
fn log_batches(
    sender: &mut Sender<Bytes>,
    mut message: Vec<u8>,
    count: u64,
    batch: u64,
) -> Result<(), Failure> {
    for n in 0..count {
        message[..8].copy_from_slice(&n.to_le_bytes());
        sender.feed(&message)?;
        if (n + 1) % batch == 0 {
            sender.push()?;
        }
    }
    Ok(sender.push()?)
}

fn log_receive(queue: &Queue<Bytes>, count: u64) -> Result<(), Failure> {
    let mut receiver: Receiver<Bytes> = queue.receiver()?;
    ready()?;
    let mut started = None;
    let (mut seen, mut sum) = (0, 0_u64);
    while seen < count {
        seen += receiver.recv_each(4096, Some(Duration::from_secs(60)), |incoming, _| {
            started.get_or_insert_with(Instant::now);
            sum = sum.wrapping_add(first_word(incoming.bytes));
            true
        })? as u64;
    }
    check(sum, count)?;
    say(started.ok_or("nothing came")?)
}

fn queue_send(name: &str, count: u64) -> Result<(), Failure> {
    let queue = MessageQueue::open(name, Access::Send)?;
    let mut message = [7; BYTES];
    for n in 0..count {
        message[..8].copy_from_slice(&n.to_le_bytes());
        queue.send(&message, 0)?;
    }
    Ok(())
}

fn queue_receive(name: &str, count: u64) -> Result<(), Failure> {
    let options = CreateOptions::default().max_messages(10).message_size_bytes(BYTES as u32);
    let queue = MessageQueue::create(name, Access::Both, &options)?;
    ready()?;
    let mut buffer = [0; BYTES];
    let (mut started, mut sum) = (None, 0_u64);
    for _ in 0..count {
        queue.recv(&mut buffer)?;
        started.get_or_insert_with(Instant::now);
        sum = sum.wrapping_add(first_word(&buffer));
    }
    check(sum, count)?;
    say(started.ok_or("nothing came")?)
}

/// The same messages, each with its number, gathered and written in the same batches, each synced.
fn bare_gathered(place: &str, message: &[u8], count: u64) -> Result<(), Failure> {
    let mut file = File::create(place)?;
    let mut message = message.to_vec();
    let mut batch = Vec::new();
    let mut number: u64 = 0;
    let mut write = || -> std::io::Result<()> {
        batch.clear();
        for _ in 0..count {
            message[..8].copy_from_slice(&number.to_le_bytes());
            batch.extend_from_slice(&message);
            number += 1;
        }
        file.write_all(&batch)?;
        file.sync_data()
    };
    write()?;
    let started = Instant::now();
    for _ in 0..SYNCED_BATCHES {
        write()?;
    }
    say(started)
}

/// As many bytes, which are there already, written in the same batches, each synced.
fn bare_ready(place: &str, batch_bytes: usize) -> Result<(), Failure> {
    let mut file = File::create(place)?;
    let batch = vec![7; batch_bytes];
    let mut write = || -> std::io::Result<()> {
        file.write_all(&batch)?;
        file.sync_data()
    };
    write()?;
    let started = Instant::now();
    for _ in 0..SYNCED_BATCHES {
        write()?;
    }
    say(started)
}

fn first_word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Every message was read, and each once.
fn check(sum: u64, count: u64) -> Result<(), Failure> {
    let expected: u64 = (0..count).sum();
    if sum == expected { Ok(()) } else { Err(format!("a sum of {sum}, not {expected}").into()) }
}

fn ready() -> Result<(), Failure> {
    println!("ready");
    Ok(std::io::stdout().flush()?)
}

fn say(started: Instant) -> Result<(), Failure> {
    println!("{}", started.elapsed().as_nanos());
    Ok(())
}

fn print(lines: &[Line]) {
    let rows: Vec<[String; 5]> = lines
        .iter()
        .map(|line| {
            let (low, high) = ratio_range(&line.ours, &line.others);
            let is_missed = line.target.is_some_and(|target| line.ratio() < target);
            let missed = if is_missed { " MISSED" } else { "" };
            [
                line.name.to_owned(),
                format!("{:.0}", median(line.ours.iter().copied())),
                format!("{:.0}", median(line.others.iter().copied())),
                format!("{:.2} ({low:.2}-{high:.2}){missed}", line.ratio()),
                line.target.map_or_else(|| "-".to_owned(), |target| target.to_string()),
            ]
        })
        .collect();
    println!(
        "{}",
        table(["messages a second", "log", "other", "ratio (range)", "to be reached"], &rows)
    );
}
