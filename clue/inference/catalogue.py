"""What a universal model knows by name: the items and the numeric fields of its corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clue.data.corpus import Corpus
from clue.data.fields import Field
from clue.data.marks import MarkTable


@dataclass(frozen=True)
class Known:
    """The rows of the model's catalogue by (service, item id) and by (service, content)."""

    by_id: Mapping[tuple[str, str], int]
    by_content: Mapping[tuple[str, int], int]

    def row(self, service: str, content: int, item_id: str | None = None) -> int:
        """Return the row of an item, by its id where that is said; -1 for one that is not known."""
        if item_id is not None:
            return self.by_id.get((service, item_id), -1)
        return self.by_content.get((service, content), -1)

    def rows(self, corpus: Corpus, items: range) -> np.ndarray:
        """Return the rows (n,) of these items of a corpus by their ids, -1 for what is unknown."""
        numbers = corpus.item_service[items.start : items.stop]
        ids = corpus.item_ids.slice(items.start, len(items)).to_pylist()
        keys = zip((corpus.services[number] for number in numbers), ids, strict=True)
        return np.array([self.by_id.get(key, -1) for key in keys], np.int64)


def check_tokenizer(corpus: Corpus, known: str, path: Path) -> None:
    """Raise ValueError for a corpus of another tokenizer than that of this sha256, at `path`."""
    if corpus.manifest.tokenizer_sha256 != known:
        raise ValueError(
            f"{corpus.path} was prepared with another tokenizer than the checkpoint's; prepare "
            f"it again with tokenizer.path={path}"
        )


def fields_of(corpus: dict[str, Any]) -> dict[str, str]:
    """Return the kind of each field by name that the corpus with this manifest has, in order."""
    fields = [field for named in corpus.get("fields", {}).values() for field in named]
    return {field["name"]: field["kind"] for field in sorted(fields, key=lambda f: f["name"])}


def mark_table(corpus: dict[str, Any]) -> MarkTable:
    """Return the marks of the events of the corpus with this manifest."""
    fields = corpus.get("fields", {})
    return MarkTable(
        [[Field.read(each) for each in fields.get(service, ())] for service in corpus["services"]]
    )


def known_items(file: Path) -> Known:
    """Return the catalogue in `file`; of items of a service with equal texts the first counts."""
    with pa.memory_map(str(file)) as file:
        columns = pa.ipc.open_file(file).read_all().to_pydict()
    by_content: dict[tuple[str, int], int] = {}
    ids = zip(columns["service"], columns["item_id"], strict=True)
    contents = zip(columns["service"], columns["content"], strict=True)
    for row, key in enumerate(contents):
        by_content.setdefault(key, row)
    return Known({key: row for row, key in enumerate(ids)}, by_content)
