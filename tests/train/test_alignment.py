"""The alignment: canonical directions of two services; planted agreement found, shuffled not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.train.alignment import (
    POWER,
    RIDGE,
    Alignment,
    Documents,
    align,
    document_weights,
    documents_of,
    token_counts,
    weighted,
)
from clue.train.factors import right_factors
from tests.data.logs import Row, corpus_of, write_log


def corpus_with(tmp_path: Path, name: str, *, services: int, shuffled: bool) -> Corpus:
    """Return users with one of eight interests, whose words differ from service to service."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(240):
        interest = int(rng.integers(8))
        for service in range(services):
            own = int(rng.integers(8)) if shuffled else interest
            for time in range(4):
                word = own if rng.random() < 0.8 else int(rng.integers(8))
                rows.append(
                    {
                        "user_id": f"u{user}",
                        "service": "abc"[service],
                        "item_id": f"{service}-{word}",
                        "timestamp": time,
                        "text": f"{'kqz'[service]}{'abcdefgh'[word] * 3}",
                    }
                )
    file = write_log(tmp_path / f"{name}.parquet", rows)
    return corpus_of(tmp_path / name, f"events=[{file}]", "split.hash.valid=0.3")


def vectors(corpus: Corpus, service: int, users: np.ndarray, width: int) -> np.ndarray:
    alignment = align(corpus, corpus.users_in("train"), width, seed=0)
    histories = corpus.items_of(service).take(users)
    return alignment.vectors(documents_of(corpus.item_tokens, histories, alignment), service)


def recall(corpus: Corpus, one: int, other: int) -> float:
    """Return how often a valid user's nearest is of the same interest, less what chance gives."""
    users = corpus.users_in("valid")
    a, b = (vectors(corpus, service, users, 7) for service in (one, other))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (a, b))
    cosines = a @ b.T
    mean = (cosines.sum() - np.trace(cosines)) / (cosines.size - len(cosines))
    return float(np.trace(cosines) / len(cosines) - mean)


@pytest.mark.parametrize("services", [2, 3])
def test_planted_agreement_is_found_and_a_shuffled_one_is_not(
    tmp_path: Path, services: int
) -> None:
    planted = corpus_with(tmp_path, "planted", services=services, shuffled=False)
    shuffled = corpus_with(tmp_path, "shuffled", services=services, shuffled=True)
    checked = 0
    for one in range(services):
        for other in range(one):
            assert recall(planted, one, other) > 0.5
            assert abs(recall(shuffled, one, other)) < 0.15
            checked += 1
    assert checked == services * (services - 1) // 2


def test_two_services_have_their_canonical_directions(tmp_path: Path) -> None:
    corpus = corpus_with(tmp_path, "two", services=2, shuffled=False)
    users = corpus.users_in("train")
    white: list[np.ndarray] = []
    for service in (0, 1):
        histories = corpus.items_of(service).take(users)
        words = token_counts(corpus.item_tokens, histories, corpus.manifest.vocab_size)
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        items = csr_matrix(
            (np.ones(len(row), np.float32), (row, histories.values)), (len(users), corpus.num_items)
        )
        scores: list[np.ndarray] = []
        for counts, rank in ((words, 512), (items, 128)):
            documents = weighted(counts, document_weights(counts))[:, np.unique(counts.indices)]
            basis = right_factors(documents, rank, 0).numpy() / documents.shape[1] ** 0.5
            scores.append(documents @ basis)
        x = np.concatenate(scores, axis=1)
        x = x - x.mean(0)
        values, turn = np.linalg.eigh(x.T @ x + RIDGE * np.eye(x.shape[1]))
        white.append(x @ (turn / np.sqrt(values)) @ turn.T)
    left, strength, right = np.linalg.svd(white[0].T @ white[1])
    slow = [white[0] @ left[:, :3], white[1] @ right.T[:, :3]]
    assert strength[0] > 0.5
    for service in (0, 1):
        found = vectors(corpus, service, users, 3)
        expected = slow[service] * strength[:3] ** POWER / 2**0.5
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_a_service_of_other_users_has_no_map(tmp_path: Path) -> None:
    rows: list[Row] = [
        {
            "user_id": f"{'x' if service == 'c' else 'u'}{user}",
            "service": service,
            "item_id": f"{user % 5}",
            "timestamp": 0,
            "text": f"word {'abcde'[user % 5]} {service}",
        }
        for service in "abc"
        for user in range(60)
    ]
    file = write_log(tmp_path / "log.parquet", rows)
    corpus = corpus_of(tmp_path / "corpus", f"events=[{file}]")
    found = align(corpus, corpus.users_in("train"), 4, seed=0)
    assert found.word_maps[0].abs().max() > 0
    assert found.word_maps[1].abs().max() > 0
    assert found.word_maps[2].abs().max() == 0
    mapped = found.item_maps.abs().amax(1) > 0
    assert mapped.tolist() == (corpus.item_service < 2).tolist()


def test_an_item_of_no_catalogue_is_read_by_its_words(tmp_path: Path) -> None:
    corpus = corpus_with(tmp_path, "two", services=2, shuffled=False)
    alignment = align(corpus, corpus.users_in("train"), 7, seed=0)
    histories = corpus.items_of(0).take(np.arange(20))
    rows = np.arange(corpus.num_items)
    known, same, unknown = (
        documents_of(corpus.item_tokens, histories, alignment, each)
        for each in (None, rows, np.full(len(rows), -1))
    )
    whole = alignment.vectors(known, 0)
    np.testing.assert_array_equal(alignment.vectors(same, 0), whole)
    words = weighted(known.words, alignment.word_weights[0].numpy())
    mean = alignment.offsets[0, 0].numpy()
    expected = words @ alignment.word_maps[0].numpy() - mean
    np.testing.assert_allclose(alignment.vectors(unknown, 0), expected, atol=1e-6)
    assert np.abs(whole - expected).max() > 0.01


def test_nothing_known_of_a_history_is_no_vector() -> None:
    nothing = csr_matrix((1, 3), dtype=np.float32)
    alignment = Alignment(
        torch.ones(1, 3, 2),
        torch.ones(1, 3),
        torch.ones(3, 2),
        torch.ones(3),
        torch.ones(1, 2, 2),
    )
    assert alignment.vectors(Documents(nothing, nothing), 0).tolist() == [[0, 0]]


def test_a_document_by_hand() -> None:
    tokens = Ragged.from_lists([[1, 2], [2]])
    counts = token_counts(tokens, Ragged.from_lists([[0, 1, 1], [1]]), 4)
    assert counts.toarray().tolist() == [[0, 1, 3, 0], [0, 0, 1, 0]]
    weights = document_weights(counts)
    np.testing.assert_allclose(weights, [0, 1 + np.log(3 / 2), 1, 0], rtol=1e-6)
    first = np.array([0, 1 + np.log(3 / 2), 1 + np.log(3), 0])
    made = weighted(counts, weights).toarray()
    np.testing.assert_allclose(made[0], first / np.linalg.norm(first), rtol=1e-6)
    np.testing.assert_allclose(made[1], [0, 0, 1, 0], rtol=1e-6)
