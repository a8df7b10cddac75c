"""Sequences by hand: what is trained on, what is asked, how ties fall, and batches of windows."""

from collections.abc import Sequence

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue, Sequences, SequencesConfig, WindowSampler
from tests.data.logs import Row, corpus_of, write_log

# u1 has ties in both services at 20, logged z before a; u3 has two events only
EVENTS: list[tuple[str, str, str, int]] = [
    ("u1", "shop", "b", 10),
    ("u1", "news", "n", 20),
    ("u1", "shop", "z", 20),
    ("u1", "shop", "a", 20),
    ("u1", "shop", "c", 70),
    ("u2", "shop", "c", 5),
    ("u2", "shop", "b", 60),
    ("u2", "news", "m", 65),
    ("u3", "shop", "a", 1),
    ("u3", "shop", "z", 90),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("sequences")
    names = ("user_id", "service", "item_id", "timestamp")
    rows: list[Row] = [
        {**dict(zip(names, event, strict=True)), "text": f"item {event[2]}"} for event in EVENTS
    ]
    file = write_log(root / "events.parquet", rows)
    return corpus_of(root / "corpus", f"events=[{file}]")


def items(sequences: Sequences, rows: np.ndarray | Sequence[int]) -> str:
    """Return the item ids of catalogue rows as one word."""
    ids = sequences.catalogue.columns()["item_id"].to_pylist()
    return "".join(ids[row] for row in rows)


def test_ties_keep_the_logs_order_and_services_the_corpus(corpus: Corpus) -> None:
    assert corpus.services == ("news", "shop")
    sequences = Sequences(corpus, SequencesConfig())
    words = [items(sequences, sequences.rows[n]) for n in range(len(sequences.rows))]
    assert words == ["bnzac", "cbm", "az"]


def test_leave_one_out_by_hand(corpus: Corpus) -> None:
    sequences = Sequences(corpus, SequencesConfig())
    training = sequences.training()
    assert [items(sequences, training[n]) for n in range(3)] == ["bnz", "c", "az"]
    expected = {"valid": [("bnz", "a"), ("c", "b")], "test": [("bnza", "c"), ("cb", "m")]}
    for part, asked in expected.items():
        found = sequences.questions(part)  # pyright: ignore[reportArgumentType]
        words = [items(sequences, found.histories[n]) for n in range(2)]
        assert list(zip(words, items(sequences, found.targets), strict=True)) == asked
        assert found.users.tolist() == [0, 1]
    counts = dict(zip("abcmnz", [1, 1, 1, 0, 1, 2], strict=True))
    ids = sequences.catalogue.columns()["item_id"].to_pylist()
    assert dict(zip(ids, sequences.counts().tolist(), strict=True)) == counts


def test_each_service_keeps_its_own_sequence(corpus: Corpus) -> None:
    sequences = Sequences(corpus, SequencesConfig(join="service"))
    words = [items(sequences, sequences.rows[n]) for n in range(len(sequences.rows))]
    assert words == ["n", "m", "bzac", "cb", "az"]
    assert sequences.users.tolist() == [0, 1, 0, 1, 2]


def test_temporal_by_hand(corpus: Corpus) -> None:
    # times 1 5 10 20 20 20 60 65 70 90: the quantiles .7 and .8, the lower neighbour, are 60, 65
    config = SequencesConfig(split="temporal", valid_share=0.1, test_share=0.2)
    sequences = Sequences(corpus, config)
    training = sequences.training()
    assert [items(sequences, training[n]) for n in range(3)] == ["bnza", "c", "a"]
    found = {part: sequences.questions(part) for part in ("valid", "test")}
    asked = {
        part: [
            (items(sequences, q.histories[n]), items(sequences, [q.targets[n]]))
            for n in range(len(q.targets))
        ]
        for part, q in found.items()
    }
    assert asked == {
        "valid": [("c", "b")],  # the others have nothing between the moments
        "test": [("bnza", "c"), ("cb", "m"), ("a", "z")],
    }


def test_a_catalogue_of_one_service(corpus: Corpus) -> None:
    catalogue = Catalogue(corpus, ["shop"])
    assert catalogue.columns()["service"].to_pylist() == ["shop"] * 4
    assert len(catalogue) == 4
    assert (catalogue.rows[catalogue.items] == np.arange(4)).all()
    assert (catalogue.rows >= 0).sum() == 4
    with pytest.raises(ValueError, match="sequences.services names food; .* has news, shop"):
        Catalogue(corpus, ["food"])


def test_a_split_that_leaves_nothing_to_ask_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="no sequence has two events to train on"):
        Sequences(corpus, SequencesConfig(services=["news"]))
    with pytest.raises(ValueError, match="valid_share 0.5 and test_share 0.5"):
        SequencesConfig(split="temporal", valid_share=0.5, test_share=0.5)


HISTORIES = Ragged(np.arange(100, dtype=np.int32), np.array([0, 1, 4, 30, 100]))


def sampler(batch: int = 3) -> WindowSampler:
    return WindowSampler(HISTORIES, max_events=10, batch=batch, seed=5)


@pytest.mark.parametrize("epoch", range(4))
def test_an_epochs_windows_ask_every_event_after_the_first_once(epoch: int) -> None:
    starts, lengths = sampler().windows(epoch)
    assert len(starts) == 1 + 3 + 7  # of 3, 25 and 69 asked events; a lone event asks nothing
    assert lengths.max() <= 10
    asked = np.concatenate(
        [np.arange(s + 1, s + n + 1) for s, n in zip(starts, lengths, strict=True)]
    )
    firsts = HISTORIES.offsets[:-1]
    assert sorted(asked.tolist()) == sorted(set(range(100)) - set(firsts.tolist()))


def test_windows_move_from_epoch_to_epoch() -> None:
    grids = {tuple(sampler().windows(epoch)[0].tolist()) for epoch in range(6)}
    assert len(grids) > 3


def test_a_batch_is_the_same_however_many_processes_share_it() -> None:
    whole = sampler(batch=4)
    assert whole.per_epoch == 2
    for step in range(5):
        one = whole.at(step)
        parts = [whole.at(step, rank, 2) for rank in range(2)]
        assert {part.total for part in parts} == {one.total}
        assert one.total == len(one.items) == sum(len(part.items) for part in parts)
        asked = np.concatenate([part.targets for part in parts])
        assert sorted(asked.tolist()) == sorted(one.targets.tolist())
        assert (np.diff(one.lengths) >= 0).all()
        assert one.lengths.sum() == len(one.items)
        assert (one.targets == one.items + 1).all()  # values are places here
    epoch = np.concatenate([whole.at(step).targets for step in range(2)])
    assert len(epoch) == len(set(epoch.tolist()))


def test_a_batch_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="batch 12 takes more windows than the 11 that there are"):
        sampler(batch=12)
    with pytest.raises(ValueError, match="batch 3 is no multiple of 2 processes"):
        sampler().at(0, 0, 2)


def test_some_questions_are_the_same_every_time(corpus: Corpus) -> None:
    asked = Sequences(corpus, SequencesConfig()).questions("test")
    assert len(asked.some(1).targets) == 1
    assert asked.some(1).targets.tolist() == asked.some(1).targets.tolist()
    back = asked.at(np.array([1, 0]))
    assert back.targets.tolist() == asked.targets[::-1].tolist()
    assert back.histories[0].tolist() == asked.histories[1].tolist()
