"""The batch-size study on a tiny corpus: its plan, its gallery, and that it repeats nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import batch_size
from benchmarks.batch_figure import read_cells, table
from benchmarks.batch_size import BatchSizeConfig, Point, gallery, overrides, plan, study
from clue.config import load
from clue.data.corpus import Corpus
from clue.pretrain import pretrain
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import TinyRun


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> BatchSizeConfig:
    shape = "model.item.layers=0", "model.user.layers=1"
    return BatchSizeConfig(
        pretrain=Path("configs/pretrain/demo.yaml"),
        corpus=tiny_run.corpus,
        runs=tmp_path / "runs",
        out=tmp_path / "out",
        sizes={
            "small": [*shape, "model.item.width=8", "model.user.width=8", "model.user.heads=2"],
            "large": [*shape, "model.item.width=16", "model.user.width=16", "model.user.heads=2"],
        },
        rates=[1e-3, 1e-2],
        batches=[32, 16],
        steps=2,
        pairs=64,
        pool=40,
        resamples=100,
    )


def test_equal_compute_is_equal_flops(config: BatchSizeConfig) -> None:
    points = plan(config, Corpus.open(config.corpus))
    assert [point.size for point in points] == ["small"] * 3 + ["large"] * 3
    for size in config.sizes:
        mine = [p for p in points if p.size == size]
        assert [p.steps for p in mine if "equal steps" in p.modes] == [2, 2]
        spent = [p.flops for p in mine if "equal compute" in p.modes]
        assert spent[1] == pytest.approx(spent[0], rel=0.3)  # half a step of the larger batch
        assert [p.steps for p in mine if "equal compute" in p.modes][0] == 4


def test_everybody_in_the_gallery_has_two_services(config: BatchSizeConfig) -> None:
    corpus = Corpus.open(config.corpus)
    users, (one, other) = gallery(corpus, corpus.users_in("train"), 40)
    assert len(np.unique(users)) == len(users) == 40
    assert (one != other).all()
    for user, *services in zip(users, one, other, strict=True):
        assert all(len(corpus.items_of(int(service))[int(user)]) for service in services)
    again, _ = gallery(corpus, corpus.users_in("train"), 40)
    assert np.array_equal(users, again)


def test_the_study_picks_rates_on_valid_users_and_repeats_nothing(
    config: BatchSizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Point] = []

    def train(config: BatchSizeConfig, point: Point) -> None:
        trained.append(point)
        pretrain(load(PretrainConfig, config.pretrain, overrides(config, point)))

    monkeypatch.setattr(batch_size, "train", train)
    text = study(config)
    assert len(trained) == 3 * 2 + 3  # two rates for the small size, the better for the large
    cells, sizes = read_cells(config.out / "results.json")
    assert sizes == ["small", "large"] and len(cells) == 4
    assert table(cells, sizes) == text
    for cell in cells:
        assert cell.rates[0] == cell.rates[1]
        name = f"small-{cell.batch}-{cell.steps[0]}-{{:.2e}}.npz"
        found = {r: np.load(config.runs / name.format(r))["valid_entropy"] for r in config.rates}
        assert cell.rates[0] == min(found, key=lambda rate: float(found[rate].mean()))
        large = np.load(config.runs / f"large-{cell.batch}-{cell.steps[1]}-{cell.rates[1]:.2e}.npz")
        small = np.load(config.runs / name.format(cell.rates[0]))
        gain = large["test_entropy"].mean() - small["test_entropy"].mean()
        assert cell.entropy_gain.value == pytest.approx(gain)
        assert cell.negatives == len(small["test_entropy"]) - 1
    assert (config.out / "figure.svg").read_text().startswith("<?xml")
    first = json.loads((config.out / "results.json").read_text())
    assert study(config) == text and len(trained) == 9
    assert json.loads((config.out / "results.json").read_text()) == first


def test_a_grid_without_two_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sizes are \['one'\]; name two"):
        BatchSizeConfig(sizes={"one": []}, rates=[1e-3], batches=[16])
