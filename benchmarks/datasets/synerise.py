"""RecSys Challenge 2025 by Synerise: half a year of an online shop, each kind of event a service.

https://recsys.synerise.com/data-set , CC BY-NC 4.0. No checksums are published. Format: the README
of Synerise/recsys2025, and the page.

The archive is synerise_dataset.tar.gz, all events there are. The other one, challenge_dataset, is
cut for the challenge into input and target; any such cut can be made from times in this one.

product_buy, add_to_cart, remove_from_cart: client_id, timestamp, sku. page_visit: client_id,
timestamp, url. search_query: client_id, timestamp, query. Times are text, 2022-06-23 00:10:00, read
as UTC. product_properties: sku, category, price (a bucket, 0 to 99), name. Names and queries are 16
codes, 0 to 255, of a quantised embedding: "[118 237 ...]". The same code means another thing in
another place, so each is written with the letter of its place: "a118 b237 ...".
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets.download import Source
from benchmarks.datasets.log_tables import Recipe, check_names, work_of
from clue.data.ingest.values import quoted

ARCHIVE = "synerise_dataset.tar.gz"
ITEM = {
    "product_buy": "sku",
    "add_to_cart": "sku",
    "remove_from_cart": "sku",
    "search_query": "query",
    "page_visit": "url",
}
# Without page_visit: 199 of 225 million events, of pages that are a number and nothing else.
DEFAULT = ("product_buy", "add_to_cart", "remove_from_cart", "search_query")
PRODUCTS = "product_properties.parquet"
CODES = r"regexp_extract_all({column}::VARCHAR, '\d+')"
WORDS = (
    "array_to_string(list_transform({codes}, lambda code, place: "
    "chr(96 + place::INTEGER) || code), ' ')"
)
EVENTS = """
    SELECT client_id::VARCHAR AS user_id, '{service}' AS service, {item} AS item_id,
        epoch(timestamp::TIMESTAMP)::BIGINT AS timestamp
    FROM {log}
"""
PRODUCT_ITEMS = """
    SELECT '{service}' AS service, sku::VARCHAR AS item_id,
        'category ' || category || ' price ' || price || ' ' || {words} AS text
    FROM (SELECT DISTINCT sku FROM {log}) LEFT JOIN {products} USING (sku)
"""
OTHER_ITEMS = """
    SELECT DISTINCT '{service}' AS service, {item} AS item_id, {words} AS text FROM {log}
"""


def recipe(out: Path, services: Sequence[str]) -> Recipe:
    """Return recipe of these kinds of events; ValueError for one that there is not, or twice."""
    check_names("services", services, list(ITEM), "the log")
    url = f"https://data.recsys.synerise.com/dataset/{ARCHIVE}"
    products = [PRODUCTS] if any(ITEM[name] == "sku" for name in services) else []
    return Recipe(
        page="https://recsys.synerise.com/data-set",
        sources=[Source(name=ARCHIVE, url=url)],
        members={ARCHIVE: [*(f"{name}.parquet" for name in services), *products]},
        tables={
            "events": " UNION ALL ".join(_events(out, name) for name in services),
            "items": " UNION ALL ".join(_items(out, name) for name in services),
        },
        growth=3,
        prepare={
            "on_bad_row": "drop",
            "tokenizer": {"vocab_size": 16384},
            "max_item_tokens": 48,  # 36 at most of a product: a code is a letter and a number
        },
    )


def _events(out: Path, service: str) -> str:
    return EVENTS.format(service=service, item=_item(service), log=_log(out, f"{service}.parquet"))


def _items(out: Path, service: str) -> str:
    log = _log(out, f"{service}.parquet")
    if ITEM[service] == "sku":
        words = WORDS.format(codes=CODES.format(column="name"))
        products = _log(out, PRODUCTS)
        return PRODUCT_ITEMS.format(service=service, words=words, log=log, products=products)
    words = (
        "'page ' || url"
        if service == "page_visit"
        else WORDS.format(codes=CODES.format(column="query"))
    )
    return OTHER_ITEMS.format(service=service, item=_item(service), words=words, log=log)


def _item(service: str) -> str:
    """Return SQL for the id of what an event is about."""
    if ITEM[service] == "query":
        return f"array_to_string({CODES.format(column='query')}, ' ')"
    return f"{ITEM[service]}::VARCHAR"


def _log(out: Path, name: str) -> str:
    return f"read_parquet({quoted(str(work_of(out) / ARCHIVE / name))})"
