"""Read every byte of indexes and stores and say whether they are as they were written.

    python -m serving.verify indexes=[indexes/demo] stores=[stores/demo]

One JSON line for each: its fault, or the hash of what it holds, by which two copies are compared.
A store must not be served meanwhile; of an index it is the current generation.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clue.config import run_command
from serving.generation import read
from serving.sqlite import StoreBusy, StoreFull
from serving.store import Store


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What to read."""

    indexes: tuple[Path, ...] = ()
    stores: tuple[Path, ...] = ()


def verify(config: VerifyConfig) -> list[dict[str, str | None]]:
    """Return `path`, `fault` and `contents` of each; one of the two is None."""
    kinds = [*((of_index, p) for p in config.indexes), *((of_store, p) for p in config.stores)]
    return [_verdict(contents_of, path) for contents_of, path in kinds]


def of_index(path: Path) -> str:
    """Return the hash of the current generation; raises BrokenIndex."""
    name, contents = read(path)
    whole = hashlib.sha256(name.encode())
    for ids in (contents.item_ids, contents.item_texts, contents.user_ids):
        whole.update("\n".join(ids.to_pylist()).encode())
    for array in (contents.item_vectors, contents.user_vectors, contents.seen_values):
        whole.update(array.tobytes())
    return whole.hexdigest()


def of_store(path: Path) -> str:
    """Return the hash of all users, histories and vectors; raises BrokenStore and StoreRefused."""
    store = Store(path)
    try:
        whole = hashlib.sha256()
        after = 0
        while users := store.changes(after, ""):
            for user, _ in users:
                whole.update(repr((user.user_id, user.seq, user.as_of, user.events)).encode())
                for made in store.vectors(user.user_id):
                    whole.update(made.model.encode() + made.vector.tobytes())
                after = user.seq
        return whole.hexdigest()
    finally:
        store.close()


def _verdict(contents_of: Callable[[Path], str], path: Path) -> dict[str, str | None]:
    try:
        return {"path": str(path), "fault": None, "contents": contents_of(path)}
    except (OSError, ValueError, StoreFull, StoreBusy) as error:
        return {"path": str(path), "fault": str(error), "contents": None}


def main() -> None:
    """Run the command; status 1 where something is damaged."""
    verdicts = run_command(VerifyConfig, verify, description=__doc__)
    sys.stdout.writelines(json.dumps(verdict) + "\n" for verdict in verdicts)
    if any(verdict["fault"] for verdict in verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
