"""Tiny folders of all sets as one log: what is history, what is label, what pretraining reads."""

# pyright: standard

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.multi_service import SourcesConfig, write_sources

CLOSE = 1_651_334_400  # video_until
GLOBO = 1_507_863_600  # globo_until
COUNTS = range(60)  # users of Globo, of whom a third is kept


def rows(**columns: Any) -> pa.Table:
    size = max(len(value) for value in columns.values() if isinstance(value, list))
    filled = {n: v if isinstance(v, list) else [v] * size for n, v in columns.items()}
    return pa.table(filled)


def shop(*services: str) -> pa.Table:
    return rows(
        user_id=["1", "1", "1"], service=services[0], item_id=["a", "b", "c"], timestamp=[0, 1, 2]
    )


def folders(data: Path) -> None:
    """One user in each older set; three click logs with an event on either side of each moment."""
    title = rows(service=["x"], item_id=["a"], text="t")
    click = dict.fromkeys(("environment", "device", "os", "country", "region", "referrer"), 1)
    globo = rows(
        user_id=[str(user) for user in COUNTS for _ in range(3)],
        item_id=["7", "8", "9"] * len(COUNTS),
        timestamp=[GLOBO - 1.5, float(GLOBO), GLOBO + 1e6] * len(COUNTS),
        session="s",
        **click,
    )
    tables = {
        "amazon_food_kitchen/events": shop("food").append_column("part", pa.array(["test"] * 3)),
        "amazon_food_kitchen/items": title,
        "amazon_multi8/events": shop("beauty"),
        "amazon_multi8/items": rows(service="beauty", item_id=["a", "b", "c"], text="t"),
        "ml1m/events": shop("movies"),
        "ml1m/items": rows(item_id=["a"], title="t", genres="g"),
        "ml1m/users": rows(user_id=["1"], gender="F", age=25, occupation=3),
        "online_retail_ii/events": rows(
            user_id=["1"] * 6, item_id=["a", "b", "b", "c", "c", "c"],
            timestamp=[1_260_000_000 + 60 * minute for minute in (0, 1, 2, 3, 4, 5)],
            text=["t", "JUG, OLD", "JUG", "CUP", "CUP", "CUPS"], invoice="i", quantity=1, price=1.0,
        ),
        "steam_purchase_play/purchases": rows(user_id=["1"], item_id="a", played=1),
        "steam_purchase_play/items": rows(item_id=["a"], text="t"),
        "kuairand_pure/history_watch": rows(
            user_id=[5, 5, 5], item_id=[1, 2, 3], position=[0, 1, 2], last_ts=CLOSE - 1000
        ),
        "kuairand_pure/impressions": rows(
            user_id=[5, 5], service=["tab1", "tab0"], item_id=[2, 3],
            time_ms=[(CLOSE - 5) * 1000 + 250, CLOSE * 1000], clicked=[0, 1], long_view=[0, 1],
            play_time_ms=[900, 50_000],
        ),
        "kuairand_pure/users": rows(user_id=[5], age=3),
        "kuairand_pure/items": rows(
            item_id=[1, 2, 3], author_id=1, video_type="NORMAL", upload_type="Web",
            upload_dt="2022-04-01", video_duration=1.0, music_type=1.0, tag=["39,68", "2", "3"],
        ),
        "mind_sample/events": rows(user_id=["6", "6"], item_id=["N1", "N2"], timestamp=[0.0, 1.0]),
        "mind_sample/impressions": rows(
            impression=[0, 0], user_id="6", item_id=["N2", "N3"], timestamp=1_573_258_000.0,
            clicked=[True, False],
        ),
        "mind_sample/items": rows(
            item_id=["N1", "N2", "N3", "N4"], category="health", title="Sleep"
        ),
        "globo_clicks/events": globo,
    }  # fmt: skip
    for name, table in tables.items():
        file = data / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    data = tmp_path_factory.mktemp("sets")
    folders(data)
    counts = write_sources(SourcesConfig(data=data, out=data / "out"))
    tables = {name: pq.read_table(data / "out" / f"{name}.parquet").to_pylist() for name in counts}
    assert counts == {name: len(table) for name, table in tables.items()}
    return tables


def of(table: list[dict[str, Any]], service: str) -> list[dict[str, Any]]:
    return [row for row in table if row["service"] == service]


def test_a_feed_s_history_is_a_second_apart_and_ends_where_it_is_asked_about(
    written: dict[str, list[dict[str, Any]]],
) -> None:
    for name in ("events", "pretrain"):
        found = of(written[name], "video")
        assert [row["item_id"] for row in found] == ["1", "2", "3", "2"]
        assert [row["timestamp"] - CLOSE for row in found] == [-1002, -1001, -1000, -4.75]
        assert [row["clicked"] for row in found] == [None, None, None, False]
        assert (found[3]["tab"], found[3]["play_time_ms"]) == ("tab1", 900)
    assert [row["timestamp"] - CLOSE for row in written["video_impressions"]] == [-4.75, 0]
    assert {row["text"] for row in of(written["items"], "video")} == {"tag39 tag68", "tag2", "tag3"}


def test_no_impression_of_news_is_an_event(written: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("events", "pretrain"):
        found = of(written[name], "news")
        assert [(row["user_id"], row["item_id"]) for row in found] == [
            ("mi:6", "N1"),
            ("mi:6", "N2"),
        ]
        assert max(row["timestamp"] for row in found) < written["news_impressions"][0]["timestamp"]
    # N4 was neither read nor shown.
    assert [row["item_id"] for row in of(written["items"], "news")] == ["N1", "N2", "N3"]


def test_a_third_of_globo_s_users_whose_later_days_pretraining_does_not_see(
    written: dict[str, list[dict[str, Any]]],
) -> None:
    events, learnt = of(written["events"], "globo"), of(written["pretrain"], "globo")
    assert {row["item_id"] for row in events} == {"7", "8"}
    assert {row["item_id"] for row in learnt} == {"7"}
    users = {row["user_id"] for row in events}
    assert users == {row["user_id"] for row in learnt} and 8 < len(users) < 32
    assert all(user.startswith("gl:") for user in users)


def test_the_last_two_items_of_a_shop_and_the_published_split_are_kept(
    written: dict[str, list[dict[str, Any]]],
) -> None:
    assert {row["part"] for row in of(written["events"], "food")} == {"test"}
    assert [row["item_id"] for row in of(written["pretrain"], "beauty")] == ["a"]
    assert {row["part"] for row in written["events"]} <= {"train", "valid", "test"}


def test_an_item_of_the_shop_has_its_most_common_name_or_of_two_the_one_in_use_last(
    written: dict[str, list[dict[str, Any]]],
) -> None:
    named = {row["item_id"]: row["text"] for row in of(written["items"], "retail")}
    assert named == {"a": "t", "b": "JUG", "c": "CUP"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*amazon_food_kitchen; data= names"):
        write_sources(SourcesConfig(data=tmp_path, out=tmp_path / "out"))
