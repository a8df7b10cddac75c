"""Embed users where their logs lie: the encoder as a function of Spark's and of Ray Data's.

python examples/cluster/embed_on_engines.py spark CHECKPOINT EVENTS ITEMS OUT
python examples/cluster/embed_on_engines.py ray CHECKPOINT EVENTS ITEMS OUT

EVENTS are user_id, service, item_id, timestamp in Parquet, ITEMS are service, item_id, title; OUT
is a folder of Parquet files, user_id and vector. Spark takes Java 17 and the extra `spark`.
"""

# %% One function for both engines: a frame of users in, a frame of vectors out.
import os
import sys
from collections.abc import Iterator

import pandas as pd

import clue


class Encode:
    """The model at a path that all workers read: a shared folder, or one of the Hub."""

    def __init__(self, checkpoint: str) -> None:
        """Load it, once a partition or an actor."""
        self.model = clue.load(checkpoint)

    def __call__(self, users: pd.DataFrame) -> pd.DataFrame:
        """Return user_id and vector of users with `services` and `texts`, oldest event first."""
        histories = [
            list(zip(services, texts, strict=True))
            for services, texts in zip(users["services"], users["texts"], strict=True)
        ]
        vectors = self.model.encode_events(histories)
        return pd.DataFrame({"user_id": users["user_id"], "vector": list(vectors)})


# %% Spark: the histories by its own joins and groups, the vectors by mapInPandas.
def on_spark(checkpoint: str, events: str, items: str, out: str) -> None:
    """Write the vectors of all users of a log."""
    from pyspark.sql import SparkSession, functions

    spark = SparkSession.builder.appName("clue").getOrCreate()
    log = spark.read.parquet(events).join(spark.read.parquet(items), ["service", "item_id"])
    event = functions.struct("timestamp", "service", "title")
    users = log.groupBy("user_id").agg(
        functions.sort_array(functions.collect_list(event)).alias("e")
    )
    users = users.select("user_id", "e.service", "e.title").toDF("user_id", "services", "texts")

    def encode_all(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        yield from map(Encode(checkpoint), frames)

    vectors = users.mapInPandas(encode_all, "user_id string, vector array<float>")
    vectors.write.mode("overwrite").parquet(out)
    spark.stop()


# %% Ray Data: the same function by map_batches.
def on_ray(checkpoint: str, events: str, items: str, out: str) -> None:
    """Write the vectors of all users of a log, whose histories pandas makes."""
    import ray

    log = pd.read_parquet(events).merge(pd.read_parquet(items), on=["service", "item_id"])
    log = log.sort_values(["timestamp", "service", "title"])
    users = log.groupby("user_id").agg(services=("service", list), texts=("title", list))
    data = ray.data.from_pandas(users.reset_index())
    vectors = data.map_batches(
        Encode, fn_constructor_args=[checkpoint], batch_format="pandas", concurrency=1
    )
    vectors.write_parquet(out)


if __name__ == "__main__":
    engine, *arguments = sys.argv[1:]
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # noqa: TID251
    {"spark": on_spark, "ray": on_ray}[engine](*arguments)
