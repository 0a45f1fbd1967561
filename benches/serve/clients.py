"""Programs that others write for OpenAI's interface, with `cerebellum serve`.

    python3 benches/serve/clients.py target/release/cerebellum smollm2.cbl tools.cbl

Needs the packages openai, litellm and langchain-openai, a model with a chat template, and one whose template knows
tools. With the package openai of npm in the directory NODE_MODULES, it tries that, too."""

import json
import os
import subprocess
import sys
from pathlib import Path

from server import Server

# It has its own copy of what it would fetch.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
PROMPT = "Once upon a time"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def with_openai(url, model, expected):
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")
    assert [it.id for it in client.models.list()] == [model]
    text = client.completions.create(model=model, prompt=PROMPT, max_tokens=12).choices[0].text
    assert text == expected, text
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12)
    stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, stream=True)
    pieces = [piece.choices[0].delta.content or "" for piece in stream]
    assert "".join(pieces) == answer.choices[0].message.content and len(pieces) > 3
    response = client.responses.create(model=model, input=QUESTION[0]["content"], max_output_tokens=12, store=False)
    assert response.output_text == answer.choices[0].message.content
    vectors = client.embeddings.create(model=model, input=["a king", "the sea"]).data
    assert len(vectors) == 2 and abs(sum(x * x for x in vectors[0].embedding) - 1) < 1e-3
    try:
        client.completions.create(model=model, prompt=PROMPT, suffix="the end")
    except openai.BadRequestError as error:
        assert error.param == "suffix"
    else:
        raise AssertionError("suffix is not refused")
    return openai.__version__


def with_litellm(url, model, _):
    import importlib.metadata

    import litellm

    answer = litellm.completion(model=f"openai/{model}", api_base=url, api_key="none", messages=QUESTION, max_tokens=12)
    pieces = litellm.completion(model=f"openai/{model}", api_base=url, api_key="none", messages=QUESTION,
                                max_tokens=12, stream=True)
    assert "".join(it.choices[0].delta.content or "" for it in pieces) == answer.choices[0].message.content
    return importlib.metadata.version("litellm")


def with_langchain(url, model, expected):
    import importlib.metadata

    from langchain_openai import ChatOpenAI, OpenAI

    text = OpenAI(model=model, base_url=url, api_key="none", max_tokens=12, temperature=0, top_p=1).invoke(PROMPT)
    assert text == expected, text
    chat = ChatOpenAI(model=model, base_url=url, api_key="none", max_tokens=12, temperature=0)
    whole = chat.invoke(QUESTION[0]["content"]).content
    assert "".join(piece.content for piece in chat.stream(QUESTION[0]["content"])) == whole
    return importlib.metadata.version("langchain-openai")


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather in a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"],
    }}}


def tools_with_openai(url, model, _):
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")
    asked = {"model": model, "messages": QUESTION, "tools": [WEATHER], "tool_choice": "required"}
    choice = client.chat.completions.create(**asked).choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert streamed.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    again = [*QUESTION, choice.message, result]
    answer = client.chat.completions.create(model=model, messages=again, tools=[WEATHER], max_tokens=12)
    assert answer.choices[0].message.content
    return openai.__version__


def tools_with_langchain(url, model, _):
    import importlib.metadata

    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=url, api_key="none", temperature=0)
    call, = chat.bind_tools([WEATHER], tool_choice="any").invoke(QUESTION[0]["content"]).tool_calls
    assert call["name"] == "weather" and call["args"]["city"] in ("Paris", "Rome")
    return importlib.metadata.version("langchain-openai")


def with_npm(url, model, expected):
    script = Path(__file__).with_name("clients.mjs")
    packages = Path(os.environ["NODE_MODULES"]).resolve()
    return subprocess.run(["node", script, packages, url, model, expected], check=True, capture_output=True,
                          text=True).stdout.strip()


def with_curl(url, model, expected):
    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": 12})
    command = ["curl", "--silent", "--fail", f"{url}/completions", "-d", body]
    answer = subprocess.run(command, check=True, capture_output=True).stdout
    assert json.loads(answer)["choices"][0]["text"] == expected
    stream = subprocess.run([*command[:-1], body[:-1] + ', "stream": true}'], check=True, capture_output=True, text=True)
    pieces = [json.loads(line[6:]) for line in stream.stdout.split("\n\n")[:-2]]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected
    version = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout
    return version.split()[1]


def tried(program, model, clients):
    """How many of the clients do not work with a server of the model."""
    server = Server([program, "serve", "-m", model, "--address", "127.0.0.1:PORT", "--context", "512",
                     "--name", "small"])
    failed = 0
    try:
        expected = server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 12})[1]["choices"][0]["text"]
        for name, use in clients.items():
            try:
                print(f"{name} {use(f'http://127.0.0.1:{server.port}/v1', 'small', expected)}: ok", flush=True)
            except Exception as error:
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}\n{getattr(error, 'stderr', None) or ''}", flush=True)
    finally:
        server.stop()
    return failed


def main():
    program, model, tools_model = sys.argv[1:]
    clients = {"curl": with_curl, "openai": with_openai, "litellm": with_litellm, "langchain-openai": with_langchain}
    if "NODE_MODULES" in os.environ:
        clients["openai of npm"] = with_npm
    tools = {"tools, openai": tools_with_openai, "tools, langchain-openai": tools_with_langchain}
    return tried(program, model, clients) + tried(program, tools_model, tools)


if __name__ == "__main__":
    sys.exit(main())
