//! Going on from an earlier response: what of it comes back, how long its id lives, and for whom.

use super::*;

const KEYS: &str = "0123456789abcdef,fedcba9876543210";
const FIRST_KEY: &str = "0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210";

fn on(disk: &ShakyDisk) -> Server {
    Server::start(Setup { disk: Some(disk.clone()), ..speaking() })
}

fn not_found() -> (u16, Json, Json) {
    (400, json!("previous_response_not_found"), json!("previous_response_id"))
}

fn from(id: &Json) -> Json {
    hi(json!({ "previous_response_id": id, "input": "And now?" }))
}

fn path(response: &Json) -> String {
    format!("{RESPONSES}/{}", response["id"].as_str().expect("an id"))
}

#[test]
fn a_response_goes_on_from_the_one_before() {
    let server = Server::start(speaking());
    let first = answered(&server, &hi(json!({})));
    let second = after(&server, &first, "And now?");
    assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
    assert_eq!(second["semantic"]["source"], "hot");
    assert_eq!(second["semantic"]["agent"], first["semantic"]["agent"]);
    assert_eq!(second["previous_response_id"], first["id"]);
    let third = after(&server, &second, "And then?");
    assert!(cached(&third) >= tokens(&second, "total_tokens") - 1, "{second} {third}");
    // The same as if the client had sent all of it.
    let said = |text: &str, role: &str| json!({ "role": role, "content": text });
    let items = json!([
        said("Hello", "user"),
        said(text(&first), "assistant"),
        said("And now?", "user"),
        said(text(&second), "assistant"),
        said("And then?", "user"),
    ]);
    let whole = answered(&server, &hi(json!({ "input": items })));
    assert_eq!(tokens(&whole, "input_tokens"), tokens(&third, "input_tokens"));
    assert_eq!(cached(&whole), tokens(&third, "input_tokens") - 1);
}

#[test]
fn two_that_go_on_from_the_same_response_have_the_same_before_them() {
    let server = Server::start(speaking());
    let first = answered(&server, &hi(json!({})));
    let one = after(&server, &first, "And now?");
    let deeper = after(&server, &one, "And then?");
    // All of what it reads has been read before, to the token.
    let is_the_same = |again: &Json, before: &Json| {
        assert_eq!(tokens(again, "input_tokens"), tokens(before, "input_tokens"));
        assert_eq!(cached(again), tokens(before, "input_tokens") - 1);
    };
    is_the_same(&after(&server, &first, "And now?"), &one);
    let aside = after(&server, &first, "Who are you?");
    let shared = tokens(&first, "total_tokens") - 1;
    assert!((shared..tokens(&one, "input_tokens") - 1).contains(&cached(&aside)), "{aside}");
    // None has changed what the others go on from.
    is_the_same(&after(&server, &one, "And then?"), &deeper);
    is_the_same(&after(&server, &first, "Who are you?"), &aside);
}

/// As OpenAI has it.
#[test]
fn instructions_are_not_carried_over() {
    let server = Server::start(Setup { template: PLAIN, ..speaking() });
    let first = answered(&server, &hi(json!({ "instructions": "Be brief." })));
    let second = after(&server, &first, "And now?");
    let expected = format!("<user>Hello\n<assistant>{}\n<user>And now?\n<assistant>", text(&first));
    let all = server.encode(&expected).len();
    // The reply is the tokens that were generated, which may be others than its text's.
    let difference = tokens(&second, "input_tokens").abs_diff(all as u64);
    assert!(difference < 10, "{second} {all}");
    assert_eq!(second["instructions"], json!(null));
    let again = hi(json!({
        "previous_response_id": first["id"],
        "input": "And now?",
        "instructions": "Be brief.",
    }));
    let again = answered(&server, &again);
    assert!(cached(&again) >= tokens(&first, "total_tokens") - 1, "{first} {again}");
    assert!(tokens(&again, "input_tokens") > tokens(&second, "input_tokens"));
}

#[test]
fn a_response_goes_on_after_its_agent_went_to_the_disk() {
    let disk = ShakyDisk::default();
    let server = on(&disk);
    let first = answered(&server, &hi(json!({ "session_id": "a" })));
    let evicted = server.send(&Request::new("DELETE", "/v1/agents/a?evict_only=true"));
    assert_eq!(evicted.status, 200);
    let second = after(&server, &first, "And now?");
    assert_eq!(
        (&second["semantic"]["source"], &second["semantic"]["agent"]),
        (&json!("warm"), &json!("a"))
    );
    assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
}

#[test]
fn the_agent_that_a_header_names_goes_on_with_a_response_of_another() {
    let server = Server::start(speaking());
    let first = answered(&server, &hi(json!({ "session_id": "a" })));
    let request = Request::post(RESPONSES, from(&first["id"]).to_string());
    let second = server.send(&request.header("X-Agent-ID", "b")).json();
    assert_eq!(second["semantic"]["agent"], "b");
    assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
    let named = hi(json!({ "previous_response_id": second["id"], "session_id": "c" }));
    assert_eq!(answered(&server, &named)["semantic"]["agent"], "c");
}

#[test]
fn what_is_not_there_is_not_gone_on_from() {
    let server = Server::new();
    let first = answered(&server, &hi(json!({})));
    let id = first["id"].as_str().expect("an id");
    let unkept = answered(&server, &hi(json!({ "store": false })));
    assert_eq!(unkept["store"], false);
    let unkept = unkept["id"].as_str().expect("an id");
    let zeros = format!("resp_{:032x}", 0);
    let upper = format!("resp_{}", id[5..].to_uppercase());
    let long = "x".repeat(100_000);
    for other in [unkept, &zeros, &upper, &id[5..], &id[..36], "", "resp_", "\0", &long] {
        assert_eq!(code(&asked(&server, &from(&json!(other)))), not_found(), "{other}");
    }
    assert_eq!(after(&server, &first, "And now?")["status"], "incomplete");
    for path in [format!("{RESPONSES}/{unkept}"), format!("{RESPONSES}/x")] {
        let expected = (404, json!("response_not_found"), json!(null));
        assert_eq!(code(&server.get(&path)), expected);
        assert_eq!(code(&server.send(&Request::new("DELETE", &path))), expected);
    }
}

#[test]
fn a_response_that_is_deleted_is_gone_and_those_after_it_are_not() {
    let server = Server::start(speaking());
    let first = answered(&server, &hi(json!({})));
    let second = after(&server, &first, "And now?");
    let path = path(&first);
    let gone = server.send(&Request::new("DELETE", &path));
    let told = json!({ "id": first["id"], "object": "response", "deleted": true });
    assert_eq!((gone.status, gone.json()), (200, told));
    assert_eq!(server.get(&path).status, 404);
    assert_eq!(code(&asked(&server, &from(&first["id"]))), not_found());
    let third = after(&server, &second, "And then?");
    assert!(cached(&third) >= tokens(&second, "total_tokens") - 1, "{third}");
}

#[test]
fn an_agent_that_is_deleted_takes_its_responses_along() {
    for disk in [None, Some(ShakyDisk::default())] {
        let server = Server::start(Setup { disk, ..speaking() });
        let of = |agent: &str| answered(&server, &hi(json!({ "session_id": agent })));
        let (gone, stays) = (of("a"), of("b"));
        let answer = server.send(&Request::new("DELETE", "/v1/agents/a"));
        assert_eq!(answer.status, 204);
        assert_eq!(code(&asked(&server, &from(&gone["id"]))), not_found());
        assert_eq!(server.get(&path(&gone)).status, 404);
        assert_eq!(after(&server, &stays, "And now?")["semantic"]["agent"], "b");
        // The next one of the name has not said it.
        of("a");
        assert_eq!(code(&asked(&server, &from(&gone["id"]))), not_found());
    }
}

/// Who asks for another's response hears what he would hear if there were none.
#[test]
fn the_responses_of_one_key_are_nothing_for_another() {
    for disk in [None, Some(ShakyDisk::default())] {
        let server = Server::start(Setup { disk, keys: Some(KEYS), ..speaking() });
        let send = |key: &str, request: Request<'_>| {
            let header = ("X-API-Key", key.to_owned());
            server.send(&Request {
                headers: [request.headers.clone(), vec![header]].concat(),
                ..request
            })
        };
        let post = |key: &str, body: &Json| send(key, Request::post(RESPONSES, body.to_string()));
        let first = post(FIRST_KEY, &hi(json!({ "session_id": "a" }))).json();
        let path = path(&first);
        let from = |key: &str| post(key, &from(&first["id"]));
        assert_eq!(code(&from(OTHER_KEY)), not_found());
        for method in ["GET", "DELETE"] {
            assert_eq!(send(OTHER_KEY, Request::new(method, &path)).status, 404);
            assert_eq!(send("", Request::new(method, &path)).status, 401);
        }
        // The other's agent of the same name goes, and this one's does not.
        post(OTHER_KEY, &hi(json!({ "session_id": "a" })));
        assert_eq!(send(OTHER_KEY, Request::new("DELETE", "/v1/agents/a")).status, 204);
        let second = from(FIRST_KEY).json();
        assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
    }
}

#[test]
fn a_stream_that_is_cut_leaves_nothing_to_go_on_from() {
    let server = Server::start(endless());
    let mut client = streaming(&server, &hi(json!({ "max_output_tokens": 8000 })));
    let begun = event(&mut client).expect("it has begun");
    assert_eq!(begun["type"], "response.created");
    drop(client);
    wait_until("the blocks are free", || is_idle(&server));
    assert_eq!(code(&asked(&server, &from(&begun["response"]["id"]))), not_found());
}

#[test]
fn a_response_goes_on_after_the_server_was_restarted() {
    let disk = ShakyDisk::default();
    let server = on(&disk);
    let first = answered(&server, &hi(json!({ "session_id": "a", "instructions": "Be kind." })));
    let second = after(&server, &first, "And now?");
    let expected = after(&server, &second, "And then?");
    assert_eq!(second["semantic"]["durable"], true);
    drop(server);
    let server = on(&disk);
    assert_eq!(server.get(&path(&second)).json(), second);
    let third = after(&server, &second, "And then?");
    assert_eq!(tokens(&third, "input_tokens"), tokens(&expected, "input_tokens"));
    assert_eq!(
        (&third["semantic"]["source"], &third["semantic"]["agent"]),
        (&json!("warm"), &json!("a"))
    );
    assert!(cached(&third) >= tokens(&second, "total_tokens") - 1, "{second} {third}");
    // The agent has gone on since; the words of its first answer are still there.
    let aside = after(&server, &first, "And now?");
    assert_eq!(tokens(&aside, "input_tokens"), tokens(&second, "input_tokens"));
    // What was deleted does not come back.
    assert_eq!(server.send(&Request::new("DELETE", &path(&second))).status, 200);
    drop(server);
    let server = on(&disk);
    assert_eq!(code(&asked(&server, &from(&second["id"]))), not_found());
    assert_eq!(server.send(&Request::new("DELETE", "/v1/agents/a")).status, 204);
    drop(server);
    assert_eq!(code(&asked(&on(&disk), &from(&first["id"]))), not_found());
}

#[test]
fn a_response_that_the_disk_does_not_take_is_gone_on_from_in_memory() {
    let disk = ShakyDisk::default();
    let server = on(&disk);
    disk.set_failing(Failing::Writes);
    let first = answered(&server, &hi(json!({})));
    assert_eq!((&first["semantic"]["durable"], &first["store"]), (&json!(false), &json!(true)));
    disk.set_failing(Failing::Nothing);
    let second = after(&server, &first, "And now?");
    assert!(cached(&second) >= tokens(&first, "total_tokens") - 1, "{first} {second}");
    drop(server);
    assert_eq!(code(&asked(&on(&disk), &from(&first["id"]))), not_found());
}
