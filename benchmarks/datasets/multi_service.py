"""Command: nine public data sets as one event log, for one encoder of all their services.

    python -m benchmarks.datasets.multi_service data=DIRECTORY

Writes OUT/events.parquet, all that is known; OUT/pretrain.parquet, what an encoder may learn from;
OUT/items.parquet; and the labels that no log holds: attributes, sales, plays, impressions. Users of
different sets are different people: an id is "set:id". Three click logs are in click_logs.py. The
split is the published one of food and kitchen and elsewhere by hash of the id: 80 % train, 10 %
valid, 10 % test.

What pretraining does not see: the last two events of every user of beauty, sports, toys and movies
(the items to predict), all of scientific (the new service), retail from `retail_until` and globo
from `globo_until` on (the windows of their labels), the impressions of video and news that are
asked about, and the users of valid and test, whom the trainer leaves out.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from benchmarks.datasets import click_logs
from benchmarks.datasets.log_tables import summary, write_queries
from clue.config import run_command

TARGETS = ("beauty", "sports", "toys", "movies")  # services whose last two items are asked for
NEW = "scientific"


@dataclass(frozen=True, kw_only=True)
class SourcesConfig:
    """`data` holds the sets' folders; the others are epoch seconds, where a service's labels begin.

    2010-09-16 in UTC, 2022-05-01 in China and 2017-10-13 in Brasília by default.
    """

    data: Path
    out: Path = Path("data/transfer")
    retail_until: int = 1_284_595_200
    video_until: int = 1_651_334_400
    globo_until: int = 1_507_863_600


# Steam's rows come in order of hours played, which is the label: the order of a user's purchases is
# drawn by a hash instead. Retail's text belongs to the event; an item is called by its most common,
# of two as common by the one in use last: eight items have two, and threads decided between them.
QUERIES = {
    "raw": f"""
        SELECT 'fk:' || user_id AS user_id, service, item_id, timestamp::DOUBLE AS timestamp,
            CASE part WHEN 'valid' THEN 'valid' WHEN 'test' THEN 'test' ELSE 'train' END AS part
        FROM '{{data}}/amazon_food_kitchen/events.parquet'
        UNION ALL
        SELECT 'm8:' || user_id, service, item_id, timestamp, NULL
        FROM '{{data}}/amazon_multi8/events.parquet'
        SEMI JOIN '{{data}}/amazon_multi8/items.parquet' AS known USING (service, item_id)
        UNION ALL
        SELECT 'ml:' || user_id, 'movies', item_id::VARCHAR, timestamp, NULL
        FROM '{{data}}/ml1m/events.parquet'
        UNION ALL
        SELECT 'st:' || user_id, 'games', item_id::VARCHAR,
            row_number() OVER (PARTITION BY user_id ORDER BY md5(user_id || ':' || item_id)) - 1,
            NULL
        FROM (SELECT DISTINCT user_id, item_id
            FROM '{{data}}/steam_purchase_play/purchases.parquet')
        UNION ALL BY NAME (
            SELECT 'or:' || user_id AS user_id, 'retail' AS service, item_id, timestamp,
                quantity * price AS amount
            FROM '{{data}}/online_retail_ii/events.parquet')
        UNION ALL BY NAME ({click_logs.EVENTS})
    """,
    "events": """
        SELECT * REPLACE (coalesce(part, CASE md5_number_lower(user_id) % 10
            WHEN 8 THEN 'valid' WHEN 9 THEN 'test' ELSE 'train' END) AS part)
        FROM raw
        ORDER BY user_id, service, timestamp, COLUMNS(*)
    """,
    "pretrain": """
        SELECT * EXCLUDE (from_end) FROM (
            SELECT *, row_number() OVER (
                PARTITION BY user_id, service ORDER BY timestamp DESC, item_id DESC) AS from_end
            FROM events WHERE service <> '{new}')
        WHERE NOT (service IN {targets} AND from_end <= 2)
            AND NOT (service = 'retail' AND timestamp >= {retail_until})
            AND NOT (service = 'globo' AND timestamp >= {globo_until})
        ORDER BY user_id, service, timestamp, COLUMNS(*)
    """,
    "items": f"""
        SELECT service, item_id, text FROM '{{data}}/amazon_food_kitchen/items.parquet'
        UNION ALL
        SELECT service, item_id, text FROM '{{data}}/amazon_multi8/items.parquet'
        WHERE service IN (SELECT DISTINCT service FROM events)
        UNION ALL
        SELECT 'movies', item_id::VARCHAR, title || '. ' || replace(genres, '|', ', ')
        FROM '{{data}}/ml1m/items.parquet'
        UNION ALL
        SELECT 'retail', item_id, coalesce(mode(text ORDER BY timestamp DESC, text), item_id)
        FROM '{{data}}/online_retail_ii/events.parquet' GROUP BY item_id
        UNION ALL
        SELECT 'games', item_id::VARCHAR, text FROM '{{data}}/steam_purchase_play/items.parquet'
        UNION ALL {click_logs.ITEMS}
        ORDER BY ALL
    """,
    "attributes": """
        SELECT 'ml:' || user_id AS user_id, gender, age, occupation
        FROM '{data}/ml1m/users.parquet' ORDER BY user_id
    """,
    "sales": """
        SELECT 'or:' || user_id AS user_id, item_id, timestamp::BIGINT AS timestamp, invoice,
            quantity, price
        FROM '{data}/online_retail_ii/events.parquet' ORDER BY ALL
    """,
    "plays": """
        SELECT 'st:' || user_id AS user_id, item_id::VARCHAR AS item_id, max(played) AS clicked
        FROM '{data}/steam_purchase_play/purchases.parquet' GROUP BY ALL ORDER BY ALL
    """,
    **click_logs.TABLES,
}


def write_sources(config: SourcesConfig) -> dict[str, int]:
    """Return the number of rows of each table written. FileNotFoundError without a set's folder."""
    folders = [
        *("amazon_food_kitchen", "amazon_multi8", "ml1m"),
        *("online_retail_ii", "steam_purchase_play"),
        *("kuairand_pure", "mind_sample", "globo_clicks"),
    ]
    filled = {**asdict(config), "new": NEW, "targets": TARGETS, "globo_end": click_logs.GLOBO_END}
    queries = {name: query.format(**filled) for name, query in QUERIES.items()}
    return write_queries(queries, [config.data / name for name in folders], config.out)


def main() -> None:
    """Run the command line."""

    def report(config: SourcesConfig) -> str:
        return summary(config.out, write_sources(config), "configs/prepare/universal.yaml")

    also = (duckdb.Error,)
    sys.stdout.write(run_command(SourcesConfig, report, description=__doc__, also=also))


if __name__ == "__main__":
    main()
