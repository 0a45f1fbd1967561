"""Streams a story: story.py MODEL.cbl [PROMPT]"""

import sys

import cerebellum


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"
    with cerebellum.Model(sys.argv[1]) as model, model.session(threads=2) as session:
        print(prompt, end="")
        for text in session.stream(prompt, max_tokens=60, temperature=0.7, seed=1):
            print(text, end="", flush=True)
        print()
        print(session.stats, file=sys.stderr)


main()
