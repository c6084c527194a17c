//! The proof that `clean` removes nothing that is in use, and `restore` brings back the same: rounds of processes that make, use, pass and abandon
//! objects at random in namespaces of their own, while `clean --yes` runs against them without a minimum age.
//!
//! Source: docs/design/clean.md, "Proof". `cargo xtask prove clean` plays 1,000 rounds, the gate a few.

pub(super) mod actors;
pub(super) mod stage;
mod things;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use switchboard_inspect::Kind;
use switchboard_testkit::skip::{say, skip};
use switchboard_testkit::{Child, Scratch};

/// Rounds in the gate, beside all its other tests: so many come by everything that there is.
const FEW: u64 = 8;
/// Rounds at a time: most of a round is waiting for whole seconds to pass.
const AT_A_TIME: u64 = 6;
const FEW_AT_A_TIME: u64 = 2;
/// How long a round may say nothing: many processes share few processors here, and with what else the machine does.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How a stage is started: namespaces of its own, in a user namespace where this is not root.
pub(super) fn starter() -> Vec<&'static str> {
    let mut starter =
        vec!["unshare", "--ipc", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        starter.extend(["--user", "--map-root-user"]);
    }
    starter
}

#[test]
fn proof_clean_removes_nothing_in_use() {
    let starter = starter();
    let works = std::process::Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !works.is_ok_and(|done| done.status.success()) {
        return skip("proof_clean", "this user may not make namespaces, or there is no unshare(1)");
    }
    let rounds = variable("SWITCHBOARD_CLEAN_ROUNDS").unwrap_or(FEW);
    let seed = variable("SWITCHBOARD_CLEAN_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 6];
        switchboard_kernel::random::fill(&mut bytes).expect("random bytes");
        let [a, b, c, d, e, f] = bytes;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    });
    say(&format!("{rounds} rounds, SWITCHBOARD_CLEAN_SEED={seed}"));
    let next = AtomicU64::new(0);
    let counts = Mutex::new(BTreeMap::new());
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..if rounds <= FEW { FEW_AT_A_TIME } else { AT_A_TIME } {
            scope.spawn(|| {
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    // A kind that chance kept away may come in a round more.
                    let is_enough = rounds < FEW
                        || round >= 3 * rounds
                        || missing(&counts.lock().expect("counts")).is_empty();
                    if round >= rounds && is_enough {
                        return;
                    }
                    play(&starter, seed.wrapping_add(round), &counts);
                }
            });
        }
    });
    let counts = counts.into_inner().expect("counts");
    let list: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    say(&format!("{} s: {}", began.elapsed().as_secs(), list.join(", ")));
    let demand = |what: &str| {
        assert!(counts.get(what).is_some_and(|&count: &u64| count > 0), "no {what}: {list:?}");
    };
    ["looks of users", "removed", "clean --yes"].into_iter().for_each(demand);
    // One round again, or two, of a failure that is looked into, need not come by everything.
    if rounds < FEW {
        return;
    }
    ["restored", "taken up again"].into_iter().for_each(demand);
    assert_eq!(missing(&counts), [""; 0], "{list:?}");
}

/// Kinds of which none was removed, or restored; the file of a socket is of no use to anybody, and does not come back.
fn missing(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let kinds = things::KINDS.into_iter();
    let all = kinds.flat_map(|kind| [("removed", kind), ("restored", kind)]);
    let all = all.filter(|one| *one != ("restored", Kind::Unix));
    let all = all.map(|(what, kind)| format!("{what} {kind}"));
    all.filter(|what| !counts.contains_key(what)).collect()
}

/// One round. What went wrong in it is said with the seed that plays it again.
fn play(starter: &[&str], seed: u64, counts: &Mutex<BTreeMap<String, u64>>) {
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().expect("a path").to_owned();
    let binary = crate::run::binary();
    let binary = binary.to_str().expect("a path").to_owned();
    let mut stage = Child::role_under(starter, "clean-stage", &[folder, binary, seed.to_string()]);
    let mut problems = Vec::new();
    let mut ended = false;
    while let Some(line) = stage.line_within(PATIENCE) {
        if let Some((count, name)) =
            line.strip_prefix("count ").and_then(|rest| rest.split_once(' '))
        {
            let mut counts = counts.lock().expect("counts");
            *counts.entry(name.to_owned()).or_insert(0) += count.parse::<u64>().expect("a number");
        } else if line == "end" {
            ended = true;
        } else if line != "busy" {
            problems.push(line);
        }
    }
    assert!(
        ended && problems.is_empty(),
        "SWITCHBOARD_CLEAN_SEED={seed} SWITCHBOARD_CLEAN_ROUNDS=1, ended: {ended}:\n{}",
        problems.join("\n")
    );
}

/// Numbers from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `most`.
    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }
}
