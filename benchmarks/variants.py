"""Command: what changing one thing of a pretraining run did to its held-out matching.

    python -m benchmarks.variants runs=[runs/base,runs/long,runs/wide] out=results/...

The runs are compared at the last step that all of them were measured at, and named by what their
configs have that the first one's has not. Writes OUT/variants.json and OUT/table.md.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clue.atomic import write_text
from clue.config import load, read_command_line
from clue.run.pretrain_config import PretrainConfig, changed

FREE = {"name"}  # what every run has of its own


@dataclass(frozen=True, kw_only=True)
class VariantsConfig:
    """The `runs` to compare, the first of them the base, and the folder `out` for the result.

    `pair` of services has columns of its own, "" for the one of the largest gallery.
    """

    runs: list[Path] = field(default_factory=list[Path])
    pair: str = ""
    out: Path = Path("results/suite/variants")


@dataclass(frozen=True)
class Variant:
    """A run at `step`: what it changes, and its held-out figures.

    `entropy` is the mean over all pairs of services in nats; of `pair` there are its entropy at the
    best temperature and R@10; `others` is the mean R@10 of the remaining pairs.
    """

    changes: str
    step: int
    entropy: float
    pair: str
    calibrated_entropy: float
    recall_at_10: float
    others: float


def read(runs: Sequence[Path], pair: str = "") -> list[Variant]:
    """Return the runs at the last step that all were measured at.

    Raises FileNotFoundError for a run without a log, ValueError where no step is common and for a
    pair that was not measured.
    """
    logs = [_measured(run) for run in runs]
    common = set.intersection(*(set(log) for log in logs)) if logs else set[int]()
    if not common:
        raise ValueError(
            f"runs={[str(run) for run in runs]} were measured at no common step; give runs of one "
            "validate_every"
        )
    configs = [load(PretrainConfig, run / "config.yaml") for run in runs]
    step = max(common)
    return [
        _variant(_differences(configs[0], config), log[step], pair)
        for config, log in zip(configs, logs, strict=True)
    ]


def table(variants: Sequence[Variant]) -> str:
    """Return the comparison as Markdown."""
    first = variants[0]
    head = ["change", "mean entropy", f"{first.pair}: entropy", "R@10", "other pairs: R@10"]
    rows = [head, ["---"] * len(head)]
    rows += [
        [
            v.changes or f"none, {v.step} steps",
            f"{v.entropy:.3f}",
            f"{v.calibrated_entropy:.3f}",
            f"{v.recall_at_10:.3f}",
            f"{v.others:.3f}",
        ]
        for v in variants
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


def _measured(run: Path) -> dict[int, Mapping[str, Any]]:
    log = run / "log.jsonl"
    if not log.is_file():
        raise FileNotFoundError(f"no {log}; give the directories of pretraining runs")
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return {line["step"]: line for line in lines if line["kind"] == "valid"}


def _differences(base: PretrainConfig, config: PretrainConfig) -> str:
    if not changed(base, config):
        return ""
    pairs = zip(_leaves(asdict(base)), _leaves(asdict(config)), strict=True)
    named = [f"{key}={value}" for (_, old), (key, value) in pairs if old != value]
    return ", ".join(name for name in named if name.split("=")[0] not in FREE)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _variant(changes: str, line: Mapping[str, Any], pair: str) -> Variant:
    matching = line["matching"]
    pair = pair or max(matching, key=lambda name: matching[name]["gallery"])
    if pair not in matching:
        raise ValueError(f"pair={pair} was not measured; there are {', '.join(matching)}")
    others = [found["recall_at_10"] for name, found in matching.items() if name != pair]
    largest = matching[pair]
    return Variant(
        changes,
        line["step"],
        line["entropy"],
        pair,
        largest["calibrated_entropy"],
        largest["recall_at_10"],
        float(np.mean(others)) if others else float("nan"),
    )


def main() -> None:
    """Reads the command line, writes the comparison."""
    config = read_command_line(VariantsConfig, sys.argv[1:], description=__doc__ or "")
    try:
        found = read(config.runs, config.pair)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    config.out.mkdir(parents=True, exist_ok=True)
    whole = json.dumps([asdict(variant) for variant in found], indent=1)
    write_text(config.out / "variants.json", whole + "\n")
    write_text(config.out / "table.md", table(found))
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
