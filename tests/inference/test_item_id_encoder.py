"""A next-item model's unit vectors rank items as its logits do; what it cannot read is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue, Sequences
from clue.evaluation.encode import last_states
from clue.inference.item_id_encoder import ItemIdEncoder, catalogue_of
from clue.inference.text_encoder import TextEncoder
from clue.run import checkpoint
from tests.benchmarks.worlds import Event, corpus_of
from tests.conftest import TinyRun


@pytest.fixture(scope="module")
def encoder(tiny_items: TinyRun) -> ItemIdEncoder:
    return ItemIdEncoder.load(tiny_items.run)


@pytest.fixture(scope="module")
def corpus(tiny_items: TinyRun) -> Corpus:
    return Corpus.open(tiny_items.corpus)


@pytest.fixture
def apart(tiny_items: TinyRun, tmp_path: Path) -> ItemIdEncoder:
    """The model as if each service had been a sequence of its own."""
    found = checkpoint.find(tiny_items.run)
    place = shutil.copytree(found.path, tmp_path / "apart")
    text = (place / "config.yaml").read_text()
    assert text.count("join: time") == 1
    (place / "config.yaml").write_text(text.replace("join: time", "join: service"))
    record = (place / "checkpoint.json").read_text()
    new = sha256(place / "config.yaml")
    (place / "checkpoint.json").write_text(record.replace(found.sha256["config.yaml"], new))
    return ItemIdEncoder.load(place)


def events_of(corpus: Corpus, user: int) -> list[tuple[str, str]]:
    """All that a user did, by time; at one time, service by service, then as logged."""
    found = [
        (float(time), number, corpus.item_ids[int(item)].as_py())
        for number in range(len(corpus.services))
        for time, item in zip(
            corpus.timestamps_of(number)[user], corpus.items_of(number)[user], strict=True
        )
    ]
    found.sort(key=lambda event: event[:2])
    return [(corpus.services[number], item_id) for _, number, item_id in found]


def test_cosines_rank_items_as_the_logits_do(encoder: ItemIdEncoder, corpus: Corpus) -> None:
    # items of lengths from .1 to 3, so that their directions alone would rank otherwise
    weight = encoder.model.decoder.item.weight
    kept = weight.detach().clone()
    spread = torch.linspace(0.1, 3, len(weight))[torch.randperm(len(weight))]
    try:
        with torch.no_grad():
            weight.copy_(torch.nn.functional.normalize(weight, dim=1) * spread[:, None])
        rng = np.random.default_rng(0)
        histories = Ragged(rng.integers(0, corpus.num_items, 200), np.arange(0, 201, 10))
        users, items = encoder.encode_histories(corpus, histories), encoder.encode_catalogue(corpus)
        states = last_states(encoder.model, histories)  # the corpus's order is the catalogue's
        logits = (states.double() @ weight.detach().double().T).numpy()
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    cosines = users.astype(np.float64) @ items.astype(np.float64).T
    assert users.shape == (20, encoder.width) == (20, 17)
    for vectors in (users, items):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    order = np.argsort(-logits, axis=1)
    assert (np.diff(np.take_along_axis(cosines, order, 1), axis=1) < 1e-6).all()
    assert (np.argmax(cosines, 1) == order[:, 0]).all()
    # the one factor between them is each user's |h| M
    factor = states.double().norm(dim=1).numpy() * 3
    np.testing.assert_allclose(cosines * factor[:, None], logits, atol=1e-5)
    directions = torch.nn.functional.normalize(states, dim=1).numpy()
    np.testing.assert_allclose(users @ users.T, directions @ directions.T, atol=1e-6)
    assert (np.argmax(logits / spread.numpy(), 1) != order[:, 0]).any()


def test_a_history_over_all_services_is_that_of_training(
    encoder: ItemIdEncoder, corpus: Corpus
) -> None:
    sequences = Sequences(corpus, checkpoint.find(encoder.tokenizer_path.parent).config.sequences)
    states = last_states(encoder.model, sequences.rows).numpy()
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    some = range(0, len(sequences.users), 11)
    found = encoder.encode_events([events_of(corpus, int(sequences.users[n])) for n in some])
    np.testing.assert_allclose(found[:, :-1], states[some], atol=1e-6)
    assert len(found) > 20 and (found[:, -1] == 0).all()
    both = [n for n in some if len({s for s, _ in events_of(corpus, int(sequences.users[n]))}) > 1]
    assert len(both) > 5


def test_services_of_their_own_are_averaged(apart: ItemIdEncoder, corpus: Corpus) -> None:
    ids = [
        [corpus.item_ids[int(i)].as_py() for i in np.flatnonzero(corpus.item_service == n)[:5]]
        for n in range(2)
    ]
    one, other = (apart.encode({corpus.services[n]: ids[n]}) for n in range(2))
    both = apart.encode({corpus.services[n]: ids[n] for n in range(2)})
    mean = (one + other) / np.linalg.norm(one + other)
    np.testing.assert_allclose(both, mean, atol=1e-6)
    turns = [(corpus.services[n], ids[n][k]) for k in range(5) for n in range(2)]
    np.testing.assert_array_equal(apart.encode_events([turns])[0], both)


def test_users_are_refused_by_name(encoder: ItemIdEncoder, corpus: Corpus) -> None:
    service, other = corpus.services[:2]
    known = corpus.item_ids[int(np.flatnonzero(corpus.item_service == 0)[0])].as_py()
    encoder.encode({service: [known], other: []})
    for user, message in (
        ({}, "user 1 has no events"),
        ({service: []}, "user 1 has no events"),
        ({service: [known, "nothing"]}, f"item 'nothing' of service '{service}' is none of the"),
        ({"horses": [known]}, f"item '{known}' of service 'horses' is none of the"),
        ({service: [known], other: [known]}, f"events in {service}, {other} .* encode_events"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.encode([{service: [known]}, user])


def test_only_the_newest_events_are_read(encoder: ItemIdEncoder, corpus: Corpus) -> None:
    service = corpus.services[0]
    ids = [corpus.item_ids[i].as_py() for i in np.flatnonzero(corpus.item_service == 0)]
    long = ids[: encoder.max_events + 5]
    cut = encoder.encode({service: long[-encoder.max_events :]})
    np.testing.assert_array_equal(encoder.encode({service: long}), cut)
    assert not np.allclose(encoder.encode({service: long[::-1]}), cut, atol=1e-3)


def world(place: Path, names: str) -> Corpus:
    """Users of one service who do the same things, items named by letters."""
    events: list[Event] = [(user, "shop", name) for user in "abc" for name in names]
    return corpus_of(place, events, {"a": "train", "b": "valid", "c": "test"})


def test_a_corpus_of_another_catalogue_is_refused_and_another_order_is_not(
    tiny_items: TinyRun, corpus: Corpus, tmp_path: Path
) -> None:
    encoder = ItemIdEncoder.load(tiny_items.run)
    small = world(tmp_path / "small", "uvw")
    with pytest.raises(ValueError, match=r"3 of its 3 items .* the first of them 'u' of 'shop'"):
        encoder.encode_histories(small, small.items_of(0))
    expected = encoder.encode_catalogue(corpus)
    order = np.random.default_rng(0).permutation(corpus.num_items)
    keys = catalogue_of(checkpoint.find(tiny_items.run))
    encoder.rows = {keys[old]: new for new, old in enumerate(order)}
    with torch.no_grad():
        weight = encoder.model.decoder.item.weight
        weight.copy_(weight[torch.from_numpy(order)].clone())
    np.testing.assert_array_equal(encoder.encode_catalogue(corpus), expected)
    known = {key: encoder.rows[key] for key in keys[5:]}
    encoder.rows = known
    first, service = keys[0][1], keys[0][0]
    with pytest.raises(ValueError, match=f"5 of its .* the first of them '{first}' of '{service}'"):
        encoder.encode_catalogue(corpus)


def test_the_catalogue_is_that_of_training(encoder: ItemIdEncoder, corpus: Corpus) -> None:
    columns = Catalogue(corpus, []).columns()
    keys = zip(columns["service"].to_pylist(), columns["item_id"].to_pylist(), strict=True)
    assert encoder.rows == {key: row for row, key in enumerate(keys)}
    assert encoder.services == corpus.services


def test_untrained_is_another_model_of_the_same_catalogue(
    tiny_items: TinyRun, encoder: ItemIdEncoder, corpus: Corpus
) -> None:
    control = ItemIdEncoder.load(tiny_items.run, seed=0)
    assert (control.width, control.rows) == (encoder.width, encoder.rows)
    assert control.fingerprint == f"untrained-0-{encoder.fingerprint}"
    vectors = control.encode_catalogue(corpus)
    assert not np.allclose(vectors, encoder.encode_catalogue(corpus))
    np.testing.assert_array_equal(
        vectors, ItemIdEncoder.load(tiny_items.run, seed=0).encode_catalogue(corpus)
    )


def test_each_encoder_names_the_other_kind_of_model(tiny_run: TinyRun, tiny_items: TinyRun) -> None:
    with pytest.raises(ValueError, match=r"objective: next_item.*clue\.inference\.item_id_encoder"):
        TextEncoder.load(tiny_items.run)
    with pytest.raises(ValueError, match=r"objective: contrastive.*clue\.inference\.text_encoder"):
        ItemIdEncoder.load(tiny_run.run)
