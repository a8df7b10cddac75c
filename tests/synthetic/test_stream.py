"""A world that is written as it is drawn obeys the laws of the world that is held whole."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue.synthetic import stream
from clue.synthetic.stream import write_stream
from clue.synthetic.world import EPOCH, SyntheticConfig, make_world

CONFIG = SyntheticConfig(users=900, items_per_service=200, days=30)


def test_files_are_spans_of_time_with_events_of_all_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK", 250)  # four blocks, the last one smaller
    total = write_stream(CONFIG, tmp_path, files=5)
    parts = [pq.read_table(file) for file in sorted(tmp_path.glob("events-*.parquet"))]
    assert len(parts) == 5 and sum(len(part) for part in parts) == total
    border = EPOCH
    users: set[str] = set()
    for part in parts:
        times = part["timestamp"].to_numpy()
        assert border <= times.min() and times.max() < border + 6 * 86_400
        border += 6 * 86_400
        users |= set(part["user_id"].to_pylist())
        assert len(set(part["user_id"].to_pylist())) > 700
    assert users == {f"u{n:09d}" for n in range(900)}
    items = pq.read_table(tmp_path / "items.parquet")
    whole = make_world(CONFIG)
    assert items.schema.equals(whole.items.schema) and len(items) == len(whole.items)
    assert parts[0].column_names == whole.events.column_names
    assert total == pytest.approx(len(whole.events), rel=0.1)
    amounts = np.concatenate([part["amount"].to_numpy() for part in parts])
    expected = np.median(whole.events["amount"].to_numpy())
    assert np.median(amounts) == pytest.approx(expected, rel=0.15)


def test_the_same_config_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_stream(CONFIG, tmp_path / name, files=2)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == ["events-000.parquet", "events-001.parquet", "items.parquet"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
