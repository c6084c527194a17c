//! Looking again and again: what was not read again is as true as what was, and waits are known to last.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{pressure, rates, stuck, why};
use switchboard_inspect::{Kind, Object, Request, Snapshot, Thread, Wait, WaitOn, Watch};
use switchboard_kernel::{Permissions, io, pipe};
use switchboard_testkit::Scratch;

const GAP: Duration = Duration::from_millis(30);

fn thread(snapshot: &Snapshot, pid: u32) -> Option<&Thread> {
    snapshot.process(pid)?.threads.first()
}

fn wait(snapshot: &Snapshot, pid: u32) -> Option<&Wait> {
    thread(snapshot, pid)?.wait.as_ref()
}

/// Looks until something is so, with a deadline.
fn look_until(watch: &mut Watch, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let (started, request) = (Instant::now(), Request::everything().traffic());
    loop {
        let snapshot = watch.look(&request);
        if is_so(&snapshot) {
            return snapshot;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(GAP);
    }
}

/// `yes` into a pipe that nobody empties.
#[test]
fn a_writer_that_waits_for_room() {
    let (read, write) = pipe::pipe().expect("a pipe");
    let mut yes = Command::new("yes").stdout(write).stderr(Stdio::null()).spawn().expect("yes");
    let pid = yes.id();
    let mut watch = Watch::new(GAP);
    let steady = |snapshot: &Snapshot| {
        wait(snapshot, pid).is_some_and(|wait| {
            wait.call == "write" && wait.steady == Some(true) && wait.since_ms.is_some()
        })
    };
    let first = look_until(&mut watch, "the writer waits", steady);
    let since = |snapshot: &Snapshot| wait(snapshot, pid).and_then(|wait| wait.since_ms);
    let before = since(&first).expect("since when").0;
    let later = look_until(&mut watch, "it waits longer", |now| {
        steady(now) && since(now).is_some_and(|(ms, _)| ms > before + 100)
    });
    // It is as long as two looks without anything remembered say.
    let twice = Request::everything().twice(GAP).take();
    let (kept, (read_again, _)) = (since(&later).expect("kept").0, since(&twice).expect("read"));
    assert!(read_again + 1_000 > kept, "{kept} ms by what was kept, {read_again} ms by the kernel");
    let WaitOn::Objects(targets) = &wait(&later, pid).expect("a wait").on else {
        panic!("{later:?}")
    };
    let found = pressure::all(&later);
    let one = found.iter().find(|one| one.object.id == targets[0].object).expect("its pipe");
    assert_eq!((one.blocked, one.part), (1, Some(1.0)));
    let index = Index::new(&later);
    let (set, process) = (stuck::set(&index), later.process(pid).expect("the process"));
    let long_enough = why::looks_stuck(&index, &set, process, &process.threads[0], Duration::ZERO);
    assert!(long_enough, "{process:?}");
    let sentence = why::sentence(&index, &set, process, &process.threads[0]);
    assert!(sentence.contains("to write to pipe:") && sentence.contains("full"), "{sentence}");

    // Somebody empties it for a while: it ran, so its wait is not the same one.
    let _ = io::read(&read, &mut [0; 40_000]).expect("read");
    look_until(&mut watch, "the wait is a new one", |now| {
        wait(now, pid).is_some_and(|wait| wait.steady == Some(false))
    });
    yes.kill().expect("killed");
    yes.wait().expect("an end");
    let gone = watch.look(&Request::everything());
    assert!(wait(&gone, pid).is_none());
}

/// What `cat` reads and writes, and what a connection carries, between two looks.
#[test]
fn rates_of_a_process_and_a_connection() {
    let mut cat =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let pid = cat.id();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let mut client = std::net::TcpStream::connect(place).expect("a connection");
    let (_server, from) = listener.accept().expect("a client");
    let mut watch = Watch::new(GAP);
    // What it reads to begin with is read.
    let before = look_until(&mut watch, "cat waits", |now| {
        wait(now, pid).is_some_and(|wait| wait.call == "read" && wait.steady == Some(true))
    });
    let io = before.process(pid).and_then(|cat| cat.io).expect("its counts");
    let start = (io.received_bytes, io.sent_bytes);
    let mut to_cat = cat.stdin.take().expect("a pipe");
    to_cat.write_all(&[b'x'; 30_000]).expect("written");
    client.write_all(&[b'x'; 50_000]).expect("sent");
    let after = look_until(&mut watch, "cat has read and written it", |now| {
        let io = now.process(pid).and_then(|cat| cat.io);
        io.is_some_and(|io| {
            io.received_bytes >= start.0 + 30_000 && io.sent_bytes >= start.1 + 30_000
        })
    });
    let found = rates::between(&before, &after);
    let elapsed = found.elapsed.expect("time went by").as_secs_f64();
    let total = |per_s: u64| per_s as f64 * elapsed;
    let of_cat = found.process(pid).expect("a rate");
    // Times are in whole milliseconds.
    let is_about = |per_s, bytes: f64| (total(per_s) - bytes).abs() < 0.1 * bytes;
    assert!(is_about(of_cat.received_bytes_per_s, 30_000.0), "{of_cat:?}");
    assert!(is_about(of_cat.sent_bytes_per_s, 30_000.0), "{of_cat:?}");
    let address = format!("{place} -> {from}");
    let server = after.objects.iter().find(|object| object.names.contains(&address));
    let rate = found.object(&server.expect("the server's socket").id);
    let traffic = rate.traffic.expect("TCP counts");
    assert!(is_about(traffic.received_bytes_per_s, 50_000.0), "{rate:?}");
    assert!(rate.moved && traffic.sent_bytes_per_s == 0, "{rate:?}");
    drop(to_cat);
    cat.wait().expect("an end");
}

/// A shell that is told what to open and close, and sleeps in between.
#[test]
fn what_is_kept_is_true() {
    let scratch = Scratch::new();
    let (fifo, other) = (scratch.join("a"), scratch.join("b"));
    switchboard_kernel::fifo::create(&fifo, Permissions::default()).expect("a FIFO");
    let mut shell = Command::new("sh");
    shell.args(["-c", "while read line; do eval \"$line\"; done"]).current_dir(scratch.path());
    let mut shell = shell.stdin(Stdio::piped()).spawn().expect("a shell");
    let pid = shell.id();
    let mut input = shell.stdin.take().expect("a pipe");
    let mut watch = Watch::new(GAP);
    let held = |snapshot: &Snapshot| {
        let fifos = snapshot.objects_of(pid).filter(|object| object.kind == Kind::Fifo);
        fifos.flat_map(|object| object.names.clone()).collect::<Vec<String>>()
    };
    let idle = |watch: &mut Watch| {
        // So many looks that what it holds is kept.
        let looks: Vec<Snapshot> =
            (0..4).map(|_| watch.look(&Request::everything().traffic())).collect();
        let of = |snapshot: &Snapshot| snapshot.objects_of(pid).cloned().collect::<Vec<_>>();
        // Others that have it, too, come and go with other tests.
        let own = |one: Object| {
            let ends = one.ends.into_iter().filter(|end| end.pid == pid);
            (one.id, ends.collect::<Vec<_>>())
        };
        let ids = |snapshot| of(snapshot).into_iter().map(own).collect::<Vec<_>>();
        let fresh = Request::everything().take();
        assert_eq!(ids(looks.last().expect("a look")), ids(&fresh), "as without anything kept");
    };
    idle(&mut watch);
    for name in ["a", "b"] {
        writeln!(input, "exec 7<>{name}").expect("told");
        look_until(&mut watch, "it is open", |now| {
            held(now).iter().any(|path| path.ends_with(&format!("/{name}")))
        });
        idle(&mut watch);
        if name == "a" {
            // It is given another name while its holder sleeps: that shows, too, before long.
            std::fs::rename(&fifo, &other).expect("renamed");
            look_until(&mut watch, "its new name", |now| {
                held(now).iter().any(|path| path.ends_with("/b"))
            });
        }
        writeln!(input, "exec 7>&-").expect("told");
        look_until(&mut watch, "it is closed", |now| held(now).is_empty());
        idle(&mut watch);
    }
    drop(input);
    shell.wait().expect("an end");
    assert!(watch.look(&Request::everything()).process(pid).is_none());
}
