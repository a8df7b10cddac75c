"""The size ladder: the files are what the dial gives, and each header says what is true."""

import re
from pathlib import Path

import pytest

from benchmarks.scaling.sweep.ladder import DEPTHS, rung
from clue.config import load
from clue.nn.dual_encoder import DualEncoder
from clue.run.pretrain_config import PretrainConfig

FOLDER = Path(__file__).parents[4] / "configs" / "pretrain" / "ladder"


def parameters(name: str) -> int:
    found = re.search(r"# Parameters: ([\d,]+)", (FOLDER / f"{name}.yaml").read_text())
    assert found is not None
    return int(found.group(1).replace(",", ""))


def test_the_files_are_those_of_the_dial() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == DEPTHS.keys()
    for name in DEPTHS:
        text = (FOLDER / f"{name}.yaml").read_text()
        assert text == rung(name), "run python -m benchmarks.scaling.sweep.ladder"


def test_the_ladder_spans_the_range_of_the_paper() -> None:
    sizes = [parameters(name) for name in DEPTHS]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1.3e6 and 650e6 < sizes[-1] < 800e6
    for name, size in zip(DEPTHS, sizes, strict=True):
        assert size / 1e6 == pytest.approx(float(name.removesuffix("m")), rel=0.2)


def test_a_header_counts_the_real_model() -> None:
    config = load(PretrainConfig, FOLDER / "1m.yaml")
    model = DualEncoder(config.model, 16_384)
    assert sum(weight.numel() for weight in model.parameters()) == parameters("1m")
    assert config.optimizer.base_width == 128
