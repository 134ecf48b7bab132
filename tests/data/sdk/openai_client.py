"""Drives a server with the openai package, as its users do. Each function is a case."""

import json
import sys

import openai

client = openai.OpenAI(max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
    }
]


def raises(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__}")


def chat(**fields):
    return client.chat.completions.create(**({"model": "any", "messages": HELLO} | fields))


def answers():
    whole = chat(max_tokens=50, user="me")
    assert whole.choices[0].message.content == "Hello to you.", whole
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.semantic["source"] == "cold" and whole.semantic["agent"], whole

    turns = HELLO + [whole.choices[0].message, {"role": "user", "content": "Go on."}]
    stream = chat(messages=turns, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "On it goes.", text
    before = whole.usage.total_tokens
    usage = chunks[-1].usage
    assert usage.prompt_tokens_details.cached_tokens >= before - 1, usage
    assert chunks[-1].semantic["source"] == "hot"

    raw = client.chat.completions.with_raw_response.create(
        model="any", messages=HELLO, logprobs=True, top_logprobs=2, max_tokens=3, seed=1, n=2,
        extra_headers={"X-Request-ID": "mine"}, extra_body={"top_k": 5, "session_id": "me"},
    )
    assert raw.headers["x-request-id"] == "mine"
    parsed = raw.parse()
    assert len(parsed.choices) == 2 and len(parsed.choices[0].logprobs.content) == 3
    assert parsed.semantic["agent"] == "me"


def completes():
    whole = client.completions.create(model="any", prompt="Once", max_tokens=5, logprobs=2)
    choice = whole.choices[0]
    assert choice.finish_reason == "length" and len(choice.logprobs.tokens) == 5, whole
    stream = client.completions.create(
        model="any", prompt="Once", max_tokens=5, temperature=0, stream=True
    )
    streamed = "".join(part.choices[0].text for part in stream)
    again = client.completions.create(model="any", prompt="Once", max_tokens=5, temperature=0)
    assert again.choices[0].text == streamed
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def tools():
    whole = chat(tools=TOOLS, tool_choice="auto", max_tokens=200)
    call = whole.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"town": "Graz"})
    assert whole.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns = HELLO + [whole.choices[0].message, result]
    after = chat(messages=turns, tools=TOOLS, max_tokens=200)
    assert after.choices[0].message.content == "It rains.", after
    cached = after.usage.prompt_tokens_details.cached_tokens
    assert cached >= whole.usage.total_tokens - 1, (whole.usage, after.usage)

    turns = [{"role": "user", "content": "And again?"}]
    with client.chat.completions.stream(model="any", messages=turns, tools=TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"town": "Linz"})
    required = raises(openai.BadRequestError, lambda: chat(tools=TOOLS, tool_choice="required"))
    assert required.param == "tool_choice", required


def thinks():
    whole = chat()
    message = whole.choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm.", "No."), whole
    for back in [message, {"role": "assistant", "content": "No."}]:
        turns = HELLO + [back, {"role": "user", "content": "And?"}]
        thought, text = "", ""
        for chunk in chat(messages=turns, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                text += choice.delta.content or ""
        assert (thought, text) == ("Hm.", "No."), (thought, text)
        cached = chunk.usage.prompt_tokens_details.cached_tokens
        assert cached >= whole.usage.total_tokens - 1, (whole.usage, chunk.usage)


def errors():
    stranger = openai.OpenAI(api_key="not-the-key-of-this", max_retries=0)
    error = raises(
        openai.AuthenticationError,
        lambda: stranger.chat.completions.create(model="any", messages=HELLO),
    )
    assert error.code == "invalid_api_key", error
    missing = lambda: client.embeddings.create(model="any", input="x")
    assert raises(openai.NotFoundError, missing).code == "not_found"
    error = raises(openai.BadRequestError, lambda: chat(temperature=3))
    assert (error.param, error.type) == ("temperature", "invalid_request_error"), error
    error = raises(openai.BadRequestError, lambda: chat(response_format={"type": "json_object"}))
    assert error.param == "response_format.type", error
    error = raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": "word " * 20_000}]))
    assert error.code == "context_length_exceeded", error
    limited = lambda: chat(max_tokens=1, extra_headers={"X-Agent-ID": "busy"})
    limited()
    error = raises(openai.RateLimitError, limited)
    assert error.response.headers["retry-after"] == "60" and error.request_id, error


def fails_in_a_stream():
    def read():
        for _ in chat(stream=True):
            pass

    error = raises(openai.APIError, read)
    assert error.code == "internal_error", error


def leaves():
    stream = chat(stream=True)
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
        messages = [{"role": "system", "content": "You are brief. " * 40}]
    seen = []
    for turn in range(int(turns)):
        messages.append({"role": "user", "content": f"Tell me one more thing, number {turn}."})
        answer = chat(
            messages=messages, max_tokens=12, temperature=0, extra_headers={"X-Agent-ID": agent}
        )
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        usage = answer.usage
        seen.append({
            "agent": answer.semantic["agent"],
            "source": answer.semantic["source"],
            "durable": answer.semantic["durable"],
            "prompt": usage.prompt_tokens,
            "total": usage.total_tokens,
            "cached": usage.prompt_tokens_details.cached_tokens,
        })
    with open(path, "w") as file:
        json.dump(messages, file)
    print(json.dumps(seen))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
