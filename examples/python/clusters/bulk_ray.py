"""Embeds a corpus on a Ray cluster: bulk_ray.py MODEL.cbl INPUT OUTPUT [WORKERS]

INPUT is a Parquet file or a directory of them with a column `text`. Every host has the model at this path.
Needs pip install ray[data]."""

import sys

import ray
from cerebellum import bulk


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    model, source, target, workers = (*sys.argv[1:4], int((sys.argv[4:] or [2])[0]))
    embedder = bulk.Embedder(model, context=512)
    data = ray.data.read_parquet(source)
    data = data.map_batches(
        bulk.Worker, fn_constructor_args=(embedder,), batch_format="pyarrow", batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    data.write_parquet(target)


if __name__ == "__main__":
    main()
