"""Translates sentences, all at a time, with a prompt of examples: translate.py MODEL.cbl [SENTENCE...]

The prompt is that of the template "translate" (docs/templates.md)."""

import sys

import cerebellum

EXAMPLES = [
    ("Good morning, how are you?", "Bonjour, comment allez-vous ?"),
    ("The house is very old.", "La maison est très vieille."),
]


def prompt(sentence):
    shown = "".join(f"English: {english}\nFrench: {french}\n\n" for english, french in EXAMPLES)
    return f"{shown}English: {sentence}\nFrench:"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sentences = sys.argv[2:] or ["I am here.", "Where is your brother?", "He is very old."]
    with cerebellum.Model(sys.argv[1]) as model:
        with model.batch(len(sentences), threads=2, context=256) as batch:
            texts = batch.generate(map(prompt, sentences), max_tokens=60, stop="\n")
    for sentence, text in zip(sentences, texts):
        print(f"{sentence}\n  {text.strip()}")


main()
