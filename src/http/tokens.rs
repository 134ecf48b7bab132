//! Text to tokens and back, without the model: `/tokenize`, `/detokenize`, `/apply-template`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chat::{WireMessage, messages};
use super::error::Error;
use super::guard::Caller;
use super::prompt::beside;
use super::{App, Serving, body};
use crate::text::{Message, RenderOptions, Special, Tokenizer, text_of};
use crate::types::TokenId;

/// The names are llama.cpp's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct TokenizeRequest {
    content: Option<String>,
    /// A conversation in its place, as the model's template renders it.
    messages: Option<Vec<WireMessage>>,
    /// Put before the text what the model wants there.
    add_special: Option<bool>,
    /// Read special tokens in the text as such; they are otherwise plain text.
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct DetokenizeRequest {
    tokens: Vec<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct TemplateRequest {
    messages: Vec<WireMessage>,
}

#[derive(Serialize, JsonSchema)]
pub struct Tokens {
    tokens: TokenList,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum TokenList {
    Ids(Vec<u32>),
    Pieces(Vec<TokenPiece>),
}

#[derive(Serialize, JsonSchema)]
pub struct Content {
    content: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Rendered {
    prompt: String,
}

/// What is to become tokens.
enum Text {
    Plain {
        text: String,
        special: Special,
    },
    /// The model's beginning before it.
    Begun(String),
    Chat(Vec<Message>),
}

/// `POST /tokenize`.
pub async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let request: TokenizeRequest = body::read(request, &app).await?;
    let has_pieces = request.with_pieces.unwrap_or(false);
    let text = text(request)?;
    let serving = Arc::clone(app.serving()?);
    let bytes = text.bytes();
    let body = beside(&app, &caller.namespace, bytes, move || {
        let tokens = encode(&serving, text)?;
        let tokens = match has_pieces {
            true => TokenList::Pieces(pieces(&serving.tokenizer, &tokens)),
            false => TokenList::Ids(tokens.iter().map(|token| token.0).collect()),
        };
        Ok::<_, Error>(Tokens { tokens })
    });
    Ok(Json(body.await??).into_response())
}

/// `POST /detokenize`.
pub async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let DetokenizeRequest { tokens } = body::read(request, &app).await?;
    let serving = Arc::clone(app.serving()?);
    let vocabulary = serving.tokenizer.vocabulary_size();
    if let Some(index) = tokens.iter().position(|id| *id as usize >= vocabulary) {
        let field = format!("tokens[{index}]");
        let message = format!("{field} is {}; the vocabulary has {vocabulary}", tokens[index]);
        return Err(Error::field(field, message));
    }
    let tokens: Vec<TokenId> = tokens.into_iter().map(TokenId).collect();
    let bytes = size_of_val(&*tokens);
    let text = move || text_of(&serving.tokenizer, &tokens);
    let content = beside(&app, &caller.namespace, bytes, text).await?;
    Ok(Json(Content { content }).into_response())
}

/// `POST /apply-template`.
pub async fn apply_template(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let TemplateRequest { messages: wire } = body::read(request, &app).await?;
    let text = Text::Chat(messages(wire)?);
    let serving = Arc::clone(app.serving()?);
    let bytes = text.bytes();
    let prompt = beside(&app, &caller.namespace, bytes, move || match text {
        Text::Chat(messages) => render(&serving, &messages),
        Text::Plain { text, .. } | Text::Begun(text) => Ok(text),
    });
    Ok(Json(Rendered { prompt: prompt.await?? }).into_response())
}

fn text(request: TokenizeRequest) -> Result<Text, Error> {
    let TokenizeRequest { content, messages: wire, add_special, parse_special, .. } = request;
    let special = match parse_special.unwrap_or(true) {
        true => Special::Parse,
        false => Special::Ignore,
    };
    match (content, wire, add_special.unwrap_or(false)) {
        (Some(_), Some(_), _) => {
            Err(Error::field("messages", "messages and content exclude each other"))
        }
        (None, None, _) => Err(Error::field("content", "content is missing")),
        (None, Some(wire), false) => Ok(Text::Chat(messages(wire)?)),
        (None, Some(_), true) => Err(Error::field(
            "add_special",
            "add_special goes with content; a template has its own",
        )),
        (Some(_), None, true) if parse_special == Some(false) => {
            let message = "parse_special false and add_special true exclude each other";
            Err(Error::field("parse_special", message))
        }
        (Some(text), None, true) => Ok(Text::Begun(text)),
        (Some(text), None, false) => Ok(Text::Plain { text, special }),
    }
}

impl Text {
    fn bytes(&self) -> usize {
        match self {
            Text::Plain { text, .. } | Text::Begun(text) => text.len(),
            Text::Chat(messages) => {
                let text = |message: &Message| message.content.as_ref().map_or(0, String::len);
                // A template costs more than the text of a few messages.
                messages.iter().map(|message| text(message) + 64).sum()
            }
        }
    }
}

fn encode(serving: &Serving, text: Text) -> Result<Vec<TokenId>, Error> {
    let tokenizer = &serving.tokenizer;
    Ok(match text {
        Text::Plain { text, special } => tokenizer.encode(&text, special)?,
        Text::Begun(text) => tokenizer.encode_raw(&text)?,
        Text::Chat(messages) => chat_tokens(serving, &messages)?,
    })
}

/// What a conversation becomes, the next turn to be the model's.
pub fn chat_tokens(serving: &Serving, messages: &[Message]) -> Result<Vec<TokenId>, Error> {
    Ok(serving.tokenizer.encode(&render(serving, messages)?, Special::Parse)?)
}

fn render(serving: &Serving, messages: &[Message]) -> Result<String, Error> {
    Ok(serving.template.render(messages, &RenderOptions::new(SystemTime::now()))?)
}

/// A token and what it reads.
#[derive(Serialize, JsonSchema)]
struct TokenPiece {
    id: u32,
    piece: PieceText,
}

/// A part of a character is no text.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PieceText {
    Text(String),
    Bytes(Vec<u8>),
}

fn pieces(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Vec<TokenPiece> {
    let piece = |token: &TokenId| {
        let bytes = tokenizer.token_bytes(*token).unwrap_or_default().to_vec();
        let piece = String::from_utf8(bytes)
            .map_or_else(|error| PieceText::Bytes(error.into_bytes()), PieceText::Text);
        TokenPiece { id: token.0, piece }
    };
    tokens.iter().map(piece).collect()
}
