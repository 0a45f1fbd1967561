"""A program that mypy checks strictly and nobody runs: what types a user sees (.ci/nightly)."""

from __future__ import annotations

from typing import Dict, List, Tuple, Union

import cerebellum
from cerebellum import bulk
from typing_extensions import assert_type


def reads(model: cerebellum.Model) -> None:
    with model.session(context=64, cache="int8", threads=2) as session:
        assert_type(session.generate("Once", max_tokens=5, temperature=0.8), cerebellum.Text)
        for piece in session.stream([1, 2], stop=["\n"], logit_bias={5: -100.0}):
            assert_type(piece, str)
        for step in session.steps("Once", top=3, json_schema={"type": "integer"}):
            assert_type(step.top, List[Tuple[int, float]])
        assert_type(session.score("Once", [" upon"]), List[Tuple[float, int]])
        assert_type(session.embed("Once", pooling="last")[0], float)
        assert_type(session.tokens, List[int])
        classifier = model.classifier(["a", "b"], calibration="none")
        assert_type(session.classify(classifier, "c"), Tuple[str, Dict[str, float]])
    batch = model.batch(2, isa=None)
    for text in batch.generate(["Once"]):
        assert_type(text, Union[cerebellum.Text, cerebellum.Error])
        if not isinstance(text, cerebellum.Error):
            assert_type(text.stop_reason, str)


async def reads_in_a_loop(session: cerebellum.Session, batch: cerebellum.Batch) -> None:
    async for piece in session.stream("Once"):
        assert_type(piece, str)
    async for index, part in batch.stream(["Once"]):
        assert_type(index, int)
        assert_type(part, Union[str, cerebellum.Error])


def runs_corpora(model: cerebellum.Model) -> List[str]:
    bulk.Generator("model.cbl", chat=True, date="2025-01-31", max_tokens=5, threads=2)
    task = bulk.Classifier(model, ["a", "b"], calibration="none", context=64)
    return bulk.run(task, ["a.jsonl"], "results", workers=2)


def is_refused(model: cerebellum.Model, session: cerebellum.Session) -> None:
    model.session(max_tokens=5)  # type: ignore[call-arg]
    model.session(cache="float64")  # type: ignore[arg-type]
    model.batch(2, all_logits=True)  # type: ignore[call-arg]
    session.generate("a", context=100)  # type: ignore[call-arg]
    session.generate("a", temprature=1)  # type: ignore[call-arg]
    bulk.Scorer(model, max_tokens=5)  # type: ignore[call-arg]
    session.generate(b"a", max_tokens="5")  # type: ignore[arg-type]
    session.sample(regex="a")  # type: ignore[call-arg]
