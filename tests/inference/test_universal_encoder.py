"""The universal encoder: one vector from texts and corpus; blocks, moments, items, folders."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import clue
from clue.data.activity import activity_names
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.windows import histories_of, marks_of
from clue.evaluation.encode import predictive_states
from clue.inference.blocks import BLOCKS
from clue.inference.pooling import Part
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder
from tests.conftest import TinyRun


@pytest.fixture(scope="module")
def encoder(tiny_universal: TinyRun) -> UniversalEncoder:
    return UniversalEncoder.load(tiny_universal.run)


@pytest.fixture(scope="module")
def corpus(tiny_universal: TinyRun) -> Corpus:
    return Corpus.open(tiny_universal.corpus)


def amounts_of(corpus: Corpus, users: np.ndarray) -> list[dict[str, Ragged]]:
    services = range(len(corpus.services))
    return [{"amount": corpus.values_of(s, "amount").take(users)} for s in services]


def parts_of(corpus: Corpus, users: np.ndarray) -> list[Part]:
    services = range(len(corpus.services))
    return [(corpus.items_of(s).take(users), corpus.timestamps_of(s).take(users)) for s in services]


def as_texts(corpus: Corpus, user: int) -> dict[str, list[dict[str, str | float]]]:
    """Return a user of the corpus as `encode` reads one: texts and times by service."""
    made: dict[str, list[dict[str, str | float]]] = {}
    for number, service in enumerate(corpus.services):
        items, times = corpus.items_of(number)[user], corpus.timestamps_of(number)[user]
        amounts = corpus.values_of(number, "amount")[user]
        if len(items):
            made[service] = [
                {
                    "text": corpus.item_texts[int(item)].as_py(),
                    "time": float(time),
                    "amount": float(amount),
                }
                for item, time, amount in zip(items, times, amounts, strict=True)
            ]
    return made


def test_texts_and_corpus_give_one_vector(encoder: UniversalEncoder, corpus: Corpus) -> None:
    contents = list(zip(corpus.item_service.tolist(), corpus.item_content.tolist(), strict=True))
    twice = {key for key in contents if contents.count(key) > 1}
    met = [corpus.items_of(s) for s in range(len(corpus.services))]
    users = [
        user
        for user in range(corpus.num_users)
        if not any(contents[item] in twice for rows in met for item in rows[user].tolist())
    ][:20]
    assert len(users) > 5  # whose items are known by their texts alone
    rows = np.array(users)
    whole = encoder.encode_users(corpus, parts_of(corpus, rows), amounts=amounts_of(corpus, rows))
    texts = encoder.encode([as_texts(corpus, user) for user in users])
    assert whole.shape == (len(users), encoder.width)
    columns = encoder.blocks["activity"]
    np.testing.assert_allclose(whole, texts, rtol=1e-4, atol=1e-5)
    spent = activity_names(["amount"]).index("log amount")
    total = [
        sum(np.nansum(corpus.values_of(s, "amount")[user]) for s in range(len(corpus.services)))
        for user in users
    ]
    np.testing.assert_allclose(whole[:, columns][:, spent], np.log1p(total), rtol=1e-4)
    assert np.abs(whole[:, columns]).max() > 1


def test_blocks_are_columns_of_the_whole(encoder: UniversalEncoder, corpus: Corpus) -> None:
    users = np.arange(30)
    whole = encoder.encode_users(corpus, parts_of(corpus, users))
    assert list(encoder.blocks) == list(BLOCKS)
    stops = [0, *(columns.stop for columns in encoder.blocks.values())]
    assert [columns.start for columns in encoder.blocks.values()] == stops[:-1]
    assert stops[-1] == encoder.width == whole.shape[1]
    for name in BLOCKS:
        one = UniversalEncoder.load(encoder.source.path, blocks=[name])
        assert one.fingerprint != encoder.fingerprint
        alone = one.encode_users(corpus, parts_of(corpus, users))
        np.testing.assert_array_equal(alone, whole[:, encoder.blocks[name]])
    with pytest.raises(ValueError, match=r"names \['words'\]; there are contrastive"):
        UniversalEncoder.load(encoder.source.path, blocks=["words"])


def test_the_contrastive_block_is_that_part_alone(
    encoder: UniversalEncoder, corpus: Corpus, tiny_run: TinyRun
) -> None:
    # the same weights in a model of that part alone
    text = TextEncoder.load(tiny_run.run)
    text.model = encoder.model.contrastive
    text.max_events = encoder.max_events
    users = np.arange(30)
    whole = encoder.encode_users(corpus, parts_of(corpus, users))
    alone = text.encode_users(corpus, parts_of(corpus, users))
    np.testing.assert_allclose(whole[:, encoder.blocks["contrastive"]], alone, atol=1e-6)
    columns = encoder.blocks["aligned"]
    texts = whole[:, columns]
    norms = np.linalg.norm(texts, axis=1)
    assert np.allclose(norms[norms > 0], 1, atol=1e-5)
    assert (norms > 0).mean() > 0.9
    both = np.concatenate([alone, texts], axis=1) / np.sqrt(1 + norms**2)[:, None]
    np.testing.assert_allclose(encoder.similarity(whole, whole), both @ both.T, atol=1e-5)


def test_the_moment_moves_activity_alone(encoder: UniversalEncoder, corpus: Corpus) -> None:
    users = np.arange(30)
    parts = parts_of(corpus, users)
    latest = np.max([np.maximum.reduceat(t.values, t.offsets[:-1]) for _, t in parts], axis=0)
    now, later = (
        encoder.encode_users(corpus, parts, as_of=latest + days * 86_400) for days in (0, 30)
    )
    np.testing.assert_array_equal(now, encoder.encode_users(corpus, parts))
    columns = encoder.blocks["activity"]
    changed = np.flatnonzero((now != later).any(axis=0))
    assert len(changed) > 5
    assert changed.min() >= columns.start
    with pytest.raises(ValueError, match="after as_of"):
        encoder.encode_users(corpus, parts, as_of=latest - 1)


def test_a_corpus_of_positions_has_no_moments(
    encoder: UniversalEncoder, tiny_universal: TinyRun
) -> None:
    corpus = Corpus.open(tiny_universal.corpus)
    clocks = dict.fromkeys(corpus.services, False)
    corpus.manifest = dataclasses.replace(corpus.manifest, clocks=clocks)
    parts = parts_of(corpus, np.arange(30))
    whole = encoder.encode_users(corpus, parts)
    early = encoder.encode_users(corpus, parts, as_of=np.zeros(30))
    np.testing.assert_array_equal(early, whole)  # before all events, if these were moments
    activity = whole[:, encoder.blocks["activity"]]
    named = activity_names(["amount"])
    names = [named[column] for column in np.flatnonzero(activity.any(axis=0)).tolist()]
    assert names == ["log events", "log distinct items", "log services"]


def test_one_user_in_several_services_is_their_join(
    encoder: UniversalEncoder, corpus: Corpus
) -> None:
    users = np.arange(60)
    parts = parts_of(corpus, users)
    each, whole = encoder.encode_services(corpus, parts, amounts=amounts_of(corpus, users))
    again = encoder.encode_users(corpus, parts, amounts=amounts_of(corpus, users))
    np.testing.assert_allclose(whole, again, rtol=1e-5, atol=1e-6)  # in batches of other sizes
    filled = np.stack([items.lengths > 0 for items, _ in parts])
    alone, several = filled.sum(0) == 1, np.flatnonzero(filled.sum(0) > 1)
    assert alone.any() and len(several) > 10
    for vectors, here in zip(each, filled, strict=True):
        assert not vectors[~here].any()
        np.testing.assert_array_equal(vectors[here & alone], whole[here & alone])
    factors = encoder.item_inputs(corpus).vectors["pooled"].numpy()
    for user in several.tolist():
        met = np.concatenate([histories[user] for histories, _ in parts])
        items, count = np.unique(met, return_counts=True)
        expected = (1 + np.log(count)) @ factors[items] / np.sqrt(len(items))
        np.testing.assert_allclose(
            whole[user, encoder.blocks["pooled"]], expected, rtol=1e-4, atol=1e-5
        )
        newest: dict[int, float] = {}
        for histories, _ in parts:
            for rank, item in enumerate(histories[user][::-1].tolist(), 1):
                newest[item] = newest.get(item, 0.0) + 1 / rank
        weights = np.array(list(newest.values()))
        expected = weights @ factors[list(newest)] / np.linalg.norm(weights)
        np.testing.assert_allclose(
            whole[user, encoder.blocks["recent"]], expected, rtol=1e-4, atol=1e-5
        )

    # as the objective reads a history that joins services by time
    model = encoder.model.predictive
    histories, marks = histories_of(corpus, [0, 1, 2], users, marks_of(corpus))
    vectors = encoder.item_inputs(corpus).vectors["predictive"]
    expected = predictive_states(model, vectors, histories, marks).numpy()
    np.testing.assert_allclose(whole[:, encoder.blocks["predictive"]], expected, atol=1e-5)


def test_services_that_are_read_apart_have_their_mean(
    tiny_universal: TinyRun, corpus: Corpus
) -> None:
    encoder = UniversalEncoder.load(tiny_universal.run, blocks=["predictive"])
    model = encoder.model.predictive
    assert model.config.join == "time"
    model.config = dataclasses.replace(model.config, join="service")
    parts = parts_of(corpus, np.arange(60))
    each, whole = encoder.encode_services(corpus, parts)
    count = np.sum([items.lengths > 0 for items, _ in parts], axis=0)
    assert (count > 1).sum() > 10
    np.testing.assert_allclose(whole, np.sum(each, axis=0) / count[:, None], atol=1e-6)


def test_an_event_without_a_time_counts_and_has_no_moment(encoder: UniversalEncoder) -> None:
    timed = {"text": "tea", "time": 1_700_000_000.0}
    users = [{"shop": [timed, timed | {"time": 1_700_864_000.0}]}]
    users += [{"shop": [timed, {"text": "tea"}]}, {"attic": [timed | {"time": 7.0}]}]
    whole = encoder.encode(users, as_of=1_700_950_400.0)
    alone = np.stack([encoder.encode(user, as_of=1_700_950_400.0) for user in users])
    np.testing.assert_allclose(whole, alone, atol=1e-6)  # whoever shares the batch
    names = activity_names(["amount"])
    activity = np.expm1(whole[:, encoder.blocks["activity"]].astype(float))
    for name, expected in {
        "log events": [2, 2, 1],
        "log times": [2, 1, 0],  # of a service that pretraining had not, 7 is a position
        "log recency": [1, 11, 0],
        "log tenure": [11, 11, 0],
    }.items():
        np.testing.assert_allclose(activity[:, names.index(name)], expected, rtol=1e-4, atol=1e-6)


def test_a_user_without_times_has_one_vector_in_any_company(
    encoder: UniversalEncoder, corpus: Corpus
) -> None:
    # without times a history of several services has the order of the services: not that in which
    # the users of a batch, or the events of a body, happen to name them
    texts = [as_texts(corpus, user) for user in range(12)]
    users = [{name: [str(e["text"]) for e in row] for name, row in user.items()} for user in texts]
    users[3] = {"a service of nobody": ["tea"], **users[3]}
    assert sum(len(user) > 1 for user in users) > 5
    alone = np.stack([encoder.encode(user) for user in users])
    for order in (range(12), reversed(range(12))):
        rows = list(order)
        batch = encoder.encode([dict(reversed(users[row].items())) for row in rows])
        np.testing.assert_allclose(batch, alone[rows], atol=1e-5, rtol=0)


def test_items_rank_by_the_predictive_block(encoder: UniversalEncoder, corpus: Corpus) -> None:
    items = encoder.encode_catalogue(corpus)
    assert items.shape == (corpus.num_items, encoder.width)
    assert not items[:, encoder.blocks["activity"]].any()
    first = [corpus.item_texts[n].as_py() for n in range(5)]
    service = corpus.services[int(corpus.item_service[0])]
    named = encoder.encode_items(first, service=service)
    columns = encoder.blocks["lexical"]
    np.testing.assert_allclose(named[:, columns], items[:5, columns], rtol=1e-4, atol=1e-5)
    strange = encoder.encode_items(["a text that nobody has met"])
    assert not strange[:, encoder.blocks["pooled"]].any()
    assert np.abs(strange[:, encoder.blocks["predictive"]]).max() > 0


def test_users_without_events_are_zero_or_refused(
    encoder: UniversalEncoder, corpus: Corpus
) -> None:
    nothing = Ragged(np.zeros(0, np.int64), np.zeros(3, np.int64))
    parts = [(nothing, Ragged(np.zeros(0), nothing.offsets)) for _ in corpus.services]
    assert not encoder.encode_users(corpus, parts).any()
    with pytest.raises(ValueError, match="user 0 has no events"):
        encoder.encode([{"shop": []}])
    with pytest.raises(ValueError, match=r"has amont; an event has .* amount, channel"):
        encoder.encode({"shop": [{"text": "a pan", "amont": 3.0}]})
    with pytest.raises(ValueError, match="has no text"):
        encoder.encode({"shop": [{"time": 3.0}]})


def test_a_folder_gives_the_same_vectors(
    encoder: UniversalEncoder, corpus: Corpus, tiny_run: TinyRun, tmp_path: Path
) -> None:
    encoder.save_pretrained(tmp_path / "model")
    again = clue.load(tmp_path / "model")
    assert again.fingerprint == encoder.fingerprint
    parts = parts_of(corpus, np.arange(10))
    np.testing.assert_array_equal(
        again.encode_users(corpus, parts), encoder.encode_users(corpus, parts)
    )
    only = clue.load(tmp_path / "model", blocks=["activity", "contrastive"])
    assert only.width < encoder.width
    with pytest.raises(ValueError, match="whose vector is one"):
        clue.load(tiny_run.run, blocks=["activity"])
