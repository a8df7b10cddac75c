"""Outcomes follow the probabilities stored beside them, and leave the world as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from clue.config import load
from clue.synthetic.labels import (
    Outcomes,
    OutcomesConfig,
    latents_at,
    make_outcomes,
    places,
    shares_of,
    write_outcomes,
)
from clue.synthetic.world import SyntheticConfig, make_world

WORLD = SyntheticConfig(users=3000, items_per_service=200, interests=6, mean_events=12)
CONFIG = OutcomesConfig(world=WORLD)


@pytest.fixture(scope="module")
def made() -> Outcomes:
    return make_outcomes(CONFIG)


def follows(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The label's mean less that of its probability, in standard errors of such a sum."""
    error = np.sqrt((probabilities * (1 - probabilities)).sum())
    return float((labels - probabilities).sum() / error)


def truths(made: Outcomes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    of_class = np.array(made.outcomes["attribute_probability"].to_pylist())
    attribute = made.outcomes["attribute"].to_numpy()
    return {
        "clicked": tuple(made.impressions[c].to_numpy() for c in ("clicked", "probability")),
        "churned": tuple(made.outcomes[c].to_numpy() for c in ("churned", "churn_probability")),
        **{f"class {c}": (attribute == c, of_class[:, c]) for c in range(CONFIG.classes)},
    }  # pyright: ignore[reportReturnType]


def test_the_world_is_the_one_without_outcomes(made: Outcomes) -> None:
    world = make_world(WORLD)
    assert made.world.users.equals(world.users) and made.world.events.equals(world.events)
    assert made.items.drop(["popularity"]).equals(world.items)
    # The log itself lacks the window of those who stop, and nothing else.
    stop = places(world.users["user_id"], world.events["user_id"])
    stop = made.outcomes["churned"].to_numpy()[stop]
    late = world.events["timestamp"].to_numpy() >= CONFIG.window_start
    assert (stop & late).sum() > 1000
    assert made.events.equals(world.events.filter(pa.array(~(stop & late))))


@pytest.mark.parametrize("name", ["clicked", "churned", "class 0", "class 1", "class 2", "class 3"])
def test_labels_follow_their_probabilities(made: Outcomes, name: str) -> None:
    label, probability = truths(made)[name]
    assert probability.std() > 0.1 and abs(follows(label, probability)) < 4
    # Also where the probability is low and where it is high: it is each user's own.
    low = probability < np.median(probability)
    assert abs(follows(label[low], probability[low])) < 4
    assert abs(follows(label[~low], probability[~low])) < 4
    assert abs(follows(label, np.full(len(label), probability.mean() + 0.1))) > 4


@pytest.mark.parametrize("name", ["clicked", "churned", "class 0"])
def test_nothing_scores_above_the_truth(made: Outcomes, name: str) -> None:
    label, probability = truths(made)[name]
    logit = np.log(probability / (1 - probability))
    rng = np.random.default_rng(0)
    ceiling = roc_auc_score(label, probability)
    noisy = [
        roc_auc_score(label, logit + sigma * rng.standard_normal(len(logit)))
        for sigma in (0.5, 1.0, 2.0, 4.0)
    ]
    assert ceiling > 0.7 and all(a > b for a, b in zip([ceiling, *noisy], noisy, strict=False))
    assert abs(roc_auc_score(rng.permutation(label), probability) - 0.5) < 0.03


def test_spend_is_what_is_bought_in_the_window(made: Outcomes) -> None:
    bought = dict.fromkeys(made.outcomes["user_id"].to_pylist(), 0.0)
    names = ("user_id", "timestamp", "amount")
    for user, time, amount in zip(*(made.events[n].to_pylist() for n in names), strict=True):
        bought[user] += amount * (time >= CONFIG.window_start)
    spend = made.outcomes["spend"].to_numpy()
    assert np.allclose(spend, np.log1p(list(bought.values())))
    assert (spend[made.outcomes["churned"].to_numpy()] == 0).all() and (spend > 0).mean() > 0.4


def test_the_expected_spend_is_the_mean_of_the_spend_and_no_guess_is_better(made: Outcomes) -> None:
    spend, expected = (made.outcomes[n].to_numpy() for n in ("spend", "spend_expectation"))
    rest = spend - expected
    error = rest.std() / np.sqrt(len(rest))
    assert abs(rest.mean()) < 4 * error
    low = expected < np.median(expected)  # also where little and where much is expected
    assert abs(rest[low].mean()) < 4 * error and abs(rest[~low].mean()) < 4 * error
    assert abs(np.polyfit(expected, spend, 1)[0] - 1) < 0.1

    def r2(guess: np.ndarray) -> float:
        return 1 - float(((spend - guess) ** 2).sum() / ((spend - spend.mean()) ** 2).sum())

    rng = np.random.default_rng(0)
    ceiling = r2(expected)
    noisy = [r2(expected + sigma * rng.standard_normal(len(spend))) for sigma in (0.25, 0.5, 1.0)]
    assert ceiling > 0.3 and all(a > b for a, b in zip([ceiling, *noisy], noisy, strict=False))
    # Half of the truth explains less: the chance to stop alone, and the spend of who stays alone.
    stops = made.outcomes["churn_probability"].to_numpy()
    for part in (stops, expected / (1 - stops)):
        slope, base = np.polyfit(part, spend, 1)
        assert r2(slope * part + base) < ceiling - 0.02
    assert r2(rng.permutation(expected)) < 0


def test_who_stops_does_nothing_in_the_window_and_others_go_on(made: Outcomes) -> None:
    stopped = made.outcomes.filter(made.outcomes["churned"])["user_id"]
    late = made.events["timestamp"].to_numpy() >= CONFIG.window_start
    active = set(made.events.filter(pa.array(late))["user_id"].to_pylist())
    assert len(stopped) > 500 and not active & set(stopped.to_pylist())
    assert len(active) > 0.9 * (WORLD.users - len(stopped))
    seen = made.impressions["user_id"].to_pylist()
    assert not set(seen) & set(stopped.to_pylist())
    assert len(seen) == CONFIG.impressions * (WORLD.users - len(stopped))
    times = made.impressions["timestamp"].to_numpy()
    end = CONFIG.window_start + CONFIG.window * WORLD.days * 86_400
    assert times.min() >= CONFIG.window_start and times.max() <= end


def test_stopping_is_for_the_idle_and_for_one_interest(made: Outcomes) -> None:
    probability = made.outcomes["churn_probability"].to_numpy()
    user = places(made.world.users["user_id"], made.world.events["user_id"])
    counts = np.bincount(user, minlength=WORLD.users)
    first, last = (shares_of(made.world.users, c) for c in ("first_latents", "latents"))
    interest = latents_at(first, last, 1 - CONFIG.window).reshape(WORLD.users, 6, -1).sum(2)
    assert np.corrcoef(np.log(counts), probability)[0, 1] < -0.4
    with_it = [np.corrcoef(interest[:, n], probability)[0, 1] for n in range(6)]
    assert with_it[0] > 0.3 and max(with_it[1:]) < 0.1


def test_clicks_follow_the_interests_of_the_moment(made: Outcomes) -> None:
    """Of two items that differ in the topic alone, the one she cares for is likelier clicked."""
    config = replace(CONFIG, item_effect=0.0)
    shown = make_outcomes(config).impressions
    user = places(made.world.users["user_id"], shown["user_id"])
    topic = made.items["topic"].to_numpy()[places(made.items["item_id"], shown["item_id"])]
    first, last = (shares_of(made.world.users, c) for c in ("first_latents", "latents"))
    moments = config.moments(shown["timestamp"].to_numpy())[:, None]
    share = latents_at(first[user], last[user], moments)[np.arange(len(user)), topic]
    logit = config.click + config.relevance * np.log(30 * share + 0.1)
    # Times are kept to the second, of which half a year has 16 million.
    assert np.allclose(1 / (1 + np.exp(-logit)), shown["probability"].to_numpy(), atol=1e-4)


def test_pretraining_reads_neither_the_window_nor_a_last_event(made: Outcomes) -> None:
    times = made.pretrain_events["timestamp"].to_numpy()
    assert times.max() < CONFIG.window_start
    newest: dict[str, int] = {}
    for user, time in zip(
        *(made.events[c].to_pylist() for c in ("user_id", "timestamp")), strict=True
    ):
        newest[user] = max(newest.get(user, 0), time)
    kept = made.pretrain_events["user_id"].to_pylist()
    assert all(time < newest[user] for user, time in zip(kept, times, strict=True))
    early = sum(time < CONFIG.window_start for time in made.events["timestamp"].to_pylist())
    stayed_out = sum(time < CONFIG.window_start for time in newest.values())
    assert len(kept) == early - stayed_out > 10_000


def test_what_is_written_is_what_was_made(tmp_path: Path) -> None:
    world = SyntheticConfig(users=40, items_per_service=60, out=tmp_path / "mini")
    config = OutcomesConfig(world=world, window=0.2)
    made = write_outcomes(config)
    tables = {"users": made.world.users}
    for name in ("events", "pretrain_events", "items", "outcomes", "impressions"):
        tables[name] = getattr(made, name)
    for name, table in tables.items():
        assert pq.read_table(tmp_path / "mini" / f"{name}.parquet").equals(table)
    assert load(OutcomesConfig, tmp_path / "mini" / "world.yaml") == config
    assert make_outcomes(config).impressions.equals(made.impressions)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("window=1", r"window=1.0 is a share of the days; it must lie in \(0, 1\)"),
        ("classes=1", "classes=1, impressions=8, rounds=64: at least 2, 1 and 1"),
        ("impressions=0", "impressions=0, rounds=64: at least 2, 1 and 1"),
        ("rounds=0", "rounds=0: at least 2, 1 and 1"),
    ],
)
def test_outcomes_that_cannot_be_are_refused(change: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(OutcomesConfig, None, [change])
