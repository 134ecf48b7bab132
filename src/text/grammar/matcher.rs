//! How far a reply has come in its grammar, and what that has cost.

use super::{Grammar, lost};
use crate::types::{TokenId, TokenSet};

/// What tokens may cost beside the model's own work for them, in microseconds, on an average:
/// ordinary ones take a third of it.
const TOKEN_COST: u64 = 500;
/// What those of a reply may have cost beyond that: everybody else's replies wait for it.
const REPLY_COST_MAX: u64 = 1_000_000;

/// How far a reply has come in its grammar.
pub struct Matcher {
    state: llguidance::Matcher,
    /// By how much its tokens have cost more than they should. Counted in work and not by a clock, so
    /// that a reply is the same on a busy machine.
    cost: u64,
}

/// The grammar gave up: a limit of its work, or a bug. Nothing that follows could be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

impl Grammar {
    /// For a reply that begins.
    pub fn matcher(&self) -> Matcher {
        // Deep, so that what one reply needs of the limits is not taken from another.
        Matcher { state: self.fresh.deep_clone(), cost: 0 }
    }
}

impl Matcher {
    /// What may come next; the tokens that end a turn are among it where the reply may end.
    pub fn allowed(&mut self) -> Result<TokenSet, Lost> {
        let set = self.state.compute_mask().map_err(lost)?;
        self.cost = (self.cost + self.step_cost()?).saturating_sub(TOKEN_COST);
        match self.cost > REPLY_COST_MAX {
            true => Err(Lost("its schema is too complex to hold a reply of this length to".into())),
            false => Ok(TokenSet::from_words(set.as_slice().to_vec())),
        }
    }

    /// Goes on behind a token, which was among those allowed.
    pub fn accept(&mut self, token: TokenId) -> Result<(), Lost> {
        self.state.consume_token(token.0).map_err(lost)
    }

    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.state.is_stopped()
    }

    /// Of what may come next, in microseconds of a core of 2023.
    fn step_cost(&self) -> Result<u64, Lost> {
        let step = self.state.last_step_stats().map_err(lost)?;
        Ok(step.lexer_cost / 7 + step.all_items as u64 / 10 + step.trie_nodes_walked as u64 / 200)
    }
}

impl Clone for Matcher {
    fn clone(&self) -> Matcher {
        Matcher { state: self.state.deep_clone(), cost: self.cost }
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("cost", &self.cost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::text::{Format, Grammars, Schema, Tokenizer};
    use crate::types::TextSource;

    /// A reply that starts with this cost, as far as its schema and a few tokens let it.
    fn reply(schema: Value, cost: u64) -> Result<u64, Lost> {
        let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
        let tokenizer = Tokenizer::new(&TextSource::Folder {
            tokenizer_json: json.as_bytes().to_vec(),
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        });
        let grammars = Grammars::new(Arc::new(tokenizer.expect("the fixture is a tokenizer")));
        let schema = Schema { field: "schema".to_owned(), value: schema };
        let grammar = grammars.compile(&Format::Json(schema)).expect("a schema");
        let mut matcher = Matcher { cost, ..grammar.matcher() };
        let mut random = 1u64;
        for _ in 0..200 {
            let allowed: Vec<TokenId> = matcher.allowed()?.iter().collect();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            matcher.accept(allowed[(random >> 33) as usize % allowed.len()])?;
            if matcher.is_over() {
                break;
            }
        }
        Ok(matcher.cost)
    }

    #[test]
    fn a_reply_whose_tokens_cost_too_much_is_lost_alone_and_ordinary_ones_make_up_for_it() {
        // Each text has states of its own.
        let text = |index: usize| {
            let pattern = format!("^(.*[a-c].{{3}}){{3}}x{index}$");
            json!({ "type": "string", "pattern": pattern, "maxLength": 20 })
        };
        let texts: Vec<Value> = (0..60).map(text).collect();
        let costly = json!({ "type": "array", "prefixItems": texts, "minItems": 60 });
        let plain = json!({
            "type": "object",
            "properties": { "a": { "type": "string" }, "b": { "type": "integer" } },
            "required": ["a", "b"],
        });
        let spent = reply(costly.clone(), 0).expect("not yet too much");
        assert!(spent > 0);
        let lost = reply(costly, REPLY_COST_MAX).expect_err("too much");
        assert!(lost.0.contains("too complex"), "{lost}");
        let spent = reply(plain, REPLY_COST_MAX).expect("an ordinary schema");
        assert!(spent < REPLY_COST_MAX, "{spent}");
    }
}
