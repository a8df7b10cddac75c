# pyright: standard
"""The next-item model: what it may see, how it is packed, what its sizes come to."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from clue.config import load
from clue.data.sequences import SequenceBatch
from clue.nn.decoder import Decoder, DecoderConfig, NextItemDecoder
from clue.nn.layout import Layout
from clue.run.pretrain_config import PretrainConfig
from clue.train.packing import Budget, pack_sequences

LENGTHS = np.array([1, 2, 2, 3, 5])
CONFIG = DecoderConfig(layers=2, width=16, heads=2, dropout=[0.0], max_events=8)
SIZES = {  # of Zhang et al. 2024: layers, width, heads and 12 L D^2
    "98k": (2, 64, 2, 98_304),
    "786k": (4, 128, 4, 786_432),
    "1m6": (8, 128, 4, 1_572_864),
    "9m4": (12, 256, 8, 9_437_184),
    "75m": (24, 512, 8, 75_497_472),
    "829m": (48, 1200, 24, 829_440_000),
}


def batch(seed: int = 0) -> SequenceBatch:
    draw = np.random.default_rng(seed)
    total = int(LENGTHS.sum())
    return SequenceBatch(draw.integers(0, 9, total), draw.integers(0, 9, total), LENGTHS, total)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_chunks_and_recomputing_change_no_state_and_no_gradient(
    positions: Literal["learned", "rotary"],
) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, positions=positions)
    model = NextItemDecoder(config, 9)
    whole = pack_sequences(batch(), Budget(1000))
    parts = pack_sequences(batch(), Budget(4, 0.0, 0.0, 1.0))
    assert len(whole.chunks) == 1
    assert len(parts.chunks) == 4
    assert all(chunk.recompute for chunk in parts.chunks)
    results: list[list[torch.Tensor]] = []
    for views in (whole, parts):
        states, table, own = model(views)
        assert own is None
        weights = torch.linspace(-1, 1, states.numel()).view_as(states)
        gradients = torch.autograd.grad(
            (states * weights).sum() + table.sum(), list(model.parameters())
        )
        results.append([states, *gradients])
    # item, two norms and five matrices a layer, the last norm, and the positions
    assert len(results[0]) == 1 + 1 + 2 * 6 + 1 + (positions == "learned")
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_state_depends_on_no_later_item_and_on_no_other_sequence() -> None:
    torch.manual_seed(0)
    decoder, layout = Decoder(CONFIG, 9), Layout.of(LENGTHS)
    items = torch.from_numpy(batch().items)
    before = decoder(items, layout)
    changed = items.clone()
    changed[-2] = (changed[-2] + 1) % 9  # the fourth of the last five
    after = decoder(changed, layout)
    assert torch.equal(before[:-2], after[:-2])
    assert (before[-2:] - after[-2:]).abs().amax(1).min() > 1e-4
    torch.testing.assert_close(decoder.last(items, layout), before[np.cumsum(LENGTHS) - 1])


def test_candidates_and_targets_are_rows_of_the_tied_table() -> None:
    model = NextItemDecoder(CONFIG, 9)
    drawn = replace(batch(), drawn=np.array([4, 4, 0]))
    _, candidates, own = model(pack_sequences(drawn, Budget(1000)))
    table = model.decoder.item.weight
    assert torch.equal(candidates, table[[4, 4, 0]])
    assert torch.equal(own, table[torch.from_numpy(drawn.targets)])


def test_dropout_falls_in_a_line_unless_every_layer_has_its_own() -> None:
    assert DecoderConfig(layers=5, dropout=[0.4, 0.0]).layer_dropout == pytest.approx(
        [0.4, 0.3, 0.2, 0.1, 0.0]
    )
    assert DecoderConfig(layers=3, dropout=[0.2]).layer_dropout == [0.2] * 3
    assert DecoderConfig(layers=3, dropout=[0.1, 0.5, 0.0]).layer_dropout == [0.1, 0.5, 0.0]
    decoder = Decoder(DecoderConfig(layers=3, dropout=[0.3, 0.1]), 4)
    rates = [part.p for part in decoder.modules() if isinstance(part, nn.Dropout)]
    assert rates == pytest.approx([0.3, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"dropout": [0.1, 0.2, 0.3], "layers": 4}, "dropout has 3 rates for 4 layers"),
        ({"dropout": [1.0]}, r"dropout is \[1.0\]; rates lie in \[0, 1\)"),
        ({"layers": 0}, "layers is 0; it must be a positive count"),
    ],
)
def test_shapes_that_mean_nothing_are_refused(shape: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DecoderConfig(**shape)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", SIZES)
def test_the_papers_sizes_have_12_layers_times_width_squared(name: str) -> None:
    root = Path(__file__).parents[2]
    config = load(PretrainConfig, root / f"configs/pretrain/lsrm/{name}.yaml").decoder
    layers, width, heads, matrices = SIZES[name]
    assert (config.layers, config.width, config.heads) == (layers, width, heads)
    assert config.non_embedding == matrices
    with torch.device("meta"):
        decoder = Decoder(config, 10)
    counted = sum(w.numel() for w in decoder.blocks.parameters() if w.ndim == 2)
    assert counted == matrices
