"""EleutherAI's lm-evaluation-harness with `cerebellum serve`: its log-likelihoods are those of `cerebellum score`.

    python3 benches/serve/harness.py target/release/cerebellum demo.cbl tools/demo/tokenizer.json

The model is any that has this tokenizer. Needs the packages lm-eval[api] and transformers, and fetches nothing. The
harness asks as it does any server in OpenAI's form (`local-completions`: prompts as token ids, with echo and
log-probabilities)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server

# Nothing is fetched: the task is below, and the tokenizer on this machine.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
               "TOKENIZERS_PARALLELISM": "false"}

# A question, the right answer, and wrong ones.
FACTS = [
    ("The capital of France is", "Paris", "London", "Rome", "Berlin"),
    ("Two plus two is", "four", "seven", "eleven", "none"),
    ("The opposite of hot is", "cold", "wet", "loud", "green"),
    ("Water freezes and becomes", "ice", "steam", "sand", "gold"),
    ("At night in the sky one sees the moon and the", "stars", "shoes", "trains", "laws"),
    ("A dog barks and a cat", "meows", "flies", "reads", "rusts"),
    ("Bees make", "honey", "milk", "paper", "glass"),
    ("A week has seven", "days", "hours", "years", "kings"),
    ("To cut bread one takes a", "knife", "spoon", "pillow", "river"),
    ("The sun rises in the", "east", "north", "cellar", "evening"),
    ("Fish live in the", "water", "air", "attic", "desert"),
    ("She read the last page and closed the", "book", "sea", "cloud", "song"),
    ("It rained, so he opened his", "umbrella", "horse", "soup", "mountain"),
    ("The first man on the moon was Neil", "Armstrong", "Newton", "Shakespeare", "Einstein"),
    ("Shakespeare wrote Romeo and", "Juliet", "Hamlet", "Cleopatra", "Julia"),
    ("Plants need light and", "water", "iron", "noise", "money"),
]


def task(directory):
    path = directory / "facts.jsonl"
    path.write_text("".join(
        json.dumps({"question": question, "choices": list(choices)}) + "\n" for question, *choices in FACTS))
    return {
        "task": "facts", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": 0,
        "doc_to_choice": "{{choices}}", "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}],
    }


def scores(program, model, prompt, continuations):
    """The log-probability of each continuation."""
    options = [part for text in continuations for part in ("--continuation", text)]
    command = [program, "score", "-m", model, "-p", prompt, "--json", *options]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [it["log_probability"] for it in result["continuations"]]


def main():
    program, model, tokenizer = sys.argv[1:]
    import lm_eval
    from lm_eval.tasks import TaskManager

    server = Server([program, "serve", "-m", model, "--address", "127.0.0.1:PORT", "--quiet"])
    try:
        with tempfile.TemporaryDirectory() as directory:
            kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
            Path(directory, "tokenizer_config.json").write_text(json.dumps(kind))
            shutil.copy(tokenizer, Path(directory, "tokenizer.json"))
            arguments = {
                "base_url": f"http://127.0.0.1:{server.port}/v1/completions", "model": Path(model).stem,
                "tokenizer": directory, "tokenizer_backend": "huggingface", "num_concurrent": 4, "max_length": 256,
            }
            result = lm_eval.simple_evaluate(
                model="local-completions", model_args=arguments, tasks=[task(Path(directory))], log_samples=True,
                task_manager=TaskManager(include_defaults=False), bootstrap_iters=0)
    finally:
        server.stop()
    worst, count = 0.0, 0
    for sample in result["samples"]["facts"]:
        prompt = sample["arguments"][0][0]
        continuations = [continuation for _, continuation in sample["arguments"]]
        expected = scores(program, model, prompt, continuations)
        for (got, _), want in zip(sample["filtered_resps"], expected, strict=True):
            worst, count = max(worst, abs(float(got) - want)), count + 1
    accuracy = result["results"]["facts"]["acc,none"]
    print(f"lm-eval {lm_eval.__version__}: accuracy {accuracy:.3f}; {count} log-likelihoods, at most {worst:.1e} from "
          "cerebellum score")
    # Both add float64 values, in another order.
    assert count == 4 * len(FACTS) and worst < 1e-9, worst


if __name__ == "__main__":
    main()
