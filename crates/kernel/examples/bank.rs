//! A bank: accounts in a monitor, tellers that move money between them, each a process, killed at random
//! and replaced. The sum never changes.
//!
//! Source: Hoare, "Monitors: an operating system structuring concept", CACM 17 (1974).
//!
//! `cargo run -p switchboard-kernel --example bank`

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use switchboard_kernel::io::duplicate;
use switchboard_kernel::process::{Child, Spawn, inherited_descriptor};
use switchboard_kernel::sync::{Monitor, Shared};
use zerocopy::{FromBytes, Immutable, IntoBytes};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The number under which the tellers have the bank.
const BANK: i32 = 3;

const ACCOUNTS: usize = 8;
const OPENING_CENTS: i64 = 100;
const TELLERS: usize = 4;
const KILLS: u32 = 20;

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Bank {
    cents: [i64; ACCOUNTS],
    transfers: u64,
}

fn main() -> Outcome {
    if std::env::args().nth(1).is_some() {
        return teller(&Monitor::from_fd(inherited_descriptor(BANK)?)?);
    }
    let bank = Monitor::anonymous(Bank { cents: [OPENING_CENTS; ACCOUNTS], transfers: 0 })?;
    let mut tellers = Vec::new();
    for _ in 0..TELLERS {
        tellers.push(hire(&bank)?);
    }
    let mut random = Random::new();
    let mut before = 0;
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        let unlucky = usize::try_from(random.below(TELLERS as u64))?;
        tellers[unlucky].kill()?;
        tellers[unlucky] = hire(&bank)?;
        let (sum, transfers) = audit(&bank)?;
        assert_eq!(sum, OPENING_CENTS * ACCOUNTS as i64);
        assert!(transfers >= before, "{transfers} transfers after {before}");
        before = transfers;
    }
    // Those who are there go on working, whoever died.
    let (_, begun) = audit(&bank)?;
    let since = Instant::now();
    while audit(&bank)?.1 == begun {
        assert!(since.elapsed() < Duration::from_secs(10), "nobody works any more");
        std::thread::yield_now();
    }
    for teller in &mut tellers {
        teller.kill()?;
    }
    let (sum, transfers) = audit(&bank)?;
    println!(
        "{transfers} transfers by {TELLERS} tellers, of whom {KILLS} were killed and replaced"
    );
    println!("in the bank: {sum} cents, as at the beginning");
    assert_eq!(sum, OPENING_CENTS * ACCOUNTS as i64);
    Ok(())
}

fn hire(bank: &Monitor<Bank>) -> Outcome<Child> {
    let program = Spawn::new(std::env::current_exe()?).arg("teller");
    Ok(program.descriptor(BANK, duplicate(bank.memory())?).die_with_parent().spawn()?)
}

/// All that is in the bank, and how often money was moved.
fn audit(bank: &Monitor<Bank>) -> Outcome<(i64, u64)> {
    Ok(bank.with(|bank| (bank.cents.iter().sum(), bank.transfers))?)
}

fn teller(bank: &Monitor<Bank>) -> Outcome {
    let mut random = Random::new();
    loop {
        let from = usize::try_from(random.below(ACCOUNTS as u64))?;
        let to = usize::try_from(random.below(ACCOUNTS as u64))?;
        let cents = i64::try_from(random.below(50))?;
        bank.with(|bank| {
            if from != to && bank.cents[from] >= cents {
                bank.cents[from] -= cents;
                bank.cents[to] += cents;
                bank.transfers += 1;
            }
        })?;
    }
}

/// Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8 (2003).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.subsec_nanos());
        Self((u64::from(std::process::id()) << 32 | u64::from(now)) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
