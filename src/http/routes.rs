//! Every route with its policy, and the router made of them.
//!
//! To add a route: a line in [`all`]. A route without a policy cannot be written.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodFilter, MethodRouter};

use super::guard::{self, Door, Gate, Policy};
use super::openapi::Doc;
use super::{
    App, admin, agents, chat, completions, health, info, messages, openapi, responses, scrape,
    status, tokens, ui,
};

/// What is counted and logged in place of a path that is no route.
pub const OTHER: &str = "other";
/// Where the metrics are, which do not count the looks at themselves.
pub const METRICS: &str = "/metrics";
/// Where the status page finds the numbers, as often as it looks.
pub const STATUS: &str = "/v1/status";
/// The method of paths that are no route.
pub const ANY: &str = "*";

/// One method of one path, and what it asks of those who ask it.
pub struct Route {
    pub method: &'static str,
    /// With `{names}` in place of what varies.
    pub path: &'static str,
    pub policy: Policy,
    pub doc: Doc,
    methods: MethodRouter<Arc<App>>,
}

/// All methods of a path have the same policy; `GET` also answers `HEAD`.
pub fn all() -> Vec<Route> {
    use Policy::{Admin, Counted, Health, Key, Open};
    vec![
        GET.at("/", Open, info::about)
            .says("What this server is, and where things are")
            .gives::<info::About>(),
        GET.at("/ui", Open, ui::page)
            .says("A page for people: how the server is, its agents, and talking to one")
            .gives_page(),
        GET.at("/openapi.json", Key, openapi::openapi)
            .says("This document")
            .gives::<openapi::Document>(),
        GET.at(METRICS, Key, scrape::metrics)
            .says("What was counted and timed, for Prometheus")
            .gives_text("text/plain"),
        GET.at("/health", Health, health::ok)
            .says("Whether the process answers")
            .gives::<health::Health>(),
        GET.at("/health/live", Health, health::live)
            .says("Whether it lives: always")
            .gives::<health::Health>(),
        GET.at("/health/ready", Health, health::ready)
            .says("Whether it takes requests")
            .probes::<health::Health>(),
        GET.at("/health/startup", Health, health::startup)
            .says("Whether the model is loaded")
            .probes::<health::Health>(),
        unknown("/health/{*other}", Health),
        POST.at("/v1/chat/completions", Counted, chat::completions)
            .says("The next message of a conversation, as OpenAI has it")
            .takes::<chat::ChatRequest>()
            .gives_or_streams::<chat::Answer>(),
        POST.at("/v1/completions", Counted, completions::completions)
            .says("More of a text, as OpenAI has it")
            .takes::<completions::CompletionRequest>()
            .gives_or_streams::<completions::Answer>(),
        POST.at("/v1/responses", Counted, responses::create)
            .says(
                "The next items of a conversation, as OpenAI has it, also from an earlier response",
            )
            .takes::<responses::ResponsesRequest>()
            .gives_or_streams::<responses::Answer>(),
        GET.at("/v1/responses/{id}", Counted, responses::show)
            .says("A response that is kept")
            .gives::<responses::Answer>(),
        DELETE
            .at("/v1/responses/{id}", Counted, responses::remove)
            .says("Forgets a response, which no request can go on from then")
            .gives::<responses::Deleted>(),
        POST.at("/v1/messages", Counted, messages::create)
            .says("The next message of a conversation, as Anthropic has it")
            .takes::<messages::MessagesRequest>()
            .gives_or_streams::<messages::Answer>(),
        POST.at("/v1/messages/count_tokens", Counted, messages::count_tokens)
            .says("How many tokens a conversation has")
            .takes::<messages::CountRequest>()
            .gives::<messages::Count>(),
        GET.at("/v1/models", Key, info::models)
            .says("The model that is served")
            .gives::<info::ModelList>(),
        GET.at("/v1/models/{*id}", Key, info::model)
            .says("One model by its name")
            .gives::<info::Model>(),
        GET.at(STATUS, Key, status::status)
            .says("How the server is, in the numbers of all who use it")
            .gives::<status::ServerStatus>(),
        GET.at("/v1/agents", Key, agents::list)
            .says("Agents, by their names")
            .queries::<agents::ListQuery>()
            .gives::<agents::AgentList>(),
        POST.at("/v1/agents", Key, agents::create)
            .says("A name for a new agent")
            .may_take::<agents::CreateRequest>()
            .creates::<agents::NewAgent>(),
        GET.at("/v1/agents/{id}", Key, agents::show)
            .says("What an agent remembers, in numbers")
            .gives::<agents::Agent>(),
        DELETE
            .at("/v1/agents/{id}", Key, agents::remove)
            .says(
                "Forgets an agent, or only takes it out of memory and says how many conversations",
            )
            .queries::<agents::RemoveQuery>()
            .may_give::<admin::Evicted>(),
        POST.at("/v1/agents/{id}/generate", Counted, agents::generate)
            .says("An agent's next message, from its own memory")
            .takes::<agents::GenerateRequest>()
            .gives_or_streams::<agents::Generation>(),
        POST.at("/v1/agents/{id}/fork", Key, agents::fork)
            .says("A copy of an agent under another name")
            .takes::<agents::ForkRequest>()
            .creates::<agents::Agent>(),
        GET.at("/v1/agents/{id}/explain", Counted, agents::explain)
            .says("Where a prompt parts from what an agent remembers, and why")
            .queries::<agents::ExplainQuery>()
            .gives::<agents::Explanation>(),
        POST.at("/v1/agents/{id}/warm", Counted, agents::warm)
            .says("A turn of an agent will come soon: its memory comes back from the disk, if there is room")
            .gives::<agents::Warmed>(),
        PUT.at("/v1/agents/{id}/retention", Key, agents::retain)
            .says("Pins an agent on disk, or gives it a time to live")
            .takes::<agents::RetentionRequest>()
            .gives::<agents::Agent>(),
        POST.at("/v1/agents/{id}/rollback", Key, agents::rollback)
            .says("Goes back to an older save of an agent")
            .may_take::<agents::RollbackRequest>()
            .gives::<agents::Agent>(),
        POST.at("/v1/agents/{id}/explain", Counted, agents::explain_given)
            .says("The same, with the prompt in the body: queries stand in logs")
            .may_take::<agents::ExplainRequest>()
            .gives::<agents::Explanation>(),
        POST.at("/tokenize", Counted, tokens::tokenize)
            .says("The tokens of a text")
            .takes::<tokens::TokenizeRequest>()
            .gives::<tokens::Tokens>(),
        POST.at("/detokenize", Counted, tokens::detokenize)
            .says("The text of tokens")
            .takes::<tokens::DetokenizeRequest>()
            .gives::<tokens::Content>(),
        POST.at("/apply-template", Counted, tokens::apply_template)
            .says("The prompt that a conversation becomes")
            .takes::<tokens::TemplateRequest>()
            .gives::<tokens::Rendered>(),
        POST.at("/admin/evict", Admin, admin::evict)
            .says("Saves all idle agents and gives their memory back")
            .gives::<admin::Evicted>(),
        POST.at("/admin/drain", Admin, admin::drain)
            .says("Takes nothing new and waits for what runs")
            .may_take::<admin::DrainRequest>()
            .gives::<admin::Drained>(),
        GET.at("/admin/stats", Admin, admin::stats)
            .says("What the server is doing, in numbers")
            .gives::<admin::Stats>(),
        PUT.at("/admin/log-level", Admin, admin::log_level)
            .says("Logs more, or less, from here on")
            .takes::<admin::LogLevelRequest>(),
        unknown("/admin/{*other}", Admin),
    ]
}

/// The router, each route behind the guard with its policy.
pub fn router(app: &Arc<App>, door: Door) -> Router {
    let mut paths: BTreeMap<&'static str, (Policy, MethodRouter<Arc<App>>)> = BTreeMap::new();
    for Route { path, policy, methods, .. } in all() {
        let merged = match paths.remove(path) {
            Some((other, before)) => {
                assert_eq!(policy, other, "{path} has one policy");
                before.merge(methods)
            }
            None => methods,
        };
        paths.insert(path, (policy, merged));
    }
    let gate = |policy, path| {
        let app = Arc::clone(app);
        from_fn_with_state(Gate { app, door, policy, path }, guard::guard)
    };
    let unknown = Router::new().fallback(guard::not_found).layer(gate(Policy::Key, OTHER));
    let guarded = paths.into_iter().map(|(path, (policy, methods))| {
        Router::new()
            .route(path, methods)
            .method_not_allowed_fallback(guard::method_not_allowed)
            .layer(gate(policy, path))
    });
    guarded.fold(unknown, Router::merge).with_state(Arc::clone(app))
}

/// A method of a path, made by [`Method::at`].
struct Method(&'static str, MethodFilter);

const GET: Method = Method("GET", MethodFilter::GET);
const POST: Method = Method("POST", MethodFilter::POST);
const PUT: Method = Method("PUT", MethodFilter::PUT);
const DELETE: Method = Method("DELETE", MethodFilter::DELETE);

impl Method {
    fn at<H, T>(self, path: &'static str, policy: Policy, handler: H) -> Route
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let methods = routing::on(self.1, handler);
        Route { method: self.0, path, policy, doc: Doc::default(), methods }
    }
}

/// Paths that are no route, under a policy of their own.
fn unknown(path: &'static str, policy: Policy) -> Route {
    let methods = routing::any(guard::not_found);
    Route { method: ANY, path, policy, doc: Doc::default(), methods }
}
