"""What the Python module promises: bindings.py MODEL. Needs `cerebellum` on the path."""

import json
import pickle
import sys
import threading

import cerebellum

model = cerebellum.Model(sys.argv[1])
assert model.info["architecture"] == "gpt2" and model.info["has_tokenizer"]
assert model.plan(context=64)["total_bytes"] < model.plan(context=128)["total_bytes"]
model.verify()

tokens = model.tokenize("Once upon a time")
assert model.detokenize(tokens) == b"Once upon a time"
assert len(model.tokenize("<|endoftext|>", parse_special=True)) == 1

session = model.session(context=64, threads=2)
options = dict(max_tokens=12, ignore_end_of_text=True)
text = session.generate("Once upon a time", **options)
session.reset()
pieces = list(session.stream("Once upon a time", **options))
assert len(pieces) > 1 and "".join(pieces) == text
session.reset()
assert session.generate(tokens, **options) == text
assert session.stats["stop_reason"] == "max_tokens" and session.stats["generated_tokens"] == 12

# Leaving a stream stops it, and the session goes on.
session.reset()
for piece in session.stream("Once upon a time", max_tokens=10**6, ignore_end_of_text=True):
    break
assert session.position < 64
session.reset()
assert session.generate("Once upon a time", **options) == text

# Saved, restored, forked: the same.
session.reset()
session.evaluate(tokens)
saved, fork = session.save(), session.fork()
token = session.sample()
logits = session.logits
assert max(range(len(logits)), key=lambda i: logits[i]) == token
other = pickle.loads(pickle.dumps(model)).session(context=48)
other.restore(saved)
assert other.tokens == tokens == fork.tokens
assert bytes(other.logits) == bytes(logits) == bytes(fork.logits)
session.rewind(2)
assert session.position == 2

# Scores, embeddings, classes.
session.reset()
(there, tokens_there), (bicycle, _) = session.score("Once upon a time", [" there was", " bicycle"])
assert bicycle < there < 0 and tokens_there == 2
vector = session.embed("set an alarm")
assert abs(sum(x * x for x in vector) - 1) < 1e-5 and len(vector) == model.info["embedding"]
assert bytes(session.embed(model.tokenize("set an alarm"))) == bytes(vector)
assert bytes(session.embed("set an alarm", pooling="last")) != bytes(vector)
classifier = model.classifier(["weather", "alarm"], calibration="content_free")
label, probabilities = session.classify(classifier, "wake me at six")
assert label == "alarm" and probabilities["alarm"] > probabilities["weather"]
copy = pickle.loads(pickle.dumps(classifier))
assert copy.model.session(context=64).classify(copy, "wake me at six")[1] == probabilities

prompt, continuations = tokens, [model.tokenize(" there was"), model.tokenize(" bicycle")]
session.reset()
assert session.score(prompt, continuations)[0] == (there, 2)

# Steps, biases, templates, constraints.
session.reset()
steps = list(session.steps(tokens, top=3, **options))
assert "".join(step.text for step in steps) == text
for step in steps:
    assert step.token is None or step.top[0] == (step.token, step.log_probability)
session.reset()
assert session.generate(tokens, logit_bias={steps[0].token: -100}, **options) != text
own = cerebellum.Template.from_text("max-tokens: 4\n---\n{text} And then")
applied = session.apply(own, "He is old.")
assert applied and "".join(session.stream_apply(own, "He is old.")) == applied
assert session.apply(pickle.loads(pickle.dumps(own)), "He is old.") == applied
assert isinstance(pickle.loads(pickle.dumps(model.template("translate"))), cerebellum.Template)
if cerebellum.has_constraints():
    session.reset()
    schema = {"type": "object", "properties": {"hour": {"enum": [6, 7]}}, "required": ["hour"]}
    schema["additionalProperties"] = False
    made = session.generate("Wake me at six: ", json_schema=schema, max_tokens=40)
    assert json.loads(made)["hour"] in (6, 7)
    session.reset()
    made = session.generate("Wake me at", choices=["six", "seven thirty"])
    assert made.strip() in ("six", "seven thirty")

# A batch: the same texts as one by one.
prompts = ["Once upon a time", "The cat", "x " * 999, "A dog"]
batch = model.batch(2, context=64)
session.reset()
texts = batch.generate(prompts, **options)
assert texts[0] == text and isinstance(texts[2], cerebellum.Error) and len(texts) == 4
streamed = ["", "", "", ""]
for index, piece in batch.stream(prompts, **options):
    streamed[index] = piece if isinstance(piece, Exception) else streamed[index] + piece
assert streamed[:2] + streamed[3:] == texts[:2] + texts[3:] and streamed[2].status == 11
for index, piece in batch.stream(prompts, max_tokens=10**6, ignore_end_of_text=True):
    break
assert model.plan_batch(2, context=64)["cache_bytes"] == 2 * model.plan(context=64)["cache_bytes"]

# Failures are exceptions with the library's message.
def fails(what, kind=cerebellum.Error):
    try:
        what()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")

assert "/nowhere" in str(fails(lambda: cerebellum.Model("/nowhere")))
error = fails(lambda: session.evaluate([10**9]))
assert error.status == 10 and pickle.loads(pickle.dumps(error)).status == 10
assert "threads" in str(fails(lambda: model.session(threads=1000)))
fails(lambda: model.session(colour="red"), TypeError)
fails(lambda: model.session(cache="float64"), ValueError)
fails(lambda: pickle.dumps(session), TypeError)
fails(lambda: batch.generate(["a\0"]), ValueError)
assert "{text}" in str(fails(lambda: model.classifier(["a"], template="{label}")))
fails(lambda: next(session.stream([10**9])))
assert "translate" in str(fails(lambda: model.template("sing")))
fails(lambda: session.generate("a", choices=["a\nb"]), ValueError)
fails(lambda: session.generate("a", logit_bias={5: 1e9}))

class Stop(Exception):
    pass

def stop(_):
    raise Stop

fails(lambda: session._generate("a", {}, stop), Stop)

# Two threads, a session each.
results = []
def work():
    results.append(model.session(context=64).generate("Once upon a time", **options))
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert results == [text, text]

session.close()
assert fails(session.reset).status == 1
