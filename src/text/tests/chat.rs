//! Conversations as prompts: whose ids a reply gets, and that nothing else changes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::json;

use super::super::tools::reply_key;
use super::super::*;
use super::folder;
use crate::types::TokenId;

const CHATML: &str = include_str!("../../../tests/data/text/templates/chatml.jinja");
/// In the manner of Llama 3: trims.
const HEADERS: &str = include_str!("../../../tests/data/text/templates/headers.jinja");
/// In the manner of Mistral: a space before the reply, none in the generation prompt.
const INST: &str = include_str!("../../../tests/data/text/templates/inst.jinja");
/// In the manner of Qwen 3: drops the thinking of earlier turns.
const THINKING: &str = include_str!("../../../tests/data/text/templates/thinking.jinja");
/// In the manner of Gemma.
const TURNS: &str = include_str!("../../../tests/data/text/templates/turns.jinja");
/// No special token anywhere.
const BARE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}\n{% endfor %}\
     {% if add_generation_prompt %}assistant: {% endif %}";
const TWICE: &str = "{% for m in messages %}{{ m.content }}|{{ m.content | trim }}\n{% endfor %}";
const DROPS_ASSISTANT: &str =
    "{% for m in messages if m.role != 'assistant' %}{{ m.content }}\n{% endfor %}";

const TEMPLATES: &[&str] = &[CHATML, HEADERS, INST, THINKING, TURNS, BARE, TWICE, DROPS_ASSISTANT];

pub(super) struct Model {
    pub(super) tokenizer: Tokenizer,
    /// As `TEMPLATES`.
    templates: Vec<ChatTemplate>,
    /// A token for each byte.
    bytes: Vec<TokenId>,
    /// All tokens that are neither special nor added.
    pub(super) words: Vec<TokenId>,
}

pub(super) static BYTE_LEVEL: LazyLock<Model> = LazyLock::new(|| {
    let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
    model(json, "<|endoftext|>", "<|im_end|>")
});
static SENTENCE_PIECE: LazyLock<Model> = LazyLock::new(|| {
    let json = include_str!("../../../tests/data/text/sentence_piece.tokenizer.json");
    model(json, "<s>", "</s>")
});

fn model(tokenizer_json: &str, bos: &str, eos: &str) -> Model {
    let template = |text: &&str| {
        let config = json!({"chat_template": text, "bos_token": bos, "eos_token": eos});
        ChatTemplate::new(&folder("", Some(config))).expect("it compiles")
    };
    let tokenizer = Tokenizer::new(&folder(tokenizer_json, None)).expect("it is whole");
    let is_word = |id: &TokenId| {
        let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        !bytes.is_empty() && tokenizer.added_token(&text).is_none()
    };
    let words: Vec<TokenId> =
        (0..tokenizer.vocabulary_size() as u32).map(TokenId).filter(is_word).collect();
    let byte = |byte: u8| {
        let is_it = |id: &&TokenId| tokenizer.token_bytes(**id) == Some([byte].as_slice());
        *words.iter().find(is_it).expect("both fixtures have every byte")
    };
    let bytes = (0..=u8::MAX).map(byte).collect();
    Model { templates: TEMPLATES.iter().map(template).collect(), tokenizer, bytes, words }
}

impl Model {
    fn template(&self, text: &str) -> &ChatTemplate {
        let index = TEMPLATES.iter().position(|known| *known == text);
        &self.templates[index.expect("it is in the table")]
    }

    /// A text in a way that no encoder would write it: a token for each byte.
    pub(super) fn spelled(&self, text: &str) -> Arc<[TokenId]> {
        text.bytes().map(|byte| self.bytes[usize::from(byte)]).collect()
    }

    /// The text of tokens, special ones included.
    pub(super) fn text(&self, ids: &[TokenId]) -> String {
        let bytes = ids.iter().flat_map(|id| self.tokenizer.token_bytes(*id).unwrap_or_default());
        String::from_utf8_lossy(&bytes.copied().collect::<Vec<u8>>()).into_owned()
    }

    fn prompt(&self, template: &str, messages: &[Message], known: &Known) -> Result<Prompt, Error> {
        let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
        let conversation = Conversation { messages, options: &options };
        chat_prompt(self.template(template), &self.tokenizer, conversation, &mut |text| {
            assert_eq!(text, text.trim());
            let replies = known.iter().filter(|(reply, _)| reply_key(reply) == text);
            replies.flat_map(|(_, lists)| lists.iter().cloned()).collect()
        })
    }

    fn rendered(&self, template: &str, messages: &[Message]) -> Result<String, Error> {
        self.template(template).render(messages, &RenderOptions::new(SystemTime::UNIX_EPOCH))
    }
}

type Known = HashMap<String, Vec<Arc<[TokenId]>>>;

fn latest(prompt: &Prompt) -> Vec<TokenId> {
    prompt.resolve_anew().tokens
}

/// For an agent that has these tokens.
pub(super) fn resolved(prompt: &Prompt, kept: &[TokenId]) -> Vec<TokenId> {
    let common = |tokens: &[TokenId]| tokens.iter().zip(kept).take_while(|(a, b)| a == b).count();
    let at_least = |tokens: &[TokenId], least| Some(common(tokens)).filter(|n| *n >= least);
    let by_itself = |tokens: &[TokenId], least| at_least(tokens, least).unwrap_or(0);
    prompt.resolve(&Kept { by_anybody: &common, by_itself: &by_itself }).tokens
}

/// Of each reply that is spliced, the lists that may stand for it.
pub(super) fn replies(prompt: &Prompt) -> Vec<Vec<Arc<[TokenId]>>> {
    let lists = |piece: &Piece| match piece {
        Piece::Tokens(_) => None,
        Piece::Reply(Said { lists, unsent, .. }) => Some([&lists[..], unsent].concat()),
    };
    prompt.pieces().iter().filter_map(lists).collect()
}

/// Nor white space. A reply stands where the model began it, before what its template writes for
/// thinking that was none.
fn without_empty_thinking(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    text.replace("<think></think>", "")
}

pub(super) fn user(content: &str) -> Message {
    Message::new("user", content)
}

pub(super) fn assistant(content: &str) -> Message {
    Message::new("assistant", content)
}

/// The prompt as text, spliced replies in brackets. All of `known` were generated byte by byte.
fn spliced(template: &str, messages: &[Message], known: &[&str]) -> String {
    let model = &*BYTE_LEVEL;
    let known: Known =
        known.iter().map(|text| (text.trim().to_owned(), vec![model.spelled(text)])).collect();
    let prompt = model.prompt(template, messages, &known).expect("it renders");
    let mut text = String::new();
    for piece in prompt.pieces() {
        match piece {
            Piece::Tokens(tokens) => text += &model.text(tokens),
            Piece::Reply(said) => text += &format!("⟦{}⟧", model.text(&said.lists[0])),
        }
    }
    text
}

#[test]
fn a_known_reply_gets_the_ids_it_was_generated_as_with_their_white_space() {
    let messages = [user("Hi"), assistant("Hello\n"), user("Bye")];
    expect_test::expect![[r#"
        <|im_start|>system
        You answer questions.<|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant
        ⟦ Hello⟧<|im_end|>
        <|im_start|>user
        Bye<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&spliced(CHATML, &messages, &[" Hello"]));
}

#[test]
fn the_same_reply_is_spliced_wherever_the_assistant_says_it_and_nowhere_else() {
    let messages =
        [user("yes"), assistant("yes"), assistant("yes"), user("Say yes"), assistant(" yes")];
    expect_test::expect![[r#"
        user: yes
        assistant: ⟦yes⟧
        assistant: ⟦yes⟧
        user: Say yes
        assistant: ⟦yes⟧
        assistant: "#]]
    .assert_eq(&spliced(BARE, &messages, &["yes"]));
}

#[test]
fn no_content_and_white_space_are_nobodys_reply() {
    let nothing = Message { content: None, ..assistant("") };
    let messages = [user("Hi"), nothing, user("Hi"), assistant("\n"), assistant("yes")];
    expect_test::expect![[r#"
        <|im_start|>system
        You answer questions.<|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant
        <|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant

        <|im_end|>
        <|im_start|>assistant
        ⟦yes⟧<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&spliced(CHATML, &messages, &["", "yes"]));
}

#[test]
fn what_was_thought_is_there_as_it_was_generated_though_the_template_would_drop_or_change_it() {
    let thought = "<think>\nHm.\n</think>\n\nNo.";
    let messages = [
        user("One?"),
        assistant(thought),
        user("Two?"),
        assistant("  Yes. "),
        user("Three?"),
        assistant(thought),
        assistant("<think>Well</think>Fine."),
    ];
    let known = [thought, "Yes.", "<think>Well</think>Fine."];
    expect_test::expect![[r#"
        <|im_start|>user
        One?<|im_end|>
        <|im_start|>assistant
        ⟦<think>
        Hm.
        </think>

        No.⟧<|im_end|>
        <|im_start|>user
        Two?<|im_end|>
        <|im_start|>assistant
        ⟦Yes.⟧<|im_end|>
        <|im_start|>user
        Three?<|im_end|>
        <|im_start|>assistant
        ⟦<think>
        Hm.
        </think>

        No.⟧<|im_end|>
        <|im_start|>assistant
        ⟦<think>Well</think>Fine.⟧<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&spliced(THINKING, &messages, &known));
}

#[test]
fn a_reply_that_the_template_changes_is_rendered_and_the_others_are_spliced() {
    let messages = [user("One?"), assistant("No."), user("Two?"), assistant("As</think>I said.")];
    expect_test::expect![[r#"
        <|im_start|>user
        One?<|im_end|>
        <|im_start|>assistant
        ⟦No.⟧<|im_end|>
        <|im_start|>user
        Two?<|im_end|>
        <|im_start|>assistant
        <think>
        As
        </think>

        I said.<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&spliced(THINKING, &messages, &["No.", "As</think>I said."]));
}

#[test]
fn a_reply_that_comes_back_twice_or_not_at_all_is_not_spliced() {
    let messages = [user("Hi"), assistant(" Hello ")];
    for template in [TWICE, DROPS_ASSISTANT] {
        let expected = BYTE_LEVEL.rendered(template, &messages).expect("it renders");
        assert_eq!(spliced(template, &messages, &["Hello"]), expected);
    }
}

#[track_caller]
fn check_template(template: &str, messages: &[Message], known: &[&str], expected: &str) {
    let model = &*BYTE_LEVEL;
    let config = json!({"chat_template": template});
    let template = ChatTemplate::new(&folder("", Some(config))).expect("it compiles");
    let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
    let conversation = Conversation { messages, options: &options };
    let mut lists = |text: &str| match known.contains(&text) {
        true => vec![model.spelled(text)],
        false => Vec::new(),
    };
    let prompt = chat_prompt(&template, &model.tokenizer, conversation, &mut lists);
    let prompt = prompt.expect("it renders");
    assert_eq!(model.text(&latest(&prompt)), expected);
    let plain = template.render(messages, &options).expect("it renders");
    assert_eq!(model.text(&latest(&prompt)), plain);
    if replies(&prompt).is_empty() {
        let encoded = model.tokenizer.encode(&plain, Special::Parse).expect("it encodes");
        assert_eq!(prompt, encoded.into());
    }
}

#[test]
fn a_template_that_looks_into_the_content_or_changes_it_gets_its_plain_rendering() {
    let messages = [assistant("Hello"), assistant("a \"b\"")];
    let known = ["Hello", "a \"b\""];
    let check = |template, expected| check_template(template, &messages, &known, expected);
    check("{% for m in messages %}{{ m.content | length }} {% endfor %}", "5 5 ");
    check("{% for m in messages %}{{ m.content[:4] }} {% endfor %}", "Hell a \"b ");
    check("{% for m in messages %}{{ m.content[:7] }} {% endfor %}", "Hello a \"b\" ");
    check("{% for m in messages %}{{ m.content[-3:] }} {% endfor %}", "llo \"b\" ");
    check(
        "{% for m in messages %}{{ m.content }}{{ m.content | length }} {% endfor %}",
        "Hello5 a \"b\"5 ",
    );
    check(
        "{{ 'A' if messages[0].content == 'Hello' else 'B' }} {{ messages[0].content }}",
        "A Hello",
    );
    check("{{ messages[0].content }}{{ messages[0].content | length }}", "Hello5");
    check("{% for m in messages %}{{ m.content | upper }} {% endfor %}", "HELLO A \"B\" ");
    check("{% for m in messages %}{{ m.content | tojson }} {% endfor %}", r#""Hello" "a \"b\"" "#);
    check("{% if messages[0].content != 'Hello' %}{{ raise_exception('no') }}{% endif %}Hi", "Hi");
    check("{{ messages[0].content | tojson(ensure_ascii=true) }}", "\"Hello\"");
}

#[test]
fn a_list_of_ids_that_reads_otherwise_is_ignored() {
    let model = &*BYTE_LEVEL;
    let messages = [user("Hi"), assistant("Hello"), user("Bye")];
    let lists = vec![model.spelled("Hello you"), model.spelled(" Hello "), model.spelled("Hell")];
    let known = Known::from([("Hello".to_owned(), lists)]);
    let prompt = model.prompt(CHATML, &messages, &known).expect("it renders");
    assert_eq!(replies(&prompt), [[model.spelled(" Hello ")]]);
}

#[test]
fn a_conversation_with_every_private_character_is_rendered_plainly() {
    let all: String = ('\u{E000}'..='\u{F8FF}').collect();
    let most = all.replace('\u{F000}', "");
    let reply = "Hello";
    for (content, count) in [(all, 0), (most, 1)] {
        let mut message = user("Hi");
        message.extra.insert("name".to_owned(), json!([{ content: 1 }]));
        let known = Known::from([(reply.to_owned(), vec![BYTE_LEVEL.spelled(reply)])]);
        let messages = [message, assistant(reply)];
        let prompt = BYTE_LEVEL.prompt(CHATML, &messages, &known).expect("it renders");
        assert_eq!(replies(&prompt).len(), count);
    }
}

#[test]
fn bos_is_there_once_if_the_template_writes_it() {
    let model = &*SENTENCE_PIECE;
    let bos = model.tokenizer.added_token("<s>").expect("it is special");
    let messages = [user("Hi"), assistant("Hello"), user("Bye"), assistant("Bye"), user("?")];
    let spelled = |text: &str| (text.to_owned(), vec![model.spelled(text)]);
    let known = Known::from(["Hello", "Bye"].map(spelled));
    for (template, count) in [(TURNS, 1), (INST, 1), (CHATML, 0)] {
        let prompt = model.prompt(template, &messages, &known).expect("it renders");
        assert_eq!(replies(&prompt).len(), 2);
        let tokens = latest(&prompt);
        assert_eq!(tokens.iter().filter(|id| **id == bos).count(), count);
        assert_eq!(tokens[0] == bos, count == 1);
    }
}

/// A turn of a random conversation; roles alternate but for some.
#[derive(Clone, Debug)]
struct Turn {
    repeats_role: bool,
    content: Option<String>,
    /// The white space with which it was generated, if it was.
    generated: Vec<(String, String)>,
}

fn turn() -> impl Strategy<Value = Turn> {
    let words = prop::sample::select(vec![
        " ", "\n", "Hello", "yes", "<think", "</think>", "é", "\u{E000}", "7", "\"", "you",
    ]);
    let content = prop::collection::vec(words, 0..6).prop_map(|words| words.concat());
    let white_space = prop::sample::select(vec!["", " ", "\n", "\n\n ", "  "]);
    let white_space = white_space.prop_map(str::to_owned);
    let generated = prop::collection::vec((white_space.clone(), white_space), 0..3);
    (prop::bool::weighted(0.1), prop::option::weighted(0.95, content), generated)
        .prop_map(|(repeats_role, content, generated)| Turn { repeats_role, content, generated })
}

fn conversation(turns: &[Turn]) -> Vec<Message> {
    let mut is_user = false;
    let mut messages = Vec::new();
    for turn in turns {
        is_user ^= !turn.repeats_role;
        let role = if is_user { "user" } else { "assistant" };
        messages.push(Message { content: turn.content.clone(), ..Message::new(role, "") });
    }
    messages
}

fn known(model: &Model, turns: &[Turn]) -> Known {
    let mut known = Known::new();
    for turn in turns {
        let text = turn.content.as_deref().unwrap_or_default().trim();
        for (before, after) in &turn.generated {
            let lists = known.entry(text.to_owned()).or_default();
            lists.push(model.spelled(&format!("{before}{text}{after}")));
        }
    }
    known
}

/// The contents of the assistant that are known.
fn known_contents<'a>(messages: &'a [Message], known: &Known) -> Vec<&'a str> {
    let assistants = messages.iter().filter(|message| message.role == "assistant");
    let texts = assistants.filter_map(|message| Some(message.content.as_deref()?.trim()));
    texts.filter(|text| !text.is_empty() && known.contains_key(*text)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_prompt_reads_as_its_rendering_and_has_the_generated_ids_where_the_template_shows_them(
        template in prop::sample::select(TEMPLATES),
        is_byte_level in any::<bool>(),
        turns in prop::collection::vec(turn(), 1..8),
    ) {
        let model = if is_byte_level { &*BYTE_LEVEL } else { &*SENTENCE_PIECE };
        let messages = conversation(&turns);
        let known = known(model, &turns);
        let prompt = match (model.rendered(template, &messages), model.prompt(template, &messages, &known)) {
            (Err(expected), Err(error)) => {
                prop_assert_eq!(error.to_string(), expected.to_string());
                return Ok(());
            }
            (Ok(plain), Ok(prompt)) => {
                let text = model.text(&latest(&prompt));
                let [text, plain_text] = [&text, &plain].map(|text| without_empty_thinking(text));
                prop_assert_eq!(text, plain_text);
                let encoded = model.tokenizer.encode(&plain, Special::Parse).expect("it encodes");
                let unknown = model.prompt(template, &messages, &Known::new());
                prop_assert_eq!(unknown.expect("it renders"), Prompt::from(encoded.clone()));
                if replies(&prompt).is_empty() {
                    prop_assert_eq!(&prompt, &Prompt::from(encoded));
                }
                prompt
            }
            (plain, prompt) => panic!("{plain:?} {prompt:?}"),
        };

        let contents = known_contents(&messages, &known);
        let expected: Vec<Vec<Arc<[TokenId]>>> = contents
            .iter()
            .filter(|_| ![TWICE, DROPS_ASSISTANT].contains(&template))
            .map(|text| known[*text].clone())
            .collect();
        if template == THINKING {
            let is_thought = |text: &&&str| text.contains("</think>");
            let thoughts = contents.iter().filter(is_thought).count();
            prop_assert!(replies(&prompt).len() + thoughts >= expected.len());
            prop_assert!(replies(&prompt).iter().all(|lists| expected.contains(lists)));
        } else {
            prop_assert_eq!(replies(&prompt), expected);
        }
        for lists in replies(&prompt) {
            prop_assert!(latest(&prompt).windows(lists[0].len()).any(|run| *run == *lists[0]));
        }
    }

    #[test]
    fn where_no_white_space_is_in_doubt_the_text_is_the_rendering_to_the_byte(
        template in prop::sample::select(TEMPLATES),
        mut turns in prop::collection::vec(turn(), 1..8),
    ) {
        for turn in &mut turns {
            turn.content = turn.content.as_ref().map(|content| content.trim().to_owned());
            for white_space in &mut turn.generated {
                *white_space = (String::new(), String::new());
            }
        }
        let model = &*BYTE_LEVEL;
        let messages = conversation(&turns);
        if let Ok(prompt) = model.prompt(template, &messages, &known(model, &turns)) {
            let plain = model.rendered(template, &messages).expect("it rendered before");
            let text = model.text(&latest(&prompt));
            match template == THINKING {
                true => prop_assert_eq!(without_empty_thinking(&text), without_empty_thinking(&plain)),
                false => prop_assert_eq!(text, plain),
            }
        }
    }

    #[test]
    fn a_turn_begins_with_all_tokens_of_the_turn_before(
        template in prop::sample::select(&[CHATML, HEADERS, INST, THINKING, TURNS, BARE][..]),
        is_byte_level in any::<bool>(),
        turns in prop::collection::vec(
            ("[a-z ?]{0,8}", prop::collection::vec(any::<prop::sample::Index>(), 1..12), any::<bool>()),
            1..6,
        ),
    ) {
        let model = if is_byte_level { &*BYTE_LEVEL } else { &*SENTENCE_PIECE };
        let mut messages: Vec<Message> = Vec::new();
        let mut memory = Replies::new();
        let mut kept: Vec<TokenId> = Vec::new();
        let namespace = crate::types::Namespace::local();
        let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
        for (question, indexes, is_trimmed) in turns {
            messages.push(user(&question));
            let conversation = Conversation { messages: &messages, options: &options };
            let mut known = |text: &str| memory.known(&namespace, text);
            let prompt =
                chat_prompt(model.template(template), &model.tokenizer, conversation, &mut known);
            let tokens = resolved(&prompt.expect("it renders"), &kept);
            prop_assert!(tokens.starts_with(&kept), "{:?}", model.text(&tokens));

            let mut generated: Vec<TokenId> =
                indexes.iter().map(|index| *index.get(&model.words)).collect();
            if template == INST {
                // As such a model begins: see `without_doubled_space`.
                generated.insert(0, model.bytes[usize::from(b' ')]);
            }
            let reply = model.tokenizer.decode(&generated);
            prop_assume!(!reply.trim().is_empty());
            memory.remember(&namespace, &reply, generated.as_slice().into());
            kept = [tokens, generated].concat();
            messages.push(assistant(if is_trimmed { reply.trim() } else { &reply }));
        }
    }
}

/// A conversation can be gone on with by who has its tokens and not its text.
#[test]
fn the_next_turn_is_what_the_whole_conversation_ends_with() {
    let model = &*BYTE_LEVEL;
    for template in [CHATML, HEADERS, INST, TURNS, BARE] {
        // As a model of the `INST` kind begins: see `without_doubled_space`.
        let reply = model.spelled(if template == INST { " It is blue." } else { "It is blue." });
        let known = Known::from([("It is blue.".to_owned(), vec![Arc::clone(&reply)])]);
        let messages = [user("What is it?"), assistant("It is blue."), user(" Why? \u{E000}")];
        let whole = model.prompt(template, &messages, &known).expect("it renders");
        let first = model.prompt(template, &messages[..1], &Known::new()).expect("it renders");
        let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
        let message = messages[2].content.as_deref().expect("it has one");
        let next = next_turn(model.template(template), &model.tokenizer, message, &options)
            .expect("it renders");
        let gone_on = [latest(&first), reply.to_vec(), next].concat();
        assert_eq!(model.text(&latest(&whole)), model.text(&gone_on));
        assert_eq!(latest(&whole), gone_on, "{template}");
    }
    let dropping = model.template(DROPS_ASSISTANT);
    let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
    let refused = next_turn(dropping, &model.tokenizer, "and?", &options);
    assert!(matches!(refused, Err(Error::NoTurn)));
}
