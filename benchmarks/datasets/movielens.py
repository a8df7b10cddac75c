"""MovieLens by GroupLens: ratings of films, with the second in which each was given.

https://grouplens.org/datasets/movielens/ ; the archives and their md5 lie side by side at
https://files.grouplens.org/datasets/movielens/ (ml-1m.zip and ml-1m.zip.md5). F. Maxwell Harper and
Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. For research, not to be passed
on: see the README in each archive.

Every rating is an event, whatever its stars: who rated a film has seen it. Rows keep the order of
the publisher, which decides between ratings of the same second.
"""

from pathlib import Path

from benchmarks.datasets.download import Source
from benchmarks.datasets.log_tables import CSV, Recipe, csv_sql, work_of

MD5 = {
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
ITEMS = """
    SELECT 'movies' AS service, "movieId"::VARCHAR AS item_id,
        concat_ws('. ', title, nullif(replace(genres, '|', ', '), '(no genres listed)')) AS text
    FROM {movies}
"""
EVENTS = """
    SELECT "userId"::VARCHAR AS user_id, 'movies' AS service, "movieId"::VARCHAR AS item_id,
        timestamp, rating
    FROM {ratings}
"""
ATTRIBUTES = 'SELECT "userId"::VARCHAR AS user_id, gender, age, occupation FROM {users}'
RATINGS = {"userId": "BIGINT", "movieId": "BIGINT", "rating": "DOUBLE", "timestamp": "BIGINT"}
MOVIES = {"movieId": "BIGINT", "title": "VARCHAR", "genres": "VARCHAR"}
USERS = {
    "userId": "BIGINT",
    "gender": "VARCHAR",
    "age": "INTEGER",  # the least of a range: 1, 18, 25, 35, 45, 50, 56
    "occupation": "INTEGER",
    "zip": "VARCHAR",
}


def recipe_1m(out: Path) -> Recipe:
    """Return the recipe of ml-1m: 1,000,209 ratings of 6,040 users, who told of themselves.

    Its files are users.dat, movies.dat and ratings.dat: no header, "::" between values, no quotes,
    titles in latin-1.
    """
    files = work_of(out) / "ml-1m.zip"
    dialect = {"delim": "'::'", "encoding": "'latin-1'"}
    return Recipe(
        page="https://grouplens.org/datasets/movielens/1m/",
        sources=[_source("ml-1m")],
        members={"ml-1m.zip": ["ratings.dat", "movies.dat", "users.dat"]},
        tables={
            "events": EVENTS.format(ratings=csv_sql(files / "ratings.dat", RATINGS, **dialect)),
            "items": ITEMS.format(movies=csv_sql(files / "movies.dat", MOVIES, **dialect)),
            "attributes": ATTRIBUTES.format(users=csv_sql(files / "users.dat", USERS, **dialect)),
        },
        growth=6,
        prepare={},
    )


def recipe_csv(out: Path, name: str) -> Recipe:
    """Return the recipe of ml-20m (20,000,263 ratings) or ml-32m (32,000,204).

    Their files are movies.csv and ratings.csv in UTF-8: a header, commas, double quotes around what
    holds a comma, doubled inside.
    """
    files = work_of(out) / f"{name}.zip"
    return Recipe(
        page=f"https://grouplens.org/datasets/movielens/{name.removeprefix('ml-')}/",
        sources=[_source(name)],
        members={f"{name}.zip": ["ratings.csv", "movies.csv"]},
        tables={
            "events": EVENTS.format(ratings=csv_sql(files / "ratings.csv", RATINGS, **CSV)),
            "items": ITEMS.format(movies=csv_sql(files / "movies.csv", MOVIES, **CSV)),
        },
        growth=6,
        prepare={},
    )


def _source(name: str) -> Source:
    url = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    return Source(name=f"{name}.zip", url=url, md5=MD5[name])
