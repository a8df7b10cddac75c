"""Amazon Reviews 2023 by the McAuley Lab: each category a service, a user's id the same in all.

https://amazon-reviews-2023.github.io/ . Yupeng Hou et al. 2024. Bridging Language and Items for
Retrieval and Recommendation. No checksums are published.

Events are the 5-core ratings (benchmark/5core/rating_only), not the raw reviews: they hold all that
an event needs in 30 MB of 1.6 GB (Musical_Instruments, unpacked), published numbers are on them,
and the publisher has taken out repeated reviews. The 5-core is one category's own: a user of two
categories has five events in each. Texts are of the raw metadata, of which no smaller copy is
published; most of its items are not in the 5-core and are left out.

CATEGORY.csv.gz: user_id,parent_asin,rating,timestamp, with milliseconds since 1970.
meta_CATEGORY.jsonl.gz: one object a line; parent_asin, title and categories are read.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets.download import Source
from benchmarks.datasets.log_tables import CSV, Recipe, check_names, csv_sql
from clue.data.ingest.values import quoted

BASE = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
# Of middle size: the largest file, the metadata of Office_Products, has 529 MB.
DEFAULT = ("Industrial_and_Scientific", "Musical_Instruments", "Office_Products", "Video_Games")
CATEGORIES = (
    *("All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive"),
    *("Baby_Products", "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl"),
    *("Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics"),
    *("Gift_Cards", "Grocery_and_Gourmet_Food", "Handmade_Products", "Health_and_Household"),
    *("Health_and_Personal_Care", "Home_and_Kitchen", "Industrial_and_Scientific"),
    *("Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments"),
    *("Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Software"),
    *("Sports_and_Outdoors", "Subscription_Boxes", "Tools_and_Home_Improvement"),
    *("Toys_and_Games", "Video_Games", "Unknown"),
)
EVENTS = """
    SELECT user_id, {service} AS service, parent_asin AS item_id, timestamp / 1000 AS timestamp,
        rating
    FROM {ratings}
"""
# An item without title and categories has no text: prepare drops it and counts its events.
ITEMS = """
    SELECT {service} AS service, parent_asin AS item_id, nullif(concat_ws('. ',
        nullif(trim(title), ''), nullif(array_to_string(categories, ', '), '')), '') AS text
    FROM read_json({meta}, format = 'newline_delimited', columns = {{
        'parent_asin': 'VARCHAR', 'title': 'VARCHAR', 'categories': 'VARCHAR[]'}})
    SEMI JOIN {ratings} AS kept USING (parent_asin)
"""
RATINGS = {
    "user_id": "VARCHAR",
    "parent_asin": "VARCHAR",
    "rating": "DOUBLE",
    "timestamp": "BIGINT",
}


def recipe(out: Path, categories: Sequence[str]) -> Recipe:
    """Return the recipe of these categories; ValueError for one that there is not, or twice."""
    check_names("categories", categories, CATEGORIES, "Amazon Reviews 2023")
    return Recipe(
        page="https://amazon-reviews-2023.github.io/",
        sources=[one for name in categories for one in _sources(name)],
        members={},
        tables={
            "events": " UNION ALL ".join(_filled(EVENTS, out, name) for name in categories),
            "items": " UNION ALL ".join(_filled(ITEMS, out, name) for name in categories),
        },
        growth=0.5,
        prepare={"on_bad_row": "drop", "tokenizer": {"vocab_size": 16384}},
    )


def _sources(category: str) -> list[Source]:
    rated, meta = f"{category}.csv.gz", f"meta_{category}.jsonl.gz"
    return [
        Source(name=rated, url=f"{BASE}/benchmark/5core/rating_only/{rated}"),
        Source(name=meta, url=f"{BASE}/raw/meta_categories/{meta}"),
    ]


def _filled(sql: str, out: Path, category: str) -> str:
    return sql.format(
        service=quoted(category),
        ratings=csv_sql(out / "raw" / f"{category}.csv.gz", RATINGS, **CSV),
        meta=quoted(str(out / "raw" / f"meta_{category}.jsonl.gz")),
    )
