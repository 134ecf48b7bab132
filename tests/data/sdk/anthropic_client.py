"""Drives a server with the anthropic package, as its users do. Each function is a case."""

import json
import sys

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {
        "name": "weather",
        "description": "The weather of a town.",
        "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}},
    }
]


def raises(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__}")


def body(**fields):
    return {"model": "any", "max_tokens": 100, "messages": HELLO} | fields


def create(**fields):
    return client.messages.create(**body(**fields))


def read(usage):
    return usage.input_tokens + usage.cache_read_input_tokens


def count(**fields):
    return client.messages.count_tokens(**({"model": "any", "messages": HELLO} | fields)).input_tokens


def answers():
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    whole = create(system=system, metadata={"user_id": "me"})
    assert whole.content[0].text == "Hello to you." and whole.stop_reason == "end_turn", whole
    assert whole.semantic["source"] == "cold", whole
    assert count(system=system) == read(whole.usage), whole.usage

    turns = HELLO + [
        {"role": whole.role, "content": whole.content},
        {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
    ]
    with client.messages.stream(**body(system=system, messages=turns)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "On it goes.", final
    assert (final.stop_reason, final.id[:4]) == ("end_turn", "msg_"), final
    before = read(whole.usage) + whole.usage.output_tokens
    assert final.usage.cache_read_input_tokens >= before - 1, (whole.usage, final.usage)
    assert count(system=system, messages=turns) == read(final.usage)

    stopped = create(stop_sequences=[" and"], messages=[{"role": "user", "content": "Stop."}])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " and"), stopped
    assert stopped.content[0].text == "First", stopped
    events = list(create(stream=True, max_tokens=1, extra_body={"temperature": 0, "top_k": 1}))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
    assert events[-2].delta.stop_reason == "max_tokens", events[-2]
    assert events[-2].semantic["agent"], events[-2]


def tools():
    whole = create(tools=TOOLS, tool_choice={"type": "auto"})
    call = whole.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"town": "Graz"}), whole
    assert whole.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    turns = HELLO + [
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": [result]},
    ]
    after = create(messages=turns, tools=TOOLS)
    assert after.content[0].text == "It rains.", after
    before = read(whole.usage) + whole.usage.output_tokens
    assert after.usage.cache_read_input_tokens >= before - 1, (whole.usage, after.usage)
    assert count(messages=turns, tools=TOOLS) == read(after.usage)

    turns = [{"role": "user", "content": "And again?"}]
    with client.messages.stream(**body(messages=turns, tools=TOOLS)) as stream:
        final = stream.get_final_message()
    call = final.content[-1]
    assert (call.name, call.input) == ("weather", {"town": "Linz"}), final
    refused = raises(
        anthropic.BadRequestError, lambda: create(tools=TOOLS, tool_choice={"type": "all"})
    )
    assert "tool_choice.type" in refused.message, refused


def structured():
    schema = {
        "type": "object",
        "properties": {"town": {"enum": ["Graz", "Linz"]}},
        "required": ["town"],
        "additionalProperties": False,
    }
    forecast = [{"name": "forecast", "input_schema": schema}]
    for choice in ({"type": "any"}, {"type": "tool", "name": "forecast"}):
        whole = create(tools=forecast, tool_choice=choice, max_tokens=2000)
        assert whole.stop_reason == "tool_use", whole
        assert all(call.input["town"] in ("Graz", "Linz") for call in whole.content), whole
        with client.messages.stream(
            **body(tools=forecast, tool_choice=choice, max_tokens=2000)
        ) as stream:
            final = stream.get_final_message()
        assert final.content[0].input["town"] in ("Graz", "Linz"), final


def thinks():
    whole = create()
    kinds = [block.type for block in whole.content]
    assert kinds == ["thinking", "text"], whole
    assert (whole.content[0].thinking, whole.content[1].text) == ("Hm.", "No."), whole
    before = read(whole.usage) + whole.usage.output_tokens
    for back in [whole.content, whole.content[1:]]:
        turns = HELLO + [
            {"role": "assistant", "content": back},
            {"role": "user", "content": "And?"},
        ]
        with client.messages.stream(**body(messages=turns)) as stream:
            final = stream.get_final_message()
        assert [block.type for block in final.content] == kinds, final
        assert final.content[0].thinking == "Hm." and final.content[1].text == "No.", final
        assert final.usage.cache_read_input_tokens >= before - 1, (whole.usage, final.usage)


def errors():
    stranger = anthropic.Anthropic(api_key="not-the-key-of-this", max_retries=0)
    error = raises(anthropic.AuthenticationError, lambda: stranger.messages.create(**body()))
    assert error.body["error"]["type"] == "authentication_error", error
    bearer = anthropic.Anthropic(api_key=None, auth_token=client.api_key, max_retries=0)
    assert bearer.messages.create(**body(max_tokens=1)).usage.output_tokens == 1
    error = raises(anthropic.NotFoundError, lambda: client.messages.batches.list())
    assert error.body["error"]["type"] == "not_found_error", error
    error = raises(anthropic.BadRequestError, lambda: create(max_tokens=0))
    assert error.body["error"]["message"].startswith("max_tokens is 0"), error
    assert error.body["error"]["type"] == "invalid_request_error", error
    thinking = {"type": "enabled", "budget_tokens": 1024}
    error = raises(anthropic.BadRequestError, lambda: create(thinking=thinking))
    assert "thinking.type" in error.message, error
    limited = lambda: create(max_tokens=1, extra_headers={"X-Session-ID": "busy"})
    limited()
    error = raises(anthropic.RateLimitError, limited)
    assert error.response.headers["retry-after"] == "60", error
    assert error.body["request_id"] == error.response.headers["x-request-id"], error


def fails_in_a_stream():
    def read_all():
        for _ in create(stream=True, max_tokens=5000):
            pass

    error = raises(anthropic.APIStatusError, read_all)
    assert error.body["error"]["type"] == "api_error", error.body


def leaves():
    stream = create(stream=True, max_tokens=5000)
    for _ in range(5):
        next(stream)
    stream.close()
    print("left", flush=True)
    sys.stdin.read()


def talks(agent, path, turns):
    """Goes on with the conversation in a file, and puts down how much of it was cached."""
    try:
        with open(path) as file:
            messages = json.load(file)
    except FileNotFoundError:
        messages = []
    seen = []
    for turn in range(int(turns)):
        messages.append({"role": "user", "content": f"Tell me one more thing, number {turn}."})
        answer = create(
            system="You are kind. " * 40, messages=messages, max_tokens=12,
            extra_body={"temperature": 0}, extra_headers={"X-Agent-ID": agent},
        )
        messages.append({"role": "assistant", "content": [c.model_dump() for c in answer.content]})
        seen.append({
            "agent": answer.semantic["agent"],
            "source": answer.semantic["source"],
            "durable": answer.semantic["durable"],
            "prompt": read(answer.usage),
            "total": read(answer.usage) + answer.usage.output_tokens,
            "cached": answer.usage.cache_read_input_tokens,
        })
    with open(path, "w") as file:
        json.dump(messages, file)
    print(json.dumps(seen))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
