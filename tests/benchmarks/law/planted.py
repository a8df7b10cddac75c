"""A folder of `clue law` whose runs follow a law that is known, and the tree made of it."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_files import write_json
from benchmarks.law.ladder import Ladder
from benchmarks.law.law_config import LawConfig
from benchmarks.law.law_tree import Facts, law_tree
from benchmarks.law.planner import fit_of
from benchmarks.law.recipe import next_item
from benchmarks.scaling.predict.predict import PredictConfig, Target, predict
from benchmarks.scaling.predict.verify import verify
from clue.config import load, to_yaml
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.scaling.tables import row, write

WIDTHS, HELD_OUT = (16, 24, 32, 48, 64), 96
STEPS = (2**10, 2**11, 2**12, 2**13)
BATCH, WINDOWS = 64, 30_000_000
SHAPE = {"objective": "next_item", "negatives": 3999, "batch": BATCH, "lr": 4e-3}


def rows(noise: float = 0.002) -> list[dict[str, Any]]:
    """Five widths at four lengths, two seeds at the two least, and the held-out one at two."""
    draw = np.random.default_rng(0)

    def one(width: int, steps: int, seed: int, role: str) -> dict[str, Any]:
        pairs = BATCH * steps
        made = row(width, pairs, seed=seed, factor=float(np.exp(draw.normal(0, noise))), **SHAPE)
        beside = {"epochs": pairs / WINDOWS, "seconds": made["flops"] / 2e10, "role": role}
        return {**made, **beside, "size": f"w{width}", "trunk": f"{width}-{seed}"}

    fitted = [
        one(width, steps, seed, "fit")
        for width in WIDTHS
        for steps in STEPS
        for seed in range(2 if width < 32 else 1)
    ]
    return fitted + [one(HELD_OUT, steps, 0, "held_out") for steps in STEPS[-2:]]


def planted(folder: Path) -> dict[str, Any]:
    """Write runs, prediction, recipe, scores and law.json into `folder`; return what that holds."""
    made = rows()
    fitted = [one for one in made if one["role"] == "fit"]
    held = [one for one in made if one["role"] == "held_out"]
    config = LawConfig(name="planted", corpus=Path("corpora/planted"))
    words = [f"corpus={config.corpus}", f"batch={BATCH}", *next_item(config)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pretrain.yaml").write_text(to_yaml(load(PretrainConfig, None, words)))
    scores = [
        {"loss": one["loss"], "task": "R@10", "score": float(np.exp(-one["loss"] / 2))}
        for one in fitted
    ]
    write_json(folder / "scores.json", scores)
    table = write(fitted, folder / "runs.parquet")
    keys = ("flops", "params", "params_hidden", "pairs", "users", "events")
    targets = [Target(name=one["point"], **{key: one[key] for key in keys}) for one in held]
    out = folder / "prediction.json"
    predicting = PredictConfig(fit=fit_of(folder, 1.5), targets=targets, out=out)
    predict(predicting)
    assert write(made, folder / "runs.parquet") == table
    ladder = Ladder(list(WIDTHS), HELD_OUT, list(STEPS), [2, 2, 1, 1, 1], 1000.0)
    tried = [
        {"width": width, "rates": [2e-3, 4e-3, 8e-3], "losses": [5.1, 5.0, 5.1], "why": ""}
        for width in ladder.rated
    ]
    facts = Facts(
        name="planted",
        objective="next_item",
        corpus={
            **{"path": "corpora/planted", "fingerprint": "f" * 64, "users": 40_000},
            **{"items": 4000, "events": 9_000_000, "services": ["shop"]},
            **{"unit": "windows of up to 50 events", "once": WINDOWS, "queries": 16_384},
            "popularity": 7.4,
        },
        ladder={**vars(ladder), "warmup": ladder.warmup},
        rates={
            **{"shared": True, "sizes": tried, "best": {"16": 4e-3, "64": 4e-3}},
            "rates": {str(width): 4e-3 for width in (*WIDTHS, HELD_OUT)},
        },
        verified=verify(predicting),
        critical_batch=700.0,
    )
    call = {"made": "2026-11-30T01:00", "seconds": [60.0, 1200.0]}
    call |= {"minutes": 45.0, "jobs": 2, "threads": 1}
    return write_json(folder / "law.json", {**law_tree(folder, facts), "call": call})
