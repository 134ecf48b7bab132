//! One request on its way: its tokens, the text they make, and when it ends. Pure.

use super::{Reply, Request};
use crate::model::sample::{self, History, Sampling};
use crate::text::{Detokenizer, StopMatcher, Tokenizer};
use crate::types::TokenId;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or a stop sequence came.
    Stop,
    /// The token limit or the context is used up.
    Length,
    /// The caller went away.
    Cancelled,
}

/// The tokens of a request, prompt and reply, with the state that turns ids into text.
pub struct Sequence {
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// Prompt and reply may have this many tokens.
    budget_tokens: usize,
    sampling: Sampling,
    end_tokens: Vec<TokenId>,
    /// Taken when the sequence ends, and what they held back is let go.
    text_state: Option<TextState>,
    text: String,
    finish: Option<Finish>,
}

struct TextState {
    detokenizer: Detokenizer,
    stops: StopMatcher,
}

impl Sequence {
    pub fn new(request: Request, budget_tokens: usize, tokenizer: &Tokenizer) -> Sequence {
        let finish = (request.prompt.len() >= budget_tokens).then_some(Finish::Length);
        let detokenizer = match request.reply {
            Reply::Turn => tokenizer.detokenizer(),
            Reply::Continuation => tokenizer.continuing_detokenizer(),
        };
        Sequence {
            prompt_tokens: request.prompt.len(),
            tokens: request.prompt,
            budget_tokens,
            sampling: request.sampling,
            end_tokens: tokenizer.end_tokens().to_vec(),
            text_state: Some(TextState { detokenizer, stops: StopMatcher::new(request.stops) }),
            text: String::new(),
            finish,
        }
    }

    /// Prompt and reply so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The caller went away; nothing more is sampled. Returns the text that was held back.
    pub fn cancel(&mut self) -> String {
        self.end(Finish::Cancelled)
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// Chooses the next token and returns the text that is now certain, which may be none.
    /// `None` if the logits hold a NaN.
    pub fn sample(&mut self, logits: &[f32]) -> Option<String> {
        assert_eq!(self.finish, None);
        let draw = (self.tokens.len() - self.prompt_tokens) as u64;
        let history = History { tokens: &self.tokens, prompt_tokens: self.prompt_tokens };
        let token = sample::sample(logits, &self.sampling, history, draw)?;
        self.tokens.push(token);
        let mut new = String::new();
        if self.end_tokens.contains(&token) {
            new += &self.end(Finish::Stop);
        } else {
            new += &self.push_text(token);
            if self.finish.is_none() && self.tokens.len() >= self.budget_tokens {
                new += &self.end(Finish::Length);
            }
        }
        Some(new)
    }

    /// The text that `token` makes certain: held back are half a character and the beginning of
    /// what may become a stop sequence.
    fn push_text(&mut self, token: TokenId) -> String {
        let Some(state) = &mut self.text_state else { return String::new() };
        let Some(text) = state.detokenizer.push(token) else { return String::new() };
        let stopped = state.stops.push(text);
        self.text += &stopped.emit;
        if stopped.hit.is_some() {
            self.finish = Some(Finish::Stop);
            self.text_state = None;
        }
        stopped.emit
    }

    /// Ends the sequence, if it has not ended, and lets go of the text that was held back. A stop
    /// sequence that it completes is the reason then.
    fn end(&mut self, finish: Finish) -> String {
        let Some(TextState { detokenizer, mut stops }) = self.text_state.take() else {
            return String::new();
        };
        self.finish = Some(finish);
        let mut rest = String::new();
        if let Some(tail) = detokenizer.finish() {
            let stopped = stops.push(&tail);
            rest += &stopped.emit;
            if stopped.hit.is_some() {
                self.finish = Some(Finish::Stop);
                self.text += &rest;
                return rest;
            }
        }
        rest += &stops.finish();
        self.text += &rest;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Special;
    use crate::types::TextSource;

    fn tokenizer() -> Tokenizer {
        let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
        Tokenizer::new(&TextSource::Folder {
            tokenizer_json: json.as_bytes().to_vec(),
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        })
        .expect("the fixture is a tokenizer")
    }

    /// A sequence whose model has said these tokens, and the text it has shown.
    fn after(tokenizer: &Tokenizer, tokens: &[TokenId], stop: &str) -> (Sequence, String) {
        let request = Request {
            prompt: tokenizer.encode("a", Special::Parse).expect("it encodes"),
            max_tokens: 100,
            sampling: Sampling::GREEDY,
            stops: vec![stop.to_owned()],
            reply: Reply::Turn,
        };
        let mut sequence = Sequence::new(request, 1_000, tokenizer);
        let mut shown = String::new();
        for token in tokens {
            let mut logits = vec![0.0; 1 + tokens.iter().map(|t| t.0 as usize).max().unwrap_or(0)];
            logits[token.0 as usize] = 1.0;
            shown += &sequence.sample(&logits).expect("no NaN");
        }
        (sequence, shown)
    }

    #[test]
    fn a_cancelled_sequence_lets_go_of_what_it_held_back() {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode("Hello\nUse", Special::Parse).expect("it encodes");
        let (mut sequence, shown) = after(&tokenizer, &tokens, "\nUser:");
        assert_eq!(shown, "Hello");
        assert_eq!(sequence.cancel(), "\nUse");
        assert_eq!(sequence.finish(), Some(Finish::Cancelled));
        assert_eq!(sequence.cancel(), "");
        assert_eq!(sequence.into_text(), "Hello\nUse");
    }

    #[test]
    fn a_stop_that_the_last_half_character_completes_is_a_stop() {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode("\u{12000}", Special::Parse).expect("it encodes");
        assert!(tokens.len() > 1);
        let (mut sequence, shown) = after(&tokenizer, &tokens[..1], "\u{fffd}");
        assert_eq!(shown, "");
        assert_eq!(sequence.cancel(), "");
        assert_eq!(sequence.finish(), Some(Finish::Stop));
    }
}
