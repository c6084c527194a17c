//! `list`, `show`, `who`, `ps`: what there is, by every name it has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::io::Interest;
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_kernel::{Permissions, fifo, pipe};
use switchboard_testkit::{Scratch, unique};

use crate::run::{Ended, Run, run};

fn here(arguments: &[&str]) -> Ended {
    run(Scratch::new().path(), arguments, "")
}

fn json(ended: Ended) -> serde_json::Value {
    serde_json::from_slice(&ended.code(0).stdout).expect("JSON")
}

fn own(fd: &impl AsRawFd) -> String {
    format!("pid:{}/fd:{}", std::process::id(), fd.as_raw_fd())
}

#[test]
fn every_id_is_taken_by_the_others() {
    let (read, _write) = pipe::pipe().expect("a pipe");
    let (_here, _there) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let pid = std::process::id().to_string();
    let list = here(&["list", "--pid", &pid, "--columns", "id", "--no-header", "pipe", "unix"]);
    let ids = list.code(0).text();
    assert!(ids.lines().count() >= 3, "{ids}");
    // Those of other tests of this process may be gone by now: this pipe is not.
    let shown = here(&["show", &own(&read)]).code(0).text();
    let id = shown.split(": ").next().expect("an id").to_owned();
    assert!(ids.lines().any(|line| line == id), "{id} in {ids}");
    assert!(here(&["show", &id]).code(0).text().starts_with(&id));
    let who = here(&["who", &id]).code(0).text();
    assert!(who.contains(&format!("[{pid}] fd:{}", read.as_raw_fd())), "{who}");
    assert_eq!(json(here(&["who", "--json", &id]))["objects"][0]["id"], id);
    let listed = here(&["list", &id, "--no-header", "--columns", "id"]).code(0).text();
    assert_eq!(listed, format!("{id}\n"));
    let seen = json(here(&["ps", "--json", &id]));
    let pids: Vec<u64> = seen["processes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["pid"].as_u64())
        .collect();
    assert!(pids.contains(&u64::from(std::process::id())), "{seen}");
    // The standard streams of the command are pipes of this process, but it has not this one.
    assert!(pids.len() < 4, "{seen}");
}

/// `why` prints ids of threads; they lead to the process.
#[test]
fn a_thread_leads_to_its_process() {
    let (send, receive) = std::sync::mpsc::channel();
    let (_end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        send.send(std::fs::read_link("/proc/thread-self").expect("a link")).expect("sent");
        let _ = wait.recv();
    });
    let link: std::path::PathBuf = receive.recv().expect("an id");
    let tid = link.file_name().and_then(|name| name.to_str()).expect("a number").to_owned();
    let pid = std::process::id();
    let label = format!("[{pid}]");
    let said = format!("{tid} is a thread of ");
    let why = here(&["why", &tid]).code(0).says(&said).text();
    assert!(why.contains(&format!("{label} thread {tid} (")), "{why}");
    for command in [&["ps"][..], &["show"], &["map"]] {
        let shown = here(&[command, &[&tid]].concat()).code(0).says(&said).text();
        assert!(shown.contains(&label), "{command:?}: {shown}");
    }
    let word = format!("pid:{tid}");
    for command in [&["who"][..], &["show"], &["list", "--columns", "id,processes"]] {
        let shown = here(&[command, &[&word]].concat()).code(0).says(&said).text();
        assert!(shown.contains("pipe:"), "{command:?}: {shown}");
    }
    let listed = here(&["list", "--pid", &tid, "pipe"]).code(0).says(&said).text();
    assert!(listed.contains(&label), "{listed}");
    drop(_end);
    thread.join().expect("an end");
}

/// Who waits for an object, and who else has it.
#[test]
fn why_of_an_object() {
    use std::process::{Command, Stdio};
    let mut reader = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a reader");
    let writer = reader.stdin.take().expect("a pipe");
    let id = here(&["show", &own(&writer)]).code(0).text();
    let id = id.split(": ").next().expect("an id").to_owned();
    let what = format!("cat[{}] has waited", reader.id());
    crate::run::eventually("a reader that waits", || {
        let said = here(&["why", &id]).code(0).text();
        let first = said.lines().next().unwrap_or_default();
        first.starts_with(&what)
            && first.contains(&format!("to read from {id}"))
            && said.contains(&format!("[{}]", std::process::id()))
    });
    let shown = here(&["show", &format!("pid:{}", reader.id())]).code(0).text();
    assert!(shown.contains(&what) && shown.contains(&format!("fd:0 {id}")), "{shown}");
    let seen = json(here(&["show", "--json", &format!("pid:{}", reader.id())]));
    assert_eq!(seen["process"]["pid"], reader.id());
    assert!(
        seen["objects"].as_array().expect("a list").iter().any(|one| one["id"] == id),
        "{seen}"
    );
    drop(writer);
    reader.wait().expect("an end");
    for command in ["why", "ps", "list", "show", "who"] {
        here(&[command, "pipe:0"]).code(3).says("nothing here is called pipe:0");
    }
}

#[test]
fn what_holds_nothing_and_what_nobody_talks_through() {
    // The first of the kernel's own threads; in a PID namespace of its own there is none.
    let stat = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    if stat.contains("(kthreadd)") {
        let nothing = "kthreadd[2] is a thread of the kernel: it holds nothing";
        here(&["who", "pid:2"]).code(0).says(nothing).prints("");
        here(&["show", "pid:2/fd:0"]).code(3).says(nothing);
        assert!(here(&["show", "pid:2"]).code(0).text().starts_with("kthreadd[2]"));
    }
    let null = std::fs::File::open("/dev/null").expect("a device");
    here(&["show", &own(&null)]).code(3).says("is open and leads to /dev/null");
    let closed = format!("pid:{}/fd:999999", std::process::id());
    here(&["show", &closed]).code(3).says("has no descriptor 999999");
    here(&["who", &closed]).code(3).says("has no descriptor 999999");
    here(&["show", "pid:0/fd:1"]).code(3).says("no process 0");
}

/// It was bound by another name, and renamed when it was ready.
#[test]
fn a_socket_of_an_address_by_its_path() {
    let scratch = Scratch::new();
    let path = scratch.join("jobs.sock");
    for scheme in ["unix", "unix-seqpacket"] {
        let address = format!("{scheme}:{}", path.display());
        let queue = switchboard::Queue::<switchboard::Bytes>::open(&address).expect("a queue");
        let receiver = queue.receiver().expect("a receiver");
        for word in [path.to_str().expect("a path"), &address] {
            let shown = here(&["show", word]).code(0).text();
            assert!(shown.starts_with("unix:") && shown.contains("listening"), "{word}: {shown}");
            let who = here(&["who", word]).code(0).text();
            assert!(who.contains(&format!("[{}]", std::process::id())), "{word}: {who}");
        }
        drop(receiver);
        here(&["show", &address]).code(3);
    }
}

#[test]
fn a_fifo_and_a_queue_by_name() {
    let scratch = Scratch::new();
    let path = scratch.join("jobs");
    fifo::create(&path, Permissions::default()).expect("a FIFO");
    let reader = fifo::open_reader(&path).expect("a reader");
    let path = path.to_str().expect("a path");
    let by_path = here(&["show", path]).code(0).text();
    assert!(by_path.starts_with("fifo:") && by_path.contains("mode 0600"), "{by_path}");
    // Children that other tests start have it too, for a moment: what it is stays the same.
    let title = |text: String| text.lines().next().map(str::to_owned);
    let by_path = title(by_path);
    assert_eq!(title(here(&["show", &own(&reader)]).code(0).text()), by_path);
    assert_eq!(title(run(scratch.path(), &["show", "jobs"], "").code(0).text()), by_path);

    let name = format!("/{}", unique("seeing"));
    let options = CreateOptions::new().max_messages(2).message_size_bytes(8);
    let queue = MessageQueue::create(&name, Access::Both, &options).expect("a queue");
    queue.send(b"x", 0).expect("sent");
    let shown = here(&["show", &format!("mq:{name}")]).code(0).text();
    posix_mq::unlink(&name).expect("unlinked");
    let _open: OwnedFd = queue.into();
    assert!(shown.contains("fill            1/2"), "{shown}");
}

#[test]
fn an_epoll_instance_with_what_it_watches() {
    let (read, _write) = pipe::pipe().expect("a pipe");
    let epoll = Epoll::new().expect("an epoll");
    epoll.add(&read, 1, Interest::Readable).expect("added");
    let id = format!("epoll:{}/{}", std::process::id(), epoll.as_fd().as_raw_fd());
    let shown = here(&["show", &id]).code(0).text();
    assert!(shown.lines().any(|line| line.trim().starts_with("watches")), "{shown}");
}

#[test]
fn a_port_names_its_listener() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let who = here(&["who", &format!("tcp:{port}")]).code(0).text();
    assert!(
        who.contains("listening") && who.contains(&format!("[{}]", std::process::id())),
        "{who}"
    );
}

#[test]
fn filters_columns_and_order() {
    let (_read, write) = pipe::pipe().expect("a pipe");
    let capacity = pipe::capacity(&write).expect("a size");
    switchboard_kernel::io::write_all(&write, &vec![0; capacity]).expect("written");
    let pid = std::process::id().to_string();
    let full = json(here(&["list", "pipe", "--full", "--pid", &pid, "--json"]));
    let objects = full["objects"].as_array().expect("a list");
    assert!(objects.iter().any(|object| object["fill"] == capacity), "{full}");
    let columns = here(&["list", "pipe", "--columns", "fill,id", "--sort", "-fill", "--pid", &pid]);
    let text = columns.code(0).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("fill") && lines[1].starts_with(&format!("{capacity}/")),
        "{text}"
    );
    let kinds = here(&["list", "--kinds"]).code(0).text();
    assert!(kinds.contains("\nsysv-sem ") && kinds.contains("\nfutex "), "{kinds}");
}

#[test]
fn the_tree_shows_a_child_with_what_it_has() {
    let pid = std::process::id();
    let seen = json(here(&["ps", "--json", &pid.to_string()]));
    let processes = seen["processes"].as_array().expect("a list");
    assert_eq!(processes[0]["pid"], pid);
    // The command itself is this test's child, and talks to it over its standard streams.
    let command = processes.iter().find(|one| one["parent"] == pid && one["depth"] == 1);
    assert!(command.is_some(), "{seen}");
    let text = here(&["ps", &pid.to_string()]).code(0).text();
    assert!(text.lines().next().is_some_and(|line| line.contains(&format!("[{pid}]"))), "{text}");
}

/// What a process waits for, and then something else.
#[test]
fn a_watched_process_is_told_of_when_it_waits_for_something_else() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let scratch = Scratch::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "read line; exec sleep 120"]).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    let pid = shell.id().to_string();
    let why = Run::start(scratch.path(), &["why", "--watch", &pid]);
    let says = |what: &str| {
        let what = what.to_owned();
        let has = move |out: &[u8]| String::from_utf8_lossy(out).contains(&what);
        why.wait_stdout("a sentence", has);
    };
    says("to read from pipe:");
    shell.stdin.take().expect("a pipe").write_all(b"x\n").expect("written");
    says("for time to pass");
    why.signal(switchboard_kernel::process::Signal::INT);
    why.wait().code(1);
    shell.kill().expect("killed");
    shell.wait().expect("an end");
}

#[test]
fn a_watched_process_is_told_of_when_whom_it_waits_for_is_stopped() {
    use std::process::{Command, Stdio};
    use switchboard_kernel::pidfd;
    use switchboard_kernel::process::Signal;
    let scratch = Scratch::new();
    let mut writer = Command::new("sleep").arg("120").stdout(Stdio::piped()).spawn().expect("one");
    let pipe = writer.stdout.take().expect("a pipe");
    let mut reader = Command::new("cat").stdin(pipe).spawn().expect("another");
    let why = Run::start(scratch.path(), &["why", "--watch", &reader.id().to_string()]);
    let says = |what: &str| {
        let has = |out: &[u8]| String::from_utf8_lossy(out).contains(what);
        why.wait_stdout("a sentence", has);
    };
    says("to read from pipe:");
    let stopped = pidfd::open(writer.id()).expect("a process");
    pidfd::send_signal(&stopped, Signal::STOP).expect("stopped");
    says(&format!("sleep[{}] is stopped (SIGSTOP)", writer.id()));
    why.signal(Signal::INT);
    why.wait().code(1);
    for child in [&mut writer, &mut reader] {
        child.kill().expect("killed");
        child.wait().expect("an end");
    }
}

#[test]
fn what_is_not_there() {
    here(&["show", "/nothing/there"]).code(3).says("nothing here is called /nothing/there");
    here(&["who", "pipe:0"]).code(3).says("nothing here is called pipe:0");
    here(&["who", "pid:0"]).code(3).says("no process 0");
    here(&["ps", "0"]).code(3).says("no process 0");
    here(&["list", "--pid", "0"]).code(3).says("no process 0");
    here(&["list", "pid:0"]).code(3).says("no process 0");
    here(&["list", "pipes"]).code(2).says("no kind pipes");
    here(&["list", "--columns", "colour"]).code(2).says("no column colour");
    here(&["list", "--from", "/nothing/there"]).code(3).says("/nothing/there");
    let scratch = Scratch::new();
    std::fs::write(scratch.join("f"), "{}").expect("a file");
    run(scratch.path(), &["list", "--from", "f"], "").code(1).says("this is no snapshot");
    here(&["list", "--from", "/dev/zero"]).code(1).says("this is no snapshot");
}
