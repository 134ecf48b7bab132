//! A prompt as ids, with places where the same text was generated as more than one list of ids.

use std::ops::Range;
use std::sync::Arc;

use crate::types::TokenId;

/// The ids of a rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pieces: Vec<Piece>,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Tokens(Vec<TokenId>),
    Reply(Said),
}

/// A reply that was generated, perhaps more than once and differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Any of these lists stands for its text, latest first.
    pub lists: Vec<Arc<[TokenId]>>,
    /// Lists with more before the text than was sent: what a model thought. Latest first. Each is only
    /// for the agent that has it, as others may have thought something else before the same words.
    pub unsent: Vec<Arc<[TokenId]>>,
    /// What comes before any list, and not before the plain text.
    pub opening: Vec<TokenId>,
    /// The text as it was sent. It may be missing where there is nothing unsent.
    pub plain: Vec<TokenId>,
}

impl Said {
    /// One that was generated as this.
    pub fn as_list(list: Arc<[TokenId]>) -> Said {
        Said { lists: vec![list], ..Said::default() }
    }
}

/// What is kept of the tokens of a prompt.
pub struct Kept<'a> {
    /// How many of these tokens anybody of the namespace has, from the first on.
    pub by_anybody: &'a dyn Fn(&[TokenId]) -> usize,
    /// How many of them the agent has that asks, or nothing if they are fewer than this.
    pub by_itself: &'a dyn Fn(&[TokenId], usize) -> usize,
}

/// A prompt with each choice made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub tokens: Vec<TokenId>,
    /// Which of them are replies that were generated.
    pub replies: Vec<Range<usize>>,
}

impl Prompt {
    pub fn new(pieces: Vec<Piece>) -> Prompt {
        Prompt { pieces }
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The ids, where of several lists for a reply the one wins with which most tokens of the prompt
    /// up to the next reply are kept; the latest of equals. What was not sent wins where the
    /// agent itself has all of it, and nowhere else.
    ///
    /// It is asked once for each list, and only where there is a choice and all tokens before it are
    /// kept: beyond the first that is not, no list is better than another.
    pub fn resolve(&self, kept: &Kept) -> Resolved {
        let mut resolved = Resolved::default();
        let mut can_match = true;
        for (index, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Tokens(more) => resolved.tokens.extend_from_slice(more),
                Piece::Reply(said) => {
                    // One list may begin with another: what follows tells them apart.
                    let following = match self.pieces.get(index + 1) {
                        Some(Piece::Tokens(following)) => following.as_slice(),
                        Some(Piece::Reply(_)) | None => &[],
                    };
                    let has_choice = said.lists.len() > 1 || !said.unsent.is_empty();
                    match has_choice && can_match {
                        true => can_match = said.choose(following, kept, &mut resolved),
                        false => said.take_first(&mut resolved),
                    }
                }
            }
        }
        resolved
    }

    /// The ids where nothing is kept.
    pub fn resolve_anew(&self) -> Resolved {
        self.resolve(&Kept { by_anybody: &|_| 0, by_itself: &|_, _| 0 })
    }
}

impl Said {
    fn take_first(&self, resolved: &mut Resolved) {
        match self.lists.first() {
            Some(list) => resolved.push(&self.opening, list),
            None => resolved.tokens.extend_from_slice(&self.plain),
        }
    }

    /// Whether all tokens are kept up to the end of the one that was chosen.
    fn choose(&self, following: &[TokenId], kept: &Kept, resolved: &mut Resolved) -> bool {
        let tokens = &mut resolved.tokens;
        let start = tokens.len();
        let mut with = |parts: [&[TokenId]; 3], ask: &dyn Fn(&[TokenId], usize) -> usize| {
            let end = start + parts[0].len() + parts[1].len();
            parts.into_iter().for_each(|part| tokens.extend_from_slice(part));
            let length = ask(tokens, end);
            tokens.truncate(start);
            (length, length >= end)
        };
        let mut best: Option<(&Arc<[TokenId]>, usize, bool)> = None;
        for list in &self.unsent {
            let (length, is_whole) = with([&self.opening, list, following], kept.by_itself);
            if is_whole && best.is_none_or(|(_, longest, _)| length > longest) {
                best = Some((list, length, is_whole));
            }
        }
        if best.is_none() {
            let by_anybody = |tokens: &[TokenId], _| (kept.by_anybody)(tokens);
            for list in &self.lists {
                let (length, is_whole) = with([&self.opening, list, following], &by_anybody);
                if best.is_none_or(|(_, longest, _)| length > longest) {
                    best = Some((list, length, is_whole));
                }
            }
            if !self.unsent.is_empty() {
                let (length, is_whole) = with([&[], &self.plain, following], &by_anybody);
                if best.is_none_or(|(_, longest, _)| length > longest) {
                    tokens.extend_from_slice(&self.plain);
                    return is_whole;
                }
            }
        }
        match best {
            Some((list, _, is_whole)) => {
                resolved.push(&self.opening, list);
                is_whole
            }
            None => false,
        }
    }
}

impl Resolved {
    fn push(&mut self, opening: &[TokenId], list: &[TokenId]) {
        self.tokens.extend_from_slice(opening);
        let start = self.tokens.len();
        self.tokens.extend_from_slice(list);
        self.replies.push(start..self.tokens.len());
    }
}

/// A conversation from its begin to the end of its last reply, which a further turn can follow.
/// `None` if it has no reply, or not all that it is said to have.
pub fn turns(tokens: &[TokenId], replies: &[Range<usize>]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut end = 0;
    for reply in replies {
        pieces.push(Piece::Tokens(tokens.get(end..reply.start)?.to_vec()));
        pieces.push(Piece::Reply(Said::as_list(tokens.get(reply.clone())?.into())));
        end = reply.end;
    }
    (!pieces.is_empty()).then_some(pieces)
}

impl From<Vec<TokenId>> for Prompt {
    fn from(tokens: Vec<TokenId>) -> Prompt {
        Prompt { pieces: vec![Piece::Tokens(tokens)] }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    fn tokens(tokens: &[u32]) -> Piece {
        Piece::Tokens(ids(tokens))
    }

    fn lists(lists: &[&[u32]]) -> Vec<Arc<[TokenId]>> {
        lists.iter().map(|list| ids(list).into()).collect()
    }

    fn reply(of: &[&[u32]]) -> Piece {
        Piece::Reply(Said { lists: lists(of), ..Said::default() })
    }

    fn common(tokens: &[TokenId], kept: &[&[u32]]) -> usize {
        let common = |kept: &&[u32]| {
            tokens.iter().zip(kept.iter()).take_while(|(token, id)| token.0 == **id).count()
        };
        kept.iter().map(common).max().unwrap_or(0)
    }

    /// The prompt of these pieces where these sequences are kept, and how often it asked.
    fn resolved(pieces: &[Piece], kept: &[&[u32]]) -> (Vec<TokenId>, usize) {
        let asked = Cell::new(0);
        let by_anybody = |tokens: &[TokenId]| {
            asked.set(asked.get() + 1);
            common(tokens, kept)
        };
        let kept = Kept { by_anybody: &by_anybody, by_itself: &|_, _| panic!("nothing is unsent") };
        let resolved = Prompt::new(pieces.to_vec()).resolve(&kept);
        let replies = pieces.iter().filter(|piece| matches!(piece, Piece::Reply(_)));
        assert_eq!(resolved.replies.len(), replies.count());
        (resolved.tokens, asked.get())
    }

    /// Where the agent that asks has `own` and others `others`.
    fn resolved_of(pieces: &[Piece], own: &[&[u32]], others: &[&[u32]]) -> Resolved {
        let all = [own, others].concat();
        let by_anybody = |tokens: &[TokenId]| common(tokens, &all);
        let by_itself = |tokens: &[TokenId], least: usize| {
            Some(common(tokens, own)).filter(|length| *length >= least).unwrap_or(0)
        };
        let kept = Kept { by_anybody: &by_anybody, by_itself: &by_itself };
        Prompt::new(pieces.to_vec()).resolve(&kept)
    }

    /// The text is 9. Thinking is 2 to 8; it begins behind 1.
    fn thought(unsent: &[&[u32]], sent: &[&[u32]]) -> Piece {
        Piece::Reply(Said {
            lists: lists(sent),
            unsent: lists(unsent),
            opening: ids(&[1]),
            plain: ids(&[9]),
        })
    }

    #[test]
    fn what_was_not_sent_is_only_for_the_agent_that_has_it() {
        let pieces = [tokens(&[0]), thought(&[&[2, 9], &[3, 9]], &[]), tokens(&[7])];
        let [mine, yours]: [&[u32]; 2] = [&[0, 1, 3, 9, 7], &[0, 1, 2, 9, 7]];
        let (thought, plain) = (ids(mine), ids(&[0, 9, 7]));
        assert_eq!(resolved_of(&pieces, &[mine], &[yours]).tokens, thought);
        // As far as the reply goes.
        assert_eq!(resolved_of(&pieces, &[&mine[..4]], &[yours]).tokens, thought);
        assert_eq!(resolved_of(&pieces, &[mine], &[yours]).replies, [2..4]);
        assert_eq!(resolved_of(&pieces, &[], &[yours]).tokens, plain);
        assert_eq!(resolved_of(&pieces, &[&mine[..3]], &[]).tokens, plain);
        assert_eq!(resolved_of(&pieces, &[&[5, 1, 3, 9, 7]], &[]).tokens, plain);
        assert_eq!(resolved_of(&pieces, &[&[0, 9, 7]], &[yours]).replies, [0..0; 0]);
        assert_eq!(Prompt::new(pieces.to_vec()).resolve_anew().tokens, plain);
        // Nor where something before it is not what the agent has.
        let before = [tokens(&[4]), reply(&[&[5], &[6]]), pieces[1].clone()];
        assert_eq!(resolved_of(&before, &[], &[]).tokens, ids(&[4, 5, 9]));
    }

    #[test]
    fn what_was_sent_stands_for_the_text_whoever_has_it() {
        let pieces = [tokens(&[0]), thought(&[&[2, 9]], &[&[8, 9]]), tokens(&[7])];
        assert_eq!(resolved_of(&pieces, &[], &[]).tokens, ids(&[0, 1, 8, 9, 7]));
        assert_eq!(resolved_of(&pieces, &[], &[&[0, 1, 8, 9, 7]]).tokens, ids(&[0, 1, 8, 9, 7]));
        assert_eq!(resolved_of(&pieces, &[], &[&[0, 9, 7]]).tokens, ids(&[0, 9, 7]));
        let both: [&[u32]; 2] = [&[0, 1, 2, 9], &[0, 9, 7]];
        assert_eq!(resolved_of(&pieces, &both, &[]).tokens, ids(&[0, 1, 2, 9, 7]));
    }

    #[test]
    fn the_plain_text_can_be_gone_on_from_as_well() {
        let said = thought(&[&[2, 9]], &[]);
        let pieces = [tokens(&[0]), said.clone(), tokens(&[7]), said, tokens(&[7])];
        let kept: &[u32] = &[0, 9, 7, 1, 2, 9];
        assert_eq!(resolved_of(&pieces, &[kept], &[]).tokens, ids(&[0, 9, 7, 1, 2, 9, 7]));
    }

    #[test]
    fn of_several_lists_the_one_that_was_kept_wins() {
        let pieces = [tokens(&[1]), reply(&[&[2, 3], &[4], &[5]]), tokens(&[6])];
        assert_eq!(resolved(&pieces, &[&[1, 4, 6, 7]]), (ids(&[1, 4, 6]), 3));
        assert_eq!(resolved(&pieces, &[&[1, 2, 9], &[1, 5, 9]]), (ids(&[1, 2, 3, 6]), 3));
    }

    #[test]
    fn the_latest_list_wins_where_nothing_tells_them_apart() {
        let pieces = [tokens(&[1]), reply(&[&[2, 3], &[4]]), tokens(&[6])];
        assert_eq!(resolved(&pieces, &[]).0, ids(&[1, 2, 3, 6]));
        assert_eq!(resolved(&pieces, &[&[1, 2, 3, 6], &[1, 4, 6]]).0, ids(&[1, 2, 3, 6]));
    }

    #[test]
    fn a_list_that_begins_with_another_is_told_apart_by_what_follows() {
        // The shorter was generated and followed by an end token; the longer goes astray there.
        let pieces = [tokens(&[1]), reply(&[&[2, 3], &[2]]), tokens(&[9, 8])];
        assert_eq!(resolved(&pieces, &[&[1, 2, 9, 8, 7]]).0, ids(&[1, 2, 9, 8]));
        assert_eq!(resolved(&pieces, &[&[1, 2, 3, 9, 8, 7]]).0, ids(&[1, 2, 3, 9, 8]));
    }

    #[test]
    fn where_there_is_no_choice_and_where_nothing_more_can_match_nobody_is_asked() {
        let pieces = [
            tokens(&[1]),
            reply(&[&[2]]),
            reply(&[&[3], &[4]]),
            tokens(&[5]),
            reply(&[&[6], &[7]]),
            reply(&[&[8], &[9]]),
        ];
        assert_eq!(resolved(&pieces, &[&[1, 2, 4, 5, 7, 9]]), (ids(&[1, 2, 4, 5, 7, 9]), 6));
        assert_eq!(resolved(&pieces, &[&[1, 2]]), (ids(&[1, 2, 3, 5, 6, 8]), 2));
    }

    #[test]
    fn each_reply_is_chosen_by_all_that_comes_before_it() {
        let pieces = [reply(&[&[1], &[2]]), tokens(&[3]), reply(&[&[1], &[2]]), tokens(&[4])];
        assert_eq!(resolved(&pieces, &[&[2, 3, 1, 4], &[1, 9]]).0, ids(&[2, 3, 1, 4]));
        assert_eq!(resolved(&[], &[]).0, ids(&[]));
    }
}
