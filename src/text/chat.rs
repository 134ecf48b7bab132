//! A conversation as a prompt: the text of the chat template, the ids that our own replies were generated as.
//!
//! A client sends a reply back as text, and BPE does not round-trip: encoded again it may be other
//! ids, and the KV of the generated ones would be worth nothing. So every known reply gets a mark
//! at its end, a character that occurs nowhere in the conversation; where the rendering has the
//! reply before its mark, the ids take the place of the text. Marked replies stay readable for the
//! template, which may look for `</think>` in them.
//!
//! Nothing is guessed: without its marks the rendering must be the plain one, up to the white
//! space around spliced replies, or the plain one is encoded as a whole.
//!
//! A model that thinks is asked without thinking what it thought before, if its template drops that
//! or its client does. Its reply is put in as it was generated nevertheless, thinking included, and
//! right where it was generated, behind the `<think>` that the template asked with if it did: the
//! prompt goes on from what is kept. What a client says that it thought has to be what it did. Where
//! it says nothing of it, others may have thought something else before the same words: then it is
//! put in only for the agent that has it so.
//!
//! A reply that called tools comes back as the calls, which the template writes in its own way. A
//! known one is given to the template as the text that the model wrote; all around the calls the
//! rendering must be the plain one nevertheless.
//!
//! Cost: two renderings and one encoding, three renderings if the template changes a reply, two more
//! where calls are spliced, five in all if it does not take calls as text. All of it is linear in the conversation, and less than encoding it all: 2 MB of 2,000 messages take
//! 0.33 s with a third of the text known, 0.8 s with nothing known (tests' tokenizer, one core).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::types::TokenId;

use super::error::Error;
use super::prompt::{Piece, Prompt, Said};
use super::reasoning::{self, Reasoning, Split, THINK, THINK_END};
use super::shown::{Written, is_all_shown};
use super::template::{ChatTemplate, Message, RenderOptions};
use super::tokenizer::{Special, Tokenizer};
use super::tools::{CALL, calling_key, calls_key, message_key};

/// What a chat template renders.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    pub messages: &'a [Message],
    pub options: &'a RenderOptions,
}

/// The prompt for a conversation. `known` tells the lists of ids that a reply was generated as,
/// latest first; what it gets is the key of a reply and not empty (`reply_key`). Lists that do
/// not read so are ignored.
///
/// Spliced are the assistant's turns that the template shows exactly once and as they are, outer
/// white space aside: that of the generated ids counts. Where nothing is known, the prompt is the
/// encoded rendering.
pub fn chat_prompt(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    conversation: Conversation,
    known: &mut dyn FnMut(&str) -> Vec<Arc<[TokenId]>>,
) -> Result<Prompt, Error> {
    let plain = template.render(conversation.messages, conversation.options)?;
    let replies = known_replies(template, tokenizer, conversation.messages, known);
    let has_calls = |reply: &&Reply| reply.shape == Shape::Calls;
    let texts: Vec<Reply> = replies.iter().filter(|reply| !has_calls(reply)).cloned().collect();
    let spliced = match replies.iter().any(|reply| has_calls(&reply)) {
        true => splice(template, conversation, &plain, replies),
        false => None,
    };
    match spliced.or_else(|| splice(template, conversation, &plain, texts)) {
        Some(spliced) => spliced.encode(tokenizer, template.opening()),
        None => Ok(tokenizer.encode(&plain, Special::Parse)?.into()),
    }
}

/// The tokens of the user's next message, from where the ids of our last reply end: what
/// [`chat_prompt`] puts there when it gets the whole conversation.
pub fn next_turn(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    message: &str,
    options: &RenderOptions,
) -> Result<Vec<TokenId>, Error> {
    let [user, assistant] = ["user", "assistant"].map(|role| Message::new(role, role));
    let messages = [user, assistant, Message::new("user", message)];
    let conversation = Conversation { messages: &messages, options };
    let plain = template.render(&messages, options)?;
    let mark = unused_character(&plain, conversation).ok_or(Error::NoTurn)?;
    let (text, shape, thinking) = ("assistant".into(), Shape::Text, None);
    let (lists, unsent) = (Vec::new(), Vec::new());
    let reply = Reply { message: 1, text, shape, thinking, lists, unsent };
    let rendered = template.render(&marked(&messages, &[reply], mark), options)?;
    let rest = rendered.rsplit_once(mark).map(|(_, rest)| rest).ok_or(Error::NoTurn)?;
    tokenizer.encode(rest, Special::Parse)
}

/// Whether a conversation that begins with this text has this system message. Only what the template
/// puts around it is looked for with it: further away there may be a date.
pub fn has_system(
    beginning: &str,
    system: &str,
    template: &ChatTemplate,
    options: &RenderOptions,
) -> Result<bool, Error> {
    const QUESTION: &str = "?";
    let messages = [Message::new("system", system), Message::new("user", QUESTION)];
    let rendered = template.render(&messages, options)?;
    let Some(start) = rendered.find(system.trim()) else { return Ok(true) };
    let before = rendered[..start].char_indices().next_back();
    let start = before.map_or(start, |(at, _)| at);
    let end = rendered.rfind(QUESTION).unwrap_or(rendered.len());
    Ok(rendered.get(start..end).is_none_or(|part| beginning.contains(part)))
}

/// A turn of the assistant that we generated.
#[derive(Clone)]
struct Reply<'a> {
    /// Which message it is.
    message: usize,
    /// What the model wrote without its thinking, trimmed. Empty only if it did nothing but think.
    text: Cow<'a, str>,
    shape: Shape,
    thinking: Option<Thinking<'a>>,
    lists: Vec<Arc<[TokenId]>>,
    /// Those with thinking that the client did not send.
    unsent: Vec<Arc<[TokenId]>>,
}

/// What the client made of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    /// The template writes them in its own way.
    Calls,
}

/// Of a model that thinks.
#[derive(Clone)]
struct Thinking<'a> {
    /// What the client sends of it.
    sent: Option<&'a str>,
}

fn known_replies<'a>(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: &'a [Message],
    known: &mut dyn FnMut(&str) -> Vec<Arc<[TokenId]>>,
) -> Vec<Reply<'a>> {
    let reasoning = Reasoning::of(template, tokenizer);
    let mut replies = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        // What a tool said may look like calls, and reading it all would be for nothing.
        if message.role != "assistant" {
            continue;
        }
        let key = message_key(message);
        if key.is_empty() {
            continue;
        }
        let sent = match reasoning {
            Some(reasoning) => reasoning::sent(message, reasoning),
            None => whole(message.content.as_deref().unwrap_or_default()),
        };
        let mut generated: Vec<(Arc<[TokenId]>, String)> = known(&key)
            .into_iter()
            .map(|list| (Arc::clone(&list), tokenizer.decode(&list)))
            .collect();
        generated.retain(|(_, text)| is_sent(message, sent, split_reply(text, reasoning)));
        let Some((_, latest)) = generated.first() else { continue };
        let (text, shape) = match message.has_calls() {
            false => (sent.answer.trim().into(), Shape::Text),
            true => (split_reply(latest, reasoning).answer.trim().to_owned().into(), Shape::Calls),
        };
        let thinking = reasoning.map(|_| Thinking { sent: sent.thought });
        let is_unsent = |text: &str| {
            let thought = split_reply(text, reasoning).thought.unwrap_or_default();
            sent.thought.is_none() && !thought.is_empty()
        };
        let (mut lists, mut unsent) = (Vec::new(), Vec::new());
        for (list, text) in &generated {
            match is_unsent(text) {
                true => unsent.push(Arc::clone(list)),
                false => lists.push(Arc::clone(list)),
            }
        }
        replies.push(Reply { message: index, text, shape, thinking, lists, unsent });
    }
    replies
}

/// Whether what was generated is what the client has, who may have left out the thinking.
fn is_sent(message: &Message, sent: Split, generated: Split) -> bool {
    let is_thought = sent.thought.is_none() || sent.thought == generated.thought;
    is_thought
        && match message.has_calls() {
            false => {
                let is_answered = !sent.answer.trim().is_empty() || sent.thought.is_some();
                is_answered && sent.answer.trim() == generated.answer.trim()
            }
            true => calls_key(generated.answer)
                .is_some_and(|key| key == calling_key(sent.answer, message)),
        }
}

/// What a model wrote. One that was held to JSON or to calls is that from its first token on, also
/// where the template had begun to think for it.
fn split_reply(text: &str, reasoning: Option<Reasoning>) -> Split<'_> {
    let is_held = || {
        let beginning = text.trim_start();
        !text.contains(THINK_END) && (beginning.starts_with('{') || beginning.starts_with(CALL))
    };
    match reasoning {
        Some(Reasoning::Opened) if is_held() => whole(text),
        Some(reasoning) => reasoning::split(text, reasoning),
        None => whole(text),
    }
}

fn whole(answer: &str) -> Split<'_> {
    Split { thought: None, answer }
}

/// The rendering with the replies cut out; `None` if it is not certain where they are.
fn splice<'a>(
    template: &ChatTemplate,
    conversation: Conversation,
    plain: &str,
    replies: Vec<Reply<'a>>,
) -> Option<Spliced<'a>> {
    if replies.is_empty() {
        return None;
    }
    let mark = unused_character(plain, conversation)?;
    let render = |replies: &[Reply]| {
        let messages = marked(conversation.messages, replies, mark);
        template.render(&messages, conversation.options).ok()
    };
    let rendered = render(&replies)?;
    let cuts = Cuts::new(&rendered, mark, &replies)?;
    let are_shown = cuts.are_shown(&replies);
    let is_whole = |spliced: &Spliced| shows_the_rest(template, conversation, spliced, mark);
    if are_shown.iter().all(|is_shown| *is_shown) {
        return cuts.splice(plain, replies).filter(is_whole);
    }
    // Those that the template drops, repeats or changes go back to what the client sent, white
    // space included.
    let shown = replies.into_iter().zip(are_shown).filter(|(_, is_shown)| *is_shown);
    let replies: Vec<Reply> = shown.map(|(reply, _)| reply).collect();
    let rendered = render(&replies)?;
    Cuts::new(&rendered, mark, &replies)?.splice(plain, replies).filter(is_whole)
}

/// Whether nothing else is taken for calls.
fn shows_the_rest(
    template: &ChatTemplate,
    conversation: Conversation,
    spliced: &Spliced,
    mark: char,
) -> bool {
    let replies = spliced.parts.iter().map(|Part { reply, .. }| Written {
        message: reply.message,
        text: &reply.text,
        has_calls: reply.shape == Shape::Calls,
    });
    let replies: Vec<Written> = replies.collect();
    if !replies.iter().any(|reply| reply.has_calls) {
        return true;
    }
    let render = |messages: &[Message]| template.render(messages, conversation.options).ok();
    is_all_shown(conversation.messages, &replies, mark, &render)
}

/// A private-use character that neither the conversation nor the template has. Unicode gives it no
/// case, no white space and no other form, so no template changes it. A client that uses all of
/// them up gets plain renderings.
fn unused_character(plain: &str, conversation: Conversation) -> Option<char> {
    const PRIVATE_USE: std::ops::RangeInclusive<char> = '\u{E000}'..='\u{F8FF}';
    let Conversation { messages, options } = conversation;
    let mut used = HashSet::new();
    let mut add = |text: &str| used.extend(text.chars().filter(|c| PRIVATE_USE.contains(c)));
    // The template's own text, and its special tokens, as far as they matter.
    add(plain);
    for message in messages {
        add(&message.role);
        add(message.content.as_deref().unwrap_or_default());
    }
    let extras = messages.iter().flat_map(|message| &message.extra);
    for (name, value) in extras.chain(&options.variables) {
        add(name);
        add(&value.to_string());
    }
    for tool in &options.tools {
        add(&tool.to_string());
    }
    PRIVATE_USE.into_iter().find(|character| !used.contains(character))
}

/// The messages with these replies as they were written, trimmed, and each with its number between
/// two marks at the end.
fn marked(messages: &[Message], replies: &[Reply], mark: char) -> Vec<Message> {
    let mut messages = messages.to_vec();
    for (number, reply) in replies.iter().enumerate() {
        let content = format!("{}{mark}{number}{mark}", reply.text);
        let written = messages[reply.message].written(content);
        messages[reply.message] = match reply.thinking {
            Some(_) => reasoning::without_field(written),
            None => written,
        };
    }
    messages
}

/// A marked rendering, cut at its marks.
struct Cuts<'a> {
    /// What comes before each mark, and the number of the reply that the mark names.
    parts: Vec<(&'a str, usize)>,
    rest: &'a str,
}

impl<'a> Cuts<'a> {
    /// `None` if a mark came back in pieces.
    fn new(rendered: &'a str, mark: char, replies: &[Reply]) -> Option<Cuts<'a>> {
        let mut fields = rendered.split(mark);
        let mut text = fields.next()?;
        let mut parts = Vec::new();
        while let Some(number) = fields.next() {
            let number: usize = number.parse().ok().filter(|number| *number < replies.len())?;
            parts.push((text, number));
            text = fields.next()?;
        }
        Some(Cuts { parts, rest: text })
    }

    /// For each reply, whether its mark is there once and the reply before it.
    fn are_shown(&self, replies: &[Reply]) -> Vec<bool> {
        let mut marks = vec![0; replies.len()];
        let mut is_before = vec![true; replies.len()];
        for (text, number) in &self.parts {
            marks[*number] += 1;
            is_before[*number] &= text.ends_with(&*replies[*number].text);
        }
        marks.iter().zip(is_before).map(|(marks, is_before)| *marks == 1 && is_before).collect()
    }

    /// Cuts the replies out. `None` if one is not shown, or if without them the text is not `plain`.
    fn splice<'r>(self, plain: &str, replies: Vec<Reply<'r>>) -> Option<Spliced<'r>> {
        if self.are_shown(&replies).contains(&false) {
            return None;
        }
        let mut replies: Vec<Option<Reply>> = replies.into_iter().map(Some).collect();
        let mut parts = Vec::new();
        for (text, number) in self.parts {
            let reply = replies[number].take()?;
            let before = text.strip_suffix(&*reply.text)?;
            let before = match reply.thinking {
                Some(_) => without_empty_thinking(before),
                None => before,
            };
            parts.push(Part { before: before.to_owned(), reply, plain: String::new() });
        }
        let mut spliced = Spliced { parts, rest: self.rest.to_owned() };
        let places: Vec<String> = spliced.places(plain)?.into_iter().map(str::to_owned).collect();
        for (part, place) in spliced.parts.iter_mut().zip(places) {
            part.plain = place;
        }
        Some(spliced)
    }
}

/// A rendering with places for replies.
struct Spliced<'a> {
    parts: Vec<Part<'a>>,
    rest: String,
}

/// A reply, and what comes before it.
struct Part<'a> {
    /// What the template wrote.
    before: String,
    reply: Reply<'a>,
    /// What stands in its place in the plain rendering, with all white space around it.
    plain: String,
}

impl Spliced<'_> {
    /// What stands in the places of the replies if the rest is this text, up to the white space around
    /// them. (That of a content is not in here, because the contents were trimmed.) In the place of
    /// calls may be anything but nothing: [`shows_the_rest`] sees to it that they are calls and no more.
    fn places<'p>(&self, plain: &'p str) -> Option<Vec<&'p str>> {
        let mut places = Vec::new();
        let mut left = plain;
        let mut before: Option<(Shape, &str)> = None;
        for Part { before: text, reply, .. } in &self.parts {
            let after_text = after(before.map(|(shape, _)| shape), text.trim_end(), left)?;
            let place = |from: &'p str| {
                let end = from.len() - after_text.len() - text.trim().len();
                &from[..end]
            };
            places.extend(before.map(|(_, from)| place(from)));
            left = match reply.shape {
                Shape::Text => after_reply(reply, after_text.trim_start())?,
                Shape::Calls => after_text,
            };
            before = Some((reply.shape, after_text));
        }
        let rest = self.rest.trim_start();
        let (shape, from) = match before {
            None => return (left == self.rest).then_some(places),
            Some(before) => before,
        };
        let is_read = match shape {
            Shape::Text => left.trim_start() == rest,
            Shape::Calls => left.strip_suffix(rest).is_some_and(|calls| !calls.trim().is_empty()),
        };
        places.extend(from.strip_suffix(rest));
        is_read.then_some(places)
    }

    /// `opening` is what the template asks with, if the model is to think at once.
    fn encode(&self, tokenizer: &Tokenizer, opening: &str) -> Result<Prompt, Error> {
        let mut pieces = Vec::new();
        for (index, Part { before, reply, plain }) in self.parts.iter().enumerate() {
            let text = match self.rest.ends_with(' ') {
                true => before.as_str(),
                false => without_doubled_space(before, reply, tokenizer),
            };
            let opening = reply.thinking.as_ref().map_or("", |_| opening);
            let (lists, unsent) = (reply.lists.clone(), reply.unsent.clone());
            if unsent.is_empty() {
                let text = format!("{text}{opening}");
                pieces.push(Piece::Tokens(tokenizer.encode(&text, Special::Parse)?));
                pieces.push(Piece::Reply(Said { lists, ..Said::default() }));
                continue;
            }
            pieces.push(Piece::Tokens(tokenizer.encode(text, Special::Parse)?));
            let next = self.parts.get(index + 1).map_or(&self.rest, |next| &next.before);
            let around =
                (&text[text.trim_end().len()..], &next[..next.len() - next.trim_start().len()]);
            let plain = plain.strip_prefix(around.0).unwrap_or(plain);
            let plain = plain.strip_suffix(around.1).unwrap_or(plain);
            pieces.push(Piece::Reply(Said {
                lists,
                unsent,
                opening: tokenizer.encode(opening, Special::Parse)?,
                plain: tokenizer.encode(plain, Special::Parse)?,
            }));
        }
        pieces.push(Piece::Tokens(tokenizer.encode(&self.rest, Special::Parse)?));
        Ok(Prompt::new(pieces))
    }
}

/// What follows a reply that is text, which may have before it what its client sends of the thinking.
fn after_reply<'t>(reply: &Reply, left: &'t str) -> Option<&'t str> {
    let strip = |left: &'t str, text: &str| left.strip_prefix(text).unwrap_or(left).trim_start();
    let at_once = || left.strip_prefix(&*reply.text).filter(|_| !reply.text.is_empty());
    let behind_thinking = || {
        let thinking = reply.thinking.as_ref()?;
        let left = strip(strip(left, THINK), thinking.sent.unwrap_or_default());
        strip(left, THINK_END).strip_prefix(&*reply.text)
    };
    // An answer may begin as the tag does.
    match left.starts_with(THINK) {
        true => behind_thinking().or_else(at_once),
        false => at_once().or_else(behind_thinking),
    }
}

/// What a template writes for thinking that it does not have is no part of a reply.
fn without_empty_thinking(text: &str) -> &str {
    let thinking = text.trim_end().strip_suffix(THINK_END);
    let before = thinking.and_then(|text| text.trim_end().strip_suffix(THINK));
    before.unwrap_or(text)
}

/// What follows the text that the template wrote behind a reply, or at the beginning.
fn after<'t>(reply: Option<Shape>, text: &str, left: &'t str) -> Option<&'t str> {
    match reply {
        None => left.strip_prefix(text),
        Some(Shape::Text) => left.trim_start().strip_prefix(text.trim_start()),
        Some(Shape::Calls) => {
            let (calls, rest) = left.split_once(text.trim_start())?;
            (!calls.trim().is_empty()).then_some(rest)
        }
    }
}

/// Templates in the manner of Llama 2 and Mistral ask with `[/INST]` and write `[/INST] Hello` for
/// the answer, whose ids begin with that space. (One that asks with a space ends with it.)
fn without_doubled_space<'a>(text: &'a str, reply: &Reply, tokenizer: &Tokenizer) -> &'a str {
    let begins_with_space = |list: &Arc<[TokenId]>| {
        let first = list.first().and_then(|id| tokenizer.token_bytes(*id));
        first.is_some_and(|bytes| bytes.starts_with(b" "))
    };
    match text.strip_suffix(' ') {
        Some(shorter) if reply.lists.iter().chain(&reply.unsent).all(begins_with_space) => shorter,
        _ => text,
    }
}
