"""Benchmark `loss`: the contrastive loss alone, against open_clip, sentence-transformers, torch.

    python -m benchmarks.speed loss [batches=[1024,4096,8192] rounds=3 threads=2]
    python -m benchmarks.speed loss device=cuda batches=[8192,32768,131072,262144]

Forward and backward of the symmetric InfoNCE of B given pairs in fp32. Peak memory is what the
process held above inputs and imports.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.external import machine
from benchmarks.external.environments import OPEN_CLIP, SENTENCE_TRANSFORMERS
from benchmarks.speed.command import finish, read
from benchmarks.speed.interleave import Arm, Comparison
from benchmarks.speed.report import Claim, Report

SMALL = 96  # pairs of the gate
RIVALS = ("open_clip", "sentence-transformers", "linear_cross_entropy")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`rows` are sentence-transformers' chunks that are tried, beside its dense loss (0)."""

    batches: tuple[int, ...] = (1024, 4096, 8192)
    width: int = 256
    rows: tuple[int, ...] = (0, 256, 1024)
    rivals: tuple[str, ...] = RIVALS
    rounds: int = 3
    repeats: int = 3
    threads: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
    out: Path = Path("results/speed/loss.json")

    def __post_init__(self) -> None:
        """Refuse rivals that there are not."""
        wrong = set(self.rivals) - set(RIVALS)
        if wrong:
            raise ValueError(f"rivals has {sorted(wrong)}; there are {', '.join(RIVALS)}")


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(LossConfig, argv, __doc__)), argv)


def measure(config: LossConfig) -> tuple[Report, Path]:
    """Return the report and where it belongs."""
    facts = machine.describe(config.device, config.threads)
    comparison = Comparison(config.rounds, figures)
    for batch in config.batches:
        comparison.run(f"B = {batch:,}", arms(config, batch), [{"batch": SMALL}])
    report = Report(
        name="loss",
        command="python -m benchmarks.speed loss",
        machine=machine.finished(facts, comparison.results),
        config=asdict(config) | {"out": str(config.out)},
        rows=tuple(comparison.rows),
        claims=tuple(claims(comparison, config)),
    )
    return report, config.out


def arms(config: LossConfig, batch: int) -> list[Arm]:
    """Return the arms at one batch size: dense, which is the reference, ours, and the rivals."""
    spec = {"batch": batch, "width": config.width, "threads": config.threads}
    spec |= {"device": config.device, "repeats": config.repeats}

    def arm(name: str, impl: str, **more: Any) -> Arm:
        return Arm(name=name, module="benchmarks.speed.loss_arm", spec=spec | {"impl": impl} | more)

    found = [arm("dense reference", "dense"), arm("ours", "ours")]
    if "linear_cross_entropy" in config.rivals:
        found.append(arm("torch linear_cross_entropy, chunked", "linear_cross_entropy"))
    if "open_clip" in config.rivals:
        found.append(_in(OPEN_CLIP, arm("open_clip ClipLoss", "open_clip")))
    if "sentence-transformers" in config.rivals:
        for rows in config.rows:
            name = f"sentence-transformers, chunks of {rows}" if rows else "sentence-transformers"
            made = arm(name, "sentence-transformers", rows=rows)
            found.append(_in(SENTENCE_TRANSFORMERS, made))
    return found


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a row shows of one round."""
    return {
        "seconds": result["seconds"],
        "peak MiB": result["peak_mib"],
        "warm-up s": result["warmup_seconds"],
    }


def claims(comparison: Comparison, config: LossConfig) -> list[Claim]:
    """Return the three aims: time and memory at the largest batch, growth between the last two."""
    case = f"B = {config.batches[-1]:,}"
    measured = [r for r in comparison.rows if r.case == case and r.status == "measured"]
    others = [r.figures["seconds"].median for r in measured if r.arm != "ours"]
    seconds = comparison.median(case, "ours", "seconds")
    peak = comparison.median(case, "ours", "peak MiB")
    theirs = comparison.median(case, "open_clip ClipLoss", "peak MiB")
    slower = seconds / min(others) if seconds is not None and others else None
    smaller = peak / theirs if peak is not None and theirs is not None else None
    found = [
        Claim(
            what=f"Time at {case}, ours / the fastest other",
            aim="at most 1.1",
            found=slower,
            holds=None if slower is None else slower <= 1.1,
        ),
        Claim(
            what=f"Peak memory at {case}, ours / open_clip",
            aim="at most 0.25",
            found=smaller,
            holds=None if smaller is None else smaller <= 0.25,
        ),
    ]
    if len(config.batches) > 1:
        before = comparison.median(f"B = {config.batches[-2]:,}", "ours", "peak MiB")
        ratio = math.log(config.batches[-1] / config.batches[-2])
        growth = math.log(peak / before) / ratio if peak and before else None
        found.append(
            Claim(
                what="Exponent of our memory in B between the two largest batches",
                aim="at most 1.1 (linear)",
                found=growth,
                holds=None if growth is None else growth <= 1.1,
            )
        )
    return found


def _in(rival: Any, arm: Arm) -> Arm:
    return Arm(name=arm.name, module=arm.module, spec=arm.spec, rival=rival)
