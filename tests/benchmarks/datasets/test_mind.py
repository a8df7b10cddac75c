# pyright: standard
"""MIND, from the publisher's format to rows worked out by hand and to a corpus."""

from pathlib import Path

import pytest

from benchmarks.datasets.__main__ import DataConfig, run
from tests.benchmarks.datasets.server import serve
from tests.benchmarks.datasets.sets import MIND, NEWS, corpus_of, made, rows, zipped

DAY = 1_570_838_400  # 2019-10-12
TIMES = {  # epoch seconds, by `date -u -d ... +%s`
    "nov 10 noon": 1_573_387_201,
    "nov 11": 1_573_463_158,
    "nov 14": 1_573_775_999,
    "nov 15": 1_573_776_000,
    "nov 15 late": 1_573_813_352,
}


def test_mind_small(tmp_path: Path) -> None:
    data = made(tmp_path, "mind-small", MIND)
    noon, second, night, midnight, late = TIMES.values()
    assert rows(tmp_path, "impressions") == sorted(
        [
            ("U1", "N1", second, False, "train:1"),
            ("U1", "N2", second, True, "train:1"),
            ("U1", "N1", noon, True, "train:2"),
            ("U2", "N2", night, False, "train:3"),
            ("U2", "N1", night, False, "train:3"),
            ("U1", "N3", midnight, True, "dev:1"),
            ("U1", "N1", midnight, True, "dev:1"),
            ("U3", "N1", late, False, "dev:2"),
        ]
    )
    assert sorted(rows(tmp_path, "events")) == sorted(
        [
            ("U1", "news", "N1", DAY),
            ("U1", "news", "N2", DAY + 1),
            ("U1", "news", "N1", noon),
            ("U1", "news", "N2", second),
            ("U1", "news", "N3", midnight),
            ("U1", "news", "N1", midnight),
            ("U3", "news", "N3", DAY),
        ]
    )
    assert sorted(rows(tmp_path, "items")) == [
        ("news", "N1", 'PGA "winners. sports, golf. A gallery', "sports", "golf"),
        ("news", "N2", "Snow. news, newsus", "news", "newsus"),
        ("news", "N3", "Rates. finance, markets. Up", "finance", "markets"),
    ]
    corpus = corpus_of(data, tmp_path / "corpus")
    assert corpus.user_ids.to_pylist() == ["U1", "U3"]
    assert corpus.items_of(0).values.tolist() == [0, 1, 0, 1, 0, 2, 2]


def test_an_archive_without_a_file_or_with_two(tmp_path: Path) -> None:
    lacking = zipped({"MINDsmall_dev/news.tsv": NEWS.encode()})
    with pytest.raises(ValueError, match=r"MINDsmall_dev\.zip holds no behaviors\.tsv"):
        made(tmp_path / "a", "mind-small", {**MIND, "MINDsmall_dev.zip": lacking})
    twice = zipped({"a/news.tsv": b"", "b/news.tsv": b"", "behaviors.tsv": b""})
    with pytest.raises(ValueError, match=r"MINDsmall_dev\.zip holds news\.tsv twice"):
        made(tmp_path / "b", "mind-small", {**MIND, "MINDsmall_dev.zip": twice})


def test_an_address_that_wants_an_account_says_what_to_do(tmp_path: Path) -> None:
    with serve(MIND) as served, pytest.raises(ConnectionError) as caught:
        served.refuse = dict.fromkeys(MIND, 401)
        run(DataConfig(name="mind-small", out=tmp_path, mirror=served.url))
    message = str(caught.value)
    assert message.startswith(f"{served.url}/MINDsmall_train.zip does not come: HTTP 401 ")
    assert (
        "  https://huggingface.co/datasets/yjw1029/MIND/resolve/main/MINDsmall_dev.zip -> "
        f"{tmp_path}/raw/MINDsmall_dev.zip\n" in message
    )
    assert "accept the terms of datasets/yjw1029/MIND and give token='${HF_TOKEN}'" in message
