//! Conversations with a model that thinks: whatever a client keeps of a reply, the next prompt goes on from it.

use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::chat::{BYTE_LEVEL, assistant, replies, resolved, user};
use super::folder;
use crate::types::{Namespace, TokenId};

const CHATML: &str = include_str!("../../../tests/data/text/templates/chatml.jinja");
/// In the manner of Qwen 3.
const THINKING: &str = include_str!("../../../tests/data/text/templates/thinking.jinja");
/// In the manner of DeepSeek R1: asks with the tag, and drops all earlier thinking.
const OPENED: &str = include_str!("../../../tests/data/text/templates/opened.jinja");

fn template(text: &str) -> ChatTemplate {
    let config = json!({ "chat_template": text });
    ChatTemplate::new(&folder("", Some(config))).expect("it compiles")
}

#[test]
fn how_a_model_thinks_is_told_by_its_template_and_its_vocabulary() {
    let without = folder(
        include_str!("../../../tests/data/text/byte_level.tokenizer.json")
            .replace("<think>", "<thunk>")
            .as_str(),
        None,
    );
    let without = Tokenizer::new(&without).expect("it is whole");
    let with = &BYTE_LEVEL.tokenizer;
    for (text, tokenizer, expected) in [
        (CHATML, &without, None),
        (CHATML, with, Some(Reasoning::Tagged)),
        (THINKING, &without, Some(Reasoning::Tagged)),
        (OPENED, &without, Some(Reasoning::Opened)),
        (OPENED, with, Some(Reasoning::Opened)),
    ] {
        assert_eq!(Reasoning::of(&template(text), tokenizer), expected, "{text}");
    }
}

/// Whether a reply is put into a conversation that ends with it and a question.
fn is_known(text: &str, generated: &str, reply: Message) -> bool {
    let messages = [user("Hi"), reply, user("And?")];
    let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
    let conversation = Conversation { messages: &messages, options: &options };
    let (local, mut memory) = (Namespace::local(), Replies::new());
    memory.remember(&local, generated, BYTE_LEVEL.spelled(generated));
    let mut known = |key: &str| memory.known(&local, key);
    let prompt = chat_prompt(&template(text), &BYTE_LEVEL.tokenizer, conversation, &mut known);
    !replies(&prompt.expect("it renders")).is_empty()
}

#[test]
fn tags_of_thinking_are_text_also_in_a_vocabulary_that_calls_them_special() {
    let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    for token in json["added_tokens"].as_array_mut().expect("a list") {
        token["special"] = json!(true);
    }
    let special = Tokenizer::new(&folder(&json.to_string(), None)).expect("it is whole");
    let tokens = special.encode("<think>Hm</think><|im_end|>", Special::Parse).expect("it encodes");
    assert_eq!(special.decode(&tokens), "<think>Hm</think>");
}

#[test]
fn what_a_client_says_was_thought_has_to_be_what_was() {
    let apart = |thought: &str| assistant("No.").with_thinking(thought.to_owned());
    for (text, tag) in [(CHATML, "<think>"), (THINKING, "<think>"), (OPENED, "")] {
        let generated = format!("{tag}\nHm.\n</think>\n\nNo.");
        for (reply, expected) in [
            (assistant("No."), true),
            (apart("Hm."), true),
            (apart("\nHm.\n"), true),
            (assistant(&generated), true),
            (assistant("<think>Hm.</think>No."), true),
            (assistant("No"), false),
            (apart("Ho."), false),
            (assistant("<think>Ho.</think>No."), false),
            (assistant("Hm."), false),
        ] {
            let found = is_known(text, &generated, reply.clone());
            assert_eq!(found, expected, "{reply:?} {text}");
        }
        let unfinished = format!("{tag}\nHm. ");
        assert!(is_known(text, &unfinished, assistant("").with_thinking("Hm.".to_owned())));
        assert!(!is_known(text, &unfinished, assistant("")));
    }
    assert!(is_known(CHATML, "<think>\nHm. ", assistant("<think>\nHm.")));
    // One that was held to a format has not thought, whatever its template asked with.
    for held in ["{\"a\": 1}", "<tool_call>\n{}"] {
        assert!(is_known(OPENED, held, assistant(held)));
    }
    // What was said is not what was thought.
    assert!(!is_known(OPENED, "Hm.", assistant("Hm.")));
}

/// What a client sends of a reply that was thought about.
#[derive(Clone, Copy, Debug)]
enum Echo {
    Answer,
    Apart,
    Inline,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_turn_begins_with_all_tokens_of_the_turn_before_whatever_is_sent_of_the_thinking(
        text in prop::sample::select(&[CHATML, THINKING, OPENED][..]),
        turns in prop::collection::vec(
            (
                "[a-z ?]{0,8}",
                prop::option::weighted(0.8, prop::collection::vec(any::<prop::sample::Index>(), 0..6)),
                prop::collection::vec(any::<prop::sample::Index>(), 1..6),
                prop::sample::select(&[Echo::Answer, Echo::Apart, Echo::Inline][..]),
            ),
            1..5,
        ),
    ) {
        let model = &*BYTE_LEVEL;
        let tag = |text: &str| model.tokenizer.added_token(text).expect("it is added");
        let template = template(text);
        let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
        let local = Namespace::local();
        let mut memory = Replies::new();
        let mut messages: Vec<Message> = Vec::new();
        let mut kept: Vec<TokenId> = Vec::new();
        for (question, thought, answer, echo) in turns {
            messages.push(user(&question));
            let conversation = Conversation { messages: &messages, options: &options };
            let mut known = |key: &str| memory.known(&local, key);
            let prompt = chat_prompt(&template, &model.tokenizer, conversation, &mut known);
            let tokens = resolved(&prompt.expect("it renders"), &kept);
            prop_assert!(tokens.starts_with(&kept), "{:?}\n{:?}", model.text(&tokens), model.text(&kept));

            let words = |indexes: &[prop::sample::Index]| -> Vec<TokenId> {
                indexes.iter().map(|index| *index.get(&model.words)).collect()
            };
            let mut generated: Vec<TokenId> = Vec::new();
            // One whose template asks with the tag always thinks.
            if thought.is_some() || text == OPENED {
                generated.extend((text != OPENED).then(|| tag("<think>")));
                generated.extend(words(&thought.unwrap_or_default()));
                generated.push(tag("</think>"));
            }
            generated.extend(words(&answer));
            let reply = model.tokenizer.decode(&generated);
            let reasoning = Reasoning::of(&template, &model.tokenizer).expect("it thinks");
            let mut reader = ReplyReader::new(Some(Splitter::new(reasoning)), None);
            let (mut thought, mut answer) = (String::new(), String::new());
            for part in reader.push(&reply).into_iter().chain(reader.finish()) {
                match part {
                    Spoken::Thought(more) => thought += &more,
                    Spoken::Said(ReplyPart::Text(more)) => answer += &more,
                    Spoken::Said(ReplyPart::Call(_)) => panic!("nothing was to be called"),
                }
            }
            prop_assume!(!answer.trim().is_empty());
            memory.remember(&local, &reply, Arc::from(generated.as_slice()));
            kept = [tokens, generated].concat();
            messages.push(match echo {
                Echo::Answer => assistant(&answer),
                Echo::Apart => assistant(&answer).with_thinking(thought),
                Echo::Inline => assistant(&reply),
            });
        }
    }
}
