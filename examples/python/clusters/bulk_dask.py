"""Scores a corpus on a Dask cluster: bulk_dask.py MODEL.cbl INPUT OUTPUT [SCHEDULER]

INPUT is Parquet with a column `text`. Without SCHEDULER, the workers are processes of this machine; every host
has the model at this path. Needs pip install dask[dataframe,distributed]."""

import sys

import dask.dataframe
import distributed
from cerebellum import bulk


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    model, source, target = sys.argv[1:4]
    with distributed.Client(*sys.argv[4:5]):
        scorer = bulk.Scorer(model, context=512)
        frame = dask.dataframe.read_parquet(source)
        frame.map_partitions(scorer, meta=scorer.meta(frame)).to_parquet(target)


if __name__ == "__main__":
    main()
