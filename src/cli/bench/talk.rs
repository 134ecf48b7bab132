//! Conversations of a wanted length: so many tokens, with all that the model's template puts
//! around them.

use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::setup::Setup;
use super::text;
use crate::cli::model;
use crate::cli::output::Failure;
use crate::text::{ChatTemplate, Message, RenderOptions, Special, Tokenizer};

pub struct Talk {
    template: ChatTemplate,
    tokenizer: Tokenizer,
    text: String,
    /// Not every template knows the role.
    system: Option<&'static str>,
}

impl Talk {
    pub fn new(setup: &Setup<'_>) -> Result<Talk, Failure> {
        let source = setup.files.text()?;
        let mut talk = Talk {
            template: model::chat_template(&source, &setup.model_path, None)?,
            tokenizer: Tokenizer::new(&source)?,
            text: text::text(setup)?,
            system: Some("system"),
        };
        if talk.tokens(&[Message::new("system", "a"), Message::new("user", "b")]).is_err() {
            talk.system = None;
        }
        Ok(talk)
    }

    /// A conversation that begins like no other with another `mark`, of so many tokens or a little
    /// less; more only if the mark and the template alone have more. With a system message, which
    /// keeps templates from adding a longer one.
    pub fn opening(&self, mark: &str, tokens: usize) -> anyhow::Result<Vec<Json>> {
        let messages = |text: &str| match self.system {
            Some(role) => vec![Message::new(role, mark), Message::new("user", text)],
            None => vec![Message::new("user", format!("{mark} {text}"))],
        };
        let text = self.longest(tokens, &messages)?;
        Ok(messages(text).iter().map(json_of).collect())
    }

    /// The same as the message of a user, which every server takes.
    pub fn question(&self, mark: &str, tokens: usize) -> anyhow::Result<Vec<Json>> {
        let messages = |text: &str| vec![Message::new("user", format!("{mark} {text}"))];
        let text = self.longest(tokens, &messages)?;
        Ok(messages(text).iter().map(json_of).collect())
    }

    /// The longest beginning of the text with which these messages have at most so many tokens.
    fn longest(
        &self,
        tokens: usize,
        messages: &dyn Fn(&str) -> Vec<Message>,
    ) -> anyhow::Result<&str> {
        let ends: Vec<usize> = self.text.char_indices().map(|(index, _)| index).collect();
        let (mut fits, mut exceeds) = (0, ends.len());
        while exceeds - fits > 1 {
            let middle = usize::midpoint(fits, exceeds);
            match self.tokens(&messages(&self.text[..ends[middle]]))? <= tokens {
                true => fits = middle,
                false => exceeds = middle,
            }
        }
        Ok(&self.text[..ends.get(fits).copied().unwrap_or_default()])
    }

    fn tokens(&self, messages: &[Message]) -> anyhow::Result<usize> {
        let rendered = self.template.render(messages, &RenderOptions::new(SystemTime::now()));
        let encoded = rendered.and_then(|it| self.tokenizer.encode(&it, Special::Parse));
        Ok(encoded?.len())
    }
}

fn json_of(message: &Message) -> Json {
    json!({ "role": message.role, "content": message.content })
}
