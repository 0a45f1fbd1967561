"""Which of several labels fits a text: classify.py MODEL.cbl [TEXT]"""

import sys

import cerebellum

LABELS = ["alarm", "timer", "weather", "play music", "greeting"]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    text = sys.argv[2] if len(sys.argv) > 2 else "will it rain in paris tomorrow"
    with cerebellum.Model(sys.argv[1]) as model, model.classifier(LABELS) as classifier:
        with model.session(threads=2, all_logits=True) as session:
            label, probabilities = session.classify(classifier, text)
    for name, probability in probabilities.items():
        print(f"{probability:.4f}  {name}")
    print(f"{text!r} is about {label}")


main()
