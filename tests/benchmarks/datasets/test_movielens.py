# pyright: standard
"""MovieLens, from the publisher's format to rows worked out by hand and to a corpus."""

import hashlib
from pathlib import Path

import pytest

from benchmarks.datasets import movielens
from tests.benchmarks.datasets.sets import corpus_of, made, rows, zipped

ML_1M = {
    "ml-1m/": b"",
    "ml-1m/README": b"words",
    "ml-1m/ratings.dat": b"1::10::5::978300760\n1::30::3::978302109\n2::10::4::978298413\n",
    "ml-1m/movies.dat": (
        '10::Misérables, "Les" (1995)::Drama|Musical\n'
        "20::Toy Story (1995)::Animation|Children's|Comedy\n30::M (1931)::Film-Noir\n"
    ).encode("latin-1"),
    "ml-1m/users.dat": b"1::F::1::10::48067\n2::M::56::16::02460-1234\n",
}


def test_movielens_1m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(ML_1M)
    monkeypatch.setitem(movielens.MD5, "ml-1m", hashlib.md5(archive).hexdigest())
    data = made(tmp_path, "movielens-1m", {"ml-1m.zip": archive})
    assert rows(tmp_path, "events") == [
        ("1", "movies", "10", 978300760, 5.0),
        ("1", "movies", "30", 978302109, 3.0),
        ("2", "movies", "10", 978298413, 4.0),
    ]
    assert rows(tmp_path, "items") == [
        ("movies", "10", 'Misérables, "Les" (1995). Drama, Musical'),
        ("movies", "20", "Toy Story (1995). Animation, Children's, Comedy"),
        ("movies", "30", "M (1931). Film-Noir"),
    ]
    assert rows(tmp_path, "attributes") == [("1", "F", 1, 10), ("2", "M", 56, 16)]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("attributes.parquet", "data.yaml", "events.parquet", "items.parquet", "raw")
    ]
    corpus = corpus_of(data, tmp_path / "corpus")
    assert corpus.manifest.name == "movielens_1m"
    assert corpus.user_ids.to_pylist() == ["1", "2"]
    assert corpus.items_of(0).values.tolist() == [0, 2, 0]
    assert corpus.timestamps_of(0).values.tolist() == [978300760, 978302109, 978298413]


@pytest.mark.parametrize("size", ["20m", "32m"])
def test_movielens_in_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    movies = (
        "movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n"
        '2,"Amélie, or ""Le fabuleux destin"" (2001)",Romance\n3,Untold (2020),(no genres listed)\n'
    )
    archive = zipped(
        {
            f"ml-{size}/ratings.csv": b"userId,movieId,rating,timestamp\n7,2,3.5,1112486027\n"
            b"7,3,0.5,1112484676\n",
            f"ml-{size}/movies.csv": movies.encode(),
            f"ml-{size}/tags.csv": b"userId,movieId,tag,timestamp\n",
        }
    )
    monkeypatch.setitem(movielens.MD5, f"ml-{size}", hashlib.md5(archive).hexdigest())
    data = made(tmp_path, f"movielens-{size}", {f"ml-{size}.zip": archive})
    assert rows(tmp_path, "events") == [
        ("7", "movies", "2", 1112486027, 3.5),
        ("7", "movies", "3", 1112484676, 0.5),
    ]
    assert [text for _, _, text in rows(tmp_path, "items")] == [
        "Toy Story (1995). Animation, Comedy",
        'Amélie, or "Le fabuleux destin" (2001). Romance',
        "Untold (2020)",
    ]
    corpus = corpus_of(data, tmp_path / "corpus")
    assert corpus.items_of(0).values.tolist() == [2, 1]  # in order of time
