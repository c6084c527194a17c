//! A file, sent by one program and received by another, into a consumer that checks it.
//!
//! The plumbing is the same for all contenders: `SENDER < file`, and `RECEIVER | consumer` over a
//! pipe of the system's size. Programs are placed by the scheduler, as in real use.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;

use crate::figures::{median, median_ratio, ratio_range, table};
use crate::scratch::Scratch;
use crate::{CONSUME, Failure, consumer, load};

/// What all transfers have in common.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fewer rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Rounds; 11 unless said otherwise, 5 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Only contenders whose name contains this (may be repeated); baselines stay
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Print JSON, with the figures of every round
    #[arg(long)]
    json: bool,
}

/// A way to move a file.
pub(crate) struct Contender {
    pub(crate) name: String,
    /// Gives the words of the sender and of the receiver for a run of its own.
    pub(crate) words: Box<Words>,
    /// A name that the receiver makes: the sender is not started before it is there.
    pub(crate) appears: Option<&'static str>,
    pub(crate) baseline: bool,
}

/// Makes the words of a sender and of a receiver.
type Words = dyn Fn(&Run<'_>) -> Result<[Vec<String>; 2], Failure>;

/// A ratio that is to be reached: the time of the first over that of the second.
pub(crate) struct Target {
    pub(crate) baseline: &'static str,
    pub(crate) at_least: f64,
}

/// One run's place.
pub(crate) struct Run<'a> {
    scratch: &'a Scratch,
    number: usize,
}

impl Run<'_> {
    /// A path for this run alone.
    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path(&format!("{}.{name}", self.number))
    }
}

/// The file to move, and what the consumer must find.
pub(crate) struct Input {
    path: PathBuf,
    expected: (u64, u64),
}

/// Makes the input of `bytes` bytes, filled block by block.
pub(crate) fn input(
    scratch: &Scratch,
    bytes: u64,
    mut fill: impl FnMut(&mut [u8]),
) -> Result<Input, Failure> {
    let path = scratch.path("input");
    let mut file = BufWriter::new(File::create(&path)?);
    let mut block = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        fill(&mut block);
        let n = left.min(block.len() as u64);
        file.write_all(&block[..n as usize])
            .map_err(|error| format!("{} of {bytes} bytes: {error}", path.display()))?;
        left -= n;
    }
    file.flush()?;
    drop(file);
    let expected = consumer::of_file(File::open(&path)?)?;
    Ok(Input { path, expected })
}

/// Numbers without a pattern.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Runs all contenders in turn, and prints. Whether every target is reached.
pub(crate) fn compare(
    benchmark: &str,
    arguments: &Arguments,
    scratch: &Scratch,
    input: &Input,
    mut contenders: Vec<Contender>,
    targets: &[Target],
) -> Result<bool, Failure> {
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word.as_str()))
    };
    contenders.retain(|contender| contender.baseline || wanted(&contender.name));
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 5 } else { 11 });
    let mut seconds = vec![Vec::new(); contenders.len()];
    let mut number = 0;
    // Round 0 warms up and is not counted.
    for round in 0..=rounds {
        eprintln!("round {round} of {rounds}, load {}", load());
        for step in 0..contenders.len() {
            // Whoever goes first moves on from round to round.
            let at = (round + step) % contenders.len();
            number += 1;
            let took = transfer(&contenders[at], &Run { scratch, number }, input)
                .map_err(|error| format!("{}: {error}", contenders[at].name))?;
            if round > 0 {
                seconds[at].push(took.as_secs_f64());
            }
        }
    }
    let outcome = Outcome { contenders: &contenders, seconds: &seconds, targets, input };
    if arguments.json {
        println!("{:#}", outcome.as_json(benchmark));
    } else {
        outcome.print();
    }
    Ok(outcome.reached())
}

/// No transfer takes this long, unless it hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// How long it takes from the sender's start until all three programs have ended.
fn transfer(contender: &Contender, run: &Run<'_>, input: &Input) -> Result<Duration, Failure> {
    let [sender, receiver] = (contender.words)(run)?;
    let (reader, writer) = pipe::pipe()?;
    let mut consumer = started(
        Command::new(std::env::current_exe()?).arg(CONSUME).stdin(reader).stdout(Stdio::piped()),
    )?;
    let mut receiver = start(&receiver, Stdio::null(), writer.into())?;
    if let Some(name) = contender.appears {
        wait_until_there(&run.file(name), &mut receiver)?;
    }
    // Long enough for a receiver to start; the same for all.
    std::thread::sleep(Duration::from_millis(100));
    let file = OwnedFd::from(File::open(&input.path)?);
    let start_time = Instant::now();
    let mut sender = start(&sender, file.into(), Stdio::null())?;
    let mut found = String::new();
    if let Some(output) = &mut consumer.0.stdout {
        if !io::wait_for(&*output, Interest::Readable, Deadline::after(LONGEST))? {
            return Err(format!("still under way after {LONGEST:?}: it hangs").into());
        }
        output.read_to_string(&mut found)?;
    }
    for (child, what) in
        [(&mut consumer, "consumer"), (&mut receiver, "receiver"), (&mut sender, "sender")]
    {
        let status = child.0.wait()?;
        if !status.success() {
            return Err(format!("the {what} ended with {status}").into());
        }
    }
    let took = start_time.elapsed();
    let (bytes, sum) = input.expected;
    if found.trim() != format!("{bytes} {sum:016x}") {
        return Err(format!("expected {bytes} {sum:016x}, {} arrived", found.trim()).into());
    }
    Ok(took)
}

/// A child that does not outlive its measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn start(words: &[String], stdin: Stdio, stdout: Stdio) -> Result<Running, Failure> {
    started(Command::new(&words[0]).args(&words[1..]).stdin(stdin).stdout(stdout))
}

fn started(command: &mut Command) -> Result<Running, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    Ok(Running(command.spawn().map_err(|error| format!("{name}: {error}"))?))
}

fn wait_until_there(path: &Path, receiver: &mut Running) -> Result<(), Failure> {
    let start = Instant::now();
    while !path.exists() {
        if let Some(status) = receiver.0.try_wait()? {
            return Err(format!("the receiver ended with {status} before anything came").into());
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("{} did not appear", path.display()).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

struct Outcome<'a> {
    contenders: &'a [Contender],
    seconds: &'a [Vec<f64>],
    targets: &'a [Target],
    input: &'a Input,
}

impl Outcome<'_> {
    fn of(&self, name: &str) -> &[f64] {
        let at = self.contenders.iter().position(|contender| contender.name == name);
        at.map_or(&[], |at| &self.seconds[at])
    }

    fn reached(&self) -> bool {
        self.contenders.iter().zip(self.seconds).all(|(contender, seconds)| {
            contender.baseline
                || self.targets.iter().all(|target| {
                    median_ratio(self.of(target.baseline), seconds) >= target.at_least
                })
        })
    }

    fn print(&self) {
        let mib = self.input.expected.0 as f64 / f64::from(1 << 20);
        println!("{mib:.0} MiB; times faster than a baseline within a round: median (range):\n");
        let mut heads = vec!["contender".to_owned(), "seconds".to_owned(), "MiB/s".to_owned()];
        heads.extend(self.targets.iter().map(|target| format!("× {}", target.baseline)));
        heads.resize(5, String::new());
        let rows: Vec<[String; 5]> = self
            .contenders
            .iter()
            .zip(self.seconds)
            .map(|(contender, seconds)| {
                let took = median(seconds.iter().copied());
                let against = |at: usize| {
                    let Some(target) = self.targets.get(at) else { return String::new() };
                    let baseline = self.of(target.baseline);
                    let (low, high) = ratio_range(baseline, seconds);
                    let ratio = median_ratio(baseline, seconds);
                    let missed = !contender.baseline && ratio < target.at_least;
                    let mark = if missed { " MISSED" } else { "" };
                    format!("{ratio:.2} ({low:.2}-{high:.2}){mark}")
                };
                let name = contender.name.clone();
                let rate = format!("{:.0}", mib / took);
                [name, format!("{took:.3}"), rate, against(0), against(1)]
            })
            .collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        if let Ok(heads) = <[&str; 5]>::try_from(heads) {
            println!("{}\n", table(heads, &rows));
        }
        for Target { baseline, at_least } in self.targets {
            println!("target: at least {at_least} times as fast as {baseline}");
        }
    }

    fn as_json(&self, benchmark: &str) -> serde_json::Value {
        let contender = |(contender, seconds): (&Contender, &Vec<f64>)| {
            let against = |target: &Target| {
                let ratio = median_ratio(self.of(target.baseline), seconds);
                (target.baseline.to_owned(), ratio.into())
            };
            let ratios = self.targets.iter().map(against);
            json!({
                "contender": contender.name,
                "baseline": contender.baseline,
                "seconds": seconds,
                "median_seconds": median(seconds.iter().copied()),
                "times_faster_than": ratios.collect::<serde_json::Map<_, _>>(),
            })
        };
        let contenders: Vec<_> = self.contenders.iter().zip(self.seconds).map(contender).collect();
        json!({
            "benchmark": benchmark,
            "bytes": self.input.expected.0,
            "contenders": contenders,
            "reached": self.reached(),
        })
    }
}

/// `words!["socat", "-u", path]`
macro_rules! words {
    ($($word:expr),* $(,)?) => { vec![$(String::from($word)),*] };
}
pub(crate) use words;

/// `cat` through a FIFO.
pub(crate) fn cat() -> Contender {
    let words = |run: &Run<'_>| -> Result<_, Failure> {
        let fifo = run.file("fifo");
        switchboard_kernel::fifo::create(&fifo, switchboard_kernel::Permissions::new())?;
        let fifo = fifo.to_string_lossy();
        // The shell opens the FIFO, as `cat < file > fifo` does.
        Ok([words!["sh", "-c", "exec cat > \"$0\"", fifo.clone()], words!["cat", fifo]])
    };
    Contender { name: CAT.into(), words: Box::new(words), appears: None, baseline: true }
}

/// `socat` through a Unix socket, with this block size or its own.
pub(crate) fn socat(block_bytes: Option<usize>) -> Contender {
    let name = match block_bytes {
        None => SOCAT.to_owned(),
        Some(bytes) => format!("{SOCAT} -b {bytes}"),
    };
    let words = move |run: &Run<'_>| -> Result<_, Failure> {
        let socket = run.path("socat");
        let size: Vec<String> =
            block_bytes.map(|bytes| vec!["-b".to_owned(), bytes.to_string()]).unwrap_or_default();
        let socat = |rest: [String; 2]| -> Vec<String> {
            ["socat", "-u"].map(str::to_owned).into_iter().chain(size.clone()).chain(rest).collect()
        };
        Ok([
            socat(["STDIN".into(), format!("UNIX-CONNECT:{socket}")]),
            socat([format!("UNIX-LISTEN:{socket}"), "STDOUT".into()]),
        ])
    };
    Contender { name, words: Box::new(words), appears: Some("socat"), baseline: true }
}

/// The names of the baselines.
pub(crate) const CAT: &str = "cat, FIFO";
pub(crate) const SOCAT: &str = "socat, Unix socket";
