//! Who says what in the race, and in which order. The same for every server and every run.

use crate::cli::bench::driver::random_tokens;
use crate::text::Tokenizer;
use crate::types::TokenId;

/// What a chat template puts around a message, at most.
const AROUND_TOKENS: usize = 12;
/// Any: it says in which order the agents come.
const SEED: u64 = 7;
/// Prime, so that the pieces of a text that are read round and round differ in where they begin.
const STRIDE: usize = 1613;
/// Below, a turn is not worth the name.
const TURN_TOKENS_MIN: usize = 4;

/// How large the race is, in tokens as the model under measurement has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Sizes {
    pub agents: usize,
    /// What each agent begins with, of which it shares `shared`.
    pub context: usize,
    pub shared: usize,
    pub turns: usize,
    /// What comes with a turn, and what is answered.
    pub new: usize,
    pub reply: usize,
}

/// Who says what, when.
pub struct Plan {
    pub sizes: Sizes,
    pub system: String,
    /// What each agent is told first.
    pub first: Vec<String>,
    pub turns: Vec<Turn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub agent: usize,
    pub text: String,
}

impl Sizes {
    /// As large as the context has room for; `None` if that is nothing worth measuring.
    pub fn within(self, context_tokens: usize) -> Option<Sizes> {
        let needed = self.most_tokens();
        if needed <= context_tokens {
            return Some(self);
        }
        // What is around the messages does not shrink.
        let around = self.most_turns() * 2 * AROUND_TOKENS + 2 * AROUND_TOKENS;
        let room = context_tokens.checked_sub(around)?;
        let scaled = |size: usize| size * room / (needed - around);
        let sizes = Sizes {
            context: scaled(self.context),
            shared: scaled(self.shared),
            new: scaled(self.new),
            reply: scaled(self.reply),
            ..self
        };
        (sizes.new.min(sizes.reply) >= TURN_TOKENS_MIN).then_some(sizes)
    }

    /// Of the agent that gets the longest, at the end of the race.
    pub fn most_tokens(&self) -> usize {
        let each = self.new + self.reply + 2 * AROUND_TOKENS;
        self.context + 2 * AROUND_TOKENS + self.most_turns() * each
    }

    /// The agents in their order.
    fn order(&self) -> Vec<usize> {
        let order = random_tokens(SEED, self.agents, self.turns);
        order.into_iter().map(|agent| agent.0 as usize).collect()
    }

    fn most_turns(&self) -> usize {
        let order = self.order();
        let turns = |agent: usize| order.iter().filter(|one| **one == agent).count();
        (0..self.agents).map(turns).max().unwrap_or_default()
    }
}

/// A text in pieces of which no two begin with the same.
pub struct Pieces<'a> {
    pub text: &'a [TokenId],
    pub tokenizer: &'a Tokenizer,
}

impl Pieces<'_> {
    /// The text is read round and round.
    pub fn piece(&self, number: usize, tokens: usize) -> String {
        let start = number * STRIDE % self.text.len();
        let ids: Vec<TokenId> =
            self.text.iter().cycle().skip(start).take(tokens).copied().collect();
        self.tokenizer.decode(&ids).trim().to_owned()
    }
}

impl Plan {
    pub fn new(sizes: Sizes, pieces: &Pieces<'_>) -> Plan {
        let piece = |number, tokens| pieces.piece(number, tokens);
        let own = sizes.context.saturating_sub(sizes.shared).max(1);
        let turn =
            |(index, agent)| Turn { agent, text: piece(1 + sizes.agents + index, sizes.new) };
        Plan {
            system: piece(0, sizes.shared.max(1)),
            first: (0..sizes.agents).map(|agent| piece(1 + agent, own)).collect(),
            turns: sizes.order().into_iter().enumerate().map(turn).collect(),
            sizes,
        }
    }

    /// The same with the first agents and the first of their turns only.
    pub fn first(&self, agents: usize, turns: usize) -> Plan {
        let own = self.turns.iter().filter(|turn| turn.agent < agents);
        let turns: Vec<Turn> = own.take(turns).cloned().collect();
        let agents = agents.min(self.first.len());
        Plan {
            sizes: Sizes { agents, turns: turns.len(), ..self.sizes },
            system: self.system.clone(),
            first: self.first[..agents].to_vec(),
            turns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Sizes =
        Sizes { agents: 10, context: 4000, shared: 1000, turns: 60, new: 100, reply: 64 };

    #[test]
    fn every_agent_comes_and_the_order_is_always_the_same() {
        let order = FULL.order();
        assert_eq!(order.len(), 60);
        assert!((0..10).all(|agent| order.contains(&agent)), "{order:?}");
        assert_eq!(order, FULL.order());
        assert_eq!(
            FULL.most_turns(),
            order.iter().filter(|one| **one == order_most(&order)).count()
        );
    }

    fn order_most(order: &[usize]) -> usize {
        let turns = |agent: &usize| order.iter().filter(|one| *one == agent).count();
        (0..10).max_by_key(turns).expect("there are ten")
    }

    #[test]
    fn a_small_context_gets_a_small_race_or_none() {
        assert_eq!(FULL.within(8192), Some(FULL));
        let small = Sizes { agents: 3, turns: 6, ..FULL }.within(512).expect("a race");
        assert!(small.most_tokens() <= 512, "{small:?}");
        assert!(small.most_tokens() > 400, "{small:?}");
        assert_eq!(FULL.within(100), None);
    }
}
