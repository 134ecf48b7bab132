//! The end of a server that is in the middle of things: nothing that was said to be safe is lost.

use crate::support::cli::Machine;
use crate::support::golden::data;
use crate::support::http::{Client, Request, hello, wait_until};
use crate::support::process::Process;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

fn tiny() -> String {
    data("tiny/llama-f16").display().to_string()
}

/// S1. Each has had its first words when the signal comes.
#[test]
fn fifty_streams_are_heard_to_their_end_while_probes_are_told_of_it() {
    let machine = Machine::new();
    let mut process = Process::serving(&machine, &tiny(), &["--rate-limit-global=0"]);
    let mut streams: Vec<Client> = (0..50)
        .map(|number| {
            let mut client = process.client();
            let agent = format!("agent-{number}");
            // Each token makes itself likelier, so that none ends before its limit.
            client.stream(&hello(json!({
                "stream": true,
                "temperature": 0,
                "frequency_penalty": -2,
                "max_tokens": 400,
                "session_id": agent,
            })));
            client
        })
        .collect();
    for stream in &mut streams {
        assert!(stream.data().is_some() && stream.data().is_some());
    }
    process.kill(Signal::TERM);
    wait_until("it is not ready", || process.status("/health/ready") == 503);
    assert_eq!(process.status("/health/live"), 200);
    let refused = process.client().send(&Request::chat(&hello(json!({}))));
    assert_eq!((refused.status, refused.error()["code"].as_str()), (503, Some("shutting_down")));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    for (number, mut stream) in streams.into_iter().enumerate() {
        let events = stream.rest();
        assert_eq!(events.last(), Some(&json!("[DONE]")), "stream {number}");
        let told = events.iter().find_map(|event| event.get("semantic")).expect("its memory");
        assert_eq!(told["durable"], true, "stream {number}: {told}");
    }
    assert_eq!(process.end().code, Some(0));
}

/// What a turn tells of its memory, if the server is still there to answer it.
fn told(address: SocketAddr, agent: &str) -> Option<Json> {
    let body = hello(json!({ "max_tokens": 3, "session_id": agent }));
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(&Request::chat(&body).header("connection", "close").bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body: Json = serde_json::from_str(body).ok()?;
    head.starts_with("HTTP/1.1 200 ").then(|| body["semantic"].clone())
}

/// S4. The signals come at every moment of a turn, its save included.
#[test]
fn whatever_was_durable_when_a_signal_came_is_there_afterwards() {
    let machine = Machine::new();
    for (round, signals) in
        [&[Signal::TERM][..], &[Signal::INT], &[Signal::TERM, Signal::TERM]].into_iter().enumerate()
    {
        let mut process = Process::serving(&machine, &tiny(), &[]);
        let safe: Vec<(String, Json)> = std::thread::scope(|scope| {
            let talk = |speaker: usize| {
                let address = process.address;
                move || {
                    let mut safe = Vec::new();
                    for turn in 0..3 + speaker {
                        let agent = format!("agent-{round}-{speaker}-{turn}");
                        match told(address, &agent) {
                            Some(told) if told["durable"] == true => {
                                safe.push((agent, told["generation"].clone()));
                            }
                            Some(_) => (),
                            None => break,
                        }
                    }
                    safe
                }
            };
            let speakers: Vec<_> = (0..8).map(|speaker| scope.spawn(talk(speaker))).collect();
            let mut speakers = speakers.into_iter();
            let mut safe = speakers.next().expect("eight").join().expect("it speaks");
            // The others are in the middle of it.
            for signal in signals {
                process.kill(*signal);
            }
            for speaker in speakers {
                safe.extend(speaker.join().expect("it speaks"));
            }
            safe
        });
        assert_eq!(process.end().code, Some(0));
        assert!(safe.len() >= 3, "{safe:?}");
        let listed = machine.run(&["cache", "list", "--json"]);
        let listed: Json = serde_json::from_str(&listed.stdout).expect("JSON");
        let agents = listed["agents"].as_array().expect("a list");
        for (agent, generation) in safe {
            let there = agents.iter().find(|one| one["agent"] == agent.as_str());
            let there = there.unwrap_or_else(|| panic!("{agent} is lost"));
            assert!(there["generation"].as_u64() >= generation.as_u64(), "{agent}: {there}");
        }
    }
    let verified = machine.run(&["cache", "verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
