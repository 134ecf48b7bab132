//! The room against its oracles: Hugging Face's tokenizers, SentencePiece, Jinja2. The fixtures
//! and the script that made them are in `tests/data/text`.

mod chat;
mod grammar;
mod limits;
mod reasoning;
mod template;
mod text_or_calls;
mod tokenizer;
mod tools;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::types::TextSource;

fn fixture<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("the fixture is as make.py wrote it")
}

fn folder(tokenizer_json: &str, config: Option<Value>) -> TextSource {
    TextSource::Folder {
        tokenizer_json: tokenizer_json.as_bytes().to_vec(),
        tokenizer_config_json: config.map(|config| config.to_string().into_bytes()),
        chat_template_jinja: None,
        end_tokens: Vec::new(),
    }
}
