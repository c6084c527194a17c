//! What reading a value costs while its writer sets others at full speed, how often a read has to look again, and
//! what the lines of the cache that come over cost alone. `cargo xtask prove state` runs it for longer.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use switchboard_shm::AtomicU64;
use switchboard_shm::barrier::Busy;
use switchboard_shm::feed::{Entry, FeedReader, FeedWriter};
use switchboard_shm::layout::feed as layout;
use switchboard_shm::values::{Read, Values, read};

const VALUE_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 64 << 10;
/// Words of a value and of what comes before it.
const BLOCK_WORDS: usize = VALUE_BYTES / 8 + 2;
const BLOCKS: usize = 65;

/// What is measured at a time.
const BATCH: u64 = 64;

fn time() -> Duration {
    let asked = std::env::var("SWITCHBOARD_PROOF_SECONDS").ok().and_then(|text| text.parse().ok());
    asked.map_or(Duration::from_millis(100), |seconds: u64| Duration::from_secs(seconds.min(10)))
}

/// Runs `write` in another thread, if it is to be, while `read` is measured: ns each, on average and in the middle.
fn measure(writes: bool, write: impl Fn() + Sync, mut read: impl FnMut()) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if writes {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    (0..BATCH).for_each(|_| write());
                }
            });
        }
        let (begin, mut batches) = (Instant::now(), Vec::new());
        while begin.elapsed() < time() {
            let since = Instant::now();
            (0..BATCH).for_each(|_| read());
            batches.push(since.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        stop.store(true, Relaxed);
        batches.sort_by(f64::total_cmp);
        let mean = batches.iter().sum::<f64>() / batches.len() as f64;
        (mean, batches[batches.len() / 2])
    })
}

/// Says it to who asked for the proof.
fn say(what: &str, quiet: (f64, f64), busy: (f64, f64), more: &str) {
    if std::env::var_os("SWITCHBOARD_PROOF_SECONDS").is_some() {
        let _ = writeln!(
            std::io::stderr(),
            "{what}: {:.0} ns (median {:.0}) while it is written, {:.0} ns (median {:.0}) else{more}",
            busy.0,
            busy.1,
            quiet.0,
            quiet.1
        );
    }
}

fn words(count: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..count).map(|_| AtomicU64::new(0)).collect())
}

/// Two loads of which the second depends on the first, and no protocol: a block, and which is the newest.
#[test]
fn proof_state_what_its_lines_cost_alone() {
    let (newest, blocks) = (words(16), words(BLOCKS * 16 + 8));
    let next = AtomicU64::new(0);
    let write = || {
        let number = next.load(Relaxed) + 1;
        next.store(number, Relaxed);
        let at = number % BLOCKS as u64;
        let first = at as usize * 16;
        blocks[first..first + BLOCK_WORDS].iter().for_each(|word| word.store(number, Relaxed));
        newest[8].store(at, Release);
    };
    let load = || {
        let first = newest[8].load(Acquire) as usize * 16;
        black_box(
            blocks[first..first + BLOCK_WORDS].iter().map(|word| word.load(Relaxed)).sum::<u64>(),
        );
    };
    let quiet = measure(false, write, load);
    say("the lines of a value alone", quiet, measure(true, write, load), "");
}

#[test]
fn proof_state_how_often_a_read_looks() {
    let memory = words(layout::bytes(8) as usize / 8);
    let segment = words(SEGMENT_BYTES / 8);
    let mut feed = FeedWriter::create(Arc::clone(&memory), 5, 8, Busy::TakesPart).expect("a feed");
    let mut values = Values::default();
    values.add(Arc::clone(&segment));
    let len = VALUE_BYTES as u64;
    let mut version = 1;
    let mut spot = values.take(len).expect("room");
    let name = values.write(spot, 0, version, &[1; VALUE_BYTES]);
    let at = feed.add(Entry { name: 1, value: 0 }).expect("room");
    feed.change(at, name);
    let reader = FeedReader::open(memory, 5).expect("a feed");
    let writer = std::sync::Mutex::new(move || {
        let next = values.take(len).expect("room");
        version += 1;
        let name = values.write(next, 0, version, &[version as u8; VALUE_BYTES]);
        feed.change(at, name);
        values.give_back(std::mem::replace(&mut spot, next), len);
    });
    let write = || (writer.lock().expect("nobody panicked"))();
    let (looks, mut reads) = (std::cell::Cell::new(0_u64), 0_u64);
    let mut bytes = Vec::new();
    let mut get = || {
        let entry = || {
            looks.set(looks.get() + 1);
            reader.entry(at).value
        };
        let found = read(at, entry, |_| Some(&segment), VALUE_BYTES, &mut bytes);
        assert!(matches!(found, Ok(Read::Value(_))), "{found:?}");
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn value");
        reads += 1;
    };
    let quiet = measure(false, write, &mut get);
    let busy = measure(true, write, &mut get);
    let again = looks.get() - reads;
    say("a read", quiet, busy, &format!("; {again} looks again in {reads} reads"));
    // A writer that keeps to the rules sets 64 others before it uses a block again.
    assert!(again <= reads / 100 + 100, "{again} looks again in {reads} reads");
}
