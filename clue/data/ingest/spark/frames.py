"""The session of a preparation on Spark, and the frames that its executors keep meanwhile."""

import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import DataFrame, SparkSession
from pyspark.storagelevel import StorageLevel

from clue.data.ingest.prepare_config import PrepareConfig
from clue.data.ingest.validation import Log
from clue.data.ingest.writer import BATCH

PART = 128 << 20  # bytes of a log that a task reads or sorts
Logs = tuple[Log, Log | None]


class Frames:
    """The session of one preparation; what is kept on the executors' disks is let go at its end.

    `folder` is for what is made on this machine; `work` is where tasks spill: in there, where they
    run here, else in the TMPDIR of theirs.
    """

    def __init__(
        self, spark: SparkSession, config: PrepareConfig, logs: Logs, folder: Path
    ) -> None:
        """Settle the number of partitions, by what `config` says or the `logs` hold."""
        size = sum(file.path.stat().st_size for log in logs if log for file in log.files)
        cores = spark.sparkContext.defaultParallelism
        self.spark, self.config, self.folder = spark, config, folder
        is_local = str(spark.sparkContext.master).startswith("local")
        self.work = folder / "tasks" if is_local else None
        (folder / "tasks").mkdir(exist_ok=True)
        self.partitions = config.spark.partitions or max(cores, -(-size // PART))
        self.part = min(PART, -(-size // self.partitions))
        spark.conf.set("spark.sql.shuffle.partitions", str(self.partitions))
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
        self._kept: list[DataFrame] = []

    def keep(self, frame: DataFrame) -> DataFrame:
        """Return a frame that is computed once, at its first use, and then read from disk."""
        self._kept.append(frame.persist(StorageLevel.DISK_ONLY))
        return self._kept[-1]

    def sort(self, frame: DataFrame, *names: str) -> DataFrame:
        """Return a frame whose partitions, in their order, hold the rows sorted by `names`."""
        ranges = frame.repartitionByRange(self.partitions, *names)
        return ranges.sortWithinPartitions(*names)

    def release(self) -> None:
        """Let go what was kept."""
        for frame in self._kept:
            frame.unpersist()


@contextmanager
def frames_of(config: PrepareConfig, logs: Logs, folder: Path) -> Generator[Frames]:
    """Yield frames in the session that runs already, or in one of their own, ended behind them.

    What tasks and a session of their own spill on this machine lies in `folder`, which the next run
    of the same preparation removes: a process that is killed removes nothing.
    """
    running = SparkSession.getActiveSession()
    base = running or _started(config, folder / "spark")
    if str(base.sparkContext.master).startswith("local"):
        base.sparkContext.pythonExec = sys.executable  # not the `python3` that comes first in PATH
    frames = Frames(base.newSession(), config, logs, folder)  # whose settings are its own
    try:
        yield frames
    finally:
        frames.release()
        if running is None:
            base.stop()


def _started(config: PrepareConfig, folder: Path) -> SparkSession:
    """Return a session of this run's own; ValueError where there is no Java."""
    folder.mkdir(exist_ok=True)
    builder = SparkSession.builder.appName(f"clue prepare {config.name}")
    if config.spark.master:
        builder = builder.master(config.spark.master)
    if (config.spark.master or "").startswith("local"):  # on a cluster it is its manager's to say
        builder = builder.config("spark.local.dir", str(folder))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)  # where PySpark meets its new JVM
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ValueError(f"engine=spark does not start, is there a Java 17? {error}") from None
    finally:
        tempfile.tempdir = before
