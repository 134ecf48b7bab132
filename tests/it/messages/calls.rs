//! Tools: what the model reads of them, and its calls.

use super::*;

/// Three tools, and a server whose model calls two of them with text around the calls.
fn calling(template: &'static str, replies: Vec<&'static str>) -> (Server, Json) {
    let server = Server::start(Setup { template, replies, ..Setup::default() });
    let tool = |name: &str| {
        json!({
            "name": name,
            "description": format!("The {name} of a town."),
            "input_schema": { "type": "object", "properties": { "town": { "type": "string" } } },
        })
    };
    let tools: Vec<Json> = ["weather", "time", "map"].map(tool).to_vec();
    (server, json!(tools))
}

const TAGGED: &str = include_str!("../../data/text/templates/tagged_calls.jinja");
const JSON_CALLS: &str = include_str!("../../data/text/templates/json_calls.jinja");

const TWO_CALLS: &str = "I shall look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Graz\"}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

#[test]
fn calls_of_tools_are_blocks_of_a_message() {
    let (server, tools) = calling(TAGGED, vec![TWO_CALLS]);
    let message = answered(&server, &hi(json!({ "tools": tools, "max_tokens": 200 })));
    let content = message["content"].as_array().expect("a list");
    assert_eq!(content[0], json!({ "type": "text", "text": "I shall look." }));
    let ids = [&content[1]["id"], &content[2]["id"]].map(|id| id.as_str().expect("an id"));
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("toolu_")), "{ids:?}");
    let call = |id: &str, name: &str, input: Json| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
    assert_eq!(content[1], call(ids[0], "weather", json!({ "town": "Graz" })));
    assert_eq!(content[2], call(ids[1], "time", json!({})));
    assert_eq!((content.len(), &message["stop_reason"]), (3, &json!("tool_use")));
}

#[test]
fn calls_of_tools_are_streamed_by_their_index() {
    let (server, tools) = calling(TAGGED, vec![TWO_CALLS]);
    let events = streamed(&server, &hi(json!({ "tools": tools, "max_tokens": 200 })));
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let starts: Vec<(&Json, &Json)> = of("content_block_start")
        .map(|event| (&event["index"], &event["content_block"]["type"]))
        .collect();
    let expected =
        [(0, "text"), (1, "tool_use"), (2, "tool_use")].map(|(i, t)| (json!(i), json!(t)));
    assert_eq!(starts, expected.iter().map(|(i, t)| (i, t)).collect::<Vec<_>>());
    let stops: Vec<&Json> = of("content_block_stop").map(|event| &event["index"]).collect();
    assert_eq!(stops, [0, 1, 2]);
    assert_eq!(streamed_text(&events), "I shall look.");
    let input = |index: usize| {
        let json: String = of("content_block_delta")
            .filter(|event| event["index"] == index)
            .filter_map(|event| event["delta"]["partial_json"].as_str())
            .collect();
        serde_json::from_str::<Json>(&json).expect("JSON")
    };
    assert_eq!((input(1), input(2)), (json!({ "town": "Graz" }), json!({})));
    let start = of("content_block_start").nth(1).expect("a call");
    assert_eq!(
        (&start["content_block"]["name"], &start["content_block"]["input"]),
        (&json!("weather"), &json!({}))
    );
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[test]
fn what_is_no_call_of_a_tool_stays_text() {
    let unknown = "<tool_call>\n{\"name\": \"launch\", \"arguments\": {}}\n</tool_call>";
    let replies = vec![unknown, TWO_CALLS, "<tool_call>\n{\"name\": \"time\""];
    let (server, tools) = calling(TAGGED, replies);
    let ask = |fields: Json| {
        let mut body = hi(json!({ "tools": tools, "max_tokens": 200 }));
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let message = answered(&server, &body);
        assert_eq!(message["stop_reason"], "end_turn");
        assert_eq!(message["content"].as_array().expect("a list").len(), 1);
        text(&message).to_owned()
    };
    assert_eq!(ask(json!({})), unknown);
    // Calls are not looked for where none is wanted.
    let none = json!({ "tool_choice": { "type": "none" }, "system": "No calls." });
    assert_eq!(ask(none), TWO_CALLS);
    assert_eq!(ask(json!({ "system": "Be quick." })), "<tool_call>\n{\"name\": \"time\"");
}

/// The calls come back as blocks, with ids that no prompt has and inputs that were parsed.
#[test]
fn calls_and_their_results_are_not_computed_again() {
    const CALL: &str = "{\"name\": \"weather\", \"parameters\": {\"town\": \"Graz\", \"days\": 2}}";
    for (template, reply) in [(TAGGED, TWO_CALLS), (JSON_CALLS, CALL)] {
        let (server, tools) = calling(template, vec![reply, "It rains, and it is late."]);
        let mut body = hi(json!({ "tools": tools, "max_tokens": 200 }));
        let first = answered(&server, &body);
        assert_eq!(first["stop_reason"], "tool_use");
        let calls = first["content"].as_array().expect("a list").iter();
        let results: Vec<Json> = calls
            .filter(|block| block["type"] == "tool_use")
            .map(|call| json!({ "type": "tool_result", "tool_use_id": call["id"], "content": "rain" }))
            .collect();
        body["messages"] = json!([
            { "role": "user", "content": "Hello" },
            { "role": "assistant", "content": first["content"] },
            { "role": "user", "content": results },
        ]);
        let second = answered(&server, &body);
        assert_eq!(text(&second), "It rains, and it is late.");
        let before = prompt_tokens(&first) + tokens(&first, "output_tokens");
        assert!(tokens(&second, "cache_read_input_tokens") >= before - 1, "{first} {second}");
        assert_eq!(counted(&server, &body)["input_tokens"], prompt_tokens(&second));
    }
}

#[test]
fn a_model_that_knows_no_tools_says_so() {
    let server = Server::new();
    let tools = json!([{ "name": "look", "input_schema": { "type": "object" } }]);
    let (status, _, message) = refused(&asked(&server, &hi(json!({ "tools": tools }))));
    assert_eq!((status, message.as_str()), (400, "the template of fake renders no tools"));
}
