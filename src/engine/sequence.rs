//! One reply on its way: its tokens, the text they make, and when it ends. Pure.

use std::ops::Range;
use std::sync::Arc;

use super::request::{Delta, Finish, Reply};
use crate::model::sample::{self, History, Sampling, TokenLogprob};
use crate::text::{Detokenizer, Grammar, Lost, Matcher, StopMatcher, Tokenizer};
use crate::types::TokenId;

/// How a reply is made; the same for all choices of a request but for the seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Prompt and reply may have this many tokens.
    pub budget_tokens: usize,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub reply: Reply,
    pub logprobs: Option<usize>,
    /// Go on when the model ends its turn.
    pub is_end_ignored: bool,
    /// What the reply is held to.
    pub grammar: Option<Arc<Grammar>>,
}

/// The tokens of a request, prompt and reply, with the state that turns ids into text.
#[derive(Clone)]
pub struct Sequence {
    choice: usize,
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// Which tokens of the prompt are earlier replies.
    earlier_replies: Vec<Range<usize>>,
    settings: Settings,
    end_tokens: Arc<[TokenId]>,
    /// How far the reply is in its grammar, once it has begun. A sequence that is parked keeps it.
    matcher: Option<Matcher>,
    /// Taken when the sequence ends, and what they held back is let go.
    text_state: Option<TextState>,
    text: String,
    /// For each token of the reply, the bytes of text that it and those before it make.
    text_ends: Vec<usize>,
    finish: Option<Finish>,
}

#[derive(Clone)]
struct TextState {
    detokenizer: Detokenizer,
    stops: StopMatcher,
}

/// Why no token was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The logits hold a NaN.
    NotANumber,
    /// The grammar cannot say what may come, or the model has nothing of it.
    Grammar(String),
}

impl From<Lost> for NoToken {
    fn from(Lost(reason): Lost) -> NoToken {
        NoToken::Grammar(reason)
    }
}

impl Sequence {
    /// Choice 0. `prompt` has at least one token and is shorter than the budget.
    pub fn new(
        prompt: Vec<TokenId>,
        earlier_replies: Vec<Range<usize>>,
        settings: Settings,
        tokenizer: &Tokenizer,
    ) -> Sequence {
        assert!(!prompt.is_empty());
        assert!(prompt.len() < settings.budget_tokens);
        let detokenizer = match settings.reply {
            Reply::Turn => tokenizer.detokenizer(),
            Reply::Continuation => tokenizer.continuing_detokenizer(),
        };
        let stops = StopMatcher::new(settings.stops.clone());
        // A grammar says where a reply may end.
        let end_tokens = match settings.is_end_ignored && settings.grammar.is_none() {
            true => [].into(),
            false => tokenizer.end_tokens().into(),
        };
        Sequence {
            choice: 0,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            earlier_replies,
            settings,
            end_tokens,
            matcher: None,
            text_state: Some(TextState { detokenizer, stops }),
            text: String::new(),
            text_ends: Vec::new(),
            finish: None,
        }
    }

    /// Another reply to the same prompt; none of it is there yet.
    pub fn fork(&self, choice: usize) -> Sequence {
        assert_eq!(self.tokens.len(), self.prompt_tokens);
        let mut fork = Sequence { choice, ..self.clone() };
        fork.settings.sampling.seed = self.settings.sampling.seed.wrapping_add(choice as u64);
        fork
    }

    pub fn choice(&self) -> usize {
        self.choice
    }

    /// Prompt and reply so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    pub fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    pub fn budget_tokens(&self) -> usize {
        self.settings.budget_tokens
    }

    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// The reply so far, without what is held back.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The caller went away; nothing more is sampled. Returns the text that was held back.
    pub fn cancel(&mut self) -> String {
        self.end(Finish::Cancelled)
    }

    /// Chooses the next token and returns the text that is now certain, which may be none.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Delta, NoToken> {
        assert_eq!(self.finish, None);
        let token = self.choose(logits)?;
        let logprobs: Vec<TokenLogprob> = self
            .settings
            .logprobs
            .iter()
            .map(|top| sample::logprobs(logits, token, *top))
            .collect();
        self.tokens.push(token);
        let mut text = String::new();
        if self.end_tokens.contains(&token) {
            self.text_ends.push(self.text_ends.last().copied().unwrap_or(0));
            text += &self.end(Finish::Stop);
        } else {
            text += &self.push_text(token);
            let is_over = self.matcher.as_ref().is_some_and(Matcher::is_over);
            if self.finish.is_none() && is_over {
                text += &self.end(Finish::Stop);
            } else if self.finish.is_none() && self.tokens.len() >= self.settings.budget_tokens {
                text += &self.end(Finish::Length);
            }
        }
        Ok(Delta { choice: self.choice, text, logprobs, tokens: 1 })
    }

    fn choose(&mut self, logits: &[f32]) -> Result<TokenId, NoToken> {
        if self.matcher.is_none() {
            self.matcher = self.settings.grammar.as_deref().map(Grammar::matcher);
        }
        let allowed = self.matcher.as_mut().map(Matcher::allowed).transpose()?;
        let history = History {
            tokens: &self.tokens,
            prompt_tokens: self.prompt_tokens,
            allowed: allowed.as_ref(),
        };
        let draw = self.completion_tokens() as u64;
        let token = sample::sample(logits, &self.settings.sampling, history, draw);
        let token = token.ok_or_else(|| match logits.iter().any(|logit| logit.is_nan()) {
            true => NoToken::NotANumber,
            false => NoToken::Grammar("the model has no token that may come next".to_owned()),
        })?;
        if let Some(matcher) = &mut self.matcher {
            matcher.accept(token)?;
        }
        Ok(token)
    }

    /// The text that `token` makes certain: held back are half a character and the beginning of
    /// what may become a stop sequence.
    fn push_text(&mut self, token: TokenId) -> String {
        let Some(state) = &mut self.text_state else { return String::new() };
        let end = self.text_ends.last().copied().unwrap_or(0);
        let Some(text) = state.detokenizer.push(token) else {
            self.text_ends.push(end);
            return String::new();
        };
        self.text_ends.push(end + text.len());
        let stopped = state.stops.push(text);
        self.text += &stopped.emit;
        if let Some(index) = stopped.hit {
            self.stop_at(index);
        }
        stopped.emit
    }

    fn stop_at(&mut self, index: usize) {
        self.finish = Some(Finish::StopSequence(self.settings.stops[index].clone()));
        self.text_state = None;
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
            if let Some(index) = stopped.hit {
                self.stop_at(index);
                self.text += &rest;
                return rest;
            }
        }
        rest += &stops.finish();
        self.text += &rest;
        rest
    }

    /// Whether the last token ended the turn: a reply whose grammar is over ends without one.
    fn has_end_token(&self) -> bool {
        let last = self.tokens.last().expect("there is a prompt");
        self.finish == Some(Finish::Stop) && self.end_tokens.contains(last)
    }

    /// The ids that stand for the text of a finished turn, if any do: without the token that ended
    /// it, without those of a stop sequence, and not if it ends inside a character.
    pub fn reply_tokens(&self) -> Option<Arc<[TokenId]>> {
        if self.settings.reply != Reply::Turn {
            return None;
        }
        let mut reply = &self.tokens[self.prompt_tokens..];
        let mut ends = self.text_ends.as_slice();
        let ends_turn = usize::from(self.has_end_token());
        reply = &reply[..reply.len() - ends_turn];
        ends = &ends[..ends.len() - ends_turn];
        if ends.last() != Some(&self.text.len()) {
            // Cut: the fewest tokens that make the most of what is left of the text.
            let most = ends.iter().copied().filter(|end| *end <= self.text.len()).max()?;
            let count = ends.iter().position(|end| *end == most)? + 1;
            // All that a client keeps of the reply has to be in them.
            if !self.text[most..].trim().is_empty() {
                return None;
            }
            reply = &reply[..count];
        }
        (!reply.is_empty()).then(|| reply.into())
    }

    /// Which tokens are replies, this one included as far as it has come. Not all of them stand for
    /// a text: one may end inside a character.
    pub fn replies(&self) -> Vec<Range<usize>> {
        let mut replies = self.earlier_replies.clone();
        if self.settings.reply == Reply::Turn {
            let ends = usize::from(self.has_end_token());
            let whole = self.completion_tokens() - ends;
            let own = self.reply_tokens().map_or(whole, |tokens| tokens.len());
            replies.extend((own > 0).then(|| self.prompt_tokens..self.prompt_tokens + own));
        }
        replies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Format, Grammars, Schema, Special};
    use crate::types::TextSource;
    use serde_json::json;

    fn tokenizer() -> Tokenizer {
        let json = include_str!("../../tests/data/text/byte_level.tokenizer.json");
        Tokenizer::new(&TextSource::Folder {
            tokenizer_json: json.as_bytes().to_vec(),
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        })
        .expect("the fixture is a tokenizer")
    }

    fn sequence(tokenizer: &Tokenizer, stop: &str) -> Sequence {
        let settings = Settings {
            budget_tokens: 1_000,
            sampling: Sampling::GREEDY,
            stops: vec![stop.to_owned()],
            reply: Reply::Turn,
            logprobs: None,
            is_end_ignored: false,
            grammar: None,
        };
        let prompt = tokenizer.encode("a", Special::Parse).expect("it encodes");
        Sequence::new(prompt, Vec::new(), settings, tokenizer)
    }

    /// A sequence whose model has said these tokens, and the text it has shown.
    fn after(tokenizer: &Tokenizer, tokens: &[TokenId], stop: &str) -> (Sequence, String) {
        let mut sequence = sequence(tokenizer, stop);
        let mut shown = String::new();
        for token in tokens {
            if sequence.finish().is_some() {
                break;
            }
            let mut logits = vec![0.0; 1 + tokens.iter().map(|t| t.0 as usize).max().unwrap_or(0)];
            logits[token.0 as usize] = 1.0;
            shown += &sequence.sample(&logits).expect("no NaN").text;
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
        assert_eq!(sequence.finish(), Some(&Finish::Cancelled));
        assert_eq!(sequence.cancel(), "");
        assert_eq!(sequence.text(), "Hello\nUse");
    }

    #[test]
    fn a_stop_that_the_last_half_character_completes_is_a_stop() {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode("\u{12000}", Special::Parse).expect("it encodes");
        assert!(tokens.len() > 1);
        let (mut sequence, shown) = after(&tokenizer, &tokens[..1], "\u{fffd}");
        assert_eq!(shown, "");
        assert_eq!(sequence.cancel(), "");
        assert_eq!(sequence.finish(), Some(&Finish::StopSequence("\u{fffd}".to_owned())));
    }

    /// What a stop sequence took away is in the KV but not in what the client sends back.
    #[test]
    fn the_ids_of_a_stopped_reply_are_those_before_the_stop() {
        let tokenizer = tokenizer();
        let encode = |text: &str| tokenizer.encode(text, Special::Parse).expect("it encodes");
        let tokens = [encode("Hello there"), encode("\n"), encode("User:")].concat();
        let (sequence, shown) = after(&tokenizer, &tokens, "\nUser:");
        assert_eq!(shown, "Hello there");
        assert_eq!(sequence.reply_tokens().as_deref(), Some(&encode("Hello there")[..]));
    }

    #[test]
    fn a_reply_that_ends_inside_a_character_stands_for_no_text() {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode("\u{12000}", Special::Parse).expect("it encodes");
        let (mut sequence, _) = after(&tokenizer, &tokens[..1], "none");
        sequence.cancel();
        assert_eq!(sequence.text(), "\u{fffd}");
        assert_eq!(sequence.reply_tokens(), None);
    }

    /// The next turn is found behind all of its tokens: none of them ended the turn.
    #[test]
    fn a_reply_whose_grammar_is_over_ends_without_a_token_for_it() {
        let tokenizer = Arc::new(tokenizer());
        let schema = Schema { field: "schema".to_owned(), value: json!({ "enum": ["Hello"] }) };
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let grammar = grammars.compile(&Format::Json(schema)).expect("a schema");
        let mut sequence = sequence(&tokenizer, "none");
        sequence.settings.grammar = Some(grammar);
        let mut shown = String::new();
        while sequence.finish().is_none() {
            let logits = vec![0.0; tokenizer.vocabulary_size()];
            shown += &sequence.sample(&logits).expect("a token").text;
        }
        assert_eq!((sequence.finish(), shown.as_str()), (Some(&Finish::Stop), "\"Hello\""));
        let reply = &sequence.tokens()[1..];
        assert_eq!(sequence.reply_tokens().as_deref(), Some(reply));
        assert_eq!(sequence.replies(), [1..sequence.tokens().len()]);
    }

    #[test]
    fn a_model_without_a_token_that_may_come_fails_and_a_nan_is_not_hidden() {
        let tokenizer = Arc::new(tokenizer());
        let schema = Schema::object("schema");
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let grammar = grammars.compile(&Format::Json(schema)).expect("a schema");
        let mut sequence = sequence(&tokenizer, "none");
        sequence.settings.grammar = Some(grammar);
        assert!(matches!(sequence.clone().sample(&[0.0; 2]), Err(NoToken::Grammar(_))));
        let broken = vec![f32::NAN; tokenizer.vocabulary_size()];
        assert_eq!(sequence.sample(&broken), Err(NoToken::NotANumber));
    }

    #[test]
    fn forks_draw_with_their_own_seeds() {
        let tokenizer = tokenizer();
        let sequence = sequence(&tokenizer, "none");
        let fork = sequence.fork(3);
        assert_eq!((fork.choice(), fork.settings.sampling.seed), (3, 3));
        assert_eq!(fork.tokens(), sequence.tokens());
    }
}
