"""Command: a grocer's year with amounts, demographics and campaigns, which is simulated.

    python -m benchmarks.datasets.complete_journey data=DIRECTORY

84.51's Complete Journey is by its publisher's notice simulated after real shopping, and not for
claims of research: a test bed for times, amounts and labels of the same users, whose results stand
in a table of their own and count for no claim about real users.

Writes OUT/events.parquet, all sales with `quantity`, `amount` and `store`; OUT/pretrain.parquet,
those before `until`, where the windows of future labels begin, 84 days before the end;
OUT/items.parquet; and the labels. The split is by hash of the user's id, 60 % train, 20 % valid,
20 % test, since only 801 of 2,469 households have told of themselves.

sales       a line of a basket, its amount as the price of one
attributes  three bands each of age and income: some of the twelve of income have five households
offers      who was sent which campaign, when it began, and whether a coupon of it was redeemed and
            when; of campaigns that began a month or more into the log and ended within it
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from benchmarks.datasets.log_tables import summary, write_queries
from clue.config import run_command

FOLDER, PREPARE = "complete_journey", "configs/prepare/complete_journey_pretrain.yaml"
QUERIES = {
    "events": """
        SELECT 'cj:' || user_id AS user_id, service, item_id, timestamp,
            quantity::DOUBLE AS quantity, amount::DOUBLE AS amount, store,
            CASE WHEN md5_number_lower('cj:' || user_id) % 10 < 6 THEN 'train'
                WHEN md5_number_lower('cj:' || user_id) % 10 < 8 THEN 'valid'
                ELSE 'test' END AS part
        FROM '{folder}/events.parquet' SEMI JOIN '{folder}/items.parquet' USING (item_id)
        ORDER BY user_id, timestamp, item_id
    """,
    "pretrain": "SELECT * FROM events WHERE timestamp < {until} ORDER BY ALL",
    "items": "SELECT service, item_id, text FROM '{folder}/items.parquet' ORDER BY ALL",
    "sales": """
        SELECT 'cj:' || user_id AS user_id, item_id, timestamp, basket AS invoice,
            1 AS quantity, amount::DOUBLE AS price
        FROM '{folder}/events.parquet' SEMI JOIN '{folder}/items.parquet' USING (item_id)
        ORDER BY ALL
    """,
    "attributes": """
        SELECT 'cj:' || user_id AS user_id,
            CASE WHEN age IN ('19-24', '25-34') THEN 'below 35'
                WHEN age IN ('35-44', '45-54') THEN '35 to 54' ELSE '55 and more' END AS age,
            CASE WHEN income IN ('Under 15K', '15-24K', '25-34K') THEN 'below 35K'
                WHEN income IN ('35-49K', '50-74K') THEN '35K to 74K' ELSE '75K and more' END
                AS income
        FROM '{folder}/users.parquet' ORDER BY user_id
    """,
    "offers": """
        SELECT 'cj:' || user_id AS user_id, campaign_id::VARCHAR AS offer, campaign_type AS kind,
            epoch(start_date) AS timestamp, (redemptions > 0)::INT AS redeemed,
            coalesce(first_redemption, 0) AS redeemed_at
        FROM '{folder}/campaigns.parquet' JOIN '{folder}/campaign_dates.parquet'
            USING (campaign_id),
            (SELECT min(timestamp) AS first, max(timestamp) AS last FROM events)
        WHERE epoch(start_date) >= first + 30 * 86400 AND epoch(end_date) <= last
        ORDER BY ALL
    """,
}


@dataclass(frozen=True, kw_only=True)
class CompleteJourneyConfig:
    """`data` holds the set's folder; `until` is epoch seconds, 2017-10-09 by default."""

    data: Path
    out: Path = Path("data/complete_journey")
    until: int = 1_507_521_681


def write_complete_journey(config: CompleteJourneyConfig) -> dict[str, int]:
    """Return the number of rows of each table written. FileNotFoundError without the folder."""
    filled = {"folder": config.data / FOLDER, **asdict(config)}
    queries = {name: query.format(**filled) for name, query in QUERIES.items()}
    return write_queries(queries, [config.data / FOLDER], config.out)


def main() -> None:
    """Run the command line."""

    def report(config: CompleteJourneyConfig) -> str:
        return summary(config.out, write_complete_journey(config), PREPARE)

    also = (duckdb.Error,)
    sys.stdout.write(run_command(CompleteJourneyConfig, report, description=__doc__, also=also))


if __name__ == "__main__":
    main()
