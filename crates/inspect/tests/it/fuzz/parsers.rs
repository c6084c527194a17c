//! Every parser: what it really reads, and a reading of any bytes.

use std::hash::{DefaultHasher, Hash, Hasher};

use switchboard_inspect::source::descriptors::{anonymous, direction};
use switchboard_inspect::source::{
    inet, io, locks, maps, netlink, numbers, own_limits, places, process, schedule, system_call,
    sysv, unix,
};
use switchboard_inspect::text::{escaped, tamed};
use switchboard_inspect::{Kind, Kinds, name};

use super::seeds::{
    datagram_seeds, fdinfo_seeds, files, inet_seeds, locks_seeds, maps_seeds, sysv_seeds,
};
use super::snapshots::{changed_snapshot, name_seeds, own_snapshot, snapshot, snapshot_seed};

/// A parser: what it is called, what it really reads, and a reading of any bytes. What comes back says in which way the text was
/// understood: a new one is worth keeping.
pub(super) struct Parser {
    pub(super) name: &'static str,
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
    pub(super) read: fn(&[u8]) -> u64,
}

pub(super) const TABLE: &[Parser] = &[
    Parser {
        name: "stat",
        seeds: || files(&["self/stat", "1/stat"]),
        read: |text| {
            let found = process::stat(text);
            found.iter().for_each(|stat| safe(&stat.name));
            shape(&found.map(|stat| (stat.state, stat.kernel, stat.threads.min(3))))
        },
    },
    Parser {
        name: "status",
        seeds: || files(&["self/status", "1/status"]),
        read: |text| shape(&process::status(text).map(|status| status.inner_pids.len())),
    },
    Parser {
        name: "limits",
        seeds: || files(&["self/limits", "self/status"]),
        read: |text| {
            shape(&(own_limits::bounds(text).is_some(), own_limits::usage(text).is_some()))
        },
    },
    Parser {
        name: "io",
        seeds: || files(&["self/io"]),
        read: |text| shape(&io::counts(text).map(|found| found.sent_bytes > 0)),
    },
    Parser {
        name: "cmdline",
        seeds: || files(&["self/cmdline"]),
        read: |text| {
            let found = process::arguments(text);
            found.iter().for_each(|one| safe(one));
            shape(&found.len().min(300))
        },
    },
    Parser {
        name: "cgroup",
        seeds: || files(&["self/cgroup", "1/cgroup"]),
        read: |text| {
            let found = process::control_group(text);
            safe(&found);
            shape(&found.len().min(300))
        },
    },
    Parser {
        name: "maps",
        seeds: maps_seeds,
        read: |text| {
            let found = maps::shared(text, 1);
            found.iter().for_each(|one| safe(&one.name));
            shape(&found.iter().map(|one| (one.kind, one.writes)).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "maps, private",
        seeds: maps_seeds,
        read: |text| {
            let found = maps::private(text);
            found.iter().for_each(|one| safe(&one.name));
            shape(&found.iter().map(|one| (one.kind, one.writes)).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "mountinfo",
        seeds: || files(&["self/mountinfo"]),
        read: |text| {
            let found = places::local_devices(text);
            found.values().for_each(|kind| safe(kind));
            shape(&found.len().min(20))
        },
    },
    Parser {
        name: "fdinfo",
        seeds: fdinfo_seeds,
        read: |text| {
            let all = Kinds::ALL.iter().filter_map(|kind| anonymous(kind, text).map(|_| kind));
            shape(&(all.collect::<Vec<_>>(), direction(text), locks::of_descriptor(text).len()))
        },
    },
    Parser {
        name: "locks",
        seeds: locks_seeds,
        read: |text| {
            let found = locks::table(text);
            shape(
                &found
                    .iter()
                    .map(|one| (one.kind, one.waiting, one.end.is_some()))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "net/unix",
        seeds: || files(&["net/unix"]),
        read: |text| {
            let found = unix::table(text);
            found.iter().flat_map(|one| &one.name).for_each(|name| safe(name));
            shape(
                &found
                    .iter()
                    .map(|one| (one.kind, one.listening, one.name.is_some()))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Parser {
        name: "net/tcp",
        seeds: inet_seeds,
        read: |text| {
            let found = inet::table(text);
            shape(&found.iter().map(|one| (one.state, one.local.is_ipv6())).collect::<Vec<_>>())
        },
    },
    Parser {
        name: "sock_diag",
        seeds: datagram_seeds,
        read: |text| {
            let mut ways = Vec::new();
            let ended = netlink::messages(text, &mut |body| {
                let found = unix::one(body);
                found.iter().flat_map(|one| &one.name).for_each(|name| safe(name));
                let understood =
                    found.map(|one| (one.listening, one.clients.len().min(9), one.name.is_some()));
                let inet = inet::one(body).map(|one| {
                    let traffic = one.usage.map(|usage| usage.traffic.is_some());
                    (one.local.is_ipv6(), traffic)
                });
                ways.push((understood, inet));
            });
            shape(&(ways, ended.is_ok()))
        },
    },
    Parser {
        name: "sysvipc",
        seeds: sysv_seeds,
        read: |text| {
            let tables = [sysv::Table::Messages, sysv::Table::Semaphores, sysv::Table::Memory];
            shape(&tables.map(|table| sysv::table(table, text).len().min(9)))
        },
    },
    Parser {
        name: "syscall",
        seeds: || files(&["self/syscall", "1/syscall"]),
        read: |text| {
            shape(&match system_call::line(text) {
                None => 0,
                Some(system_call::Line::Running) => 1,
                Some(system_call::Line::Outside) => 2,
                Some(system_call::Line::Inside(inside)) => {
                    let small = (0..6).map(|at| inside.small(at)).fold(0, i32::wrapping_add);
                    3 + u8::from(inside.is_compatible()) + u8::from(small < 0)
                }
            })
        },
    },
    Parser {
        name: "sched",
        seeds: || files(&["self/sched", "self/schedstat", "self/status"]),
        read: |text| {
            let found =
                [schedule::runs(text), schedule::last_ran_ms(text), schedule::switches(text)];
            shape(&found.map(|one| one.is_some()))
        },
    },
    Parser {
        name: "numbers",
        seeds: || vec![b"18446744073709551615 -9223372036854775808 fe:01".to_vec()],
        read: |text| {
            let numbers =
                [numbers::decimal(text), numbers::hexadecimal(text), numbers::octal(text)];
            let signed = numbers::signed(text).map(|number| number < 0);
            let device = numbers::device_in_text(text).is_some();
            shape(&(
                numbers.map(|one| one.is_some()),
                signed,
                device,
                numbers::words(text).count().min(9),
            ))
        },
    },
    Parser {
        name: "text",
        seeds: || vec!["grün\u{202e}\x1b[0m\\".as_bytes().to_vec()],
        read: |text| {
            let shown = escaped(text);
            safe(&shown);
            safe(&tamed(String::from_utf8_lossy(text).into_owned()));
            shape(&(shown.len() == text.len()))
        },
    },
    Parser {
        name: "snapshot",
        seeds: || vec![snapshot_seed()],
        read: |text| shape(&snapshot(text)),
    },
    Parser {
        name: "snapshot, changed",
        seeds: || vec![b"0".to_vec()],
        read: |text| shape(&snapshot(&changed_snapshot(shape(&text)))),
    },
    Parser {
        name: "object",
        seeds: name_seeds,
        read: |text| {
            let words = String::from_utf8_lossy(text);
            let found = own_snapshot(|snapshot| match name::find(snapshot, &words, None) {
                name::Named::Process(_) => 1000,
                name::Named::Objects(objects) => objects.len().min(9),
            });
            shape(&(found, Kind::named(&words)))
        },
    },
];

pub(super) fn shape(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Text that is shown: nothing in it moves a cursor or turns the direction of writing.
pub(super) fn safe(text: &str) {
    let harmful = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(harmful), "not escaped: {text:?}");
}
