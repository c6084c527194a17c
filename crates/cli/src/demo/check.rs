//! The check at the end of the demo: reads the three files again and proves, or disproves, what the
//! delivery table says.
//!
//! It runs as a process of its own and shares nothing with those that wrote the files: it parses them
//! itself, has its own checksum, and uses no part of the library.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::Places;

use crate::output::counted;

/// Lines of a file that are shown when they are wrong, at most.
const MOST_EXAMPLES: usize = 3;

/// What the check found.
#[derive(Debug)]
pub(crate) struct Proof {
    /// Each statement, and whether it holds.
    pub(crate) lines: Vec<(bool, String)>,
    /// Numbers by name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Proof {
    /// Whether every statement holds.
    pub(crate) fn holds(&self) -> bool {
        self.lines.iter().all(|(holds, _)| *holds)
    }

    /// One JSON object: `holds`, `proof` and `counts`.
    pub(crate) fn to_json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|(holds, text)| json!({ "holds": holds, "text": text }))
            .collect();
        json!({ "holds": self.holds(), "proof": lines, "counts": self.counts })
    }
}

/// Reads the files and checks them against one another.
///
/// # Errors
/// A file cannot be read. What is wrong in a file is in the proof.
pub(crate) fn check(places: &Places) -> Result<Proof, Box<dyn Error>> {
    let recorded = Recorded::parse(&read(&places.recorded())?);
    let ledger = Ledger::parse(&read(&places.ledger())?);
    let arrivals = Arrivals::parse(&read(&places.arrivals())?);
    let mut proof = Proof { lines: Vec::new(), counts: BTreeMap::new() };
    acknowledged_are_numbered(&ledger, &mut proof);
    acknowledged_are_recorded(&ledger, &recorded, &mut proof);
    repeats_are_marked(&recorded, &mut proof);
    none_is_invented(&ledger, &recorded, &mut proof);
    records_are_whole(&recorded, &mut proof);
    queue_has_no_repeats(&arrivals, &mut proof);
    let (ticks, heartbeats) = (&arrivals.ticks, &arrivals.heartbeats);
    proof.each_once("once each (shm)", "ticks", ticks, ledger.ticks);
    proof.each_once("once each (fifo)", "heartbeats", heartbeats, ledger.heartbeats);
    progress_is_right(&recorded, &arrivals, &mut proof);
    nothing_is_left(&places.meetings(), &mut proof)?;
    Ok(proof)
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // Whatever is not UTF-8 fails its checksum or its form below.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn acknowledged_are_numbered(ledger: &Ledger, proof: &mut Proof) {
    let count = ledger.acknowledged.len() as u64;
    let in_turn = ledger.acknowledged.iter().zip(1..).all(|((sequence, _), n)| *sequence == n);
    let holds = in_turn && count > 0 && ledger.wrong.is_empty();
    proof.counts.insert("acknowledged", count);
    proof.say(
        holds,
        "ledger",
        format!(
            "{} acknowledged, {}{}",
            counted(count, "reading"),
            if in_turn { format!("1 to {count} without a gap") } else { "with gaps".to_owned() },
            wrong_lines(&ledger.wrong),
        ),
    );
}

fn acknowledged_are_recorded(ledger: &Ledger, recorded: &Recorded, proof: &mut Proof) {
    let there: HashSet<u64> = recorded.records.iter().map(|record| record.sequence).collect();
    let missing: Vec<u64> = ledger
        .acknowledged
        .iter()
        .map(|(sequence, _)| *sequence)
        .filter(|sequence| !there.contains(sequence))
        .collect();
    let count = ledger.acknowledged.len();
    proof.counts.insert("missing", missing.len() as u64);
    proof.say(
        missing.is_empty(),
        "nothing lost",
        format!(
            "recorded: {} of {}{}",
            count - missing.len(),
            counted(count as u64, "acknowledged reading"),
            examples("; missing", &missing),
        ),
    );
}

fn repeats_are_marked(recorded: &Recorded, proof: &mut Proof) {
    let mut seen = HashSet::new();
    let (mut repeats, mut marked) = (0_u64, 0_u64);
    let mut unmarked = Vec::new();
    for record in &recorded.records {
        marked += u64::from(record.again);
        if !seen.insert(record.sequence) {
            repeats += 1;
            if !record.again {
                unmarked.push(record.sequence);
            }
        }
    }
    proof.counts.insert("records", recorded.records.len() as u64);
    proof.counts.insert("redelivered", marked);
    proof.counts.insert("repeats", repeats);
    let met = match (marked, repeats) {
        (0, 0) => "nothing was under way at a kill, so nothing came again".to_owned(),
        _ => format!(
            "{marked} came again, {repeats} of them recorded before, {} without its mark",
            unmarked.len()
        ),
    };
    let text = format!("{met}{}", examples(":", &unmarked));
    proof.say(unmarked.is_empty(), "marked", text);
}

fn none_is_invented(ledger: &Ledger, recorded: &Recorded, proof: &mut Proof) {
    let sent: HashMap<u64, u32> = ledger.acknowledged.iter().copied().collect();
    let invented: Vec<u64> = recorded
        .records
        .iter()
        .filter(|record| sent.get(&record.sequence) != Some(&record.source))
        .map(|record| record.sequence)
        .collect();
    proof.counts.insert("invented", invented.len() as u64);
    proof.say(
        invented.is_empty(),
        "nothing invented",
        format!(
            "{}, {} of them not as the sensor sent it{}",
            counted(recorded.records.len() as u64, "record"),
            invented.len(),
            examples(":", &invented),
        ),
    );
}

fn records_are_whole(recorded: &Recorded, proof: &mut Proof) {
    let (right, wrong) = (recorded.records.len(), recorded.wrong.len());
    proof.counts.insert("wrong_records", wrong as u64);
    proof.say(
        wrong == 0 && right > 0,
        "checksums",
        format!(
            "as the processor sent them: {right} of {}{}",
            counted((right + wrong) as u64, "record"),
            wrong_lines(&recorded.wrong),
        ),
    );
}

fn queue_has_no_repeats(arrivals: &Arrivals, proof: &mut Proof) {
    let mut twice = 0;
    let mut missing = 0;
    for numbers in arrivals.news.values() {
        let different: HashSet<u64> = numbers.iter().copied().collect();
        twice += numbers.len() - different.len();
        let highest = different.iter().copied().max().unwrap_or(0);
        missing += highest - different.len() as u64;
    }
    let count: usize = arrivals.news.values().map(Vec::len).sum();
    proof.counts.insert("news", count as u64);
    proof.counts.insert("alerts", arrivals.alerts);
    let holds = twice == 0 && missing == 0 && count > 0 && arrivals.wrong.is_empty();
    proof.say(
        holds,
        "once each (mq)",
        format!(
            "{}, {} of them urgent; {twice} twice, {missing} missing{}",
            counted(count as u64, "message"),
            arrivals.alerts,
            wrong_lines(&arrivals.wrong),
        ),
    );
}

/// The last that the recorder said of its file is what is in it.
fn progress_is_right(recorded: &Recorded, arrivals: &Arrivals, proof: &mut Proof) {
    let there = (recorded.records.len() + recorded.wrong.len()) as u64;
    let said = arrivals.progress.last().copied();
    let grows = arrivals.progress.windows(2).all(|pair| pair[0] <= pair[1]);
    proof.counts.insert("progress", arrivals.progress.len() as u64);
    proof.say(
        grows && said == Some(there),
        "progress (unix)",
        format!(
            "the recorder's last word was {} of {}{}",
            said.map_or("nothing".to_owned(), |said| said.to_string()),
            counted(there, "record"),
            if grows { "" } else { ", and it went back" },
        ),
    );
}

/// Ends in shared memory leave at most empty folders: memory has no name, and a dead end's is removed.
fn nothing_is_left(meetings: &Path, proof: &mut Proof) -> io::Result<()> {
    let left = names_below(meetings)?;
    proof.counts.insert("left", left);
    proof.say(left == 0, "nothing left (shm)", format!("{left} names where its ends met"));
    Ok(())
}

fn names_below(folder: &Path) -> io::Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut names = 0;
    for entry in entries {
        let entry = entry?;
        names += if entry.file_type()?.is_dir() { names_below(&entry.path())? } else { 1 };
    }
    Ok(names)
}

impl Proof {
    /// Numbers that came in turn, from 1 to the last that was sent.
    fn each_once(&mut self, what: &str, of: &'static str, numbers: &[u64], sent: Option<u64>) {
        let count = numbers.len() as u64;
        let different: HashSet<u64> = numbers.iter().copied().collect();
        let in_turn = numbers.iter().zip(1..).all(|(number, n)| *number == n);
        self.counts.insert(of, count);
        self.say(
            in_turn && count > 0 && sent == Some(count),
            what,
            format!(
                "{count} of {} {of}, {} twice{}",
                sent.map_or("an unknown number of".to_owned(), |sent| sent.to_string()),
                count - different.len() as u64,
                if in_turn { ", in order" } else { ", not in order or with gaps" },
            ),
        );
    }

    fn say(&mut self, holds: bool, what: &str, text: String) {
        self.lines.push((holds, format!("{what}: {text}")));
    }
}

/// The sensor's file: `acknowledged SEQUENCE CHECKSUM` per reading, at the end `ticks COUNT` and
/// `heartbeats COUNT`.
#[derive(Debug, Default)]
struct Ledger {
    acknowledged: Vec<(u64, u32)>,
    ticks: Option<u64>,
    heartbeats: Option<u64>,
    wrong: Vec<usize>,
}

impl Ledger {
    fn parse(text: &str) -> Self {
        let mut ledger = Self::default();
        for (n, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["acknowledged", sequence, checksum] if ledger.ticks.is_none() => {
                    match (sequence.parse(), hexadecimal(checksum)) {
                        (Ok(sequence), Some(checksum)) => {
                            ledger.acknowledged.push((sequence, checksum));
                        }
                        _ => ledger.wrong.push(n + 1),
                    }
                }
                ["ticks", count] if ledger.ticks.is_none() => ledger.ticks = count.parse().ok(),
                ["heartbeats", count] if ledger.heartbeats.is_none() => {
                    ledger.heartbeats = count.parse().ok();
                }
                _ => ledger.wrong.push(n + 1),
            }
        }
        ledger
    }
}

/// The recorder's file.
#[derive(Debug, Default)]
struct Recorded {
    records: Vec<Record>,
    wrong: Vec<usize>,
}

#[derive(Debug)]
struct Record {
    sequence: u64,
    again: bool,
    source: u32,
}

impl Recorded {
    fn parse(text: &str) -> Self {
        let mut recorded = Self::default();
        for (n, line) in text.split_inclusive('\n').enumerate() {
            match line.strip_suffix('\n').and_then(Record::parse) {
                Some(record) => recorded.records.push(record),
                None => recorded.wrong.push(n + 1),
            }
        }
        recorded
    }
}

impl Record {
    /// `sequence=N reading=first|again … source=CRC checksum=CRC link=first|again line=CRC`: the
    /// first checksum is of all before it as the processor sent it, the second of the whole line.
    fn parse(line: &str) -> Option<Self> {
        let (whole, line_checksum) = line.rsplit_once(" line=")?;
        if hexadecimal(line_checksum)? != crc32(whole.as_bytes()) {
            return None;
        }
        let (sent, link) = whole.rsplit_once(" link=")?;
        let (record, checksum) = sent.rsplit_once(" checksum=")?;
        if hexadecimal(checksum)? != crc32(record.as_bytes()) {
            return None;
        }
        let field = |name: &str| {
            record.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let again = |word: &str| match word {
            "first" => Some(false),
            "again" => Some(true),
            _ => None,
        };
        Some(Self {
            sequence: field("sequence")?.parse().ok()?,
            again: again(field("reading")?)? | again(link)?,
            source: hexadecimal(field("source")?)?,
        })
    }
}

/// The dashboard's file: `news PID NUMBER priority P`, `heartbeat NUMBER`, `tick NUMBER` and
/// `recorded COUNT`.
#[derive(Debug, Default)]
struct Arrivals {
    /// Numbers by the processor that gave them.
    news: BTreeMap<u32, Vec<u64>>,
    alerts: u64,
    heartbeats: Vec<u64>,
    ticks: Vec<u64>,
    progress: Vec<u64>,
    wrong: Vec<usize>,
}

impl Arrivals {
    fn parse(text: &str) -> Self {
        let mut arrivals = Self::default();
        for (n, line) in text.lines().enumerate() {
            if arrivals.enter(line).is_none() {
                arrivals.wrong.push(n + 1);
            }
        }
        arrivals
    }

    fn enter(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["news", pid, number, "priority", priority] => {
                let (number, priority) = (number.parse().ok()?, priority.parse::<u32>().ok()?);
                self.news.entry(pid.parse().ok()?).or_default().push(number);
                self.alerts += u64::from(priority > 0);
            }
            ["heartbeat", number] => self.heartbeats.push(number.parse().ok()?),
            ["tick", number] => self.ticks.push(number.parse().ok()?),
            ["recorded", count] => self.progress.push(count.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// Exactly eight digits, as they were written.
fn hexadecimal(word: &str) -> Option<u32> {
    let digits = word.len() == 8 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u32::from_str_radix(word, 16).ok())?
}

/// CRC-32 (ITU-T V.42), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}

fn wrong_lines(lines: &[usize]) -> String {
    examples("; wrong lines", lines)
}

fn examples<T: ToString>(word: &str, all: &[T]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let some: Vec<String> = all.iter().take(MOST_EXAMPLES).map(T::to_string).collect();
    let more = if all.len() > MOST_EXAMPLES { ", …" } else { "" };
    format!("{word} {}{more}", some.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
