# pyright: standard
"""RecSys Challenge 2025, from the publisher's format to rows worked out by hand and a corpus."""

from pathlib import Path

from tests.benchmarks.datasets.sets import corpus_of, made, parquet, rows, tarred

CODES = "[" + " ".join(str(16 * code) for code in range(16)) + "]"
WORDS = " ".join(f"{letter}{16 * n}" for n, letter in enumerate("abcdefghijklmnop"))
SYNERISE = {
    "product_buy": [{"client_id": 5, "timestamp": "2022-06-23 00:10:00", "sku": 100}],
    "add_to_cart": [
        {"client_id": 5, "timestamp": "2022-06-23 00:09:59", "sku": 100},
        {"client_id": 6, "timestamp": "2022-12-08 00:09:59", "sku": 300},
        {"client_id": 6, "timestamp": "2022-12-08 00:09:59", "sku": 300},
    ],
    "remove_from_cart": [{"client_id": 6, "timestamp": "2022-12-08 00:09:59", "sku": 300}],
    "page_visit": [{"client_id": 6, "timestamp": "2022-12-08 00:09:59", "url": 77}],
    "search_query": [
        {"client_id": 5, "timestamp": "2022-06-23 00:00:00", "query": CODES},
        {"client_id": 6, "timestamp": "2022-06-23 00:00:00", "query": CODES},
    ],
    "product_properties": [
        {"sku": 100, "category": 7, "price": 99, "name": CODES},
        {"sku": 200, "category": 8, "price": 0, "name": CODES},
    ],
}
JUNE, DECEMBER = 1_655_942_400, 1_670_458_199  # 2022-06-23 00:00:00, 2022-12-08 00:09:59


def synerise_archive() -> dict[str, bytes]:
    files = {f"synerise_dataset/{name}.parquet": parquet(log) for name, log in SYNERISE.items()}
    return {"synerise_dataset.tar.gz": tarred(files)}


def test_recsys_2025(tmp_path: Path) -> None:
    data = made(tmp_path, "recsys-2025", synerise_archive())
    query = CODES.strip("[]")
    assert rows(tmp_path, "events") == sorted(
        [
            ("5", "product_buy", "100", JUNE + 600),
            ("5", "add_to_cart", "100", JUNE + 599),
            ("6", "add_to_cart", "300", DECEMBER),
            ("6", "add_to_cart", "300", DECEMBER),
            ("6", "remove_from_cart", "300", DECEMBER),
            ("5", "search_query", query, JUNE),
            ("6", "search_query", query, JUNE),
        ]
    )
    assert sorted(rows(tmp_path, "items"), key=str) == sorted(
        [
            ("product_buy", "100", f"category 7 price 99 {WORDS}"),
            ("add_to_cart", "100", f"category 7 price 99 {WORDS}"),
            ("add_to_cart", "300", None),  # a product without properties
            ("remove_from_cart", "300", None),
            ("search_query", query, WORDS),
        ],
        key=str,
    )
    corpus = corpus_of(data, tmp_path / "corpus")
    assert corpus.services == ("add_to_cart", "product_buy", "search_query")
    assert corpus.manifest.num_events == {"add_to_cart": 1, "product_buy": 1, "search_query": 2}
    assert corpus.manifest.dropped_rows == {"empty_text": 2, "item_not_in_items": 3}


def test_recsys_2025_pages_where_asked_for(tmp_path: Path) -> None:
    made(tmp_path, "recsys-2025", synerise_archive(), services=["page_visit"])
    assert rows(tmp_path, "events") == [("6", "page_visit", "77", DECEMBER)]
    assert rows(tmp_path, "items") == [("page_visit", "77", "page 77")]
