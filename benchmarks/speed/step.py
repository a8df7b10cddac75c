"""Benchmark `step`: a training step against sentence-transformers around the same model.

    python -m benchmarks.speed step [pairs=256 rounds=3 threads=2 chunk_tokens=4096]
    python -m benchmarks.speed step device=cuda precision=bf16 peak_tflops=989 preset=configs/A.yaml

Ours: sampling, packing, forward, loss, backward. Theirs: CachedMultipleNegativesRankingLoss,
symmetric, with the padded batch given, so that its data loading costs nothing; around our model in
a plain wrapper and in a strong one (empty slots dropped, mini-batches trimmed), at several
mini-batch sizes. The control has no item twice and all texts of equal length: nothing to save.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.external.environments import SENTENCE_TRANSFORMERS
from benchmarks.speed.interleave import Arm, Comparison, Result
from benchmarks.speed.report import Claim, Report, claim, plain
from benchmarks.speed.zipf_corpus import WorldConfig, open_world
from clue.config import load
from clue.nn.dual_encoder import DualEncoderConfig
from clue.run.pretrain_config import PretrainConfig

SMALL = 16  # pairs of the gate
ZIPF, CONTROL = "Zipf", "control"
RIVAL = "sentence-transformers"
NOTE = (
    "{case}: {pairs:,} pairs, {events:,} events of {distinct_items:,} distinct items, {tokens:,} "
    "tokens of which {distinct_tokens:,} belong to distinct items"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`rows` are the strong wrapper's mini-batches that are tried, `plain_rows` the plain one's.

    `variants` are our own arms, `preset` a pretraining config whose model replaces `model`,
    `peak_tflops` the machine's peak, of which the MFU is a share; 0 leaves it out.
    """

    pairs: int = 256
    control_pairs: int = 64
    world: WorldConfig = field(default_factory=WorldConfig)
    worlds: Path = Path("data/speed")
    model: DualEncoderConfig = field(default_factory=lambda: DualEncoderConfig(initial_scale=20.0))
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
        """Refuse more pairs than the world has users."""
        if max(self.pairs, self.control_pairs) > self.world.users:
            raise ValueError(f"pairs {self.pairs} needs as many users; set world.users")


def reading(model: DualEncoderConfig, world: WorldConfig) -> DualEncoderConfig:
    """Return the model with limits that hold the longest text and history of the world."""
    item = replace(model.item, max_tokens=max(model.item.max_tokens, world.max_tokens))
    user = replace(model.user, max_events=max(model.user.max_events, world.items))
    return replace(model, item=item, user=user)


def measure(config: Config) -> Report:
    """Return the rows of both cases, and the model that was measured."""
    model = config.model
    if config.preset is not None:
        model = replace(load(PretrainConfig, config.preset).model, initial_scale=20.0)
    config = replace(config, model=reading(model, config.world))
    control = replace(
        config.world,
        unique=True,
        least_items=config.world.items,
        users=max(config.control_pairs, SMALL),
    )
    cases = {ZIPF: (config.world, config.pairs), CONTROL: (control, config.control_pairs)}
    comparison = Comparison(config.rounds)
    fp32 = config.precision == "fp32"
    gates: list[Result] = [{"batch": SMALL, "precision": "fp32"}]
    for case, (world, pairs) in cases.items():
        open_world(world, config.worlds)  # written before any arm is timed
        made = arms(config, world, pairs, alone=case == CONTROL)
        comparison.run(case, made, gates + [{"precision": "fp32"}] * (not fp32), equal=fp32)
    notes = {result["case"]: NOTE.format(**result) for result in comparison.results}
    report = comparison.report(claims(comparison), list(notes.values()))
    return replace(report, config={"model": plain(config.model)})


def arms(config: Config, world: WorldConfig, pairs: int, *, alone: bool) -> list[Arm]:
    """Return ours first, which is the reference, then the rival's; `alone` leaves out variants."""
    spec = plain(config) | {"batch": pairs, "world": plain(world)}
    made = [
        Arm(name, "benchmarks.speed.step_arm", spec | {"impl": name})
        for name in (config.variants[:1] if alone else config.variants)
    ]
    for kind, sizes in (("strong", config.rows), ("plain", () if alone else config.plain_rows)):
        for rows in sizes:
            more: dict[str, Any] = {"impl": RIVAL, "strong": kind == "strong", "rows": rows}
            name = f"{RIVAL}, {kind}, mini-batch {rows}"
            made.append(
                Arm(name, "benchmarks.speed.step_arm", spec | more, rival=SENTENCE_TRANSFORMERS)
            )
    return made


def claims(comparison: Comparison) -> list[Claim]:
    """Return the aims: speed and memory against the rival's fastest arm, level on the control."""
    made: list[Claim] = []
    for case, aim in ((ZIPF, 4.0), (CONTROL, 1.0)):
        rates = comparison.medians(case, "pairs/s")
        best = max((name for name in rates if RIVAL in name), key=rates.__getitem__, default=RIVAL)
        faster, memory = (
            comparison.ratio(case, figure, "ours", best) for figure in ("pairs/s", "peak MiB")
        )
        made += [
            claim(f"Pairs/s on {case}, ours / {best}", faster, "at least", aim),
            claim(f"Peak memory on {case}, ours / {best}", memory, "at most", 1),
        ]
    return made
