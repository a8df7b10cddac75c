"""History tokens read what came before them and are all that later events know of it."""

# pyright: standard

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.baselines import history_tokens
from benchmarks.baselines.history_tokens import (
    HistoryTokenEncoder,
    HistoryTokens,
    HistoryTokensConfig,
    states_of,
    token_mask,
    train,
    windows,
)
from benchmarks.snapshot import snapshot_at
from clue.data.ragged import Ragged
from tests.benchmarks.worlds import corpus_of, parts

BATCHES = 200
SMALL = HistoryTokensConfig(minutes=0.05, width=16, heads=2, events=12, batch=64, negatives=32)


def slow_mask(events: int, places: list[int]) -> list[list[bool]]:
    """The rules one by one: a token reads itself and what is before it, an event its last token."""
    rows: list[list[bool]] = []
    for t in range(events):
        before = [r for r, place in enumerate(places) if place <= t]
        first = places[before[-1]] if before else 0
        read = [first <= s <= t for s in range(events)]
        rows.append(read + [bool(before) and r == before[-1] for r in range(len(places))])
    for r, place in enumerate(places):
        rows.append([s < place for s in range(events)] + [r == q for q in range(len(places))])
    return rows


def test_the_mask_equals_its_rules() -> None:
    rng, compared = np.random.default_rng(0), 0
    for _ in range(50):
        events = int(rng.integers(1, 9))
        places = sorted((1 + rng.permutation(events))[: rng.integers(0, events + 1)].tolist())
        mask = token_mask(events, torch.tensor(places, dtype=torch.long))
        assert mask.tolist() == slow_mask(events, places)
        compared += mask.numel()
    assert compared > 1_000


def test_an_event_knows_what_lies_before_a_token_through_its_state_alone() -> None:
    torch.manual_seed(0)
    items = torch.randint(0, 30, (3, 8))
    reads: dict[int, list[float]] = {}
    for layers in (1, 2):
        model = HistoryTokenEncoder(HistoryTokensConfig(layers=layers, width=16), 30).eval()
        for row, place in ((5, 0), (5, 3), (8, 0), (8, 6)):  # 8 is the token after 5 events
            moved = items.clone()
            moved[:, place] = (moved[:, place] + 1) % 30
            one, other = (model(each, torch.tensor([5])) for each in (items, moved))
            reads.setdefault(layers, []).append(
                float((one[:, row] - other[:, row]).detach().abs().max())
            )
    # Past the token: by its state, which the second layer reads. Before it: at once. After: never.
    assert [value > 1e-6 for value in reads[1]] == [False, False, True, False]
    assert [value > 1e-6 for value in reads[2]] == [True, True, True, False]


def test_windows_are_stretches_with_the_target_that_follows() -> None:
    histories = Ragged(np.arange(40), np.array([0, 3, 40]))
    got = windows(histories, np.array([0, 1, 1]), 5, np.random.default_rng(0))
    assert got.shape == (3, 6) and got[0].tolist() == [0, 1, 2, -1, -1, -1]
    assert all(row.tolist() == list(range(row[0], row[0] + 6)) and row[0] >= 3 for row in got[1:])


@pytest.mark.parametrize("planted", [True, False])
def test_a_planted_taste_is_in_the_state_and_a_shuffled_one_is_not(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()  # batches and not seconds end the training: what is learnt is no machine's
    clock = SimpleNamespace(process_time=lambda: 60 * SMALL.minutes * next(ticks) / BATCHES)
    monkeypatch.setattr(history_tokens, "time", clock)
    rng = np.random.default_rng(1)
    taste = rng.integers(0, 2, 400)
    of = taste if planted else rng.integers(0, 2, 400)
    rows = [(20 * group + rng.integers(0, 20, 10)).tolist() for group in of]
    # Every third event is of the other group: no single item tells.
    rows = [[(i + 20) % 40 if n % 3 == 0 else i for n, i in enumerate(row)] for row in rows]
    histories = Ragged.from_lists(rows)
    states = states_of(train(SMALL, [histories], 40, 0), histories, SMALL.events)
    assert next(ticks) == BATCHES + 1
    fit = LogisticRegression(max_iter=500).fit(states[:200], taste[:200])
    right = fit.score(states[200:], taste[200:])
    assert right > 0.9 if planted else 0.35 < right < 0.65


def test_users_have_the_mean_of_their_services_and_unknown_items_no_vector(tmp_path: Path) -> None:
    events = [(u, s, f"{s}{i}") for u in parts(40) for s in ("a", "b") for i in range(4)]
    learn = corpus_of(tmp_path / "one", events, parts(40))
    corpus = corpus_of(tmp_path / "two", [*events, ("u000", "b", "new")], parts(40))
    config = HistoryTokensConfig(minutes=0.005, width=8, work=tmp_path / "work")
    model = HistoryTokens(config, learn, corpus, seed=0)
    users = np.arange(5)
    both, *each = (
        model.users(snapshot_at(corpus, users, services=of)) for of in (None, ["a"], ["b"])
    )
    assert both == pytest.approx(np.mean(each, axis=0), abs=1e-6) and np.abs(both).max() > 0
    new = corpus.item_ids.to_pylist().index("new")
    assert not model.items()[new].any() and (model.items() != 0).any(1).sum() == 8
    again = HistoryTokens(config, learn, corpus, seed=0)  # the file is read, not made again
    assert np.array_equal(again.users(snapshot_at(corpus, users)), both)
    assert again.fingerprint == model.fingerprint
