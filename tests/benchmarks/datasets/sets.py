"""Sets in small, of the publishers' formats, and what the command makes of them."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datasets.__main__ import DataConfig, run
from clue.config import load
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.prepare import prepare
from tests.benchmarks.datasets.server import serve


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def made(out: Path, name: str, files: dict[str, bytes], **keys: Any) -> Path:
    """Return data.yaml of a set whose files a server on this machine holds."""
    with serve(files) as served:
        config = DataConfig(name=name, out=out, mirror=served.url, **keys)  # type: ignore[arg-type]
        return run(config, pause=0)


def rows(out: Path, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(out / f"{table}.parquet").to_pylist()]


def corpus_of(data: Path, out: Path) -> Corpus:
    """Return the corpus that the very next command makes, but for a smaller tokenizer."""
    config = load(PrepareConfig, data, [f"out={out}", "tokenizer.vocab_size=300"])
    return Corpus.open(prepare(config, progress=False))


NEWS = (
    'N1\tsports\tgolf\tPGA "winners\tA gallery\thttps://x\t[]\t[]\n'
    "N2\tnews\tnewsus\tSnow\t\thttps://y\t[]\t[]\n"
)
MIND = {
    "MINDsmall_train.zip": zipped(
        {
            "MINDsmall_train/news.tsv": NEWS.encode(),
            "MINDsmall_train/entity_embedding.vec": b"",
            "MINDsmall_train/behaviors.tsv": (
                b"1\tU1\t11/11/2019 9:05:58 AM\tN2 N1\tN1-0 N2-1\n"
                b"2\tU1\t11/10/2019 12:00:01 PM\tN1 N2\tN1-1\n"  # earlier: its history counts
                b"3\tU2\t11/14/2019 11:59:59 PM\t\tN2-0 N1-0\n"  # no history, no click
            ),
        }
    ),
    "MINDsmall_dev.zip": zipped(
        {
            "news.tsv": (NEWS + "N3\tfinance\tmarkets\tRates\tUp\thttps://z\t[]\t[]\n").encode(),
            "behaviors.tsv": b"1\tU1\t11/15/2019 12:00:00 AM\tN3\tN3-1 N1-1\n"
            b"2\tU3\t11/15/2019 10:22:32 AM\tN3\tN1-0\n",
        }
    ),
}
