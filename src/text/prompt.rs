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
    /// A reply that was generated, perhaps more than once and differently: any of these lists
    /// stands for its text, latest first. At least one.
    Reply(Vec<Arc<[TokenId]>>),
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

    /// The ids, where of several lists for a reply the one wins with which `matched` tokens of
    /// the prompt up to the next reply are the most; the latest of equals.
    ///
    /// `matched` is asked once for each list, and only where there is a choice and all tokens
    /// before it are matched: beyond the first that is not, no list is better than another.
    pub fn resolve(&self, matched: &dyn Fn(&[TokenId]) -> usize) -> Resolved {
        let mut tokens = Vec::new();
        let mut replies = Vec::new();
        let mut can_match = true;
        for (index, piece) in self.pieces.iter().enumerate() {
            let start = tokens.len();
            match piece {
                Piece::Tokens(more) => tokens.extend_from_slice(more),
                Piece::Reply(lists) if lists.len() > 1 && can_match => {
                    // One list may begin with another: what follows tells them apart.
                    let following = match self.pieces.get(index + 1) {
                        Some(Piece::Tokens(following)) => following.as_slice(),
                        Some(Piece::Reply(_)) | None => &[],
                    };
                    let (mut best, mut longest) = (&lists[0], 0);
                    for list in lists {
                        tokens.extend_from_slice(list);
                        tokens.extend_from_slice(following);
                        let length = matched(&tokens);
                        if length > longest {
                            (best, longest) = (list, length);
                        }
                        tokens.truncate(start);
                    }
                    tokens.extend_from_slice(best);
                    can_match = longest >= tokens.len();
                }
                Piece::Reply(lists) => {
                    tokens.extend(lists.first().into_iter().flat_map(|l| l.iter()))
                }
            }
            if matches!(piece, Piece::Reply(_)) {
                replies.push(start..tokens.len());
            }
        }
        Resolved { tokens, replies }
    }
}

/// A conversation from its begin to the end of its last reply, which a further turn can follow.
/// `None` if it has no reply, or not all that it is said to have.
pub fn turns(tokens: &[TokenId], replies: &[Range<usize>]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut end = 0;
    for reply in replies {
        pieces.push(Piece::Tokens(tokens.get(end..reply.start)?.to_vec()));
        pieces.push(Piece::Reply(vec![tokens.get(reply.clone())?.into()]));
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

    fn reply(lists: &[&[u32]]) -> Piece {
        Piece::Reply(lists.iter().map(|list| ids(list).into()).collect())
    }

    fn is_reply(piece: &Piece) -> bool {
        matches!(piece, Piece::Reply(_))
    }

    /// The prompt of these pieces where these sequences are kept, and how often it asked.
    fn resolved(pieces: &[Piece], kept: &[&[u32]]) -> (Vec<TokenId>, usize) {
        let asked = Cell::new(0);
        let matched = |tokens: &[TokenId]| {
            asked.set(asked.get() + 1);
            let common = |kept: &&[u32]| {
                tokens.iter().zip(kept.iter()).take_while(|(token, id)| token.0 == **id).count()
            };
            kept.iter().map(common).max().unwrap_or(0)
        };
        let resolved = Prompt::new(pieces.to_vec()).resolve(&matched);
        assert_eq!(resolved.replies.len(), pieces.iter().filter(|piece| is_reply(piece)).count());
        (resolved.tokens, asked.get())
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
