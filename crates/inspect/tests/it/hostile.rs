//! Text of /proc that is anything at all: no parser panics, none gives what it was not given.

use std::sync::OnceLock;

use proptest::prelude::*;
use switchboard_inspect::source::descriptors::{anonymous, direction};
use switchboard_inspect::source::system_call::line;
use switchboard_inspect::source::{inet, locks, maps, netlink, process, schedule, sysv, unix};
use switchboard_inspect::{Kind, Snapshot};

/// Every parser, on the same bytes.
fn all(text: &[u8]) {
    let _ = process::stat(text);
    let _ = process::status(text);
    let _ = process::arguments(text);
    for mapped in maps::shared(text, 1) {
        assert!(!mapped.name.contains(char::is_control));
    }
    let _ = locks::table(text);
    let _ = locks::of_descriptor(text);
    let _ = inet::table(text);
    let _ = inet::one(text);
    let _ = unix::one(text);
    for socket in unix::table(text) {
        assert!(socket.name.is_none_or(|name| !name.contains(char::is_control)));
    }
    for table in [sysv::Table::Messages, sysv::Table::Semaphores, sysv::Table::Memory] {
        let _ = sysv::table(table, text);
    }
    let _ = line(text);
    let _ = schedule::runs(text);
    let _ = schedule::last_ran_ms(text);
    let _ = schedule::switches(text);
    let _ = direction(text);
    for kind in switchboard_inspect::Kinds::ALL.iter() {
        let _ = anonymous(kind, text);
    }
    let _ = netlink::messages(text, &mut |body| {
        let _ = (unix::one(body), inet::one(body));
    });
    let _ = Snapshot::from_json(text);
    let _ = Kind::named(&String::from_utf8_lossy(text));
}

/// What /proc really says here, to change a little.
fn real() -> &'static [Vec<u8>] {
    static READ: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    READ.get_or_init(read_real)
}

fn read_real() -> Vec<Vec<u8>> {
    let names = [
        "self/stat",
        "self/status",
        "self/maps",
        "self/syscall",
        "self/sched",
        "self/schedstat",
        "self/fdinfo/0",
        "locks",
        "net/unix",
        "net/tcp",
        "net/udp",
        "sysvipc/shm",
        "sysvipc/sem",
        "sysvipc/msg",
    ];
    let read = |name: &&str| std::fs::read(format!("/proc/{name}")).ok();
    names.iter().filter_map(read).map(|text| text[..text.len().min(1200)].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        all(&text);
    }

    #[test]
    fn changed_text(which in 0_usize..14, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let texts = real();
        let mut text = texts[which % texts.len()].clone();
        if text.is_empty() {
            return Ok(());
        }
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        text.truncate(cut.index(text.len() + 1));
        all(&text);
    }
}

#[test]
fn numbers_at_their_limits() {
    for number in ["18446744073709551615", "18446744073709551616", "-1", "99999999999999999999999"]
    {
        for text in [
            format!(
                "{number} (x) S {number} 1 1 0 -1 {number} 1 0 0 0 1 2 0 0 20 0 {number} 0 {number} 1"
            ),
            format!("1: POSIX ADVISORY WRITE {number} fe:00:{number} {number} {number}"),
            format!(
                "t\n{number} {number} {number} {number} {number} {number} {number} {number} {number}"
            ),
            format!("ffffffffffffffff-0 rw-s {number} ff:ff {number} x"),
            format!("{number} 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x0 0x0 0x0"),
        ] {
            all(text.as_bytes());
        }
    }
}
