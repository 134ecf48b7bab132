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
use super::{App, admin, agents, chat, completions, health, info, messages, scrape, tokens};

/// What is counted and logged in place of a path that is no route.
pub const OTHER: &str = "other";
/// Where the metrics are, which do not count the looks at themselves.
pub const METRICS: &str = "/metrics";
/// The method of paths that are no route.
pub const ANY: &str = "*";

/// One method of one path, and what it asks of those who ask it.
pub struct Route {
    pub method: &'static str,
    /// With `{names}` in place of what varies.
    pub path: &'static str,
    pub policy: Policy,
    methods: MethodRouter<Arc<App>>,
}

/// All methods of a path have the same policy; `GET` also answers `HEAD`.
pub fn all() -> Vec<Route> {
    use Policy::{Admin, Generating, Health, Key, Open};
    vec![
        GET.at("/", Open, info::about),
        GET.at(METRICS, Key, scrape::metrics),
        GET.at("/health", Health, health::ok),
        GET.at("/health/live", Health, health::live),
        GET.at("/health/ready", Health, health::ready),
        GET.at("/health/startup", Health, health::startup),
        unknown("/health/{*other}", Health),
        POST.at("/v1/chat/completions", Generating, chat::completions),
        POST.at("/v1/completions", Generating, completions::completions),
        POST.at("/v1/messages", Generating, messages::create),
        POST.at("/v1/messages/count_tokens", Key, messages::count_tokens),
        GET.at("/v1/models", Key, info::models),
        GET.at("/v1/models/{*id}", Key, info::model),
        GET.at("/v1/agents", Key, agents::list),
        POST.at("/v1/agents", Key, agents::create),
        GET.at("/v1/agents/{id}", Key, agents::show),
        DELETE.at("/v1/agents/{id}", Key, agents::remove),
        POST.at("/v1/agents/{id}/generate", Generating, agents::generate),
        POST.at("/v1/agents/{id}/fork", Key, agents::fork),
        POST.at("/tokenize", Key, tokens::tokenize),
        POST.at("/detokenize", Key, tokens::detokenize),
        POST.at("/apply-template", Key, tokens::apply_template),
        POST.at("/admin/evict", Admin, admin::evict),
        POST.at("/admin/drain", Admin, admin::drain),
        GET.at("/admin/stats", Admin, admin::stats),
        PUT.at("/admin/log-level", Admin, admin::log_level),
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
        Route { method: self.0, path, policy, methods: routing::on(self.1, handler) }
    }
}

/// Paths that are no route, under a policy of their own.
fn unknown(path: &'static str, policy: Policy) -> Route {
    Route { method: ANY, path, policy, methods: routing::any(guard::not_found) }
}
