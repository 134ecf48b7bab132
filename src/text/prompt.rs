//! A prompt as ids, with places where the same text was generated as more than one list of ids.

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
    /// A reply that was generated more than once, differently: any of these lists stands for its
    /// text, latest first. At least one.
    Reply(Vec<Arc<[TokenId]>>),
}

impl Prompt {
    pub fn new(pieces: Vec<Piece>) -> Prompt {
        Prompt { pieces }
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The ids, where of several lists for a reply the one wins with which `matched` tokens of
    /// the whole so far are the most; the latest of equals.
    pub fn resolve(&self, matched: &dyn Fn(&[TokenId]) -> usize) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Tokens(more) => tokens.extend_from_slice(more),
                Piece::Reply(lists) => {
                    let start = tokens.len();
                    let mut best: Option<(usize, &Arc<[TokenId]>)> = None;
                    for list in lists {
                        tokens.truncate(start);
                        tokens.extend_from_slice(list);
                        let length = matched(&tokens);
                        if lists.len() == 1 || best.is_none_or(|(longest, _)| length > longest) {
                            best = Some((length, list));
                        }
                    }
                    tokens.truncate(start);
                    tokens.extend(best.into_iter().flat_map(|(_, list)| list.iter()));
                }
            }
        }
        tokens
    }
}

impl From<Vec<TokenId>> for Prompt {
    fn from(tokens: Vec<TokenId>) -> Prompt {
        Prompt { pieces: vec![Piece::Tokens(tokens)] }
    }
}
