"""Scores the lines of files on two processes; called again, it goes on where it was stopped: bulk_files.py
MODEL.cbl [DIRECTORY PART.jsonl...]"""

import json
import sys
import tempfile
from pathlib import Path

from cerebellum import bulk


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        directory, parts = sys.argv[2:3], sys.argv[3:]
        if not directory:
            directory, parts = [temporary], small_corpus(Path(temporary))
        scorer = bulk.Scorer(sys.argv[1], context=256)
        results = bulk.run(scorer, parts, Path(directory[0]) / "scores", workers=2, progress=show)
        for path in results:
            for line in Path(path).read_text().splitlines():
                row = json.loads(line)
                if row["error"] is None:
                    print(f"{row['log_probability'] / row['tokens']:7.3f} a token  {row['text']!r}")


def show(done, total):
    print(f"{done} of {total} parts", file=sys.stderr)


def small_corpus(directory):
    """Two parts of two rows."""
    texts = ["Once upon a time there was a king", "king a was there time a upon Once", "wake me at six", "six at me wake"]
    parts = []
    for number in range(2):
        parts.append(directory / f"part-{number}.jsonl")
        lines = [json.dumps({"text": text}) for text in texts[2 * number : 2 * number + 2]]
        parts[-1].write_text("\n".join(lines))
    return parts


if __name__ == "__main__":
    main()
