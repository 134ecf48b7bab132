//! A hub on this machine: the routes of huggingface.co that a download needs, and its moods.
//!
//! Large files answer with a redirect to another host name that stands for the CDN, small ones come
//! at once, as on the real one.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const REPO: &str = "org/name";

/// What goes wrong with the next requests whose path contains a text.
#[derive(Clone, Debug)]
pub enum Fault {
    Status(u16),
    /// Other bytes, as many as promised.
    WrongBytes,
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// A server that knows no ranges.
    NoRanges,
    Etag(&'static str),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Vec<(&'static str, Fault, usize)>,
    requests: Vec<Request>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct Hub {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn new(files: &[(&str, &[u8])]) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec()));
        let state = State { files: files.collect(), ..State::default() };
        let hub = Hub { url: url.clone(), state: Arc::new(Mutex::new(state)) };
        let state = hub.state.clone();
        // Lives as long as the test process; it only waits.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, url) = (state.clone(), url.clone());
                std::thread::spawn(move || serve(stream, &url, &state));
            }
        });
        hub
    }

    /// The next `times` requests whose path contains `path` meet this fault.
    pub fn fail(&self, path: &'static str, fault: Fault, times: usize) {
        self.state.lock().expect("the state").faults.push((path, fault, times));
    }

    /// What was asked since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("the state").requests)
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(stream: TcpStream, url: &str, state: &Mutex<State>) {
    let Ok(read) = stream.try_clone() else { return };
    let mut lines = BufReader::new(read).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or("").to_string();
    let mut request = Request { path: path.clone(), ..Request::default() };
    for line in lines.take_while(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                request.range = Some(value.to_string());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                request.authorization = Some(value.to_string());
            }
            _ => {}
        }
    }
    let (fault, files) = {
        let mut state = state.lock().expect("the state");
        state.requests.push(request.clone());
        let found =
            state.faults.iter_mut().find(|(text, _, times)| *times > 0 && path.contains(text));
        let fault = found.map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        });
        (fault, state.files.clone())
    };
    // A client that hangs up is a client's right.
    let _ = answer(stream, url, &request, fault, &files);
}

fn answer(
    mut stream: TcpStream,
    url: &str,
    request: &Request,
    fault: Option<Fault>,
    files: &BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let path = request.path.as_str();
    if let Some(Fault::Status(status)) = fault {
        return head(&mut stream, status, 0, &[("Retry-After", "0".into())]);
    }
    if path.starts_with(&format!("/api/models/{REPO}/revision/")) {
        let siblings: Vec<_> =
            files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        head(&mut stream, 200, info.len(), &[])?;
        return stream.write_all(info.as_bytes());
    }
    let resolve = path.strip_prefix(&format!("/{REPO}/resolve/"));
    let file = resolve.and_then(|rest| rest.split_once('/')).map(|(_, file)| file);
    if let Some((file, bytes)) = file.and_then(|file| files.get_key_value(file)) {
        let commit = ("X-Repo-Commit", COMMIT.to_string());
        let sha256 = match fault {
            Some(Fault::Etag(etag)) => etag.to_string(),
            _ => sha256(bytes),
        };
        let is_large = [".gguf", ".safetensors"].iter().any(|end| file.ends_with(end));
        if !is_large {
            let etag = ("ETag", format!("\"{}\"", &sha256[..40]));
            return body(&mut stream, bytes, request, fault, &[commit, etag]);
        }
        let headers = [
            commit,
            ("X-Linked-Etag", format!("\"{sha256}\"")),
            ("X-Linked-Size", bytes.len().to_string()),
            ("ETag", "\"of-the-redirect\"".into()),
            ("Location", format!("{}/cdn/{file}", url.replace("127.0.0.1", "localhost"))),
        ];
        return head(&mut stream, 302, 0, &headers);
    }
    match path.strip_prefix("/cdn/").and_then(|file| files.get(file)) {
        Some(bytes) => body(&mut stream, bytes, request, fault, &[("ETag", "\"cdn\"".into())]),
        None => head(&mut stream, 404, 0, &[]),
    }
}

fn body(
    stream: &mut TcpStream,
    bytes: &[u8],
    request: &Request,
    fault: Option<Fault>,
    headers: &[(&str, String)],
) -> std::io::Result<()> {
    let mut bytes = bytes.to_vec();
    if let Some(Fault::WrongBytes) = fault {
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes="));
    let range = range.and_then(|range| range.split_once('-'));
    let range = range.filter(|_| !matches!(fault, Some(Fault::NoRanges)));
    let mut headers = headers.to_vec();
    let part = match range {
        None => &bytes[..],
        Some((from, to)) => {
            let from: usize = from.parse().expect("a number");
            let to = to.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
            if from >= bytes.len() {
                return head(stream, 416, 0, &headers);
            }
            let value = format!("bytes {from}-{}/{}", to - 1, bytes.len());
            headers.push(("Content-Range", value));
            &bytes[from..to]
        }
    };
    head(stream, if range.is_some() { 206 } else { 200 }, part.len(), &headers)?;
    match fault {
        Some(Fault::CutAfter(count)) => stream.write_all(&part[..count.min(part.len())]),
        _ => stream.write_all(part),
    }
}

fn head(
    stream: &mut TcpStream,
    status: u16,
    length: usize,
    headers: &[(&str, String)],
) -> std::io::Result<()> {
    let mut text =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())
}
