"""The oracle of the log: exact where the posterior has a closed form, and nearer than counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.oracle import Oracle
from benchmarks.baselines.posterior import LogOracle, posterior, to_come, totals
from benchmarks.snapshot import snapshot_at
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import FieldConfig, PrepareConfig, ServiceConfig
from clue.data.ragged import Ragged
from clue.prepare import prepare
from clue.synthetic.labels import OutcomesConfig, latents_at, shares_of, write_outcomes
from clue.synthetic.world import SyntheticConfig, draw_activity

SERVICES = ("shop", "news", "films")


def truth_of(folder: Path, *, drift: float = 0.3, noise: float = 0.1, skew: float = 0.0) -> Oracle:
    log = SyntheticConfig(
        users=400,
        items_per_service=80,
        interests=4,
        mean_events=10,
        drift=drift,
        noise=noise,
        skew=skew,
        nested=nested,
        out=folder / "world",
    )
    write_outcomes(OutcomesConfig(world=log))
    config = PrepareConfig(
        name="world",
        out=folder / "corpus",
        events=[str(log.out / "events.parquet")],
        items=[str(log.out / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in SERVICES},
        fields={"amount": FieldConfig(kind="numeric")},
    )
    return Oracle(log.out, Corpus.open(prepare(config, progress=False)))


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_one_event_without_noise_or_drift_has_a_closed_form(tmp_path: Path, skew: float) -> None:
    truth = truth_of(tmp_path, drift=0.0, noise=0.0, skew=skew)
    inside = truth.first.shape[1] // 4
    event = Ragged.from_lists([[0]])
    draws = posterior(truth, event, Ragged(np.zeros(1), event.offsets), 6_000, seed=0)
    # Dirichlet laws of one count: (a + hit) / (sum of a + 1) of the interests, and so of the
    # sub-topics of the interest that was hit; a / sum of a of those of the others
    own, sub = divmod(int(truth.topic[0]), inside)
    ranks = [np.arange(1.0, count + 1) ** -skew for count in (4, inside)]
    interests, within = (0.3 * each / each.mean() for each in ranks)
    expected = np.outer((interests + np.eye(4)[own]) / (1.2 + 1), within / within.sum())
    hit = (within + np.eye(inside)[sub]) / (within.sum() + 1)
    expected[own] = (interests[own] + 1) / (1.2 + 1) * hit
    assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(draws.first.mean(0)[0], expected.ravel(), atol=0.015)


def test_one_event_of_topics_that_are_not_nested_has_a_closed_form(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, drift=0.0, noise=0.0, skew=1.0, nested=False)
    event = Ragged.from_lists([[0]])
    draws = posterior(truth, event, Ragged(np.zeros(1), event.offsets), 6_000, seed=0)
    prior = 1 / np.arange(1, truth.first.shape[1] + 1)
    prior *= 0.3 / prior.mean()
    expected = (prior + (np.arange(len(prior)) == truth.topic[0])) / (prior.sum() + 1)
    np.testing.assert_allclose(draws.first.mean(0)[0], expected, atol=0.015)


def test_what_a_log_tells_lies_between_the_prior_and_the_truth(tmp_path: Path) -> None:
    truth = truth_of(tmp_path)
    users = np.flatnonzero(truth.corpus.split > 0)
    past = snapshot_at(truth.corpus, users)
    reader = LogOracle(truth)
    draws = reader.draws(past)
    np.testing.assert_allclose(draws.last.sum(2), 1, rtol=1e-4)
    exact = latents_at(truth.first[users], truth.last[users], 0.5)
    counts = np.zeros(exact.shape)
    for items, _ in past.parts:
        row = np.repeat(np.arange(len(users)), items.lengths)
        np.add.at(counts, (row, truth.topic[items.values]), 1)
    smoothed = (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True)
    error, of_counts = (np.square(each - exact).sum(1).mean() for each in (draws.at(0.5), smoothed))
    prior = np.square(1 / exact.shape[1] - exact).sum(1).mean()
    assert error < 0.95 * of_counts < 0.5 * prior
    table = pq.read_table(truth.directory / "outcomes.parquet")
    ids = truth.corpus.user_ids.take(pa.array(users))
    law = shares_of(table, "attribute_probability")[truth.rows(table["user_id"], ids)]
    answers = reader.attributes(past)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-6)
    assert np.square(answers - law).mean() < 0.5 * np.square(law.mean(0) - law).mean()
    window = truth.config.window_start
    stops = reader.churn(snapshot_at(truth.corpus, users, window))[:, 1]
    hazard = table["churn_probability"].to_numpy()[truth.rows(table["user_id"], ids)]
    assert np.corrcoef(stops, hazard)[0, 1] > 0.7
    spend = reader.spend(snapshot_at(truth.corpus, users, window))
    bought, expected = (
        table[name].to_numpy()[truth.rows(table["user_id"], ids)]
        for name in ("spend", "spend_expectation")
    )
    of_log, of_truth = (1 - np.square(bought - x).mean() / bought.var() for x in (spend, expected))
    assert 0.1 < of_log < of_truth
    assert abs(spend.mean() - expected.mean()) < 0.1 * expected.mean()


def test_the_law_of_how_much_is_to_come_is_that_of_the_world() -> None:
    world = SyntheticConfig(users=20_000, mean_events=6)
    rng = np.random.default_rng(0)
    user, service, moment = draw_activity(rng, world)
    early = moment < 0.8
    before, whole = (
        np.bincount(user[kept] * 3 + service[kept], minlength=60_000)
        for kept in (early, np.ones_like(early))
    )
    law = totals(world, 60)
    seen = np.bincount(whole, minlength=61)[:61] / len(whole)
    assert np.abs(law - seen).max() < 0.006 and law.sum() == pytest.approx(1, abs=1e-3)
    checked = 0
    for count in (0, 1, 3, 8):
        drawn = to_come(world, 0.2, np.full((1, 1), count), 20_000, rng)
        really = (whole - before)[before == count]
        assert drawn.mean() == pytest.approx(really.mean(), abs=0.06), count
        checked += 1
    assert checked == 4
