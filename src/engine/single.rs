//! Turns requests into tokens: prefills a prompt, then decodes until the sequence is finished.
//!
//! One sequence at a time, on the caller's thread. What a sequence is (its tokens, its text, when
//! it ends) is in [`sequence`] and knows neither model nor clock.

mod sequence;

use std::time::{Duration, Instant};

use crate::model::sample::Sampling;
use crate::model::{self, Batch, Model, Row, Wanted};
use crate::text::Tokenizer;
use crate::types::{BLOCK_TOKENS, BlockId, TokenId};

pub use sequence::{Finish, Sequence};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<TokenId>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Texts that end the reply; they are not part of it.
    pub stops: Vec<String>,
    pub reply: Reply,
}

/// How the reply relates to the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A turn of its own.
    Turn,
    /// More of the same text; a space that joins the two belongs to it.
    Continuation,
}

/// What the caller hears while it waits; its answer says whether to go on.
pub enum Event<'a> {
    /// So much of the prompt has been read.
    Prefilled { tokens: usize },
    /// More of the reply.
    Text(&'a str),
}

/// The caller's answer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Continue,
    Cancel,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub finish: Finish,
    /// The whole reply, without the stop sequence.
    pub text: String,
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended the turn included.
    pub completion_tokens: usize,
    pub prefill: Duration,
    pub decode: Duration,
}

/// Why a request could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the prompt has {prompt_tokens} tokens; the model's context is {context_tokens}")]
    PromptTooLong { prompt_tokens: usize, context_tokens: usize },
    /// The numbers left the range of floats; no token can be chosen honestly.
    #[error("the model computed NaN at position {position}")]
    NotANumber { position: usize },
}

/// The tokens a request may use in all: its prompt and its reply, within the context.
pub fn budget_tokens(request: &Request, context_tokens: usize) -> Result<usize, Error> {
    let prompt_tokens = request.prompt.len();
    if prompt_tokens == 0 {
        return Err(Error::EmptyPrompt);
    }
    if prompt_tokens >= context_tokens {
        return Err(Error::PromptTooLong { prompt_tokens, context_tokens });
    }
    Ok(prompt_tokens.saturating_add(request.max_tokens).min(context_tokens))
}

/// Serves one request; `on_event` hears of every step.
pub fn run(
    model: &mut dyn Model,
    tokenizer: &Tokenizer,
    request: Request,
    on_event: &mut dyn FnMut(Event<'_>) -> Answer,
) -> Result<Outcome, Error> {
    let budget = budget_tokens(&request, model.spec().context_tokens)?;
    let blocks: Vec<BlockId> = (0..budget.div_ceil(BLOCK_TOKENS) as u32).map(BlockId).collect();
    let prompt_tokens = request.prompt.len();
    let started = Instant::now();
    let mut first_token = None;
    let mut sequence = Sequence::new(request, budget, tokenizer);
    let mut done = 0;
    while sequence.finish().is_none() {
        let tokens = sequence.tokens();
        let end = tokens.len().min(done + model.spec().prefill_tokens);
        let logits = match end == tokens.len() {
            true => Wanted::Last,
            false => Wanted::None,
        };
        let row = Row { tokens: &tokens[done..end], start: done, blocks: &blocks, logits };
        let logits = model.step(&Batch { rows: vec![row] })?;
        done = end;
        let answer = match logits[0].positions() {
            0 => on_event(Event::Prefilled { tokens: done }),
            _ => {
                first_token.get_or_insert_with(Instant::now);
                let text = sequence
                    .sample(logits[0].last())
                    .ok_or(Error::NotANumber { position: done })?;
                on_event(Event::Text(&text))
            }
        };
        if answer == Answer::Cancel {
            let rest = sequence.cancel();
            if !rest.is_empty() {
                // The answer was given.
                on_event(Event::Text(&rest));
            }
        }
    }
    let first_token = first_token.unwrap_or_else(Instant::now);
    Ok(Outcome {
        finish: sequence.finish().expect("the loop ended because it is finished"),
        completion_tokens: sequence.tokens().len() - prompt_tokens,
        text: sequence.into_text(),
        prompt_tokens,
        prefill: first_token - started,
        decode: first_token.elapsed(),
    })
}
