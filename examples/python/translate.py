"""Translates sentences with a template of the model's (docs/templates.md): translate.py MODEL.cbl [SENTENCE...]"""

import sys

import cerebellum


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sentences = sys.argv[2:] or ["I am here.", "Where is your brother?", "He is very old."]
    with cerebellum.Model(sys.argv[1]) as model, model.session(threads=2, context=256) as session:
        translate = model.template("translate")
        for sentence in sentences:
            print(sentence, end="\n  ")
            for piece in session.stream_apply(translate, sentence):
                print(piece, end="", flush=True)
            print()


main()
