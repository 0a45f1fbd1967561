"""How probable continuations are: score.py MODEL.cbl [PROMPT CONTINUATION...]"""

import math
import sys

import cerebellum


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    prompt = sys.argv[2] if len(sys.argv) > 3 else "Once upon a"
    continuations = sys.argv[3:] or [" time", " time there was a king", " hill", " bicycle"]
    with cerebellum.Model(sys.argv[1]) as model, model.session(all_logits=True) as session:
        scores = session.score(prompt, continuations)
    for text, (log_probability, tokens) in zip(continuations, scores):
        perplexity = math.exp(-log_probability / tokens)
        print(f"log p {log_probability:8.3f}, perplexity {perplexity:9.2f}  {text!r}")


main()
