"""Items encoded in parts by several processes are the items; what encoding costs is counted."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from clue.data.corpus import Corpus
from clue.inference import encoder as inference
from clue.inference.encoder import Encoder
from clue.inference.pooling import histories_of
from clue.inference.shared_items import shared_inputs
from clue.inference.text_encoder import TextEncoder
from clue.inference.work import Done, in_words, user_flops
from tests.conftest import TinyRun
from tests.processes import spawn


def in_one_of_two(rank: int, world: int, run: Path, corpus_path: Path, work: Path) -> None:
    encoder, corpus = inference.load(run), Corpus.open(corpus_path)
    real, asked = type(encoder).item_arrays, []

    def noted(self: Encoder, corpus: Corpus, items: range) -> dict[str, np.ndarray]:
        asked.append(items)
        return real(self, corpus, items)

    type(encoder).item_arrays = noted  # pyright: ignore[reportAttributeAccessIssue]
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    shared = shared_inputs(encoder, corpus, work, accelerator)
    half = corpus.num_items // 2
    assert asked == [range(half) if rank == 0 else range(half, corpus.num_items)]
    again = shared_inputs(encoder, corpus, work, accelerator)
    assert len(asked) == 1  # a run that goes on encodes none
    users = np.arange(40)
    parts, amounts = histories_of(corpus, users)
    vectors = [
        encoder.encode_users(corpus, parts, amounts=amounts, items=items)
        for items in (shared, again, encoder.item_inputs(corpus))
    ]
    assert np.array_equal(vectors[0], vectors[1])
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny_run", "tiny_universal"])
def test_each_process_encodes_its_part_and_all_read_the_whole(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny: TinyRun = request.getfixturevalue(kind)
    spawn(in_one_of_two, tiny.run, tiny.corpus, tmp_path, world=2)
    assert len(list((tmp_path / "items").glob("*.npy"))) >= 1


def test_the_formula_counts_the_products_that_are_made(tiny_run: TinyRun) -> None:
    encoder, corpus = inference.load(tiny_run.run), Corpus.open(tiny_run.corpus)
    parts, _ = histories_of(corpus, np.arange(60))
    items = encoder.item_inputs(corpus)
    with FlopCounterMode(display=False) as counter:
        encoder.encode_users(corpus, parts, items=items)
    lengths = [events.lengths for events, _ in parts]
    known = user_flops(encoder, lengths, [True] * len(parts))
    assert isinstance(encoder, TextEncoder)
    config = encoder.model.config.user
    # torch counts no scores of packed attention
    squares = sum(int((np.minimum(each, config.max_events) ** 2).sum()) for each in lengths)
    assert known - 4 * config.layers * config.width * squares == counter.get_total_flops()
    twice = [np.concatenate([each, each]) for each in lengths]
    assert user_flops(encoder, twice, [True] * len(parts)) == 2 * known


def test_the_rate_is_that_of_the_slowest() -> None:
    done = [Done(100, 4e9, 2.0, 1e9), Done(300, 4e9, 4.0, 1e9)]
    assert in_words(done).startswith("400 users in 4.0 s: 100 users/s, 100.0% of the peak, 1 + 1")
    assert Done(1, 2.0).end(3.0, torch.device("cpu")).peak > 1e8
