"""A tiny folder as a log: pretraining ends in time, and offers that nobody can judge go."""

# pyright: standard

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.complete_journey import CompleteJourneyConfig, write_complete_journey

DAY = 86_400.0
FIRST = datetime(2017, 1, 1, tzinfo=UTC).timestamp()


def test_sales_bands_and_offers_of_a_tiny_folder(tmp_path: Path) -> None:
    folder = tmp_path / "complete_journey"
    folder.mkdir()
    days = [0.0, 50.0, 200.0, 300.0]
    events = {
        "user_id": ["1", "1", "2", "2"],
        "service": ["shop"] * 4,
        "item_id": ["a", "b", "a", "unknown"],
        "timestamp": [FIRST + day * DAY for day in days],
        "basket": ["k1", "k2", "k3", "k4"],
        "store": ["7"] * 4,
        "quantity": [1, 2, 0, 1],
        "amount": [1.5, 2.5, 0.0, 1.0],
    }
    users = {"user_id": ["1", "2"], "age": ["25-34", "65+"], "income": ["Under 15K", "250K+"]}
    starts = [datetime(2017, 1, 5), datetime(2017, 3, 1), datetime(2017, 7, 1)]
    dates = {
        "campaign_id": [1, 2, 3],
        "campaign_type": ["Type A", "Type B", "Type C"],
        "start_date": starts,
        "end_date": [datetime(2017, 2, 1), datetime(2017, 4, 1), datetime(2017, 12, 1)],
    }
    redeemed_at = datetime(2017, 3, 9, tzinfo=UTC).timestamp()
    campaigns = {
        "user_id": ["1", "1", "2", "2"],
        "campaign_id": [1, 2, 2, 3],
        "first_redemption": [None, redeemed_at, None, None],
        "redemptions": [0, 2, 0, 0],
    }
    items = {"service": ["shop"] * 2, "item_id": ["a", "b"], "text": ["APPLES", "BREAD"]}
    for name, columns in (
        ("events", events),
        ("users", users),
        ("campaign_dates", dates),
        ("campaigns", campaigns),
        ("items", items),
    ):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    config = CompleteJourneyConfig(
        data=tmp_path, out=tmp_path / "out", until=int(FIRST + 100 * DAY)
    )
    counts = write_complete_journey(config)
    tables = {name: pq.read_table(config.out / f"{name}.parquet").to_pylist() for name in counts}
    assert counts == {
        "events": 3, "pretrain": 2, "items": 2, "sales": 3, "attributes": 2, "offers": 2,
    }  # fmt: skip
    assert max(row["timestamp"] for row in tables["pretrain"]) < config.until
    assert [row["amount"] for row in tables["events"]] == [1.5, 2.5, 0.0]
    assert [(row["quantity"], row["price"]) for row in tables["sales"]] == [
        (1, 1.5), (1, 2.5), (1, 0.0),
    ]  # fmt: skip
    assert [(row["age"], row["income"]) for row in tables["attributes"]] == [
        ("below 35", "below 35K"), ("55 and more", "75K and more"),
    ]  # fmt: skip
    # The first campaign began in the log's first month, the last one ends after the log.
    assert [(row["user_id"], row["offer"], row["redeemed"]) for row in tables["offers"]] == [
        ("cj:1", "2", 1), ("cj:2", "2", 0),
    ]  # fmt: skip
    assert [row["redeemed_at"] for row in tables["offers"]] == [redeemed_at, 0]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*complete_journey; data= names"):
        write_complete_journey(CompleteJourneyConfig(data=tmp_path))
