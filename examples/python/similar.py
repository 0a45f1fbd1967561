"""Which text is most like another, by embeddings: similar.py MODEL.cbl [TEXT]"""

import sys

import cerebellum

OTHERS = ["set an alarm for six", "the king had three sons", "what is the weather like"]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    text = sys.argv[2] if len(sys.argv) > 2 else "wake me up at seven"
    with cerebellum.Model(sys.argv[1]) as model, model.session() as session:
        wanted = session.embed(text)
        for other in OTHERS:
            # Embeddings have length 1: their dot product is the cosine of the angle between them.
            cosine = sum(a * b for a, b in zip(wanted, session.embed(other)))
            print(f"{cosine:.3f}  {other}")


main()
