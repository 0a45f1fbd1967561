"""Programs that others write for OpenAI's interface, with `cerebellum serve`.

    python3 benches/serve/clients.py target/release/cerebellum smollm2.cbl

Needs the packages openai, litellm and langchain-openai, and a model with a chat template."""

import os
import sys

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


def main():
    program, model = sys.argv[1:]
    server = Server([program, "serve", "-m", model, "--address", "127.0.0.1:PORT", "--context", "512",
                     "--name", "small"])
    failed = 0
    try:
        expected = server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 12})[1]["choices"][0]["text"]
        for name, use in ("openai", with_openai), ("litellm", with_litellm), ("langchain-openai", with_langchain):
            try:
                print(f"{name} {use(f'http://127.0.0.1:{server.port}/v1', 'small', expected)}: ok", flush=True)
            except Exception as error:
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
    finally:
        server.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main())
