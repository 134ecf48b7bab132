//! The fixture tokenizer.

use std::sync::Arc;

use semantic::text::Tokenizer;
use semantic::types::TextSource;

/// 902 tokens: ChatML's special ones, and pieces of at least one byte.
pub fn byte_level_source() -> TextSource {
    let json = include_bytes!("../../data/text/byte_level.tokenizer.json");
    TextSource::Folder {
        tokenizer_json: json.to_vec(),
        tokenizer_config_json: None,
        chat_template_jinja: Some(CHATML.to_owned()),
        end_tokens: Vec::new(),
    }
}

const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

pub fn byte_level_tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::new(&byte_level_source()).unwrap())
}
