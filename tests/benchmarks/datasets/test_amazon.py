# pyright: standard
"""Amazon Reviews 2023, from the publisher's format to rows worked out by hand and to a corpus."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from tests.benchmarks.datasets.sets import corpus_of, made, rows

AMAZON = {
    "Video_Games.csv.gz": "user_id,parent_asin,rating,timestamp\n"
    "AE1,B01,5.0,1452647382001\nAE1,B02,1.0,1452647382000\nAF2,B03,4.0,1600000000000\n",
    "Software.csv.gz": "user_id,parent_asin,rating,timestamp\nAE1,B01,2.0,1500000000500\n",
    "meta_Video_Games.jsonl.gz": "\n".join(
        json.dumps(row)
        for row in [
            {
                "main_category": "Video Games",
                "title": ' Pad, 2" ',
                "price": "from 14.99",
                "features": ["a"],
                "categories": ["Video Games", "PC"],
                "details": {"Release": {"year": 2016}},
                "parent_asin": "B01",
                "bought_together": None,
            },
            {"title": "", "price": None, "categories": [], "parent_asin": "B02"},
            {"title": None, "price": 3.5, "categories": ["Video Games"], "parent_asin": "B03"},
            {"title": "Not in the 5-core", "categories": [], "parent_asin": "B99"},
        ]
    )
    + "\n",
    "meta_Software.jsonl.gz": '{"title": "Editor", "categories": [], "parent_asin": "B01"}\n',
}


def test_amazon_2023(tmp_path: Path) -> None:
    files = {name: gzip.compress(text.encode()) for name, text in AMAZON.items()}
    data = made(tmp_path, "amazon-2023", files, categories=["Video_Games", "Software"])
    assert rows(tmp_path, "events") == sorted(
        [
            ("AE1", "Video_Games", "B01", 1452647382.001, 5.0),
            ("AE1", "Video_Games", "B02", 1452647382.0, 1.0),
            ("AF2", "Video_Games", "B03", 1600000000.0, 4.0),
            ("AE1", "Software", "B01", 1500000000.5, 2.0),
        ]
    )
    assert rows(tmp_path, "items") == [
        ("Software", "B01", "Editor"),
        ("Video_Games", "B01", 'Pad, 2". Video Games, PC'),
        ("Video_Games", "B02", None),
        ("Video_Games", "B03", "Video Games"),
    ]
    corpus = corpus_of(data, tmp_path / "corpus")
    assert corpus.services == ("Software", "Video_Games")
    assert corpus.user_ids.to_pylist() == ["AE1", "AF2"]  # AE1 is one user of two services
    assert corpus.items_of(0).offsets.tolist() == [0, 1, 1]
    assert corpus.manifest.dropped_rows == {"empty_text": 1, "item_not_in_items": 1}
    lock = json.loads((tmp_path / "raw" / "lock.json").read_text())
    assert {name: entry["published"] for name, entry in lock.items()} == dict.fromkeys(files)
    assert lock["Software.csv.gz"] == {
        "bytes": len(files["Software.csv.gz"]),
        "sha256": hashlib.sha256(files["Software.csv.gz"]).hexdigest(),
        "published": None,
        "url": "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/benchmark/5core/"
        "rating_only/Software.csv.gz",
    }


def test_a_file_that_is_cut_off_makes_no_set(tmp_path: Path) -> None:
    files = {name: gzip.compress(text.encode()) for name, text in AMAZON.items()}
    files["Software.csv.gz"] = files["Software.csv.gz"][:-12]
    with pytest.raises(ValueError, match=r"(?s)events\.parquet cannot be made: .*GZIP.*delete it"):
        made(tmp_path, "amazon-2023", files, categories=["Software"])
    assert not list(tmp_path.glob("*.yaml"))
