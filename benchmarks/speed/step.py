"""Benchmark `step`: a training step against sentence-transformers around the same model.

    python -m benchmarks.speed step [pairs=256 rounds=3 threads=2 chunk_tokens=4096]
    python -m benchmarks.speed step device=cuda precision=bf16 peak_tflops=989 preset=configs/A.yaml

Ours: sampling, packing, forward, loss, backward. Theirs: CachedMultipleNegativesRankingLoss,
symmetric, with the padded batch given, so that its data loading costs nothing; around our model in
a plain wrapper and in a strong one (empty slots dropped, mini-batches trimmed), at several
mini-batch sizes. The control has no item twice and all texts of equal length: nothing to save.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.external import machine
from benchmarks.external.environments import SENTENCE_TRANSFORMERS
from benchmarks.speed.command import finish, read
from benchmarks.speed.interleave import Arm, Comparison
from benchmarks.speed.report import Claim, Report, Row
from benchmarks.speed.zipf_corpus import WorldConfig, open_world
from clue.config import load
from clue.nn.dual_encoder import DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.run.pretrain_config import PretrainConfig

SMALL = 16  # pairs of the gate
ZIPF, CONTROL = "Zipf", "control"


def reference_model() -> DualEncoderConfig:
    """Return the model of the CPU runs: a step of some seconds on two cores."""
    return DualEncoderConfig(
        item=ItemEncoderConfig(max_tokens=64),
        user=UserEncoderConfig(),
        initial_scale=20.0,
    )


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """`rows` are the strong wrapper's mini-batches that are tried, `plain_rows` the plain one's.

    `variants` are our own arms, `preset` a pretraining config whose model replaces `model`,
    `peak_tflops` the machine's peak, of which the MFU is a share; 0 leaves it out.
    """

    pairs: int = 256
    control_pairs: int = 64
    world: WorldConfig = field(default_factory=WorldConfig)
    worlds: Path = Path("data/speed")
    model: DualEncoderConfig = field(default_factory=reference_model)
    preset: Path | None = None
    chunk_tokens: int = 4096
    variants: tuple[str, ...] = ("ours", "without de-duplication", "without length sort")
    compile: bool = False
    rows: tuple[int, ...] = (16, 32, 128)
    plain_rows: tuple[int, ...] = (32,)
    rounds: int = 3
    repeats: int = 1
    threads: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    peak_tflops: float = 0.0
    out: Path = Path("results/speed/step.json")

    def __post_init__(self) -> None:
        """Refuse more pairs than the world has users, and a model that cannot read the world."""
        if max(self.pairs, self.control_pairs) > self.world.users:
            raise ValueError(f"pairs {self.pairs} needs as many users; set world.users")
        refuse_short(self.model, self.world)


def refuse_short(model: DualEncoderConfig, world: WorldConfig) -> None:
    """Raises ValueError where `model` reads shorter texts or histories than `world` holds."""
    if model.item.max_tokens < world.max_tokens:
        raise ValueError(
            f"model.item.max_tokens {model.item.max_tokens} is below world.max_tokens "
            f"{world.max_tokens}; set model.item.max_tokens={world.max_tokens}"
        )
    if model.user.max_events < world.items:
        raise ValueError(
            f"model.user.max_events {model.user.max_events} is below world.items {world.items}; "
            f"set model.user.max_events={world.items}"
        )


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(StepConfig, argv, __doc__)), argv)


def measure(config: StepConfig) -> tuple[Report, Path]:
    """Return the report and where it belongs."""
    if config.preset is not None:
        preset = load(PretrainConfig, config.preset).model
        item = replace(preset.item, max_tokens=max(preset.item.max_tokens, config.world.max_tokens))
        user = replace(preset.user, max_events=max(preset.user.max_events, config.world.items))
        model = replace(preset, initial_scale=20.0, item=item, user=user)
        config = replace(config, model=model)
    facts = machine.describe(config.device, config.threads)
    control = replace(
        config.world,
        unique=True,
        least_items=config.world.items,
        users=max(config.control_pairs, SMALL),
    )
    cases = {ZIPF: (config.world, config.pairs), CONTROL: (control, config.control_pairs)}
    comparison = Comparison(config.rounds, lambda result: figures(result, config.peak_tflops))
    small = {"batch": SMALL, "precision": "fp32"}
    for case, (world, pairs) in cases.items():
        open_world(world, config.worlds)  # written before any arm is timed
        gates = [small] if config.precision == "fp32" else [small, {"precision": "fp32"}]
        made = arms(config, world, pairs, alone=case == CONTROL)
        comparison.run(case, made, gates, equal=config.precision == "fp32")
    report = Report(
        name="step",
        command="python -m benchmarks.speed step",
        machine=machine.finished(facts, comparison.results),
        config=asdict(config) | {"out": str(config.out), "worlds": str(config.worlds)},
        rows=tuple(comparison.rows),
        claims=tuple(claims(comparison)),
        notes=tuple(f"{case}: {counts(comparison, case)}" for case in cases),
    )
    return report, config.out


def arms(config: StepConfig, world: WorldConfig, pairs: int, *, alone: bool) -> list[Arm]:
    """Return ours first, which is the reference, then the rival's; `alone` leaves out variants."""
    spec: dict[str, Any] = {
        "batch": pairs,
        "world": asdict(world),
        "worlds": str(config.worlds),
        "model": asdict(config.model),
        "chunk_tokens": config.chunk_tokens,
    }
    for key in ("compile", "repeats", "threads", "device", "precision"):
        spec[key] = getattr(config, key)

    def arm(name: str, impl: str, **more: Any) -> Arm:
        rival = SENTENCE_TRANSFORMERS if more else None
        full = spec | {"impl": impl} | more
        return Arm(name=name, module="benchmarks.speed.step_arm", spec=full, rival=rival)

    variants = config.variants[:1] if alone else config.variants
    found = [arm(name, name) for name in variants]
    for strong, sizes in ((True, config.rows), (False, config.plain_rows)):
        kind = "strong" if strong else "plain"
        for rows in () if alone and not strong else sizes:
            name = f"sentence-transformers, {kind}, mini-batch {rows}"
            found.append(arm(name, "sentence-transformers", strong=strong, rows=rows))
    return found


def figures(result: Mapping[str, Any], peak_tflops: float) -> dict[str, float]:
    """Return what a row shows of one round."""
    rate = result["flops"] / result["seconds"] / 1e12
    found = {
        "seconds": result["seconds"],
        "pairs/s": result["pairs"] / result["seconds"],
        "peak MiB": result["peak_mib"],
        "warm-up s": result["warmup_seconds"],
        "useful TFLOP/s": rate,
    }
    return found | ({"MFU": rate / peak_tflops} if peak_tflops else {})


def claims(comparison: Comparison) -> list[Claim]:
    """Return the aims: speed and memory against the rival's fastest arm, level on the control."""
    found: list[Claim] = []
    for case, aim in ((ZIPF, 4.0), (CONTROL, 1.0)):
        ours, best = _ours_and_best(comparison.rows, case)
        faster = None
        if ours is not None and best is not None:
            faster = ours.figures["pairs/s"].median / best.figures["pairs/s"].median
        name = best.arm if best else "sentence-transformers"
        found.append(
            Claim(
                what=f"Pairs/s on {case}, ours / {name}",
                aim=f"at least {aim:g}",
                found=faster,
                holds=None if faster is None else faster >= aim,
            )
        )
        memory = None
        if ours is not None and best is not None:
            memory = ours.figures["peak MiB"].median / best.figures["peak MiB"].median
        found.append(
            Claim(
                what=f"Peak memory on {case}, ours / {name}",
                aim="at most 1",
                found=memory,
                holds=None if memory is None else memory <= 1,
            )
        )
    return found


def counts(comparison: Comparison, case: str) -> str:
    """Return what the case's batch holds."""
    for result in comparison.results:
        if case == result.get("case") and result["pairs"] > SMALL:
            return (
                f"{result['pairs']:,} pairs, {result['events']:,} events of "
                f"{result['distinct_items']:,} distinct items, {result['tokens']:,} tokens of "
                f"which {result['distinct_tokens']:,} belong to distinct items"
            )
    return "nothing was measured"


def _ours_and_best(rows: list[Row], case: str) -> tuple[Row | None, Row | None]:
    measured = [row for row in rows if row.case == case and row.status == "measured"]
    ours = next((row for row in measured if row.arm == "ours"), None)
    theirs = [row for row in measured if row.arm.startswith("sentence-transformers")]
    best = max(theirs, key=lambda row: row.figures["pairs/s"].median, default=None)
    return ours, best
