import hashlib
from pathlib import Path

import numpy as np
import pytest

from clue.data.corpus import SPLITS
from clue.prepare import prepare
from tests.data.logs import EVENTS, config, corpus_of, write_log


def test_split_by_hash_has_its_shares_and_does_not_move(tmp_path: Path) -> None:
    rows = [{**EVENTS[0], "user_id": n} for n in range(4000)]
    log = write_log(tmp_path / "log.parquet", rows)
    share = "split.hash={valid: 0.2, test: 0.05}"
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", share)
    counts = np.bincount(corpus.split, minlength=3)
    assert dict(zip(SPLITS, counts.tolist(), strict=True)) == corpus.manifest.split
    for count, expected in zip(counts, (3000, 800, 200), strict=True):
        assert abs(count - expected) < 4 * np.sqrt(expected)
    # A user stays where she is when others come or go, and the hash is the documented one.
    fewer = write_log(tmp_path / "fewer.parquet", rows[::3])
    part = corpus_of(tmp_path / "f", f"events=[{fewer}]", share)
    of_all = dict(zip(corpus.user_ids.to_pylist(), corpus.split.tolist(), strict=True))
    for user, split in zip(part.user_ids.to_pylist(), part.split.tolist(), strict=True):
        u = int(hashlib.sha256(f"0:{user}".encode()).hexdigest()[:15], 16) / 2**60
        assert split == of_all[user] == (1 if u < 0.2 else 2 if u < 0.25 else 0)


def test_split_by_column(tmp_path: Path) -> None:
    parts = {2: "old", 10: "new", 3: "later"}
    log = write_log(tmp_path / "log.csv", [{**r, "part": parts[r["user_id"]]} for r in EVENTS])
    split = "split={column: part, train: [old], valid: [new], test: [later]}"
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", split)
    assert corpus.split.tolist() == [1, 0, 2]  # users 10, 2, 3
    assert corpus.users_in("test").tolist() == [2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("events=[]", "names no file"),
        ("split.hash.valid=1.0", "leave users to train on"),
        ("split.hash.test=-0.1", "leave users to train on"),
        ("split.column=part", "split.train"),
        ("split.train=[a]", "give a column"),
        ("split={column: part, train: [a], test: [a]}", "give a column"),
        ("split={column: part, train: [a]}", "no column 'part'"),
        ("max_item_tokens=0", "at least 1"),
        ("tokenizer.vocab_size=256", "257"),
        ("tokenizer.path=none.json", "none.json"),
        ("memory_limit=lots", "2GB"),
        ("name=a/b", "plain name"),
        ("columns.user_id=customer", r"no column 'customer' but user_id, service"),
        ("services={shop: {template: '{title}'}}", r"services.shop.template.*no column 'title'"),
        ("services={shop: {template: 'title'}}", "names no column"),
        ("services={shop: {}}", "unknown_service .2."),
        ("services={shop: {}, news: {}, films: {}}", r"no good event of \['films'\]"),
        ("{shop: {}, news: {}}", "not an override"),
        ("services={shop: {}, news: {}}|ignore_services=[news]", "both"),
        ("ignore_services=[news, shop]", "no good event"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, change: str, why: str) -> None:
    log = write_log(tmp_path / "log.csv", EVENTS)
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        prepare(config(tmp_path / "c", f"events=[{log}]", *change.split("|")), progress=False)
    assert not (tmp_path / "c").exists() and not (tmp_path / ".c.partial").exists()
