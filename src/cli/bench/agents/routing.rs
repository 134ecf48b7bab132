//! Questions routed to experts: each of ten knows one article, and each question goes to two of
//! them. What is measured is the first token, when the article is new and when it is known.

use serde_json::{Value as Json, json};

use super::client::Answered;
use super::kinds::Kinds;
use super::ours::Ours;
use super::plan::{Pieces, Sizes};
use super::race::{Contender, Room};
use super::rows::ttft;
use crate::cli::bench::figure::Figure;
use crate::cli::bench::report::{Cell, Row};
use crate::cli::bench::scratch::Scratch;
use crate::cli::bench::setup::Setup;
use crate::cli::output::Failure;

const EXPERTS: usize = 10;
const QUERIES: usize = 5;
const EXPERTS_PER_QUERY: usize = 2;
/// Queries that come again.
const REPEATED: usize = 3;
/// One article has 72 words where the others have some 3,000.
const SHORT_EXPERT: usize = 7;
const SHORT_PART: usize = 40;

struct Bench<'a> {
    server: Ours<'a>,
    articles: Vec<String>,
    /// Of each expert, the tokens of its last conversation.
    had_tokens: Vec<usize>,
    reply: usize,
}

/// What a kind of prompts gave.
#[derive(Default)]
struct Asked {
    answers: Vec<Answered>,
    kinds: Kinds,
}

pub fn rows(
    setup: &Setup<'_>,
    scratch: &Scratch,
    sizes: &Sizes,
    pieces: &Pieces<'_>,
) -> Result<Vec<Row>, Failure> {
    let room = Sizes { agents: EXPERTS, ..*sizes };
    let pool_mb = Ours::pool_mb(setup, &room, Room::Everybody)?;
    let mut server = Ours::new(setup, scratch, "routing", pool_mb);
    server.start()?;
    let article = |expert: usize| match expert {
        SHORT_EXPERT => pieces.piece(expert, (sizes.context / SHORT_PART).max(1)),
        _ => pieces.piece(expert, sizes.context),
    };
    let articles: Vec<String> = (0..EXPERTS).map(article).collect();
    let had_tokens = vec![0; EXPERTS];
    let mut bench = Bench { server, articles, had_tokens, reply: sizes.reply };
    let steps = EXPERTS + (QUERIES + REPEATED) * EXPERTS_PER_QUERY;
    let progress = setup.progress("agents, routing", steps);
    let (mut priming, mut queries, mut repeated) =
        (Asked::default(), Asked::default(), Asked::default());
    for expert in 0..EXPERTS {
        bench.ask(expert, "Read this. Say yes.", &mut priming)?;
        progress.advance(1);
    }
    for query in 0..QUERIES + REPEATED {
        let asked = if query < QUERIES { &mut queries } else { &mut repeated };
        let query = query % QUERIES;
        let question = format!("Question {query}: what does it say of number {query}, and why?");
        for number in 0..EXPERTS_PER_QUERY {
            bench.ask(query * EXPERTS_PER_QUERY + number, &question, asked)?;
            progress.advance(1);
        }
    }
    let first = ttft(&priming.answers);
    Ok(vec![
        priming.row("routing, an article is new", &first),
        queries.row("routing, a question to an expert", &first),
        repeated.row("routing, the same question again", &first),
    ])
}

impl Bench<'_> {
    fn ask(&mut self, expert: usize, question: &str, asked: &mut Asked) -> Result<(), Failure> {
        let messages: [Json; 2] = [
            json!({ "role": "system", "content": self.articles[expert] }),
            json!({ "role": "user", "content": question }),
        ];
        let id = format!("bench-expert-{expert}");
        let answered = self.server.chat(&id, &messages, self.reply)?;
        asked.kinds.count(&answered, self.had_tokens[expert]);
        self.had_tokens[expert] = answered.prompt_tokens + answered.reply_tokens;
        asked.answers.push(answered);
        Ok(())
    }
}

impl Asked {
    fn row(&self, name: &str, first: &Figure) -> Row {
        let figure = ttft(&self.answers);
        let row = Row::new(name)
            .with("ratio_to_new", Cell::Number(first.ratio(&figure), 1))
            .with("ttft_ms", Cell::Figure(figure));
        self.kinds.on(row)
    }
}
