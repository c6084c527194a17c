//! A browser without a screen, driven as a person would: opens pages, clicks, reads, takes pictures.
//!
//! Source: WebDriver (<https://www.w3.org/TR/webdriver2/>), as Debian's `chromium-driver` speaks it: JSON over HTTP, a connection per
//! request, answers with their length. That needs no library for HTTP, of which each brings more than all of this package.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{Child, DEADLINE, Scratch};

/// A page that does not answer by then hangs. Beginning takes a while on a busy machine.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A browser with one window; ended on drop.
#[derive(Debug)]
pub struct Browser {
    port: u16,
    session: String,
    driver: Child,
    _folder: Scratch,
}

impl Browser {
    /// Starts one whose window has so many pixels. None: this machine has no `chromedriver`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Option<Self> {
        find("chromedriver")?;
        let folder = Scratch::new();
        let mut command = Command::new("chromedriver");
        // Whatever it keeps in somebody's home, or leaves where all have such things, it keeps here.
        command.arg("--port=0").env("HOME", folder.path());
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"] {
            command.env(name, folder.path());
        }
        let mut driver = Child::command(command);
        let port = loop {
            let line = driver.line().expect("chromedriver says its port");
            let said = line.strip_prefix("ChromeDriver was started successfully on port ");
            if let Some(port) = said {
                break port.trim_end_matches('.').parse().expect("a port");
            }
        };
        let mut browser = Self { port, session: String::new(), driver, _folder: folder };
        // Its own sandbox needs rights that root in a container and `nobody` do not have; the pages are ours. What it would do in the
        // background needs a network.
        let options = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-extensions".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--lang=en-GB".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", browser._folder.join("profile").display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": find("chromium"), "args": options },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = browser.call("POST", "/session", Some(&wanted));
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        Some(browser)
    }

    /// Opens a page, and waits until it is there.
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// Runs a script's body in the page: `return 1`.
    pub fn script(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns something true, and returns it.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait(&self, script: &str) -> Value {
        let until = Instant::now() + DEADLINE * 2;
        loop {
            let found = self.script(script);
            if !matches!(found, Value::Null | Value::Bool(false)) {
                return found;
            }
            assert!(Instant::now() < until, "not in time: {script}\n{:?}", self.complaints());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks the first element that a CSS selector finds, where it is seen; the next one of them if the page puts another in its place.
    ///
    /// # Panics
    /// When there is none, or something lies over it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let until = Instant::now() + DEADLINE;
        while let Err(why) = self.try_click(selector) {
            let replaced = why.contains("stale element") || why.contains("not found");
            assert!(replaced && Instant::now() < until, "{selector}: {why}");
        }
    }

    /// Clicks it, or says why it could not: on a page that moves by itself it may have gone out of sight.
    ///
    /// # Errors
    /// What the browser says.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn try_click(&self, selector: &str) -> Result<(), String> {
        let path = format!("/session/{}/element/{}/click", self.session, self.element(selector));
        let (status, answer) =
            self.try_call("POST", &path, Some(&json!({}))).expect("an answer of chromedriver");
        if status == 200 { Ok(()) } else { Err(answer) }
    }

    /// Types into it.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// What its console says that is an error, and errors of loading.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        let all = log.as_array().into_iter().flatten();
        let severe =
            all.filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    /// What is seen, as PNG in base64.
    #[must_use]
    pub fn screenshot(&self) -> String {
        let picture = self.call("GET", &format!("/session/{}/screenshot", self.session), None);
        picture.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.post("element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|object| object.values().next()?.as_str());
        id.expect("an element").to_owned()
    }

    #[track_caller]
    fn post(&self, what: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{what}", self.session), Some(body))
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) =
            self.try_call(method, path, body).expect("an answer of chromedriver");
        let value: Value = serde_json::from_str(&answer).unwrap_or_default();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        value["value"].clone()
    }

    fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<(u16, String)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // It keeps the connection, whatever it is told: the length says where the answer ends.
        let mut stream = BufReader::new(stream);
        let (mut status, mut length) = (0, 0);
        let mut line = String::new();
        while stream.read_line(&mut line)? > 0 && line != "\r\n" {
            if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
                status = code.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.try_call("DELETE", &format!("/session/{}", self.session), None);
        }
        // It ends its browser, too, should that still be there.
        self.driver.signal(Signal::TERM);
        let _ = self.driver.wait_within(DEADLINE);
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
