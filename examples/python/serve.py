"""Serves several conversations from one event loop: serve.py MODEL.cbl [PROMPT...]

Each has a session of its own, and the loop stays free while the library works: a real server would answer
requests meanwhile. The last one is asked for more than it can say in its time, and is cut off."""

import asyncio
import sys

import cerebellum


async def tell(model, prompt, **options):
    with model.session(context=256) as session:
        text = prompt
        async for piece in session.stream(prompt, temperature=0.7, seed=1, **options):
            text += piece
        return text


async def serve(model, prompts):
    stories = [asyncio.create_task(tell(model, prompt, max_tokens=30)) for prompt in prompts]
    for story in asyncio.as_completed(stories):
        print(repr(await story))
    try:
        # Ends the generation, too: cancelling a task that waits for a piece does.
        await asyncio.wait_for(tell(model, prompts[0], max_tokens=10**6, ignore_end_of_text=True), 0.01)
    except asyncio.TimeoutError:
        print("the last one took too long")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    prompts = sys.argv[2:] or ["Once upon a time", "The king said", "There was a cat"]
    with cerebellum.Model(sys.argv[1]) as model:
        asyncio.run(serve(model, prompts))


main()
