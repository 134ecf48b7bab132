//! What the lines of a stream of server-sent events say, as OpenAI's chat has it and as others
//! write it. Pure: no socket, no clock.

use serde_json::Value as Json;

/// One event.
#[derive(Debug, Default, PartialEq)]
pub struct Event {
    /// Of the reply; empty if there is none.
    pub text: String,
    /// There is text, if only of what the model thinks before it replies.
    pub is_text: bool,
    pub counts: Option<Counts>,
    pub is_done: bool,
    pub error: Option<String>,
}

/// What the server counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Of the prompt, what was not computed again, if it says so.
    pub cached_tokens: Option<u64>,
}

/// The event of a line; `None` for lines that have none, such as comments and what is between two.
pub fn event(line: &str) -> Option<Event> {
    let data = line.trim_end_matches(['\r', '\n']).strip_prefix("data:")?.trim();
    if data == "[DONE]" {
        return Some(Event { is_done: true, ..Event::default() });
    }
    let json: Json = serde_json::from_str(data).ok()?;
    let delta = &json["choices"][0]["delta"];
    let thought = ["reasoning_content", "reasoning"]
        .iter()
        .any(|name| delta[*name].as_str().is_some_and(|text| !text.is_empty()));
    let text = delta["content"].as_str().unwrap_or_default().to_owned();
    Some(Event {
        is_text: thought || !text.is_empty(),
        text,
        counts: counts(&json["usage"]),
        is_done: false,
        error: json.get("error").filter(|error| !error.is_null()).map(said),
    })
}

/// `None` unless both counts are there: some send an empty object until the end.
fn counts(usage: &Json) -> Option<Counts> {
    Some(Counts {
        prompt_tokens: usage["prompt_tokens"].as_u64()?,
        completion_tokens: usage["completion_tokens"].as_u64()?,
        cached_tokens: usage["prompt_tokens_details"]["cached_tokens"].as_u64(),
    })
}

/// What an error says, wherever in it.
pub fn said(error: &Json) -> String {
    let text = [&error["error"]["message"], &error["message"], &error["error"], &error["detail"]]
        .into_iter()
        .find_map(Json::as_str);
    text.map_or_else(|| error.as_str().map_or(error.to_string(), str::to_owned), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_however_it_is_written() {
        let text = |text: &str, is_text| {
            Some(Event { text: text.to_owned(), is_text, ..Event::default() })
        };
        let spoken = r#"{"choices":[{"delta":{"role":"assistant","content":"a\n"}}]}"#;
        assert_eq!(event(&format!("data: {spoken}\r\n")), text("a\n", true));
        assert_eq!(event(&format!("data:{spoken}\n")), text("a\n", true));
        let thought = r#"data: {"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#;
        assert_eq!(event(thought), text("", true));
        let role =
            r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#;
        assert_eq!(event(role), text("", false));
        for line in [": keepalive 1/2", "", "\r\n", "event: message", "data: {"] {
            assert_eq!(event(line), None, "{line:?}");
        }
        assert!(event("data: [DONE]\n").expect("an event").is_done);
    }

    #[test]
    fn counts_are_there_or_not() {
        let usage = |usage: &str| {
            event(&format!("data: {{\"choices\":[],\"usage\":{usage}}}")).expect("an event").counts
        };
        let counts = Counts { prompt_tokens: 7, completion_tokens: 3, cached_tokens: None };
        assert_eq!(usage(r#"{"prompt_tokens":7,"completion_tokens":3}"#), Some(counts));
        let cached = Counts { cached_tokens: Some(5), ..counts };
        let json = r#"{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":5}}"#;
        assert_eq!(usage(json), Some(cached));
        assert_eq!(usage("{}"), None);
        assert_eq!(usage("null"), None);
    }

    #[test]
    fn an_error_is_what_it_says() {
        let said = |json: &str| said(&serde_json::from_str(json).expect("JSON"));
        assert_eq!(said(r#"{"error":{"message":"too long","code":400}}"#), "too long");
        assert_eq!(said(r#"{"message":"too long"}"#), "too long");
        assert_eq!(said(r#"{"error":"too long"}"#), "too long");
        assert_eq!(said(r#"{"detail":"too long"}"#), "too long");
        assert_eq!(said(r#""too long""#), "too long");
        assert_eq!(said("[1]"), "[1]");
        let failed = event(r#"data: {"error":{"message":"it broke"}}"#).expect("an event");
        assert_eq!(failed.error.as_deref(), Some("it broke"));
    }
}
