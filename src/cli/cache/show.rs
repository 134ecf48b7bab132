//! `semantic cache show`: an agent's saves and blocks, and on request its text.

use std::ops::Range;
use std::process::ExitCode;

use serde::Serialize;

use super::reader::Reader;
use super::{Context, Failure, Format, Scope, agent_id, failed, find_agent, open_to_read, quoted};
use crate::cli::output::{human_bytes, printable, utc};
use crate::cli::table::{Column, table, thousands};
use crate::store::{AgentInfo, BlockRef, SaveInfo};
use crate::types::{AgentId, TokenId};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Whose memory
    #[arg(value_parser = agent_id)]
    agent: AgentId,
    /// The save to look into [default: the newest]
    #[arg(long)]
    generation: Option<u64>,
    /// Also print the text of the conversation; needs the model's tokenizer
    #[arg(long)]
    text: bool,
    /// The model whose tokens these are, if it is not where it was [default: the save's]
    #[arg(long, short, value_name = "MODEL", requires = "text")]
    model: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: Format,
}

/// An agent, as `--json` has it.
#[derive(Debug, Serialize)]
struct Report {
    agent: String,
    namespace: String,
    bytes: u64,
    shared_bytes: u64,
    pinned: bool,
    ttl_seconds: Option<u64>,
    expires_at: Option<String>,
    /// Newest first.
    saves: Vec<Save>,
    /// Of one save, with `--text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
}

#[derive(Debug, Serialize)]
struct Save {
    generation: u64,
    /// Saves of one conversation have the same.
    conversation: u64,
    /// Whether the agent goes on from it; others are what `rollback` can go back to.
    is_live: bool,
    saved_at: String,
    model: String,
    /// What computed it.
    producer: String,
    fingerprint: String,
    tokens: usize,
    /// That are on disk as KV, as far as the lengths of files tell.
    restorable_tokens: usize,
    bytes: u64,
    /// First token of each reply, and the one after its last.
    replies: Vec<[usize; 2]>,
    blocks: Vec<Block>,
}

#[derive(Debug, Serialize)]
struct Block {
    name: String,
    digest: String,
    tokens: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Text {
    generation: u64,
    parts: Vec<TextPart>,
}

#[derive(Debug, Serialize)]
struct TextPart {
    is_reply: bool,
    tokens: [usize; 2],
    text: String,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let store = open_to_read(context)?;
    let info = find_agent(&store, &arguments.scope, &arguments.agent)?;
    let save = chosen_save(&info, arguments.generation)?;
    let text = match arguments.text {
        false => None,
        true => {
            let name = arguments.model.as_deref().unwrap_or(&save.model);
            let reader = Reader::open(name, context)?;
            reader.warn_unless_of(&save.fingerprint, context)?;
            let tokens = store.tokens(&info.namespace, &info.agent, save.generation);
            Some(Text::new(&reader, save, &tokens.map_err(failed)?))
        }
    };
    let report = Report {
        agent: info.agent.as_str().to_owned(),
        namespace: info.namespace.as_str().to_owned(),
        bytes: info.bytes,
        shared_bytes: info.shared_bytes,
        pinned: info.retention.is_pinned,
        ttl_seconds: info.retention.ttl.map(|ttl| ttl.as_secs()),
        expires_at: info.expires_at.map(utc),
        saves: info.saves.iter().map(Save::new).collect(),
        text,
    };
    arguments.format.print(&report, || report.text(save.generation.0))
}

fn chosen_save(info: &AgentInfo, generation: Option<u64>) -> Result<&SaveInfo, Failure> {
    let Some(generation) = generation else { return Ok(info.newest()) };
    info.saves.iter().find(|save| save.generation.0 == generation).ok_or_else(|| {
        let all: Vec<String> = info.saves.iter().map(|it| it.generation.0.to_string()).collect();
        let agent = quoted(info.agent.as_str());
        let error = anyhow::anyhow!("{agent} has no save with generation {generation}");
        Failure::with_hint(error, Some(format!("there are generations {}", all.join(", "))))
    })
}

impl Save {
    fn new(save: &SaveInfo) -> Save {
        let restorable = save.blocks.iter().take(save.blocks_there).map(|block| block.tokens).sum();
        Save {
            generation: save.generation.0,
            conversation: save.line.0,
            is_live: save.is_live,
            saved_at: utc(save.saved_at),
            model: save.model.clone(),
            producer: save.producer.clone(),
            fingerprint: save.fingerprint.to_string(),
            tokens: save.tokens,
            restorable_tokens: restorable,
            bytes: save.bytes,
            replies: save.replies.iter().map(|reply| [reply.start, reply.end]).collect(),
            blocks: save.blocks.iter().map(Block::new).collect(),
        }
    }

    fn row(&self) -> [String; 7] {
        [
            self.generation.to_string(),
            self.conversation.to_string(),
            if self.is_live { "live" } else { "older" }.to_owned(),
            thousands(self.tokens),
            thousands(self.restorable_tokens),
            human_bytes(self.bytes),
            self.saved_at.clone(),
        ]
    }

    fn details(&self) -> String {
        let mut text = format!(
            "generation {}\n  model        {}\n  computed by  {}\n  fingerprint  {}\n",
            self.generation,
            printable(&self.model),
            printable(&self.producer),
            self.fingerprint,
        );
        if !self.replies.is_empty() {
            let replies: Vec<String> =
                self.replies.iter().map(|[start, end]| format!("{start}–{end}")).collect();
            text += &wrapped("  replies      ", &replies);
        }
        let rows: Vec<[String; 5]> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(index, block)| {
                [
                    index.to_string(),
                    thousands(block.tokens),
                    human_bytes(block.bytes),
                    shown_digest(&block.name),
                    shown_digest(&block.digest),
                ]
            })
            .collect();
        let columns = [
            Column::number("BLOCK"),
            Column::number("TOKENS"),
            Column::number("SIZE"),
            Column::words("NAME", 20),
            Column::words("DIGEST", 20),
        ];
        let blocks = table(columns, &rows);
        if blocks.is_empty() { text } else { format!("{text}\n{blocks}") }
    }
}

impl Block {
    fn new(block: &BlockRef) -> Block {
        Block {
            name: block.name.to_string(),
            digest: block.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            tokens: block.tokens,
            bytes: block.file_bytes,
        }
    }
}

impl Text {
    /// What the user and the template said, and what the model did.
    fn new(reader: &Reader, save: &SaveInfo, tokens: &[TokenId]) -> Text {
        let mut parts = Vec::new();
        let mut part = |range: Range<usize>, is_reply| {
            if let Some(part) = tokens.get(range.clone()).filter(|part| !part.is_empty()) {
                let text = reader.text_of(part);
                parts.push(TextPart { is_reply, tokens: [range.start, range.end], text });
            }
        };
        let mut end = 0;
        for reply in &save.replies {
            part(end..reply.start, false);
            part(reply.clone(), true);
            end = reply.end;
        }
        part(end..tokens.len(), false);
        Text { generation: save.generation.0, parts }
    }
}

impl Report {
    fn text(&self, generation: u64) -> String {
        let mut text = format!(
            "agent {} in namespace {}: {}, of which {} are shared\n",
            printable(&self.agent),
            printable(&self.namespace),
            human_bytes(self.bytes),
            human_bytes(self.shared_bytes)
        );
        if self.pinned {
            text += "pinned: it stays when others need room, while at most half of it is pinned\n";
        }
        if let Some(end) = &self.expires_at {
            text += &format!("goes at {end}, unless it has a turn before\n");
        }
        text.push('\n');
        let rows: Vec<_> = self.saves.iter().map(Save::row).collect();
        let columns = [
            Column::number("GEN"),
            Column::number("CONVERSATION"),
            Column::words("STATE", 5),
            Column::number("TOKENS"),
            Column::number("ON DISK"),
            Column::number("SIZE"),
            Column::words("SAVED AT", 20),
        ];
        text += &table(columns, &rows);
        let save = self.saves.iter().find(|save| save.generation == generation);
        text.extend(save.map(|save| format!("\n{}", save.details())));
        for part in self.text.iter().flat_map(|text| &text.parts) {
            let [start, end] = part.tokens;
            let kind = if part.is_reply { "reply" } else { "prompt" };
            text += &format!("\n--- {kind}, tokens {start}–{end}\n{}\n", harmless(&part.text));
        }
        text
    }
}

/// A text with its lines and tabs, and nothing else that moves a cursor.
fn harmless(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
    text.trim_end_matches('\n').split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Enough to find it again.
fn shown_digest(hex: &str) -> String {
    hex.get(..20).unwrap_or(hex).to_owned()
}

/// Words after a label, on lines of at most 90 characters.
fn wrapped(label: &str, words: &[String]) -> String {
    const LINE_CHARS: usize = 90;
    let indent = label.chars().count();
    let mut text = label.to_owned();
    let mut width = indent;
    for (index, word) in words.iter().enumerate() {
        let chars = word.chars().count();
        if index > 0 && width + 2 + chars > LINE_CHARS {
            text += &format!(",\n{:indent$}", "");
            width = indent;
        } else if index > 0 {
            text += ", ";
            width += 2;
        }
        text += word;
        width += chars;
    }
    text + "\n"
}
