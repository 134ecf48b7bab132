//! What the server says of itself in `/openapi.json`, held against what it really answers.

use semantic::http::LogControl;
use serde_json::{Value as Json, json};

use crate::support::http::{Answer, ModelState, Request, Server, Setup, hello};
use crate::support::store::ShakyDisk;

const KEY: &str = "0123456789abcdef";
const ADMIN_KEY: &str = "the-key-of-the-administrator";

fn setup() -> Setup {
    let disk = Some(ShakyDisk::default());
    let log = LogControl::new(|_| Ok(()));
    Setup { keys: Some(KEY), admin_key: Some(ADMIN_KEY), disk, log, ..Setup::default() }
}

fn with_keys(request: Request<'_>) -> Request<'_> {
    request.header("X-Api-Key", KEY).header("X-Admin-Key", ADMIN_KEY)
}

/// What a server tells of one of its operations.
struct Described {
    document: Json,
}

impl Described {
    fn by(server: &Server) -> Described {
        let answer = server.send(&with_keys(Request::get("/openapi.json")));
        assert_eq!(answer.status, 200);
        let described = Described { document: answer.json() };
        described.check("GET", "/openapi.json", &answer);
        described
    }

    fn operation(&self, method: &str, path: &str) -> &Json {
        let operation = &self.document["paths"][path][method.to_ascii_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        operation
    }

    /// Where a reference leads.
    fn follow<'a>(&'a self, value: &'a Json) -> &'a Json {
        match value["$ref"].as_str() {
            Some(place) => self.document.pointer(&place[1..]).expect("it leads somewhere"),
            None => value,
        }
    }

    /// That this answer of the operation is one of those that are told of.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let name = format!("{method} {path}: {answer:?}");
        let responses = &self.operation(method, path)["responses"];
        let exact = &responses[answer.status.to_string()];
        let range = &responses[format!("{}XX", answer.status / 100)];
        let response = self.follow(if exact.is_object() { exact } else { range });
        assert!(response.is_object(), "its status is not described: {name}");
        for header in response["headers"].as_object().expect("headers").keys() {
            let is_for_some = ["Retry-After", "RateLimit", "RateLimit-Policy"].contains(&&**header);
            assert!(is_for_some || answer.header(header).is_some(), "{header}: {name}");
        }
        let Some(media_type) = answer.header("content-type").filter(|_| method != "HEAD") else {
            assert!(response.get("content").is_none(), "it has no content: {name}");
            return;
        };
        let media_type = media_type.split(';').next().expect("a first part");
        let schema = &response["content"][media_type]["schema"];
        assert!(schema.is_object(), "its content is not described: {name}");
        if media_type == "application/json" {
            let problem = self.problem(schema, &answer.json(), "");
            assert_eq!(problem, None, "{name}");
        }
    }

    /// Where a value is not as its schema has it.
    fn problem(&self, schema: &Json, value: &Json, at: &str) -> Option<String> {
        let schema = self.follow(schema);
        if schema == &json!(true) {
            return None;
        }
        let known = [
            "$ref",
            "type",
            "properties",
            "required",
            "items",
            "anyOf",
            "oneOf",
            "enum",
            "const",
            "format",
            "minimum",
            "maximum",
            "description",
            "title",
            "default",
            "additionalProperties",
        ];
        let unknown = schema.as_object()?.keys().find(|key| !known.contains(&key.as_str()));
        assert_eq!(unknown, None, "this test does not know it: {schema}");
        let kind = match value {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
            Json::Number(number) if number.is_f64() => "number",
            Json::Number(_) => "integer",
        };
        let is_of = |name: &Json| *name == kind || (*name == "number" && kind == "integer");
        let is_typed = match &schema["type"] {
            Json::Null => true,
            Json::Array(kinds) => kinds.iter().any(is_of),
            name => is_of(name),
        };
        let is_listed = schema["enum"].as_array().is_none_or(|all| all.contains(value));
        let is_fixed = schema.get("const").is_none_or(|only| only == value);
        if !is_typed || !is_listed || !is_fixed {
            return Some(format!("{at} is {value}, not {schema}"));
        }
        let others = schema.get("anyOf").or(schema.get("oneOf"));
        if let Some(others) = others.and_then(Json::as_array) {
            let fits = others.iter().any(|other| self.problem(other, value, at).is_none());
            return (!fits).then(|| format!("{at} is {value}, none of {others:?}"));
        }
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Json::as_str) {
            if value.get(name).is_none() {
                return Some(format!("{at}.{name} is missing"));
            }
        }
        let properties = schema["properties"].as_object();
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let rest = schema.get("additionalProperties");
            match properties.and_then(|all| all.get(name)).or(rest) {
                Some(schema) => {
                    if let Some(problem) = self.problem(schema, inner, &at) {
                        return Some(problem);
                    }
                }
                // A schema that names none leaves all open.
                None if properties.is_none() => (),
                None => return Some(format!("{at} is not described")),
            }
        }
        let items = value.as_array().into_iter().flatten();
        items.into_iter().find_map(|item| self.problem(&schema["items"], item, &format!("{at}[]")))
    }

    fn parameters(&self, method: &str, path: &str) -> Vec<String> {
        let parameters = self.operation(method, path)["parameters"].as_array().expect("a list");
        let name = |parameter: &Json| parameter["name"].as_str().expect("a name").to_owned();
        parameters.iter().map(name).collect()
    }
}

/// A good request of every operation, in an order in which they all go well.
fn requests() -> Vec<(&'static str, &'static str, &'static str, Json)> {
    let chat = hello(json!({ "max_tokens": 2, "logprobs": true, "top_logprobs": 2 }));
    let messages = hello(json!({ "max_tokens": 2 }));
    let response = json!({ "input": "Hi", "max_output_tokens": 2, "metadata": { "a": "b" } });
    let agent = "/v1/agents/{id}";
    vec![
        ("GET", "/", "/", json!(null)),
        ("GET", "/ui", "/ui", json!(null)),
        ("GET", "/metrics", "/metrics", json!(null)),
        ("GET", "/health", "/health", json!(null)),
        ("GET", "/health/live", "/health/live", json!(null)),
        ("GET", "/health/ready", "/health/ready", json!(null)),
        ("GET", "/health/startup", "/health/startup", json!(null)),
        ("POST", "/v1/chat/completions", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", "/v1/chat/completions", hello(json!({ "stream": true }))),
        (
            "POST",
            "/v1/completions",
            "/v1/completions",
            json!({ "prompt": "Once", "max_tokens": 2, "logprobs": 1 }),
        ),
        ("POST", "/v1/responses", "/v1/responses", json!({ "input": "Hi", "stream": true })),
        ("POST", "/v1/responses", "/v1/responses", response),
        ("GET", "/v1/responses/{id}", "/v1/responses/LAST", json!(null)),
        ("DELETE", "/v1/responses/{id}", "/v1/responses/LAST", json!(null)),
        ("POST", "/v1/messages", "/v1/messages", messages.clone()),
        (
            "POST",
            "/v1/messages",
            "/v1/messages",
            hello(json!({ "max_tokens": 2, "reasoning_format": "none" })),
        ),
        ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens", messages),
        ("GET", "/v1/models", "/v1/models", json!(null)),
        ("GET", "/v1/models/{id}", "/v1/models/fake", json!(null)),
        ("GET", "/v1/status", "/v1/status", json!(null)),
        ("POST", "/v1/agents", "/v1/agents", json!(null)),
        ("POST", "/v1/agents", "/v1/agents", json!({ "agent_id": "new" })),
        ("POST", "/v1/agents/{id}/generate", "/v1/agents/a/generate", json!({ "prompt": "Hi" })),
        (
            "POST",
            "/v1/chat/completions",
            "/v1/chat/completions",
            hello(json!({ "response_format": { "type": "json_object" }, "max_tokens": 5 })),
        ),
        ("POST", "/v1/agents/{id}/fork", "/v1/agents/a/fork", json!({ "agent_id": "b" })),
        ("POST", "/v1/agents/{id}/generate", "/v1/agents/a/generate", json!({ "prompt": "Ho" })),
        ("POST", "/v1/agents/{id}/rollback", "/v1/agents/a/rollback", json!(null)),
        ("POST", "/v1/agents/{id}/rollback", "/v1/agents/a/rollback", json!({ "generation": 2 })),
        (
            "PUT",
            "/v1/agents/{id}/retention",
            "/v1/agents/a/retention",
            json!({ "pinned": true, "ttl_seconds": 3_600 }),
        ),
        ("POST", "/v1/agents/{id}/warm", "/v1/agents/a/warm", json!(null)),
        ("GET", "/v1/agents/{id}/explain", "/v1/agents/a/explain?prompt=Hi", json!(null)),
        ("POST", "/v1/agents/{id}/explain", "/v1/agents/a/explain", json!({ "prompt": "Hi" })),
        ("GET", "/v1/agents", "/v1/agents?limit=1", json!(null)),
        ("GET", agent, "/v1/agents/a", json!(null)),
        ("DELETE", agent, "/v1/agents/b", json!(null)),
        ("DELETE", agent, "/v1/agents/a?evict_only=true", json!(null)),
        ("POST", "/tokenize", "/tokenize", json!({ "content": "a", "with_pieces": true })),
        ("POST", "/detokenize", "/detokenize", json!({ "tokens": [7] })),
        ("POST", "/apply-template", "/apply-template", hello(json!({}))),
        ("GET", "/admin/stats", "/admin/stats", json!(null)),
        ("PUT", "/admin/log-level", "/admin/log-level", json!({ "level": "info" })),
        ("POST", "/admin/evict", "/admin/evict", json!(null)),
        ("POST", "/admin/drain", "/admin/drain", json!(null)),
    ]
}

fn request<'a>(method: &'a str, path: &'a str, body: &Json) -> Request<'a> {
    match body {
        Json::Null => Request::new(method, path),
        body => Request { method, ..Request::post(path, body.to_string()) },
    }
}

#[test]
fn every_answer_is_one_that_the_description_tells_of() {
    let server = Server::start(setup());
    let described = Described::by(&server);
    let mut told: Vec<(String, String)> = Vec::new();
    for (path, methods) in described.document["paths"].as_object().expect("an object") {
        let methods = methods.as_object().expect("an object").keys();
        told.extend(methods.map(|method| (method.to_ascii_uppercase(), path.clone())));
    }
    let mut seen = vec![("GET".to_owned(), "/openapi.json".to_owned())];
    let mut last = String::new();
    for (method, path, target, body) in requests() {
        // The id of a response is known when it is there.
        let target = &target.replace("LAST", &last);
        let answer = server.send(&with_keys(request(method, target, &body)));
        if path == "/v1/responses" && body["stream"].is_null() {
            last = answer.json()["id"].as_str().expect("an id").to_owned();
        }
        assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}");
        described.check(method, path, &answer);
        seen.push((method.to_owned(), path.to_owned()));
        let is_required = described.operation(method, path)["requestBody"]["required"] == true;
        assert!(!(is_required && body.is_null()), "{method} {target} went without its body");
    }
    for (method, path) in told.iter().filter(|(method, _)| method != "HEAD") {
        assert!(seen.contains(&(method.clone(), path.clone())), "{method} {path} was not asked");
        let has_head = told.contains(&("HEAD".to_owned(), path.clone()));
        assert!(has_head || method != "GET", "HEAD {path} is not described");
    }
}

#[test]
fn what_a_model_thought_is_described() {
    let reply = "<think>Hm.</think>No.";
    let server = Server::start(Setup { replies: vec![reply, reply], ..setup() });
    let described = Described::by(&server);
    let thought = json!({ "role": "assistant", "content": "", "reasoning_content": "Hm." });
    let user = json!({ "role": "user", "content": "And?" });
    let chat = json!({ "messages": [thought, user], "reasoning_format": "deepseek" });
    for (path, body) in
        [("/v1/chat/completions", chat), ("/v1/messages", hello(json!({ "max_tokens": 50 })))]
    {
        let answer = server.send(&with_keys(Request::post(path, body.to_string())));
        assert!(answer.json().to_string().contains("\"Hm.\""), "{answer:?}");
        described.check("POST", path, &answer);
    }
}

#[test]
fn refusals_are_described_in_the_shape_of_their_route() {
    let server = Server::start(setup());
    let described = Described::by(&server);
    for (method, path, target, body) in requests() {
        // Without a key, and then with a field that is nobody's.
        let answer = server.send(&request(method, target, &body));
        described.check(method, path, &answer);
        if !body.is_null() {
            let answer = server.send(&with_keys(request(method, target, &json!({ "x": 1 }))));
            assert_eq!(answer.status, 400, "{answer:?}");
            described.check(method, path, &answer);
        }
        let name = "a".repeat(300);
        let named = with_keys(request(method, target, &body)).header("X-Agent-ID", name);
        let is_refused = server.send(&named).status == 400;
        let parameters = described.parameters(method, path);
        assert!(!parameters.contains(&"X-Agent-ID".to_owned()) || is_refused, "{target}");
        assert!(parameters.contains(&"X-Request-ID".to_owned()), "{target}");
    }
    for path in ["/", "/health/ready", "/v1/models"] {
        described.check("HEAD", path, &server.send(&with_keys(Request::new("HEAD", path))));
    }
}

#[test]
fn a_server_that_is_not_ready_answers_as_it_is_described() {
    let described = Described::by(&Server::start(setup()));
    for model in [ModelState::Missing, ModelState::Loading] {
        let server = Server::start(Setup { model, ..setup() });
        for (method, path, target, body) in requests() {
            let answer = server.send(&with_keys(request(method, target, &body)));
            described.check(method, path, &answer);
        }
        assert_eq!(server.get("/health/ready").status, 503);
    }
    let server = Server::start(Setup { fails_at: Some(5), is_endless: true, ..setup() });
    let body = hello(json!({ "max_tokens": 100 }));
    for (path, body) in [
        ("/v1/chat/completions", &body),
        ("/v1/messages", &body),
        ("/v1/responses", &json!({ "input": "Hello", "max_output_tokens": 100 })),
    ] {
        let answer = server.send(&with_keys(Request::post(path, body.to_string())));
        assert_eq!(answer.status / 100, 5, "{answer:?}");
        described.check("POST", path, &answer);
    }
    for path in ["/health/ready", "/health/startup"] {
        described.check("GET", path, &server.get(path));
    }
}

#[test]
fn the_headers_and_queries_that_a_route_reads_are_described() {
    let described = Described::by(&Server::start(setup()));
    let parameters = |method, path| described.parameters(method, path);
    let chat = parameters("POST", "/v1/chat/completions");
    assert_eq!(chat, ["X-Request-ID", "X-Agent-ID", "X-Session-ID"]);
    assert_eq!(parameters("GET", "/v1/agents"), ["limit", "after", "X-Request-ID"]);
    assert_eq!(parameters("DELETE", "/v1/agents/{id}"), ["id", "evict_only", "X-Request-ID"]);
    let limit = &described.operation("GET", "/v1/agents")["parameters"][0]["schema"];
    assert_eq!((&limit["type"], &limit["maximum"]), (&json!("integer"), &json!(1000)));
    let required = |path: &str| {
        let operation = described.operation("POST", path);
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        described.follow(schema)["required"].as_array().cloned().unwrap_or_default()
    };
    assert!(required("/v1/messages").contains(&json!("max_tokens")));
    assert!(!required("/v1/messages/count_tokens").contains(&json!("max_tokens")));
}

/// Just beyond its range a number is refused by the name of its field.
#[test]
fn every_number_of_a_request_has_the_range_that_is_described() {
    let server = Server::start(setup());
    let described = Described::by(&server);
    let mut bounds = Vec::new();
    for (method, path, target, whole) in requests() {
        let operation = described.operation(method, path);
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let schema = described.follow(schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let kinds = field["type"].to_string();
            let is_whole = kinds.contains("integer");
            // Any will do.
            if name == "seed" || !(is_whole || kinds.contains("number")) {
                continue;
            }
            for (bound, step) in [("minimum", -1.0), ("maximum", 1.0)] {
                let Some(value) = field[bound].as_f64() else {
                    panic!("{path} does not tell the {bound} of {name}: {field}");
                };
                let beyond = match is_whole {
                    true => json!((value + step) as i64),
                    false => json!(value + step),
                };
                let mut body = if whole.is_null() { json!({}) } else { whole.clone() };
                body[name] = beyond;
                let answer = server.send(&with_keys(request(method, target, &body)));
                let message = answer.json()["error"]["message"].to_string();
                assert_eq!(answer.status, 400, "{path}: {body}: {answer:?}");
                assert!(message.contains(name.as_str()), "{path}: {body}: {message}");
                bounds.push((path, name.clone(), bound));
            }
        }
    }
    bounds.sort();
    bounds.dedup();
    assert!(bounds.len() >= 50, "{}: {bounds:?}", bounds.len());
}
