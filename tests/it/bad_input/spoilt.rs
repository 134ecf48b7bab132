//! Model files with random damage: whatever comes of them, it is no panic.

use super::*;

/// Small numbers whose meaning is fixed by their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        // Steele, Lea and Flood's SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Cuts, or changes a few bytes, most of them near the start where the headers are.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if self.below(8) == 0 {
            let length = self.below(bytes.len());
            bytes.truncate(length);
            return;
        }
        for _ in 0..=self.below(4) {
            let area = [64, 2048, 16_384, bytes.len()][self.below(4)].min(bytes.len());
            let at = self.below(area);
            bytes[at] = match self.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << self.below(8)),
                _ => self.below(256) as u8,
            };
        }
    }

    /// Puts something unlikely in the place of some value.
    fn spoil_json(&mut self, json: &mut Json) {
        let unlikely = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1),
            json!(7),
            json!(1 << 24),
            json!(u32::MAX),
            json!(u64::MAX),
            json!(1e308),
            json!(""),
            json!("▁"),
            json!([]),
            json!({}),
            json!([[]]),
            json!("{% for x in y"),
        ];
        match json {
            Json::Array(items) if !items.is_empty() && self.below(8) > 0 => {
                let index = self.below(items.len());
                self.spoil_json(&mut items[index]);
            }
            Json::Object(map) if !map.is_empty() && self.below(8) > 0 => {
                let index = self.below(map.len());
                let value = map.values_mut().nth(index).expect("within the length");
                self.spoil_json(value);
            }
            other => *other = unlikely[self.below(unlikely.len())].clone(),
        }
    }
}

/// Everything that is done with a model's files, as far as they allow.
fn use_model(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let files = ModelFiles::open(path)?;
    if let Ok(text) = files.text() {
        if let Ok(tokenizer) = Tokenizer::new(&text) {
            let _ = tokenizer.encode("<|im_start|>Grüße, 123!\n", Special::Parse);
            let _ = tokenizer.encode_raw("the end");
            tokenizer.decode(&(0..400).map(TokenId).collect::<Vec<_>>());
        }
        if let Ok(template) = ChatTemplate::new(&text) {
            let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
            let _ = template.render(&[Message::new("user", "hi")], &options);
        }
    }
    for device in [Device::Cpu, Device::Portable] {
        let kv = "8".parse()?;
        let mut model = files.load(LoadOptions { kv, pool_blocks: 1, device, threads: Some(1) })?;
        let tokens = [TokenId(5), TokenId(6)];
        let row = Row { tokens: &tokens, start: 0, blocks: &[BlockId(0)], logits: Wanted::Last };
        // A kernel's panic comes back as an error.
        if let Err(error) = model.step(&Batch { rows: vec![row] }) {
            assert!(!error.to_string().contains("panicked"), "{error}");
            return Err(error.into());
        }
    }
    Ok(())
}

/// `SEMANTIC_TEST_CASES` asks for more; a case is its number, so a failure repeats itself.
fn for_each_case(check: impl Fn(&mut Dice)) {
    let cases = std::env::var("SEMANTIC_TEST_CASES").ok().and_then(|count| count.parse().ok());
    for case in 0..cases.unwrap_or(scaled(1_500) as u64) {
        let run = || check(&mut Dice(case));
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or(panic.downcast_ref::<&str>().copied());
            panic!("case {case} panicked: {}", reason.unwrap_or("for no known reason"));
        }
    }
}

#[test]
fn a_spoilt_gguf_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let sources = ["llama-f16", "llama-legacy-quants", "llama3-rope", "qwen3-q4-k-m", "gemma3"];
    let sources = sources.map(|name| read(&data(&format!("gguf/{name}.gguf"))));
    for_each_case(|dice| {
        let mut bytes = sources[dice.below(sources.len())].clone();
        dice.spoil(&mut bytes);
        write(&path, bytes);
        let _ = use_model(&path);
    });
}

#[test]
fn a_spoilt_folder_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = data("tiny/llama-f16");
    let json = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    let others = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"];
    copy_folder(&source, folder.path());
    for_each_case(|dice| {
        let name = [&json[..], &json, &others].concat()[dice.below(8)];
        let mut bytes = read(&source.join(name));
        match json.contains(&name) && dice.below(4) > 0 {
            false => dice.spoil(&mut bytes),
            true => {
                let mut value: Json = serde_json::from_slice(&bytes).expect("JSON");
                dice.spoil_json(&mut value);
                bytes = value.to_string().into_bytes();
            }
        }
        write(&folder.path().join(name), bytes);
        let _ = use_model(folder.path());
        write(&folder.path().join(name), read(&source.join(name)));
    });
}

#[test]
fn a_spoilt_configuration_with_windows_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&data("tiny/gemma3-q4-g32"), folder.path());
    let path = folder.path().join("config.json");
    let source: Json = serde_json::from_slice(&read(&path)).expect("JSON");
    for_each_case(|dice| {
        let mut value = source.clone();
        dice.spoil_json(&mut value);
        write(&path, value.to_string());
        let _ = use_model(folder.path());
    });
}

#[test]
fn a_spoilt_tokenizer_of_the_sentence_piece_kind_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&data("tiny/llama-f16"), folder.path());
    let source = read(&data("text/sentence_piece.tokenizer.json"));
    let source: Json = serde_json::from_slice(&source).expect("JSON");
    for_each_case(|dice| {
        let mut value = source.clone();
        dice.spoil_json(&mut value);
        write(&folder.path().join("tokenizer.json"), value.to_string());
        let files = ModelFiles::open(folder.path()).expect("the rest is sound");
        let text = files.text().expect("it is there");
        if let Ok(tokenizer) = Tokenizer::new(&text) {
            let _ = tokenizer.encode_raw("Grüße, 123!\n");
        }
    });
}
