"""Drives a server with the openai package, as its users do. Each function is a case."""

import enum
import json
import sys
from typing import Annotated, Literal

import openai
import pydantic

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


FLAT_TOOLS = [{"type": "function", **TOOLS[0]["function"], "strict": False}]


def respond(**fields):
    return client.responses.create(**({"model": "any", "input": "Hello"} | fields))


def responds():
    whole = respond(max_output_tokens=50, instructions="Be kind.", metadata={"a": "b"}, user="me")
    assert (whole.output_text, whole.status) == ("Hello to you.", "completed"), whole
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.semantic["source"] == "cold" and whole.metadata == {"a": "b"}, whole
    assert client.responses.retrieve(whole.id).output_text == whole.output_text

    further = {"instructions": "Be kind.", "previous_response_id": whole.id, "input": "Go on."}
    with client.responses.stream(model="any", **further) as stream:
        events = list(stream)
        final = stream.get_final_response()
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == final.output_text == "On it goes.", events
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage.input_tokens_details.cached_tokens >= whole.usage.total_tokens - 1, final
    assert final.previous_response_id == whole.id and final.semantic["source"] == "hot"

    # With all items sent back, as those do who keep them.
    items = [{"role": "user", "content": "Hello"}, *whole.output, {"role": "user", "content": "Go on."}]
    again = respond(instructions="Be kind.", input=items)
    assert again.usage.input_tokens == final.usage.input_tokens, (again.usage, final.usage)
    assert again.output_text == "First and last.", again

    client.responses.delete(whole.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(whole.id))
    error = raises(openai.BadRequestError, lambda: respond(previous_response_id=whole.id))
    assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id")
    error = raises(openai.BadRequestError, lambda: respond(reasoning={"effort": "low"}))
    assert error.param == "reasoning", error


def response_tools():
    whole = respond(tools=FLAT_TOOLS, tool_choice="auto", max_output_tokens=200)
    (call,) = whole.output
    assert call.type == "function_call" and call.name == "weather", whole
    assert json.loads(call.arguments) == {"town": "Graz"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    after = respond(previous_response_id=whole.id, input=[result], tools=FLAT_TOOLS)
    assert after.output_text == "It rains.", after
    cached = after.usage.input_tokens_details.cached_tokens
    assert cached >= whole.usage.total_tokens - 1, (whole.usage, after.usage)

    with client.responses.stream(model="any", input="And again?", tools=FLAT_TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    text, call = final.output
    assert text.content[0].text == "Well.", final
    assert (call.name, json.loads(call.arguments)) == ("weather", {"town": "Linz"}), final


def response_fails_in_a_stream():
    events = list(respond(stream=True))
    assert events[-1].type == "response.failed", events[-1]
    assert events[-1].response.error.code == "internal_error", events[-1]


def goes_on(path, turns):
    """Goes on from the response whose id is in a file, and puts down how much of it was cached."""
    try:
        with open(path) as file:
            last = file.read()
    except FileNotFoundError:
        last = None
    seen = []
    for turn in range(int(turns)):
        answer = respond(
            instructions="You are brief. " * 40, input=f"Tell me one more thing, number {turn}.",
            previous_response_id=last, max_output_tokens=12, temperature=0,
        )
        last = answer.id
        usage = answer.usage
        seen.append({
            "agent": answer.semantic["agent"],
            "source": answer.semantic["source"],
            "durable": answer.semantic["durable"],
            "total": usage.total_tokens,
            "cached": usage.input_tokens_details.cached_tokens,
        })
    with open(path, "w") as file:
        file.write(last)
    print(json.dumps(seen))


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
    none = raises(openai.BadRequestError, lambda: chat(tool_choice="required"))
    assert none.param == "tool_choice", none


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(max_length=10)]
    age: Annotated[int, pydantic.Field(ge=0, le=130)]
    mood: Mood | None
    friends: Annotated[list["Person"], pydantic.Field(max_length=1)]


class Town(pydantic.BaseModel):
    town: Literal["Graz", "Linz"]


def structured():
    for seed in range(5):
        parsed = client.chat.completions.parse(
            model="any", messages=HELLO, response_format=Person, seed=seed, max_tokens=2000
        )
        choice = parsed.choices[0]
        assert choice.finish_reason == "stop" and isinstance(choice.message.parsed, Person), parsed

        with client.chat.completions.stream(
            model="any", messages=HELLO, response_format=Person, seed=seed, max_tokens=2000
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == choice.message.parsed

        tool = openai.pydantic_function_tool(Town)
        named = {"type": "function", "function": {"name": "Town"}}
        for tool_choice in ("required", named):
            parsed = client.chat.completions.parse(
                model="any", messages=HELLO, tools=[tool], tool_choice=tool_choice, seed=seed,
                max_tokens=2000,
            )
            for call in parsed.choices[0].message.tool_calls:
                assert isinstance(call.function.parsed_arguments, Town), parsed
    whole = chat(response_format={"type": "json_object"}, max_tokens=5)
    assert whole.choices[0].message.content.startswith("{"), whole
    schema = {"type": "object", "properties": {"a": {"format": "colour", "type": "string"}}}
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    error = raises(openai.BadRequestError, lambda: chat(response_format=wrong))
    assert error.param == "response_format.json_schema.schema", error
    assert "/properties/a" in error.message and "colour" in error.message, error


def strict():
    """What the package makes of types: its functions are always strict."""
    turns = [{"role": "user", "content": "The weather?"}]
    parsed = client.chat.completions.parse(
        model="any", messages=turns, tools=[openai.pydantic_function_tool(Town)], max_tokens=2000
    )
    (call, *_) = parsed.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Town), parsed

    flat = {"type": "function", "strict": True}
    flat |= {"name": "Town", "parameters": openai.pydantic_function_tool(Town)["function"]["parameters"]}
    for choice in ("required", {"type": "function", "name": "Town"}):
        whole = respond(tools=[flat], tool_choice=choice, input="The weather?", max_output_tokens=2000)
        calls = [item for item in whole.output if item.type == "function_call"]
        assert calls and all(Town.model_validate_json(call.arguments) for call in calls), whole

    parsed = client.responses.parse(
        model="any", input="Who?", text_format=Person, max_output_tokens=2000
    )
    assert isinstance(parsed.output_parsed, Person), parsed
    with client.responses.stream(
        model="any", input="Who?", text_format=Person, max_output_tokens=2000
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Person), final


def response_thinks():
    whole = respond()
    thought, said = whole.output
    assert thought.type == "reasoning" and thought.content[0].text == "Hm.", whole
    assert (whole.output_text, said.type) == ("No.", "message"), whole
    turns = [{"role": "user", "content": "Hello"}, *whole.output, {"role": "user", "content": "And?"}]
    with client.responses.stream(model="any", input=turns) as stream:
        events = list(stream)
        final = stream.get_final_response()
    thoughts = "".join(e.delta for e in events if e.type == "response.reasoning_text.delta")
    assert (thoughts, final.output_text) == ("Hm.", "No."), events
    assert final.usage.input_tokens_details.cached_tokens >= whole.usage.total_tokens - 1, final


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
    error = raises(openai.BadRequestError, lambda: chat(response_format={"type": "xml"}))
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
