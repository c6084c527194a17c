//! The page of `map` and `web`, opened in a browser: what a click shows, what appears by itself, how 500 processes feel, and that no name
//! of a process does anything.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchboard_kernel::process::Signal;
use switchboard_testkit::Scratch;
use switchboard_testkit::browser::Browser;
use switchboard_testkit::skip::skip;

use crate::run::{Run, eventually, run};
use crate::top::cost::Crowd;
use crate::web::Web;
use crate::world;

/// How long 500 processes may take to be shown, and a click to be answered, on a machine that is busy with other tests. Alone it is a
/// twentieth of that.
const LOAD: Duration = Duration::from_secs(20);
const CLICK: Duration = Duration::from_secs(2);

fn page(scratch: &Scratch, snapshot: &switchboard_inspect::Snapshot, name: &str) -> String {
    std::fs::write(scratch.join("s.json"), snapshot.to_json()).expect("a snapshot");
    run(scratch.path(), &["map", "--from", "s.json", "--force", "--output", name], "").code(0);
    format!("file://{}", scratch.join(name).display())
}

fn is_clean(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector('{selector}').innerText");
    browser.script(&script).as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_page_of_map() {
    let Some(browser) = Browser::start(1280, 800) else {
        return skip("the_page_of_map", "no chromedriver");
    };
    let scratch = Scratch::new();
    hostile_names_do_nothing(&browser, &scratch);
    five_hundred_processes_stay_usable(&browser, &scratch);
    labels_of_the_picture_do_not_overlap(&browser, &scratch);
}

/// Two processes that wait for each other, with names that would be markup, or end the script element, or be a path's style.
fn hostile_names_do_nothing(browser: &Browser, scratch: &Scratch) {
    let names = ["</script><script>window.harm=1</script>", "<img src=x onerror=window.harm=2>"];
    let snapshot = world::stuck_pair(names, "/\"><svg onload=window.harm=3>{{SCRIPT}}");
    browser.open(&page(scratch, &snapshot, "hostile.html"));
    browser.click("[data-key='p10']");
    let panel = text(browser, "#panel");
    for part in [names[0], "has waited 65.0 s to read from pipe:1", "deadlocked", "Connections: 3"]
    {
        assert!(panel.contains(part), "no {part} in {panel}");
    }
    let connections = browser.script("return document.querySelectorAll('#connections li').length");
    assert_eq!(connections, 3);
    // What it is connected with is lit, by a click on the other one's name too.
    let lit = "return [...document.querySelectorAll('.node.lit')].map(node => node.dataset.key).sort().join()";
    assert_eq!(browser.script(lit), "p10,p20");
    browser.click("#connections li button");
    assert!(text(browser, "#panel h2").contains(names[1]));
    // A line shows its channels.
    browser.script("document.querySelector('.edge .grip').dispatchEvent(new MouseEvent('click', {bubbles: true}))");
    let panel = text(browser, "#panel");
    assert!(panel.contains("pipe:1") && panel.contains("waits for it in read"), "{panel}");
    for tab in ["processes", "objects", "stuck", "leaks", "map"] {
        browser.click(&format!("[data-tab='{tab}']"));
    }
    assert_eq!(browser.script("return window.harm || 0"), 0);
    assert_eq!(browser.script("return document.querySelectorAll('img').length"), 0);
    is_clean(browser);
}

fn five_hundred_processes_stay_usable(browser: &Browser, scratch: &Scratch) {
    let url = page(scratch, &world::snapshot(500, 7), "many.html");
    stay_usable(browser, &url, "p2480", "nginx[2");
}

/// A page of five hundred processes: it is shown soon, and one of them that is clicked; one is searched for by the beginning of its label.
fn stay_usable(browser: &Browser, url: &str, clicked: &str, searched: &str) {
    let began = Instant::now();
    browser.open(url);
    browser.wait("return document.querySelectorAll('.node').length >= 500");
    let loaded = began.elapsed();
    assert!(loaded < LOAD, "{loaded:?}");
    // A click, until what it shows is there and drawn: the fastest of some, for others may have the processor.
    let click = format!(
        "const began = performance.now();
        document.querySelector('[data-key=\"{clicked}\"]').dispatchEvent(new MouseEvent('click', {{bubbles: true}}));
        document.body.getBoundingClientRect();
        return [performance.now() - began, document.querySelectorAll('#connections li').length]"
    );
    let clicks = [(); 3].map(|()| {
        let answer = browser.script(&click);
        assert!(answer[1].as_u64().is_some_and(|count| count > 0), "{answer}");
        Duration::from_secs_f64(answer[0].as_f64().expect("a time") / 1e3)
    });
    let took = clicks.into_iter().min().expect("a click");
    assert!(took < CLICK, "{clicks:?}");
    // Searching, by the keyboard; it takes one there.
    browser.type_into("#search", &format!("{searched}\u{e007}"));
    assert!(text(browser, "#panel h2").contains(searched), "{}", text(browser, "#panel"));
    // Filtering: without pipes there are fewer lines.
    let seen = "return document.querySelectorAll('.edge:not(.off)').length";
    let before = browser.script(seen).as_u64().expect("a count");
    browser.script("[...document.querySelectorAll('#filters label')].find(l => l.textContent.includes('pipe (')).click()");
    let after = browser.script(seen).as_u64().expect("a count");
    assert!(0 < after && after < before, "{after} of {before}");
    // Moving and zooming.
    let place = "return document.getElementById('world').getAttribute('transform')";
    let still = browser.script(place);
    browser.click("[data-zoom='in']");
    assert_ne!(browser.script(place), still);
    browser.click("[data-tab='objects']");
    let rows = browser.script("return document.querySelectorAll('#table tbody tr').length");
    assert!(rows.as_u64().is_some_and(|rows| rows > 10), "{rows}");
    // A row leads to where it is on the map.
    let id = text(browser, "#table tbody td");
    browser.click("#table tbody tr");
    assert!(text(browser, "#panel").contains(&id), "{id}");
    is_clean(browser);
    switchboard_testkit::skip::say(&format!(
        "500 processes: shown in {loaded:?}, a click in {took:?}"
    ));
}

fn most_common(numbers: impl Iterator<Item = u32>) -> u32 {
    let mut counts = BTreeMap::<u32, usize>::new();
    numbers.for_each(|number| *counts.entry(number).or_default() += 1);
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.expect("a number").0
}

/// The live page, with 500 processes that are there: they are shown, and it stays usable while new pictures come.
#[test]
fn the_page_of_web_with_five_hundred_processes() {
    let Some(browser) = Browser::start(1280, 800) else {
        return skip("the_page_of_web_with_five_hundred_processes", "no chromedriver");
    };
    let scratch = Scratch::new();
    let mut crowd = Crowd::new(500);
    let ids = crowd.ids();
    let web = Web::start(&scratch, &["--interval", "1s"]);
    // Of some hundred numbers the crowd has nearly all.
    let (clicked, searched) =
        (ids[250], format!("sh[{}", most_common(ids.iter().map(|id| id / 100))));
    stay_usable(&browser, &web.url, &format!("p{clicked}"), &searched);
    // It still follows the machine: who ends goes, and all the others stay.
    browser.click("[data-tab='map']");
    let gone = |pid: u32| format!("document.querySelector(\"[data-key='p{pid}']\") === null");
    assert_eq!(browser.script(&format!("return {}", gone(ids[3]))), false);
    crowd.end(3);
    browser.wait(&format!("return {}", gone(ids[3])));
    assert_eq!(browser.script(&format!("return {}", gone(ids[4]))), false);
    is_clean(&browser);
    web.run.signal(Signal::TERM);
    web.run.wait().code(0);
}

/// As the browser measures them: no text lies over another, and each is within its box.
fn labels_of_the_picture_do_not_overlap(browser: &Browser, scratch: &Scratch) {
    browser.open(&page(scratch, &world::snapshot(60, 4), "some.svg"));
    let overlaps = browser.script(
        "const all = [...document.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
         const found = [];
         for (let a = 0; a < all.length; a++) for (let b = a + 1; b < all.length; b++) {
           const [p, q] = [all[a][1], all[b][1]];
           if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3) found.push([all[a][0], all[b][0]]);
         }
         return [all.length, found]",
    );
    assert!(overlaps[0].as_u64().is_some_and(|count| count > 70), "{overlaps}");
    assert_eq!(overlaps[1], Value::Array(Vec::new()));
    let outside = browser.script(
        "return [...document.querySelectorAll('g > rect + text')].filter(text => {
           const [inner, outer] = [text.getBoundingClientRect(), text.previousElementSibling.getBoundingClientRect()];
           return inner.right > outer.right + 1 || inner.left < outer.left - 1; }).map(text => text.textContent)",
    );
    assert_eq!(outside, Value::Array(Vec::new()));
    is_clean(browser);
}

#[test]
fn the_page_of_web_follows_the_machine() {
    let Some(browser) = Browser::start(1280, 800) else {
        return skip("the_page_of_web_follows_the_machine", "no chromedriver");
    };
    let scratch = Scratch::new();
    let web = Web::start(&scratch, &["--interval", "200ms"]);
    browser.open(&web.url);
    browser.wait("return document.querySelectorAll('.node').length > 2");
    // Nobody touches the page: a shell and its two children appear, and their pipes.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0; cat <&3 | cat & echo $!; wait"]);
    let shell = Run::command(shell);
    shell.wait_stdout("an id", |said| said.ends_with(b"\n"));
    let node = format!("[data-key='p{}']", shell.id());
    browser.wait(&format!("return document.querySelector(\"{node}\") !== null"));
    let child = format!("p{}", shell.stdout_so_far().trim());
    browser.wait(&format!("return document.querySelector(\"[data-key='{child}']\") !== null"));
    // A click on it shows what it is connected with: the test reads what it says.
    eventually("it is found and clicked", || {
        browser.type_into("#search", &format!("[{}]\u{e007}", shell.id()));
        browser.wait("return document.querySelectorAll('#connections li').length > 0");
        browser.script("document.getElementById('search').value = ''");
        // The next picture may have put it elsewhere.
        browser.try_click(&node).is_ok()
    });
    let panel = text(&browser, "#panel");
    assert!(panel.contains(&format!("sh[{}]", shell.id())) && panel.contains("pipe:"), "{panel}");
    // What is chosen stays so while new pictures come.
    let first = text(&browser, "#status");
    browser.wait(&format!("return document.getElementById('status').innerText !== '{first}'"));
    assert!(text(&browser, "#panel").contains(&format!("sh[{}]", shell.id())));
    drop(shell);
    browser.wait(&format!("return document.querySelector(\"{node}\") === null"));
    is_clean(&browser);
    web.run.signal(Signal::TERM);
    web.run.wait().code(0);
    browser.wait("return document.getElementById('status').innerText === 'ended'");
}
