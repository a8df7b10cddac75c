"""Groups of texts: a world's topics are found and shuffled ones are not; nearest, log counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.synthetic.world import SyntheticConfig, make_world
from clue.train.alignment import align, documents_of
from clue.train.text_groups import TextGroups, text_groups
from tests.data.logs import Row, corpus_of, write_log

INTERESTS, ITEMS = 4, 6  # of each interest; every item has a word of its own


def two_services(tmp_path: Path) -> Corpus:
    """Return users of one interest each, who meet its items in two services."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(300):
        for service in range(2):
            for time in range(5):
                interest = user % INTERESTS
                item = ITEMS * interest + int(rng.integers(ITEMS))
                rows.append(
                    {
                        "user_id": f"u{user}",
                        "service": "ab"[service],
                        "item_id": f"{service}-{item}",
                        "timestamp": time,
                        "text": f"{'kq'[service]}{'abcdefghijklmnopqrstuvwx'[item] * 3}",
                    }
                )
    file = write_log(tmp_path / "log.parquet", rows)
    return corpus_of(tmp_path / "corpus", f"events=[{file}]", "split.hash.valid=0.3")


def purity(tmp_path: Path, *, shuffled: bool) -> float:
    """Return the share of a synthetic world's items that are of the chief topic of their group."""
    world = make_world(SyntheticConfig(users=1000, items_per_service=150))
    events = world.events
    if shuffled:
        order = pa.array(np.random.default_rng(0).permutation(events.num_rows))
        events = events.set_column(0, "user_id", events["user_id"].take(order))
    for name, table in (("events", events), ("items", world.items)):
        pq.write_table(table, tmp_path / f"{name}-{shuffled}.parquet")
    texts = ", ".join(f"{name}: {{template: '{{title}}'}}" for name in ("shop", "news", "films"))
    corpus = corpus_of(
        tmp_path / str(shuffled),
        *(f"events=[{tmp_path}/events-{shuffled}.parquet]", f"services={{{texts}}}"),
        *(f"items=[{tmp_path}/items-{shuffled}.parquet]", "tokenizer.vocab_size=4096"),
    )
    groups = text_groups(corpus, corpus.users_in("train"), 80, seed=0)
    topic = dict(zip(*(world.items[n].to_pylist() for n in ("item_id", "topic")), strict=True))
    topics = [topic[item] for item in corpus.item_ids.to_pylist()]
    counts = np.zeros((80, 40))
    np.add.at(counts, (groups.of(corpus.item_tokens), topics), 1)
    return float(counts.max(1).sum() / counts.sum())


def test_topics_are_found_over_services_and_shuffled_ones_are_not(tmp_path: Path) -> None:
    assert purity(tmp_path, shuffled=False) > 0.75
    assert purity(tmp_path, shuffled=True) < 0.5


def test_a_text_is_of_the_nearest_centre() -> None:
    torch.manual_seed(0)
    groups = TextGroups(torch.randn(9, 3), torch.randn(4, 3))
    texts = Ragged.from_lists([[1, 2, 3], [4], [5, 5], [8, 1], []])
    checked = 0
    for place, group in enumerate(groups.of(texts).tolist()):
        total = groups.words[texts[place].astype(np.int64)].sum(0)
        unit = total / max(float(total.norm()), 1e-30)
        assert group == int((groups.centres - unit).norm(dim=1).argmin())
        checked += 1
    assert checked == 5


def test_counts_of_groups_by_hand() -> None:
    groups = TextGroups(torch.eye(2), torch.eye(2))
    texts = Ragged.from_lists([[0], [1], [0, 0]])
    counts = groups.log_counts(texts, Ragged.from_lists([[0, 2, 1], [], [1, 1]]))
    expected = [[np.log(3), np.log(2)], [0, 0], [0, np.log(3)]]
    np.testing.assert_allclose(counts, expected, rtol=1e-6)


def test_fewer_texts_than_groups_have_one_each(tmp_path: Path) -> None:
    corpus = two_services(tmp_path)
    groups = text_groups(corpus, corpus.users_in("train"), 90, seed=0)
    assert groups.centres.shape[0] == 90
    contents = corpus.item_content
    numbers = groups.of(corpus.item_tokens)
    assert len(np.unique(numbers)) <= len(np.unique(contents)) <= 90
    for content in np.unique(contents):
        assert len(np.unique(numbers[contents == content])) == 1


def test_log_counts_align_services(tmp_path: Path) -> None:
    corpus = two_services(tmp_path)
    alignment = align(corpus, corpus.users_in("train"), 5, seed=0, groups=INTERESTS)
    users = corpus.users_in("valid")
    assert len(users) > 50
    made: list[np.ndarray] = []
    for service in (0, 1):
        documents = documents_of(
            corpus.item_tokens, corpus.items_of(service).take(users), alignment
        )
        assert documents.groups is not None
        assert documents.groups.shape == (len(users), INTERESTS)
        vectors = alignment.vectors(documents, service)
        made.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    interest = np.array([int(name[1:]) % INTERESTS for name in corpus.user_ids.to_pylist()])[users]
    cosines = made[0] @ made[1].T
    same = interest[:, None] == interest
    assert cosines[same].mean() > 0.8
    assert cosines[~same].mean() < 0.1
    assert align(corpus, users, 5, seed=0).groups is None
