"""What the README says of a study is what its files say, and no more than there is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report.docs import render
from benchmarks.scaling.fit.law_summary import study
from benchmarks.scaling.fit.study import FitConfig
from benchmarks.scaling.predict.predict import PredictConfig, Target, predict
from benchmarks.scaling.predict.verify import verify
from benchmarks.scaling.study_tables import factors, markdown, rates, seeds
from tests.benchmarks.scaling.tables import row, rows, runs, write

LATER = row(160, 2**22, role="held_out")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one study: fitted, predicted, verified."""
    folder = tmp_path / "results" / "scaling" / "own"
    folder.mkdir(parents=True)
    table = write(rows(), folder / "runs.parquet")
    fit = FitConfig(table=table, out=folder, starts=2, few=1, resamples=50, figures=False)
    study(fit)
    names = ("name", "flops", "params", "pairs")
    target = Target(**dict(zip(names, (LATER[x] for x in ("point", *names[1:])), strict=True)))
    asked = PredictConfig(fit=fit, targets=[target], out=folder / "prediction.json")
    predict(asked)
    write([*rows(), LATER], table)
    verify(replace(asked, targets=[]))
    return tmp_path


def test_a_study_is_told_with_k_and_with_e(root: Path) -> None:
    text = markdown(root, "own")
    fitted = json.loads((root / "results/scaling/own/fit.json").read_text())
    assert "50 fitted runs" in text and "K = 4,095" in text and "| left out |" in text
    exponent = fitted["laws"]["surface"]["coefficients"]["a_params"]["value"]
    assert f"a_params {exponent:.4g} [" in text
    made = json.loads((root / "results/scaling/own/prediction.json").read_text())
    assert f"SHA-256 {made['sha256'][:12]}" in text and LATER["point"] in text


def test_the_readme_takes_it_in_between_the_marks(root: Path) -> None:
    (root / "README.md").write_text("a\n<!-- scaling:own -->\nold\n<!-- /scaling -->\nb\n")
    found = render(root)
    assert markdown(root, "own") in found and "old" not in found and found.endswith("\nb\n")


def test_a_study_without_files_is_missed(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no runs and no fit\.json"):
        markdown(root, "other")


def test_rates_and_factors_are_told_where_there_are_several() -> None:
    alike = [row(48, 2**18, lr=lr, factor=f) for lr, f in ((0.01, 1.0), (0.02, 1.5))]
    alike = [{**x, "point": f"48x1-b256-{n}"} for n, x in enumerate(alike)]
    found = rates(runs([*rows()[:5], *alike]))
    losses = " | ".join(f"{x['loss']:.3f}" for x in alike)
    assert found.splitlines()[-1].startswith("| 48x1, 1,024 steps |") and losses in found
    assert rates(runs(rows()[:5])) == "" and factors(runs(rows())) == ""
    many = [row(w, 2**18) for w in (16, 32, 48)]
    many += [row(48, 2**18, batch=b) for b in (64, 128)]
    many += [row(48, 2**18, users=u) for u in (1000, 2000)]
    told = factors(runs(many))
    assert f"| distinct users | 1,000, 2,000, 1,000,000 | {many[2]['loss']:.3f}, " in told
    assert "| batch (equal pairs) | 64, 128, 256 |" in told and "| parameters |" in told
    again = factors(runs([*many, row(48, 2**18, users=2000, seed=1, factor=1.01)]))
    one = many[-1]["loss"]  # two values x and 1.01 x: their mean 1.005 x, its error .005 x
    assert f"{1.005 * one:.3f} ± {0.005 * one:.3f}, " in again and told.count("±") == 0


def test_seeds_are_told_with_their_noise() -> None:
    assert seeds(runs(rows()[:1])) == ""
    several = [row(64, 2**18, factor=f, seed=n) for n, f in enumerate((1.0, 1.02, 1.04))]
    several = [{**x, "point": f"64x2-b256-{n}"} for n, x in enumerate(several)]
    other = {**row(48, 2**18, lr=0.5), "point": "64x2-b256-e16"}  # another rate: rates() tells it
    losses = np.array([x["loss"] for x in several])
    sd = np.log(losses).std(ddof=1)
    cells = f"| 64x2, 1,024 steps | 3 | {losses.mean():.4f} | {sd:.2%} | {sd / 3**0.5:.2%} |"
    assert seeds(runs(several)).splitlines()[-1] == cells
    assert seeds(runs([*several, other])) == ""
