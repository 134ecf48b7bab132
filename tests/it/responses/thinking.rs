//! Models that think before they answer: an item of its own, which the next turn goes on from.

use super::*;

/// In the manner of Qwen 3, which drops earlier thinking, and of DeepSeek R1, which asks with the tag.
const THINKING: &str = include_str!("../../data/text/templates/thinking.jinja");
const OPENED: &str = include_str!("../../data/text/templates/opened.jinja");
const TAGGED_REPLY: &str = "<think>\nThe user greets.\n</think>\n\nGood morning.";
const OPENED_REPLY: &str = "The user greets.\n</think>\n\nGood morning.";
const MODELS: [(&str, &str); 2] = [(THINKING, TAGGED_REPLY), (OPENED, OPENED_REPLY)];

fn thinking(template: &'static str, reply: &'static str) -> Server {
    Server::start(Setup { template, replies: vec![reply; 4], ..Setup::default() })
}

fn ask(server: &Server, fields: Json) -> Json {
    let mut body = hi(fields.clone());
    if fields.get("max_output_tokens").is_none() {
        body["max_output_tokens"] = json!(200);
    }
    answered(server, &body)
}

#[test]
fn thinking_is_an_item_before_the_answer() {
    for (template, reply) in MODELS {
        let server = thinking(template, reply);
        let response = ask(&server, json!({}));
        let output = response["output"].as_array().expect("a list");
        assert_eq!(output.len(), 2, "{response}");
        let id = output[0]["id"].as_str().expect("an id");
        assert!(id.starts_with("rs_"), "{id}");
        let expected = json!({
            "type": "reasoning",
            "id": id,
            "status": "completed",
            "summary": [],
            "content": [{ "type": "reasoning_text", "text": "The user greets." }],
        });
        assert_eq!(output[0], expected);
        assert_eq!(output[1]["content"][0]["text"], "Good morning.");

        let events = streamed(&server, &hi(json!({ "max_output_tokens": 200 })));
        let mut names = outline(&events);
        names.dedup();
        let item = |delta: &'static str, done: &'static str| {
            [
                "response.output_item.added",
                "response.content_part.added",
                delta,
                done,
                "response.content_part.done",
                "response.output_item.done",
            ]
        };
        let expected = [
            &["response.created", "response.in_progress"][..],
            &item("response.reasoning_text.delta", "response.reasoning_text.done"),
            &item("response.output_text.delta", "response.output_text.done"),
            &["response.completed"],
        ];
        assert_eq!(names, expected.concat());
        assert_eq!(deltas(&events, "response.reasoning_text.delta"), "The user greets.");
        assert_eq!(deltas(&events, "response.output_text.delta"), "Good morning.");
        let last = &events.last().expect("events")["response"]["output"];
        assert_eq!(last[0]["content"], output[0]["content"]);
    }
}

#[test]
fn the_next_turn_computes_nothing_again_with_the_items_sent_back_and_without() {
    for (template, reply) in MODELS {
        let server = thinking(template, reply);
        let first = ask(&server, json!({}));
        let all = tokens(&first, "total_tokens") - 1;
        let from = ask(&server, json!({ "previous_response_id": first["id"], "input": "And?" }));
        assert!(cached(&from) >= all, "{first} {from}");
        let user = |text: &str| json!({ "role": "user", "content": text });
        let output = &first["output"];
        for items in [
            json!([user("Hello"), output[0], output[1], user("And?")]),
            json!([user("Hello"), output[1], user("And?")]),
        ] {
            let sent = ask(&server, json!({ "input": items }));
            assert!(cached(&sent) >= all, "{items} {sent}");
            assert_eq!(tokens(&sent, "input_tokens"), tokens(&from, "input_tokens"));
        }
    }
}

#[test]
fn thinking_that_does_not_end_is_all_there_is_and_is_gone_on_from() {
    for (template, reply) in MODELS {
        let server = thinking(template, reply);
        let cut = ask(&server, json!({ "max_output_tokens": 6 }));
        let output = cut["output"].as_array().expect("a list");
        assert_eq!((output.len(), &output[0]["type"]), (1, &json!("reasoning")), "{cut}");
        assert_eq!(
            (&output[0]["status"], &cut["status"]),
            (&json!("incomplete"), &json!("incomplete"))
        );
        let next = ask(&server, json!({ "previous_response_id": cut["id"], "input": "Go on." }));
        assert!(cached(&next) + 1 >= tokens(&cut, "total_tokens"), "{cut} {next}");
    }
}

#[test]
fn a_call_in_the_thinking_is_thought_and_not_made() {
    let reply = "<think>I could <tool_call>{\"name\": \"look\", \"arguments\": {}}</tool_call>.</think>\nNo.";
    let server = thinking(THINKING, reply);
    let tools = json!([{ "type": "function", "name": "look" }]);
    let response = ask(&server, json!({ "tools": tools }));
    let kinds: Vec<&Json> =
        response["output"].as_array().expect("a list").iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message"], "{response}");
    assert_eq!(response["output"][1]["content"][0]["text"], "No.");
}
