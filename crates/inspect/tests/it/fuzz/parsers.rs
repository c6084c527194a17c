//! Every parser: what it really reads, and a reading of any bytes.

use std::hash::{DefaultHasher, Hash, Hasher};

use switchboard_inspect::source::descriptors::{anonymous, direction};
use switchboard_inspect::source::folder::bracketed;
use switchboard_inspect::source::{
    descriptors, inet, io, limits, locks, maps, netlink, numbers, own_limits, places, process,
    rings, schedule, system_call, sysv, unix,
};
use switchboard_inspect::text::{self, escaped, tamed, unescaped};
use switchboard_inspect::{Kind, Kinds, name};

use super::seeds::{
    datagram_seeds, fdinfo_seeds, files, inet_seeds, link_seeds, locks_seeds, maps_seeds,
    ring_seeds, sysv_seeds,
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
            let paths: [&[u8]; 4] = [b"/tmp/x", b"/", b"", b"x"];
            let lies = paths.map(|path| places::mounted(text, path).is_some());
            shape(&(found.len().min(20), lies))
        },
    },
    Parser {
        name: "fdinfo of a ring",
        seeds: ring_seeds,
        read: |text| {
            let found = rings::text(text);
            assert!(found.files.len() <= rings::MOST_FILES);
            found.files.iter().for_each(|name| assert!(name.len() <= text.len()));
            let is_path = |name: &Vec<u8>| name.starts_with(b"/");
            let kinds = found.files.iter().map(is_path).take(9).collect::<Vec<_>>();
            shape(&(kinds, found.is_whole, found.is_busy, found.inode.is_some()))
        },
    },
    Parser {
        name: "fdinfo",
        seeds: fdinfo_seeds,
        read: |text| {
            let all = Kinds::ALL.iter().filter_map(|kind| anonymous(kind, text).map(|_| kind));
            let numbers = [
                descriptors::in_flight(text).map(u64::from),
                descriptors::terminal(text).map(u64::from),
                descriptors::inode(text),
                descriptors::position(text),
            ];
            shape(&(
                all.collect::<Vec<_>>(),
                direction(text),
                locks::of_descriptor(text).len().min(9),
                numbers.map(|number| number.is_some()),
            ))
        },
    },
    Parser {
        name: "links of descriptors",
        seeds: link_seeds,
        read: |link| {
            let named = descriptors::named_by_link(link);
            safe(&named);
            let kinds = [true, false].map(|internal| maps::kind(link, internal));
            shape(&(descriptors::nameless(link), kinds, named.starts_with("pipe:")))
        },
    },
    Parser {
        name: "links of namespaces",
        seeds: || vec![b"net:[4026531833]".to_vec(), b"pid:[4026532179]".to_vec()],
        read: |link| {
            let names: [&[u8]; 4] = [b"ipc", b"net", b"pid", b"mnt"];
            shape(&names.map(|name| bracketed(link, name).is_some()))
        },
    },
    Parser {
        name: "sys",
        seeds: || files(&["sys/kernel/sem", "sys/fs/file-nr", "loadavg"]),
        read: |text| {
            let numbers = [0, 1, 3].map(|at| limits::number_at(text, at).is_some());
            let doubled = limits::doubled(text, 3, u64::MAX);
            doubled.iter().for_each(|all| assert!(all[3] > 0));
            shape(&(numbers, doubled.map(|all| all.len().min(9)), limits::all_tasks(text)))
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
            let kept = &text[..text.len().min(text::LONGEST)];
            assert_eq!(unescaped(&shown).as_deref(), Some(kept), "{shown}");
            let words = String::from_utf8_lossy(text).into_owned();
            let back = unescaped(&words).map(|bytes| bytes.len() == text.len());
            safe(&tamed(words));
            shape(&(shown.len() == text.len(), back))
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
            let held = name::descriptor_named(&words).map(|(_, fd)| fd < 0);
            shape(&(found, held, Kind::named(&words)))
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
