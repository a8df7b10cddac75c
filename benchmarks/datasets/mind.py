"""MIND-small by Microsoft: news shown to 50,000 readers, and which they clicked.

https://msnews.github.io/ , whose links lead to Hugging Face since Microsoft closed the addresses
mind201910small.blob.core.windows.net (HTTP 409, issue 17 of msnews/MIND). Fangzhao Wu et al. 2020.
MIND: A Large-scale Dataset for News Recommendation. For research, under the Microsoft Research
License Terms. No checksums are published. Format: assets/doc/introduction.md of
msnews/msnews.github.io.

behaviors.tsv: impression id, user, time, history, impressions; no header, no quotes. The time is
like 11/15/2019 10:22:32 AM, read as UTC. The impressions are the news shown, in no order, with 1
where it was clicked: "N1-0 N2-1". The history is the clicks before, in order, without times.
news.tsv: id, category, subcategory, title, abstract, url, and entities of title and of abstract.

Events are the clicks: those shown, at the time of their impression, and before them the history of
a user's first impression. The history is of the weeks from 12 October 2019 on: its clicks get that
day's first seconds in order, so that they lie before every impression (from 9 November on) as in
truth. Their true times are not known.
"""

from pathlib import Path

from benchmarks.datasets.download import Source
from benchmarks.datasets.log_tables import Recipe, csv_sql, work_of

BASE = "https://huggingface.co/datasets/yjw1029/MIND/resolve/main"
MIRROR = "https://huggingface.co/datasets/Recommenders/MIND/resolve/main"
ARCHIVES = {"train": "MINDsmall_train.zip", "dev": "MINDsmall_dev.zip"}
HISTORY_FROM = 1_570_838_400  # 2019-10-12, the first day of the log, epoch seconds
BEHAVIORS = {
    "impression_id": "BIGINT",
    "user_id": "VARCHAR",
    "time": "VARCHAR",
    "history": "VARCHAR",
    "impressions": "VARCHAR",
}
NEWS = {
    "item_id": "VARCHAR",
    "category": "VARCHAR",
    "subcategory": "VARCHAR",
    "title": "VARCHAR",
    "abstract": "VARCHAR",
    "url": "VARCHAR",
    "title_entities": "VARCHAR",
    "abstract_entities": "VARCHAR",
}
# Ids of impressions start at 1 in both files, hence the part before them.
LOG = """
    SELECT {number} AS part, '{part}:' || impression_id AS impression_id, user_id,
        epoch(strptime(time, '%m/%d/%Y %I:%M:%S %p'))::BIGINT AS timestamp,
        string_split(history, ' ') AS history, string_split(impressions, ' ') AS shown
    FROM {behaviors}
"""
IMPRESSIONS = """
    SELECT user_id, split_part(each, '-', 1) AS item_id, timestamp,
        split_part(each, '-', 2) = '1' AS clicked, impression_id
    FROM (SELECT user_id, timestamp, impression_id, unnest(shown) AS each FROM ({log}))
"""
EVENTS = """
    SELECT user_id, 'news' AS service, item_id, {start} + position - 1 AS timestamp
    FROM (
        SELECT user_id, unnest(history) AS item_id, generate_subscripts(history, 1) AS position
        FROM (SELECT * FROM ({log}) QUALIFY row_number() OVER (
            PARTITION BY user_id ORDER BY timestamp, part, impression_id) = 1))
    UNION ALL
    SELECT user_id, 'news', item_id, timestamp FROM ({impressions}) WHERE clicked
"""
ITEMS = """
    SELECT 'news' AS service, item_id,
        concat_ws('. ', title, concat_ws(', ', category, subcategory), abstract) AS text,
        category, subcategory
    FROM ({news})
    QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY part) = 1
"""


def recipe(out: Path) -> Recipe:
    """Return the recipe of MIND-small, train and dev as one log."""
    work = work_of(out)
    parts = list(enumerate(ARCHIVES.items()))
    log = " UNION ALL ".join(
        LOG.format(
            number=number, part=part, behaviors=csv_sql(work / name / "behaviors.tsv", BEHAVIORS)
        )
        for number, (part, name) in parts
    )
    news = " UNION ALL ".join(
        f"SELECT {number} AS part, * FROM {csv_sql(work / name / 'news.tsv', NEWS)}"
        for number, (_, name) in parts
    )
    shown = IMPRESSIONS.format(log=log)
    return Recipe(
        page="https://msnews.github.io/",
        sources=[Source(name=name, url=f"{BASE}/{name}") for name in ARCHIVES.values()],
        members={name: ["behaviors.tsv", "news.tsv"] for name in ARCHIVES.values()},
        tables={
            "events": EVENTS.format(log=log, impressions=shown, start=HISTORY_FROM),
            "items": ITEMS.format(news=news),
            "impressions": shown,
        },
        growth=6,
        prepare={
            "on_bad_row": "drop",
            "tokenizer": {"vocab_size": 16384},
            "max_item_tokens": 64,
        },
        hint=(
            "HTTP 401 or 403: sign in at huggingface.co, accept the terms of datasets/yjw1029/MIND "
            "and give token='${HF_TOKEN}'; or take the copy of the Recommenders team, "
            f"mirror={MIRROR}"
        ),
    )
