//! How much of a prompt our server had: all of it, all that was said before, its beginning, nothing.

use super::client::Answered;
use crate::cli::bench::report::{Cell, Row};

/// Of less than one in so many tokens nobody would speak.
const NONE_PART: usize = 10;

/// Prompts by what was there of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// All but the token that is always computed.
    exact: u64,
    /// All that the agent had said and heard.
    extend: u64,
    /// The beginning of that.
    diverge: u64,
    none: u64,
}

impl Kinds {
    /// Counts a prompt of an agent that had a conversation of so many tokens.
    pub fn count(&mut self, answered: &Answered, had_tokens: usize) {
        let Answered { prompt_tokens, cached_tokens, .. } = *answered;
        let kind = match cached_tokens {
            // A template begins all prompts alike.
            _ if cached_tokens * NONE_PART < prompt_tokens => &mut self.none,
            _ if cached_tokens + 1 >= prompt_tokens => &mut self.exact,
            // A reply's last token has no KV yet.
            _ if had_tokens > 0 && cached_tokens + 1 >= had_tokens => &mut self.extend,
            _ => &mut self.diverge,
        };
        *kind += 1;
    }

    pub fn on(&self, row: Row) -> Row {
        row.with("exact", Cell::Count(self.exact))
            .with("extend", Cell::Count(self.extend))
            .with("diverge", Cell::Count(self.diverge))
            .with("none", Cell::Count(self.none))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_prompt_is_of_one_kind() {
        let mut kinds = Kinds::default();
        for (cached_tokens, had_tokens) in
            [(99, 60), (60, 60), (59, 60), (58, 60), (20, 0), (9, 60)]
        {
            let answered = Answered {
                text: String::new(),
                ttft: Duration::ZERO,
                prompt_tokens: 100,
                cached_tokens,
                reply_tokens: 1,
                source: None,
            };
            kinds.count(&answered, had_tokens);
        }
        assert_eq!(kinds, Kinds { exact: 1, extend: 2, diverge: 2, none: 1 });
    }
}
