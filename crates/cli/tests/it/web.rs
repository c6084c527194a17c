//! `web`: who gets the page and who does not, when it looks, and how it ends. What the page does, `pages` sees in a browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use switchboard_kernel::process::Signal;
use switchboard_testkit::{DEADLINE, Scratch};

use crate::run::{Run, eventually, free_port, run};
use crate::world;

/// A running `web`.
pub(crate) struct Web {
    pub(crate) run: Run,
    pub(crate) url: String,
    address: SocketAddr,
    path: String,
}

impl Web {
    pub(crate) fn start(scratch: &Scratch, arguments: &[&str]) -> Self {
        let run = Run::start(scratch.path(), &[&["web", "--json"], arguments].concat());
        run.wait_stdout("an address", |said| said.ends_with(b"\n"));
        let said: serde_json::Value = serde_json::from_str(&run.stdout_so_far()).expect("JSON");
        let url = said["url"].as_str().expect("a URL").to_owned();
        let (address, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .expect("an address and a path");
        let (address, path) = (address.parse().expect("an address"), format!("/{path}"));
        Self { run, url, address, path }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE * 2)).expect("a limit");
        stream
    }

    /// Asks, and waits for the whole answer: its status, its head in small letters, its body.
    fn ask(&self, method: &str, path: &str, host: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        (status.expect("a status"), head.to_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.ask("GET", path, &self.address.to_string())
    }

    /// Asks for what is new, and has the answer's first line.
    fn view(&self) -> (BufReader<TcpStream>, String) {
        let mut stream = self.connect();
        write!(stream, "GET {}events HTTP/1.1\r\nHost: {}\r\n\r\n", self.path, self.address)
            .expect("asked");
        let mut viewer = BufReader::new(stream);
        let mut line = String::new();
        viewer.read_line(&mut line).expect("an answer");
        (viewer, line)
    }

    /// How often it has called for something to read, ever.
    fn reads(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.run.id())).expect("counts");
        let line = text.lines().find_map(|line| line.strip_prefix("syscr: "));
        line.and_then(|number| number.parse().ok()).expect("a count")
    }
}

/// The next event's first line of data.
fn event(viewer: &mut BufReader<TcpStream>) -> Option<String> {
    loop {
        let mut line = String::new();
        if viewer.read_line(&mut line).expect("an event in time") == 0 {
            return None;
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return Some(data.trim_end().to_owned());
        }
    }
}

#[test]
fn only_who_knows_the_address_gets_the_page() {
    let scratch = Scratch::new();
    let web = Web::start(&scratch, &[]);
    assert!(web.address.ip().is_loopback());
    let token = web.path.trim_matches('/');
    assert_eq!((token.len(), token.bytes().all(|b| b.is_ascii_hexdigit())), (32, true), "{token}");
    let (status, head, page) = web.get(&web.path);
    assert_eq!(status, 200, "{head}");
    assert!(page.starts_with("<!doctype html>") && !page.contains(token), "{page}");
    for header in [
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; script-src 'self'; ",
        "cache-control: no-store",
        "x-frame-options: deny",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(!head.contains("access-control"), "{head}");
    for part in ["page.css", "page.js"] {
        assert_eq!(web.get(&format!("{}{part}", web.path)).0, 200);
    }
    let wrong = token.replace(|c: char| c.is_ascii_digit(), "f");
    for path in ["/", "/events", "/page.js", &format!("/{wrong}/"), &format!("/{wrong}/events")] {
        let (status, head, body) = web.get(path);
        assert_eq!(status, 403, "{path}: {head}");
        assert!(!body.contains(token) && head.contains("referrer-policy: no-referrer"), "{body}");
    }
    for host in ["evil.example", "127.0.0.1", "evil.example:80", ""] {
        assert_eq!(web.ask("GET", &web.path, host).0, 403, "{host}");
    }
    let local = format!("localhost:{}", web.address.port());
    assert_eq!(web.ask("GET", &web.path, &local).0, 200);
    assert_eq!(web.ask("POST", &web.path, &local).0, 405);
    assert_eq!(web.get(web.path.trim_end_matches('/')).0, 308);
    assert_eq!(web.get(&format!("{}secret", web.path)).0, 404);
    // The next one has another token.
    let other = Web::start(&scratch, &[]);
    assert_ne!(other.path, web.path);
}

#[test]
fn it_is_for_this_machine_alone() {
    let scratch = Scratch::new();
    for address in ["0.0.0.0", "::", "192.0.2.1", "224.0.0.1"] {
        let refused = run(scratch.path(), &["web", "--bind", address], "");
        refused.code(5).says("not an address of this machine alone").prints("");
    }
    run(scratch.path(), &["web", "--bind", "everywhere"], "").code(2);
    run(scratch.path(), &["web", "--interval", "1ms"], "").code(2).says("from 100ms");
    let port = free_port().to_string();
    let web = Web::start(&scratch, &["--port", &port, "--bind", "127.0.0.1"]);
    assert_eq!(web.address.port().to_string(), port);
    let taken = run(scratch.path(), &["web", "--port", &port], "");
    taken.code(1).says("in use").says("--port 0");
}

#[test]
fn it_ends_when_it_is_told_to() {
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::new();
        let web = Web::start(&scratch, &["--interval", "100ms"]);
        let (mut viewer, line) = web.view();
        assert!(line.contains(" 200 "), "{line}");
        assert!(event(&mut viewer).is_some_and(|data| data.starts_with('{')));
        web.run.signal(signal);
        // Who looks is told, so that his browser does not ask again and again.
        let mut last = None;
        while let Some(data) = event(&mut viewer) {
            last = Some(data);
        }
        assert_eq!(last.as_deref(), Some("over"));
        let ended = web.run.wait().code(0);
        assert_eq!(ended.text().lines().count(), 1, "{ended}");
        assert!(!ended.stderr.contains("error"), "{ended}");
    }
}

#[test]
fn it_looks_only_while_somebody_looks() {
    let scratch = Scratch::new();
    let web = Web::start(&scratch, &["--interval", "100ms"]);
    let quiet = |web: &Web| {
        let before = web.reads();
        std::thread::sleep(Duration::from_millis(700));
        web.reads() - before < 20
    };
    assert!(quiet(&web), "nobody has asked yet");
    let (mut viewer, _) = web.view();
    let before = web.reads();
    (0..3).for_each(|_| assert!(event(&mut viewer).is_some()));
    assert!(web.reads() - before > 20, "a look reads more than that");
    drop(viewer);
    eventually("quiet again", || quiet(&web));
    // And again when somebody comes.
    let (mut viewer, _) = web.view();
    assert!(event(&mut viewer).is_some());
}

#[test]
fn a_slow_client_harms_nobody() {
    let scratch = Scratch::new();
    let web = Web::start(&scratch, &["--interval", "100ms"]);
    // They ask and never read; others connect and never ask.
    let slow: Vec<_> = (0..8).map(|_| web.view()).collect();
    let silent: Vec<TcpStream> = (0..40).map(|_| web.connect()).collect();
    let began = Instant::now();
    let (mut viewer, line) = web.view();
    assert!(line.contains(" 200 "), "{line}");
    (0..5).for_each(|_| assert!(event(&mut viewer).is_some()));
    assert_eq!(web.get(&web.path).0, 200);
    assert!(began.elapsed() < DEADLINE * 2, "{:?}", began.elapsed());
    drop((slow, silent));
}

#[test]
fn so_many_may_look_and_no_more() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("s.json"), world::snapshot(5, 1).to_json()).expect("a snapshot");
    let web = Web::start(&scratch, &["--from", "s.json"]);
    let mut viewers: Vec<_> = (0..16).map(|_| web.view()).collect();
    for (viewer, line) in &mut viewers {
        assert!(line.contains(" 200 "), "{line}");
        assert!(event(viewer).is_some_and(|data| data.contains("\"live\":false")));
    }
    let (_, refused) = web.view();
    assert!(refused.contains(" 503 "), "{refused}");
    drop(viewers);
    eventually("room again", || web.view().1.contains(" 200 "));
    // Of one process, its own objects alone.
    let one = Web::start(&scratch, &["--from", "s.json", "30", "--depth", "0"]);
    let data = event(&mut one.view().0).expect("an event");
    let data: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(data["processes"].as_array().map(Vec::len), Some(1), "{data}");
    let objects = data["objects"].as_array().expect("objects");
    let its = |object: &serde_json::Value| {
        object["pids"].as_array().is_some_and(|pids| pids.contains(&30.into()))
    };
    assert!(!objects.is_empty() && objects.iter().all(its), "{objects:?}");
    // With a process that is not in it, there is nothing to serve.
    run(scratch.path(), &["web", "--from", "s.json", "7"], "").code(3).says("no process 7");
    // No machine has that many.
    run(scratch.path(), &["web", "99999999"], "").code(3).says("no process 99999999");
}
