//! Chromium without a window, driven over a pipe (the DevTools protocol): it has no port, and ends
//! with the pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};

/// Far above what Chromium takes on a busy machine; one that hangs must not hang us.
const WATCHDOG: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const NEEDS: &str = "these tests need Chromium; CHROMIUM names one that is not on the PATH";
/// The pipes of DevTools are numbers 3 and 4, which a shell can give and `Command` cannot.
const SHELL: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Json>,
    /// What came that is no answer.
    events: Vec<Json>,
    session: Option<String>,
    last_id: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("sh")
            .args(["-c", SHELL])
            .arg(program())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let commands = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in stdout.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            child,
            commands,
            messages,
            events: Vec::new(),
            session: None,
            last_id: 0,
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for room in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{room}.enable"), json!({}));
        }
        browser.resize(1200, 900);
        browser
    }

    pub fn call(&mut self, method: &str, parameters: Json) -> Json {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let sent = self.commands.write_all(format!("{command}\0").as_bytes());
        sent.unwrap_or_else(|error| panic!("{NEEDS}: {error}"));
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|error| panic!("{method}: {error}; {NEEDS}"));
            if message["id"] != self.last_id {
                self.events.push(message);
                continue;
            }
            assert!(message.get("error").is_none(), "{method}: {message}");
            return message["result"].clone();
        }
    }

    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened.get("errorText").is_none(), "{opened}");
        self.until("the page is there", "document.readyState === 'complete'");
    }

    /// The value of an expression, which may be a promise.
    pub fn value(&mut self, expression: &str) -> Json {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// What an element shows; an element is named by its id.
    pub fn text(&mut self, id: &str) -> String {
        let text = self.value(&format!("document.getElementById('{id}').innerText"));
        text.as_str().expect("an element").to_owned()
    }

    /// Looks again and again, but not for ever.
    pub fn until(&mut self, what: &str, condition: &str) {
        let deadline = Instant::now() + WATCHDOG;
        while self.value(&format!("Boolean({condition})")) != true {
            let page = "document.body?.innerText.slice(0, 3000)";
            assert!(Instant::now() < deadline, "{what}: {}", self.value(page));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses one key: `Tab`, `Enter`, `Escape`, or with `Shift+` before it.
    pub fn press(&mut self, key: &str) {
        let (key, modifiers) = match key.strip_prefix("Shift+") {
            Some(key) => (key, 8),
            None => (key, 0),
        };
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => panic!("{other} is no key that is known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "modifiers": modifiers,
            });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses `Tab` until an element has the focus, as who has no mouse does.
    pub fn tab_to(&mut self, id: &str) {
        for _ in 0..60 {
            if self.value("document.activeElement.id") == id {
                return;
            }
            self.press("Tab");
        }
        panic!("{id} is not reached by the keyboard");
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    pub fn prefer(&mut self, feature: &str, value: &str) {
        let features = json!([{ "name": feature, "value": value }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// From here on nothing is reached, or all again.
    pub fn set_offline(&mut self, is_offline: bool) {
        let conditions = json!({
            "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.call("Network.emulateNetworkConditions", conditions);
    }

    /// Writes the whole page as a PNG.
    pub fn photograph(&mut self, file: &Path) {
        let parameters = json!({ "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", parameters);
        let text = picture["data"].as_str().expect("a picture");
        std::fs::write(file, BASE64_STANDARD.decode(text).expect("base64")).expect("a file");
    }

    /// All that was asked for so far.
    pub fn requests(&self) -> Vec<String> {
        let asked =
            self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let url = |event: &Json| event["params"]["request"]["url"].as_str().map(str::to_owned);
        asked.filter_map(url).collect()
    }

    /// What the page did wrong so far, as its console has it: errors, and what its policy forbids.
    pub fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Json| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some(_) | None => false,
        };
        self.events.iter().filter(is_complaint).map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes by itself when asked; killed, it would leave processes.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn program() -> String {
    let named = std::env::var("CHROMIUM").ok().into_iter();
    let mut names = named.chain(NAMES.map(str::to_owned));
    let runs = |name: &String| {
        let shown = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        shown.is_ok_and(|output| output.status.success())
    };
    names.find(runs).unwrap_or_else(|| panic!("{NEEDS}"))
}
