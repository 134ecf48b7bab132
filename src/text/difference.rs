//! Where two sequences of tokens part, with the text around it.

use super::Tokenizer;
use super::cause::{Cause, cause};
use crate::types::TokenId;

/// Shown before the first difference, and of each side behind it.
const SHOWN_CHARS: usize = 40;

/// The first token in which what is given is not what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// So many tokens are the same.
    pub same_tokens: usize,
    pub stored: TokenId,
    pub given: TokenId,
    /// What both have before it.
    pub before: String,
    pub stored_text: String,
    pub given_text: String,
    pub cause: Cause,
}

/// Tokens that both begin with.
pub fn common_tokens(stored: &[TokenId], given: &[TokenId]) -> usize {
    stored.iter().zip(given).take_while(|(a, b)| a == b).count()
}

/// The first difference; `None` if one goes on where the other ends.
pub fn difference(
    tokenizer: &Tokenizer,
    stored: &[TokenId],
    given: &[TokenId],
) -> Option<Difference> {
    let same_tokens = common_tokens(stored, given);
    let (first_stored, first_given) = (*stored.get(same_tokens)?, *given.get(same_tokens)?);
    let (before, stored_text) = split_text(tokenizer, stored, same_tokens);
    let (before_given, given_text) = split_text(tokenizer, given, same_tokens);
    let cause = cause(&format!("{before}{stored_text}"), &format!("{before_given}{given_text}"));
    let shown = |text: String| text.chars().take(SHOWN_CHARS).collect();
    Some(Difference {
        same_tokens,
        stored: first_stored,
        given: first_given,
        before: last_chars(&before),
        stored_text: shown(stored_text),
        given_text: shown(given_text),
        cause: cause.unwrap_or(Cause::OtherTokens),
    })
}

/// How what is given stands to what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub same_tokens: usize,
    pub difference: Option<Difference>,
    /// In words.
    pub text: String,
}

/// `given_name` is what the second one is called.
pub fn explain(
    tokenizer: &Tokenizer,
    stored: &[TokenId],
    given: &[TokenId],
    given_name: &str,
) -> Explanation {
    let difference = difference(tokenizer, stored, given);
    let text = match &difference {
        Some(difference) => difference.cause.explanation().to_owned(),
        None if given.len() > stored.len() => {
            format!("nothing differs: {given_name} goes on where what is stored ends")
        }
        None => format!("nothing differs: all of {given_name} is stored"),
    };
    Explanation { same_tokens: common_tokens(stored, given), difference, text }
}

impl Explanation {
    /// Why they part, if they do.
    pub fn cause(&self) -> Option<Cause> {
        self.difference.as_ref().map(|difference| difference.cause)
    }
}

/// The text of a whole sequence, special tokens included.
pub fn text_of(tokenizer: &Tokenizer, tokens: &[TokenId]) -> String {
    String::from_utf8_lossy(&bytes_of(tokenizer, tokens)).into_owned()
}

/// The text before a token, and that from it on. A character that it is a part of is after it.
fn split_text(tokenizer: &Tokenizer, tokens: &[TokenId], token: usize) -> (String, String) {
    let bytes = bytes_of(tokenizer, tokens);
    let mut at = bytes_of(tokenizer, &tokens[..token]).len();
    let is_inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    while at > 0 && is_inside(at) {
        at -= 1;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&bytes[..at]), text(&bytes[at..]))
}

fn bytes_of(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Vec<u8> {
    let bytes = tokens.iter().filter_map(|token| tokenizer.token_bytes(*token));
    bytes.flatten().copied().collect()
}

fn last_chars(text: &str) -> String {
    let start = text.char_indices().rev().take(SHOWN_CHARS).last().map_or(text.len(), |it| it.0);
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Special;
    use crate::types::TextSource;

    fn tokenizer() -> Tokenizer {
        let source = TextSource::Folder {
            tokenizer_json: include_bytes!("../../tests/data/text/byte_level.tokenizer.json")
                .to_vec(),
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        };
        Tokenizer::new(&source).expect("the fixture is a tokenizer")
    }

    #[test]
    fn the_first_difference_is_shown_with_what_is_around_it() {
        let tokenizer = tokenizer();
        let ids = |text: &str| tokenizer.encode(text, Special::Parse).expect("tokens");
        let long = "A system message that is longer than what is shown of it. ";
        let (stored, given) =
            (format!("{long}It is 10:30 now."), format!("{long}It is 10:45 now."));
        let found = difference(&tokenizer, &ids(&stored), &ids(&given)).expect("they differ");
        assert_eq!(found.before.chars().count(), SHOWN_CHARS);
        let whole = |after: &str| format!("{}{after}", found.before);
        assert!(stored.ends_with(&whole(&found.stored_text)), "{found:?}");
        assert!(given.ends_with(&whole(&found.given_text)), "{found:?}");
        assert_eq!(found.cause, Cause::Time);
        assert_eq!(text_of(&tokenizer, &ids(&stored)), stored);
        assert_eq!(difference(&tokenizer, &ids(long.trim_end()), &ids(&stored)), None);
    }

    #[test]
    fn other_tokens_and_half_characters_are_no_trouble() {
        let tokenizer = tokenizer();
        let ids = |text: &str| tokenizer.encode(text, Special::Parse).expect("tokens");
        let letter_by_letter: Vec<TokenId> =
            "the the".chars().flat_map(|c| ids(&c.to_string())).collect();
        let found = difference(&tokenizer, &letter_by_letter, &ids("the the"));
        assert_eq!(found.map(|it| it.cause), Some(Cause::OtherTokens));
        // A character of three tokens, and one that differs in the last of them.
        let (one, other) = (ids("x\u{10348}y"), ids("x\u{10349}y"));
        assert_eq!(one.len(), 5);
        let found = difference(&tokenizer, &one, &other).expect("they differ");
        assert_eq!((found.same_tokens, found.before.as_str()), (3, "x"));
        assert_eq!(found.stored_text, "\u{10348}y");
        // Half of it is no character, before and after the difference.
        let broken = [&one[..3], &one[4..]].concat();
        let found = difference(&tokenizer, &broken, &one).expect("they differ");
        assert_eq!((found.before.as_str(), found.stored_text.as_str()), ("x\u{fffd}", "y"));
    }
}
