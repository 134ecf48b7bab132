//! The page in Chromium, as somebody has it who looks, talks, has no mouse, or holds a telephone.
//!
//! `SEMANTIC_UI_PICTURES=FOLDER` makes PNGs of it there, wide and narrow, light and dark.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::browser::Browser;
use crate::support::http::{Request, Server, Setup, hello, wait_until};
use crate::support::store::ShakyDisk;

const KEY: &str = "0123456789abcdef";
const MARKUP: &str = "<img src=x onerror=alert(1)>";
const REPLY: &str =
    "The sky is blue because air scatters short waves of light more than long ones.";

/// How well each text can be read that is on the screen: the least contrast with what is behind it.
const CONTRAST: &str = r#"(() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  // What is half transparent lets through what is behind it.
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const [r, g, b, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
    if (alpha === 1) return [r, g, b];
    const below = behind(element.parentElement);
    return [r, g, b].map((part, at) => alpha * part + (1 - alpha) * below[at]);
  };
  let least = [21, ""];
  for (const element of document.querySelectorAll("body *")) {
    const has_text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const is_field = element.matches("input, textarea");
    if (!(has_text || is_field) || !element.checkVisibility() || element.matches("script, style")) continue;
    const one = light(numbers(getComputedStyle(element).color).slice(0, 3));
    const other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 120)];
  }
  return least;
})()"#;

fn open(browser: &mut Browser, server: &Server) {
    browser.open(&format!("http://{}/ui", server.address));
}

fn ready(browser: &mut Browser) {
    browser.until("the numbers are there", "!document.getElementById('main').hidden");
}

/// One turn over HTTP.
fn turn(server: &Server, agent: &str, prompt: &str) {
    let body = hello(json!({
        "messages": [{ "role": "user", "content": prompt }],
        "session_id": agent,
        "max_tokens": 8,
        "temperature": 0,
    }));
    let request = Request::chat(&body).header("x-api-key", KEY);
    assert_eq!(server.send(&request).status, 200);
}

fn on_disk() -> Setup {
    let disk = Some(ShakyDisk::default());
    Setup { disk, step: Duration::from_millis(5), ..Setup::default() }
}

/// The last thing said, which has ended.
fn until_said(browser: &mut Browser) {
    browser.until("it has ended", "document.getElementById('stop').hidden");
    browser.until("it is told of", "document.querySelector('#said li:last-child.reply .notes')");
}

fn last(browser: &mut Browser, part: &str) -> String {
    let found = format!("document.querySelector('#said li:last-child {part}')");
    let text = browser.value(&format!("{found}?.parentElement.querySelector('{part}').innerText"));
    text.as_str().unwrap_or_default().to_owned()
}

fn notes(browser: &mut Browser) -> String {
    let all = "[...document.querySelectorAll('#said li:last-child .notes')]";
    let text = browser.value(&format!("{all}.map((note) => note.innerText).join('\\n')"));
    text.as_str().expect("a text").to_owned()
}

/// Wide and narrow, light and dark: nothing hangs over, all can be read.
fn check_looks(browser: &mut Browser, name: &str) {
    for width in [1200, 390, 320] {
        browser.resize(width, 900);
        let over = browser.value("document.documentElement.scrollWidth");
        assert!(over.as_u64().expect("a width") <= width.into(), "{name}: {over} of {width}");
        for scheme in ["light", "dark"] {
            browser.prefer("prefers-color-scheme", scheme);
            let contrast = browser.value(CONTRAST);
            assert!(contrast[0].as_f64().expect("a ratio") >= 4.5, "{name}, {scheme}: {contrast}");
            if let Ok(folder) = std::env::var("SEMANTIC_UI_PICTURES") {
                let file = format!("{name}-{width}-{scheme}.png");
                browser.photograph(&Path::new(&folder).join(file));
            }
        }
    }
    browser.resize(1200, 900);
}

#[test]
fn the_page_fits_every_screen_and_asks_nobody_but_its_server() {
    let server = Server::start(on_disk());
    let mut browser = Browser::start();
    open(&mut browser, &server);
    ready(&mut browser);
    browser.until("there are none", "!document.getElementById('agents-none').hidden");
    check_looks(&mut browser, "empty");

    let prompt = "one word after another ".repeat(150);
    for agent in ["planner", "coder", "reviewer", MARKUP, &"long".repeat(50)] {
        turn(&server, agent, &prompt);
    }
    for agent in ["planner", "coder"] {
        let path = format!("/v1/agents/{agent}?evict_only=true");
        assert_eq!(server.send(&Request::new("DELETE", &path)).status, 200);
        turn(&server, "planner", &prompt);
    }
    browser.until("they are there", "document.querySelectorAll('#agents tr').length === 5");
    browser.until("one is on disk", "document.querySelector('#agents .warm')");
    browser.until("time saved is told", "document.getElementById('seconds').innerText !== '–'");
    let names =
        browser.value("[...document.querySelectorAll('#agents th')].map((th) => th.innerText)");
    assert!(names.as_array().expect("a list").contains(&Json::from(MARKUP)), "{names}");
    assert_eq!(browser.value("document.querySelectorAll('img').length"), 0);
    browser.value("document.querySelector('summary').click()");
    check_looks(&mut browser, "full");

    let own = format!("http://{}/", server.address);
    let asked = browser.requests();
    assert!(asked.len() > 3, "{asked:?}");
    let others: Vec<&String> =
        asked.iter().filter(|url| !url.starts_with(&own) && *url != "data:,").collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_numbers_change_while_a_request_runs() {
    let step = Duration::from_millis(5);
    let server = Server::start(Setup { is_endless: true, step, ..Setup::default() });
    let mut browser = Browser::start();
    open(&mut browser, &server);
    browser.until("nothing runs", "document.getElementById('queue').innerText.startsWith('0')");
    let mut client = server.connect();
    client.stream(&hello(json!({ "stream": true, "max_tokens": 8000, "session_id": "a" })));
    // It is read on, so that it goes on.
    let reading = std::thread::spawn(move || while client.event().is_some() {});
    browser.until("it runs", "document.getElementById('queue').innerText.startsWith('1')");
    browser
        .until("it is at work", "document.querySelector('#agents').innerText.includes('at work')");
    browser
        .until("its speed is told", "parseFloat(document.getElementById('speed').innerText) > 1");
    let drawn = "[...document.querySelectorAll('#speed-chart rect')]\
                 .some((bar) => bar.getAttribute('height') > 1)";
    browser.until("it is drawn", drawn);
    browser.until(
        "its blocks are told",
        "!document.getElementById('pool-busy').innerText.startsWith('0')",
    );
    assert_ne!(browser.text("ttft"), "–");
    server.engine().cut();
    reading.join().expect("it is over");
    browser.until("nothing runs", "document.getElementById('queue').innerText.startsWith('0')");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn an_agent_is_talked_to_put_on_disk_and_seen_to_come_back() {
    let replies = vec![REPLY, REPLY];
    let step = Duration::from_millis(20);
    let server = Server::start(Setup { replies, step, ..on_disk() });
    let mut browser = Browser::start();
    open(&mut browser, &server);
    ready(&mut browser);
    let memory = "document.getElementById('memory').innerText";
    browser.until("it is new", &format!("{memory}.includes('nothing remembered yet')"));
    browser.value("document.getElementById('message').focus()");
    browser.write("Why is the sky blue?");
    browser.press("Enter");
    // It comes as it is generated.
    let shown = "document.querySelector('#said .reply .text')?.innerText.length";
    browser.until("it has begun", &format!("{shown} > 0 && {shown} < 60"));
    until_said(&mut browser);
    assert_eq!(last(&mut browser, ".text"), REPLY);
    let told = notes(&mut browser);
    for part in ["cold", "First text after", "Durable", "save 1", "Before: nothing remembered yet"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    browser.until("it is in memory", "document.querySelector('#agents .hot')");

    browser.until("it can be moved", "!document.getElementById('evict').disabled");
    browser.value("document.getElementById('evict').click()");
    browser.until("it is on disk", "document.querySelector('#agents .warm')");
    browser.until("and told of", "document.getElementById('memory').innerText.includes('on disk')");
    browser.until("it is said", "document.getElementById('said').innerText.includes('1 on disk')");

    browser.write("And at night?");
    browser.press("Enter");
    until_said(&mut browser);
    let told = notes(&mut browser);
    for part in ["warm", "tokens restored from disk in", "Before: on disk", "after: in memory"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(last(&mut browser, ".text"), REPLY);
    browser.until("it is in memory", "document.querySelector('#agents .hot')");
    browser.until("it counts", "document.getElementById('saved-about').innerText[0] > 0");
    check_looks(&mut browser, "talked");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_reply_is_stopped_where_it_is() {
    let step = Duration::from_millis(10);
    let server = Server::start(Setup { is_endless: true, step, ..on_disk() });
    let mut browser = Browser::start();
    open(&mut browser, &server);
    ready(&mut browser);
    browser.tab_to("most");
    browser.value("document.getElementById('most').value = ''");
    browser.write("4000");
    browser.value("document.getElementById('message').focus()");
    browser.write("Go on");
    browser.press("Enter");
    let shown = "document.querySelector('#said .reply .text')?.innerText.length";
    browser.until("it has begun", &format!("{shown} > 20"));
    browser.press("Escape");
    wait_until("the engine is idle", || server.engine().stats().running == 0);
    until_said(&mut browser);
    let told = notes(&mut browser);
    assert!(told.starts_with("Stopped. Now: "), "{told}");
    assert_eq!(browser.value("document.activeElement.id"), "message");
    assert_eq!(browser.value("document.getElementById('send').disabled"), false);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn who_has_no_mouse_gives_a_key_and_talks() {
    let replies = vec![REPLY];
    let server = Server::start(Setup { keys: Some(KEY), replies, ..on_disk() });
    let mut browser = Browser::start();
    browser.prefer("prefers-reduced-motion", "reduce");
    open(&mut browser, &server);
    browser.until("it asks for a key", "document.activeElement.id === 'key'");
    check_looks(&mut browser, "key");
    browser.write("a-key-that-is-wrong");
    browser.press("Enter");
    browser.until(
        "it is refused",
        "document.getElementById('key-error').innerText.includes('does not know')",
    );
    assert_eq!(browser.value("sessionStorage.length"), 0);
    browser.write("schlüssel");
    browser.press("Enter");
    assert!(browser.text("key-error").contains("ASCII"));
    browser.write(KEY);
    browser.press("Enter");
    browser.until("it lets in", "document.activeElement.id === 'message'");
    browser.until("it is kept for the tab", &format!("sessionStorage['semantic-key'] === '{KEY}'"));
    assert_eq!(browser.value("localStorage.length + document.cookie.length"), 0);
    assert!(browser.requests().iter().all(|url| !url.contains(KEY)));

    open(&mut browser, &server);
    ready(&mut browser);
    for id in ["forget", "agent", "message", "most", "send"] {
        browser.tab_to(id);
        let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(outline, "solid", "{id} does not show its focus");
    }
    browser.press("Shift+Tab");
    browser.press("Shift+Tab");
    assert_eq!(browser.value("document.activeElement.id"), "message");
    browser.write("Why?");
    browser.press("Enter");
    until_said(&mut browser);
    assert_eq!(last(&mut browser, ".text"), REPLY);
    browser.until("it is in the table", "document.querySelector('#agents button')");
    let named = "[...document.querySelectorAll('input, textarea, button, svg[role=img]')].filter((one) =>\
                 !(one.labels?.length || one.innerText || one.textContent || one.getAttribute('aria-label')))\
                 .map((one) => one.id)";
    assert_eq!(browser.value(named), json!([]));

    browser.tab_to("forget");
    browser.press("Enter");
    browser.until("it asks for a key", "document.activeElement.id === 'key'");
    assert_eq!(browser.value("sessionStorage.length"), 0);
    assert_eq!(browser.value("document.getElementById('main').hidden"), true);
    assert!(!browser.text("main").contains(REPLY));
    // Known again, it has all of it at once.
    browser.tab_to("key");
    browser.write(KEY);
    browser.press("Enter");
    browser.until("its agents are there", "document.querySelector('#agents button')");
    // The refusals of its keys, and nothing else.
    let others: Vec<String> =
        browser.complaints().into_iter().filter(|text| !text.contains("status of 401")).collect();
    assert_eq!(others, [""; 0]);
}

#[test]
fn a_server_that_is_gone_is_asked_again_until_it_is_back() {
    let server = Server::new();
    let mut browser = Browser::start();
    open(&mut browser, &server);
    ready(&mut browser);
    browser.set_offline(true);
    browser.until(
        "it is said",
        "document.getElementById('notice').innerText.includes('does not answer')",
    );
    browser.until(
        "less and less often",
        "/in [48] s/.test(document.getElementById('notice').innerText)",
    );
    assert_eq!(browser.text("state-text"), "no answer");
    check_looks(&mut browser, "gone");
    browser.set_offline(false);
    browser.until("it is back", "document.getElementById('notice').hidden");
    assert_eq!(browser.text("state-text"), "serving");
}
