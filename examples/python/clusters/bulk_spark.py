"""Classifies a corpus on a Spark cluster: bulk_spark.py MODEL.cbl INPUT OUTPUT LABEL LABEL...

INPUT is Parquet with a column `text`. Every host has the model at this path. Needs pip install pyspark pyarrow."""

import sys

from cerebellum import bulk
from pyspark.sql import SparkSession


def main():
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    model, source, target, *labels = sys.argv[1:]
    classifier = bulk.Classifier(model, labels, context=512)
    spark = SparkSession.builder.getOrCreate()
    frame = spark.read.parquet(source)
    result = frame.mapInArrow(classifier.batches, classifier.spark_schema(frame.schema))
    result.write.mode("overwrite").parquet(target)


if __name__ == "__main__":
    main()
