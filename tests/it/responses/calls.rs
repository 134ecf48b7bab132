//! Tools: what the model reads of them, and its calls.

use super::*;

const TWO_CALLS: &str = "I shall look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Graz\", \"x\": 0.1}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

/// Three tools, and a server whose model says this.
fn calling(replies: Vec<&'static str>) -> (Server, Json) {
    let server = Server::start(Setup { template: TAGGED, replies, ..Setup::default() });
    let tool = |name: &str| {
        json!({
            "type": "function",
            "name": name,
            "description": format!("The {name} of a town."),
            "parameters": { "type": "object", "properties": { "town": { "type": "string" } } },
            "strict": false,
        })
    };
    let tools: Vec<Json> = ["weather", "time", "map"].map(tool).to_vec();
    (server, json!(tools))
}

fn ask(tools: &Json, fields: Json) -> Json {
    let mut body = hi(fields.clone());
    body["tools"] = tools.clone();
    if fields.get("max_output_tokens").is_none() {
        body["max_output_tokens"] = json!(200);
    }
    body
}

/// What tools say to the calls of a response.
fn results(response: &Json) -> Json {
    let output = response["output"].as_array().expect("a list").iter();
    let calls = output.filter(|item| item["type"] == "function_call");
    let result = |call: &Json| json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "rain" });
    calls.map(result).collect()
}

#[test]
fn calls_of_tools_are_items_of_a_response() {
    let (server, tools) = calling(vec![TWO_CALLS]);
    let response = answered(&server, &ask(&tools, json!({})));
    let output = response["output"].as_array().expect("a list");
    assert_eq!((output.len(), text(&response)), (3, "I shall look."));
    let call = |index: usize, name: &str, arguments: &str| {
        let id = |name: &str| output[index][name].as_str().expect("an id").to_owned();
        assert!(id("id").starts_with("fc_") && id("call_id").starts_with("call_"), "{output:?}");
        let expected = json!({
            "type": "function_call",
            "id": id("id"),
            "status": "completed",
            "call_id": id("call_id"),
            "name": name,
            "arguments": arguments,
        });
        assert_eq!(output[index], expected);
        id("call_id")
    };
    let ids = [call(1, "weather", "{\"town\": \"Graz\", \"x\": 0.1}"), call(2, "time", "{}")];
    assert_ne!(ids[0], ids[1]);
    assert_eq!((&response["status"], &response["tools"]), (&json!("completed"), &tools));
}

#[test]
fn calls_of_tools_are_streamed_by_their_index() {
    let (server, tools) = calling(vec![TWO_CALLS]);
    let events = streamed(&server, &ask(&tools, json!({})));
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(outline(&events), expected);
    let output = &events.last().expect("events")["response"]["output"];
    let of = |name: &'static str| events.iter().filter(move |event| event["type"] == name);
    for (index, event) in of("response.output_item.done").enumerate() {
        assert_eq!((&event["output_index"], &event["item"]), (&json!(index), &output[index]));
    }
    for (index, event) in (1..).zip(of("response.output_item.added").skip(1)) {
        let item = &event["item"];
        assert_eq!((&item["id"], &item["name"]), (&output[index]["id"], &output[index]["name"]));
        assert_eq!((&item["arguments"], &item["status"]), (&json!(""), &json!("in_progress")));
    }
    for (index, event) in (1..).zip(of("response.function_call_arguments.done")) {
        assert_eq!(event["arguments"], output[index]["arguments"]);
        assert_eq!(event["item_id"], output[index]["id"]);
    }
    let whole = "{\"town\": \"Graz\", \"x\": 0.1}{}";
    assert_eq!(deltas(&events, "response.function_call_arguments.delta"), whole);
}

#[test]
fn what_is_no_call_of_a_tool_stays_text() {
    let unknown = "<tool_call>\n{\"name\": \"launch\", \"arguments\": {}}\n</tool_call>";
    let (server, tools) = calling(vec![unknown, TWO_CALLS]);
    let told = answered(&server, &ask(&tools, json!({})));
    assert_eq!((text(&told), told["output"].as_array().map(Vec::len)), (unknown, Some(1)));
    let none = answered(&server, &ask(&tools, json!({ "input": "Hi", "tool_choice": "none" })));
    assert_eq!((text(&none), &none["tool_choice"]), (TWO_CALLS, &json!("none")));
}

/// By the id of the response, or with all of its items sent back: the model reads the same.
#[test]
fn calls_and_their_results_are_not_computed_again() {
    let (server, tools) = calling(vec![TWO_CALLS, "It rains, and it is late."]);
    let first = answered(&server, &ask(&tools, json!({})));
    let previous = json!({ "previous_response_id": first["id"], "input": results(&first) });
    let second = answered(&server, &ask(&tools, previous));
    assert_eq!(text(&second), "It rains, and it is late.");
    assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
    assert_eq!(second["semantic"]["agent"], first["semantic"]["agent"]);

    let mut items = vec![json!({ "role": "user", "content": "Hello" })];
    items.extend(first["output"].as_array().expect("a list").iter().cloned());
    items.extend(results(&first).as_array().expect("a list").iter().cloned());
    let again = answered(&server, &ask(&tools, json!({ "input": items })));
    assert_eq!(tokens(&again, "input_tokens"), tokens(&second, "input_tokens"));
    assert_eq!(cached(&again), tokens(&second, "input_tokens") - 1);
}

#[test]
fn a_result_of_a_call_that_nobody_made_is_refused() {
    let (server, tools) = calling(vec![TWO_CALLS]);
    let first = answered(&server, &ask(&tools, json!({})));
    let stranger = json!({ "type": "function_call_output", "call_id": "call_x", "output": "rain" });
    let mut input = results(&first);
    input.as_array_mut().expect("a list").push(stranger);
    for (previous, index) in [(first["id"].clone(), 2), (json!(null), 0)] {
        let body = ask(&tools, json!({ "previous_response_id": previous, "input": input }));
        let param = format!("input[{index}].call_id");
        assert_eq!(code(&asked(&server, &body)), (400, json!(null), json!(param)));
    }
}

/// What OpenAI's agents send: strict functions, and a schema for the last answer.
#[test]
fn a_strict_function_and_a_format_are_kept_to() {
    let wrong = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": 7}}\n</tool_call>";
    let (server, mut tools) = calling(vec![wrong, "Some text.", "Some text.", "Some text."]);
    for tool in tools.as_array_mut().expect("a list") {
        tool["strict"] = json!(true);
        tool["parameters"]["required"] = json!(["town"]);
        tool["parameters"]["additionalProperties"] = json!(false);
    }
    let town = |response: &Json| {
        let output = response["output"].as_array().expect("a list");
        let call = output.iter().find(|item| item["type"] == "function_call");
        let call = call.unwrap_or_else(|| panic!("{response}"));
        let arguments = call["arguments"].as_str().expect("a text");
        let arguments: Json = serde_json::from_str(arguments).expect("JSON");
        assert!(arguments["town"].is_string(), "{arguments}");
        call["name"].clone()
    };
    let free = answered(&server, &ask(&tools, json!({ "max_output_tokens": 2000 })));
    assert_eq!((town(&free), &free["tool_choice"]), (json!("weather"), &json!("auto")));
    let choice = json!({ "type": "function", "name": "map" });
    let fields =
        json!({ "tool_choice": choice, "parallel_tool_calls": false, "max_output_tokens": 2000 });
    let named = answered(&server, &ask(&tools, fields));
    assert_eq!((town(&named), &named["tool_choice"]), (json!("map"), &choice));
    assert_eq!(named["parallel_tool_calls"], false);
    let fields = json!({ "tool_choice": "required", "max_output_tokens": 2000 });
    town(&answered(&server, &ask(&tools, fields)));
    let schema = json!({
        "type": "object",
        "properties": { "degrees": { "type": "integer", "minimum": -50, "maximum": 50 } },
        "required": ["degrees"],
        "additionalProperties": false,
    });
    let format =
        json!({ "type": "json_schema", "name": "weather", "schema": schema, "strict": true });
    let told =
        answered(&server, &hi(json!({ "text": { "format": format }, "max_output_tokens": 500 })));
    assert_eq!(told["text"]["format"], format);
    let card: Json = serde_json::from_str(text(&told)).expect("JSON");
    assert!((-50..=50).contains(&card["degrees"].as_i64().expect("a number")), "{card}");
}
