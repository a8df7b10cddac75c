import hashlib
import os
import random
import signal
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from clue.config import load
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.prepare import prepare
from tests.data.logs import (
    EVENTS,
    config,
    corpus_of,
    histories,
    many_events,
    slow_histories,
    write_log,
)
from tests.processes import python, start

ROOT = Path(__file__).parents[1]
SUFFIXES = ["parquet", "csv", "csv.gz", "jsonl", "jsonl.gz"]


def hashes(corpus: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(corpus.iterdir())}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_log_by_hand_in_every_format(tmp_path: Path, suffix: str) -> None:
    corpus = corpus_of(tmp_path / "c", f"events=[{write_log(tmp_path / f'log.{suffix}', EVENTS)}]")
    assert corpus.services == ("news", "shop")
    assert corpus.user_ids.to_pylist() == ["10", "2", "3"]  # numbers become strings and sort so
    assert corpus.item_ids.to_pylist() == ["a", "a", "b", "c"]  # one "a" for each service
    assert corpus.item_service.tolist() == [0, 1, 1, 1]
    assert corpus.item_texts.to_pylist()[:2] == ["braised recipes", "cast iron skillet"]
    assert corpus.items_of(0).offsets.tolist() == [0, 0, 1, 2]
    assert corpus.items_of(0).values.tolist() == [0, 0]
    # User 10 did b and c in the same second: they keep the order of the log.
    assert corpus.items_of(1).values.tolist() == [2, 3, 2, 1]
    assert corpus.timestamps_of(1).values.tolist() == [20.0, 20.0, 10.0, 30.0]
    assert corpus.manifest.num_events == {"news": 2, "shop": 4}
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    assert tokenizer.get_vocab_size() == corpus.manifest.vocab_size == 300
    texts = corpus.item_texts.to_pylist()
    tokens = [tokenizer.encode(text).ids for text in texts]
    assert [corpus.item_tokens[item].tolist() for item in range(4)] == tokens
    assert corpus.manifest.num_tokens == sum(map(len, tokens))


def test_histories_are_those_of_a_stable_sort(tmp_path: Path) -> None:
    rows = many_events(5000, seed=0)
    files = [write_log(tmp_path / f"log{n}.parquet", rows[n::2]) for n in range(2)]
    corpus = corpus_of(tmp_path / "c", f"events=[{tmp_path}/log*.parquet]")
    assert len(files) == 2
    assert histories(corpus) == slow_histories(rows[::2] + rows[1::2])  # files in sorted order
    swapped = corpus_of(tmp_path / "s", f"events=[{files[1]}, {files[0]}]")
    assert histories(swapped) == slow_histories(rows[1::2] + rows[::2])
    assert histories(swapped) != histories(corpus)


def test_rows_may_come_in_any_order_when_their_times_differ(tmp_path: Path) -> None:
    rows = [{**row, "timestamp": n} for n, row in enumerate(many_events(3000, seed=1))]
    corpora: list[Corpus] = []
    for name in ("one", "two"):
        log = write_log(tmp_path / f"{name}.csv", rows)
        corpora.append(corpus_of(tmp_path / name, f"events=[{log}]"))
        random.Random(2).shuffle(rows)
    assert corpora[0].manifest.source != corpora[1].manifest.source
    assert corpora[0].fingerprint == corpora[1].fingerprint


def test_the_same_input_makes_the_same_bytes(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", many_events(3000, seed=3))
    for name in ("one", "two"):
        corpus_of(tmp_path / name, f"events=[{log}]")
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    corpus_of(tmp_path / "other", f"events=[{log}]", "seed=1")
    first, other = hashes(tmp_path / "one"), hashes(tmp_path / "other")
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {"users.arrow", "manifest.json"}  # another split and nothing else


@pytest.mark.parametrize(
    "times",
    [
        [10, 20, 30],
        [0.5, 0.75, 1.5],
        [-1.5, 0.0, 1e12],
        [
            datetime(2024, 1, 2, 3, 4, 5),
            datetime(2024, 1, 3),
            datetime(2024, 1, 3, 0, 0, 0, 500000),
        ],
        [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC), None],
        [date(2024, 1, 2), date(2024, 1, 3), date(1969, 12, 31)],
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_numbers_stay_and_dates_become_seconds(
    tmp_path: Path, times: list[Any], suffix: str
) -> None:
    times = [time for time in times if time is not None]
    rows = [{**EVENTS[0], "item_id": f"i{n}", "timestamp": t} for n, t in enumerate(times)]
    corpus = corpus_of(tmp_path / "c", f"events=[{write_log(tmp_path / f'x.{suffix}', rows)}]")
    seconds: list[float] = []
    for moment in times:
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        if isinstance(moment, datetime):
            moment = moment.replace(tzinfo=UTC).timestamp()
        seconds.append(float(moment))
    assert corpus.timestamps_of(0).values.tolist() == sorted(seconds)


def test_dates_with_a_zone_are_read_in_it(tmp_path: Path) -> None:
    rows = [
        {**EVENTS[0], "timestamp": text} for text in ("2024-01-02T09:00:00+09:00", "2024-01-02")
    ]
    corpus = corpus_of(tmp_path / "c", f"events=[{write_log(tmp_path / 'x.jsonl', rows)}]")
    moment = datetime(2024, 1, 2, tzinfo=UTC).timestamp()
    assert corpus.timestamps_of(0).values.tolist() == [moment, moment]


def test_an_items_table_brings_texts_and_items_without_events(tmp_path: Path) -> None:
    items = [
        {"sku": 1, "service": "shop", "title": "Pan", "price": 4.5},
        {"sku": 2, "service": "shop", "title": "Pot", "price": None},
        {"sku": 3, "service": "shop", "title": "Never bought", "price": 7.0},
        {"sku": 1, "service": "shop", "title": "Pan", "price": 4.5},  # twice, and the same
    ]
    events = [{"who": "u", "service": "shop", "sku": sku, "at": sku} for sku in (2, 1)]
    corpus = corpus_of(
        tmp_path / "c",
        f"events=[{write_log(tmp_path / 'events.csv', events)}]",
        f"items=[{write_log(tmp_path / 'items.parquet', items)}]",
        "columns={user_id: who, item_id: sku, timestamp: at}",
        "services={shop: {template: '{title} for {price} ({item_id})'}}",
    )
    texts = ["Pan for 4.5 (1)", "Pot for  (2)", "Never bought for 7 (3)"]
    assert corpus.item_texts.to_pylist() == texts
    assert corpus.items_of(0)[0].tolist() == [0, 1]


def test_services_keep_their_order_and_templates(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", [*EVENTS, {**EVENTS[0], "service": "ads"}])
    services = "services={shop: {template: 'buy {text}'}, news: {}}"
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", services, "ignore_services=[ads]")
    assert corpus.services == ("shop", "news")
    assert corpus.manifest.templates == {"shop": "buy {text}", "news": "{text}"}
    assert corpus.item_texts.to_pylist()[0] == "buy cast iron skillet"
    assert corpus.item_texts.to_pylist()[3] == "braised recipes"


def test_a_log_of_one_service_without_texts(tmp_path: Path) -> None:
    rows = [{k: row[k] for k in ("user_id", "item_id", "timestamp")} for row in EVENTS]
    log = write_log(tmp_path / "log.csv", rows)
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", "service=clicks")
    assert corpus.services == ("clicks",) and corpus.item_texts.to_pylist() == ["a", "b", "c"]
    assert corpus.manifest.templates == {"clicks": "{item_id}"}


def test_a_tokenizer_from_a_file(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", EVENTS)
    first = corpus_of(tmp_path / "first", f"events=[{log}]")
    path = f"tokenizer={{path: {first.tokenizer_path}}}"
    second = corpus_of(
        tmp_path / "second", f"events=[{write_log(tmp_path / 'b.csv', EVENTS[:2])}]", path
    )
    assert second.manifest.tokenizer_sha256 == first.manifest.tokenizer_sha256
    assert second.tokenizer_path.read_bytes() == first.tokenizer_path.read_bytes()


def test_work_that_is_done_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "log.csv", EVENTS)
    out = tmp_path / "c"
    prepare(config(out, f"events=[{log}]"))
    assert "2 users" not in capsys.readouterr().err
    before = out.stat().st_ino
    prepare(config(out, f"events=[{log}]", "memory_limit=1GB"))
    assert "already there" in capsys.readouterr().err and out.stat().st_ino == before
    for change in ("seed=1", "max_item_tokens=9"):
        with pytest.raises(ValueError, match=r"overwrite=true"):
            prepare(config(out, f"events=[{log}]", change))
    write_log(log, EVENTS[:3])
    with pytest.raises(ValueError, match=r"overwrite=true"):
        prepare(config(out, f"events=[{log}]"))
    assert Corpus.open(out).manifest.num_events == {"news": 2, "shop": 4}
    assert corpus_of(out, f"events=[{log}]", "overwrite=true").manifest.num_events["shop"] == 3
    assert capsys.readouterr().out == ""


def test_a_directory_that_is_no_corpus_is_never_replaced(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", EVENTS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no corpus"):
        prepare(config(tmp_path / "mine", f"events=[{log}]", "overwrite=true"))
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3])
def test_a_killed_run_leaves_no_corpus_and_does_not_block_the_next(
    tmp_path: Path, after: float
) -> None:
    log = write_log(tmp_path / "log.parquet", many_events(200_000, seed=4))
    out = tmp_path / "c"
    said = tmp_path / "said"
    said.mkdir()
    keys = ["name=test", f"out={out}", f"events=[{log}]", "tokenizer.vocab_size=300"]
    running = start("clue/prepare.py", *keys, said=said)
    scratch = tmp_path / ".c.partial"
    while not scratch.exists():
        assert running.exitcode is None
        time.sleep(0.005)
    time.sleep(after)
    running.kill()
    running.join()
    assert running.exitcode == -signal.SIGKILL
    assert scratch.exists() and not out.exists()
    corpus = corpus_of(out, f"events=[{log}]")
    assert sum(corpus.manifest.num_events.values()) == 200_000
    assert {file.name for file in tmp_path.iterdir()} == {"c", ".c.lock", "log.parquet", "said"}


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = python("clue/prepare.py", "name=x", "events=[none.csv]", f"out={tmp_path}/c")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: events: no file matches 'none.csv'; check the path\n"


@pytest.mark.skipif("CLUE_DATA" not in os.environ, reason="needs the real logs: set CLUE_DATA")
def test_food_kitchen_has_its_published_counts(tmp_path: Path) -> None:
    settings = load(
        PrepareConfig, ROOT / "configs/prepare/food_kitchen.yaml", [f"out={tmp_path}/c"]
    )
    corpus = Corpus.open(prepare(settings, progress=False))
    assert (corpus.num_users, corpus.num_items) == (53_061, 36_298)
    assert sum(corpus.manifest.num_events.values()) == 436_127
    assert corpus.manifest.split == {"train": 51_164, "valid": 960, "test": 937}
    both = (corpus.items_of(0).lengths > 0) & (corpus.items_of(1).lengths > 0)
    assert both.sum() == 9398 and both[corpus.split > 0].all()
