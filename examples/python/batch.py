"""Continues many prompts on several processes, as Ray, Spark or Dask would: batch.py MODEL.cbl

The model is sent to the workers as its path; they share its pages, and each has a session."""

import multiprocessing
import sys

import cerebellum

session = None


def start(model):
    global session
    session = model.session(context=128)


def complete(prompt):
    session.reset()
    return session.generate(prompt, max_tokens=12, stop="\n")


def main():
    model = cerebellum.Model(sys.argv[1])
    prompts = [f"Once there were {n} little" for n in range(2, 10)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, initializer=start, initargs=(model,)) as pool:
        for prompt, text in zip(prompts, pool.imap(complete, prompts)):
            print(repr(prompt + text))


if __name__ == "__main__":
    main()
