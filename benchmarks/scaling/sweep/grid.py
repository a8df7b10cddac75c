"""The points of a sweep: its grids laid out as runs, all that cannot work refused before the first.

Runs that differ in their length alone are a family: one trunk, of which the shorter ones branch off
(clue/run/resume.py). A point is known by a hash of all that decides its result, and of the corpus.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from benchmarks.scaling.fit.rate_curves import rate_of
from benchmarks.scaling.sweep.cost import Facts, facts_of
from benchmarks.scaling.sweep.sweep_config import ROLES, Grid, Role, SweepConfig
from clue.config import load
from clue.data.corpus import Corpus
from clue.run.pretrain_config import FREE, PretrainConfig
from clue.train.optimiser import decay_start

LEAST_WARMUP = 5  # steps; a shorter run is no more than noise
LOGGED = 8  # lines of the log up to the first cooldown of a family
# what a point is known by leaves out what a resumed run may change, and what is hashed beside it
UNHASHED = FREE | {"name", "steps", "best_by"}


@dataclass(frozen=True)
class Point:
    """A run of the grid; `family` is the same for those that differ in their length alone.

    `leads`: the longest of its role and family, of which the others branch off. `arms` are those
    of the grids that hold it, "" for a grid without one.
    """

    run: PretrainConfig
    size: str
    role: Role
    facts: Facts
    arms: tuple[str, ...]
    family: str = ""
    fingerprint: str = ""
    leads: bool = False

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.run.name

    @property
    def flops(self) -> float:
        """What the whole run will spend, from its first step on."""
        return self.facts.step_flops * self.run.steps


def lay_out(config: SweepConfig) -> list[Point]:
    """Return all points, those of a family together and in the order in which they are trained.

    Raises ValueError or FileNotFoundError where one of them cannot work.
    """
    points: list[Point] = []
    known: dict[str, Facts] = {}
    corpora: dict[Path, Corpus] = {}
    for number, grid in enumerate(config.grids, 1):
        before = len(points)
        for size, run, budget in _combinations(config, grid):
            try:
                first = replace(run, seed=0)  # one number of steps for all seeds
                key = _hash(first, run.corpus, run.gallery)
                if key not in known:
                    corpora.setdefault(run.corpus, Corpus.open(run.corpus))
                    known[key] = facts_of(first, corpora[run.corpus])
                facts = known[key]
                units = {"flops": facts.step_flops, "steps": 1.0, "pairs": float(run.batch)}
                cost = units[grid.unit or config.unit]
                steps = round(budget / cost)
                if grid.least_steps <= steps and not 0 < grid.most_steps < steps:
                    run = _of_length(config, run, steps, cost, facts)
                    points.append(Point(run, size, grid.role, facts, (grid.arm,)))
            except ValueError as error:
                raise ValueError(f"grid {number}, size {size}: {error}") from None
        if len(points) == before:
            raise ValueError(
                f"grid {number} has no point: none of its budgets buys least_steps "
                f"{grid.least_steps} .. most_steps {grid.most_steps}; change them, or the budgets"
            )
    return _named(config, points, corpora)


def _combinations(config: SweepConfig, grid: Grid) -> Iterator[tuple[str, PretrainConfig, float]]:
    """Return size, run (its length still open) and budget of each combination of a grid."""
    axes = [axis or [None] for axis in (grid.users, grid.batches, grid.lengths, grid.rates)]
    base = load(PretrainConfig, config.pretrain, config.overrides)
    trunk = config.schedule == "trunk"
    if trunk and base.optimizer.patience:
        raise ValueError(
            f"{config.pretrain}: optimizer.patience is {base.optimizer.patience}, which ends a run "
            "early; set it to 0, for a budget says how long a run is, or schedule: own"
        )
    length = "decoder.max_events" if base.objective == "next_item" else "views.max_events"
    wsd = ["optimizer.schedule=wsd", f"optimizer.decay_share={config.decay_share}"]
    for size, values in product(grid.sizes or config.sizes, product(*axes, grid.seeds)):
        names = ("users", "batch", length, "optimizer.lr", "seed")
        changes = zip(names, values, strict=True)
        keys = [*config.overrides, *config.sizes[size].overrides(base.objective)]
        keys += [f"optimizer.lr={rate_of(config.gate, size)}"] if config.gate else []
        keys += [f"{key}={value}" for key, value in changes if value is not None]
        keys += ["trackers=[]", f"runs={config.runs}", *grid.overrides, *(wsd if trunk else [])]
        run = load(PretrainConfig, config.pretrain, [*keys, "steps=1000000000"])
        yield from ((size, run, budget) for budget in grid.budgets)


def _of_length(
    config: SweepConfig, run: PretrainConfig, steps: int, cost: float, facts: Facts
) -> PretrainConfig:
    """Return the run of so many steps, each of `cost`, refused where they are too few or many."""
    least = LEAST_WARMUP / (1 - config.decay_share)
    if steps <= least:
        raise ValueError(
            f"the budget {steps * cost:.3g} is {steps} steps of {cost:.3g} each, less than one "
            f"warm-up of {LEAST_WARMUP} steps before the cooldown; give {(least + 1) * cost:.2g} "
            "or more, or set least_steps"
        )
    epochs = steps / facts.epoch
    if 0 < config.most_epochs < epochs:
        raise ValueError(
            f"the budget {steps * cost:.3g} is {steps} steps, {epochs:.2f} epochs of "
            f"{facts.users:,} users, and most_epochs is {config.most_epochs:g}; lower it, set "
            f"most_steps={int(config.most_epochs * facts.epoch)}, or give a corpus of more users"
        )
    if config.schedule == "own":
        return replace(run, steps=steps)
    brief = replace(run.optimizer, warmup_steps=0)  # set for the family, once all are known
    return replace(run, steps=steps, optimizer=brief)


def _named(
    config: SweepConfig, points: Sequence[Point], corpora: Mapping[Path, Corpus]
) -> list[Point]:
    """Return the points with their warm-up, their rhythm of checkpoints and their names."""
    families: dict[str, list[Point]] = {}
    own = config.schedule == "own"
    for point in points:
        families.setdefault(_family(config, point.run), []).append(point)
    base = load(PretrainConfig, config.pretrain, config.overrides).optimizer.warmup_steps
    named: list[Point] = []
    for members in families.values():
        # what is held out may be chosen last, and must not change the runs before it
        early = [one.run.steps for one in members if one.role != "held_out"]
        shortest = min(early or [one.run.steps for one in members])
        warmup = max(LEAST_WARMUP, min(base, round(config.warmup_share * shortest)))
        distinct: dict[str, Point] = {}
        for one in sorted(members, key=lambda one: (ROLES.index(one.role), -one.run.steps)):
            run, role = one.run, one.role
            leads = not any(point.role == role for point in distinct.values())
            if not own:
                if decay_start(run.optimizer, run.steps) < warmup:
                    raise ValueError(
                        f"a {role} point of size {one.size} has {run.steps} steps, too few for the "
                        f"warm-up of {warmup} that its family has; raise its budget or lower "
                        "warmup_share"
                    )
                run = replace(run, optimizer=replace(run.optimizer, warmup_steps=warmup))
                run = _paced(config, run, shortest, leads=leads, trunk=len(members) > 1)
            beside = (run.gallery, *((run.validate_every,) if own else ()))
            key = _hash(run, run.steps, *beside, corpora[run.corpus].fingerprint)
            if key in distinct and {role, distinct[key].role} == {"fit", "held_out"}:
                raise ValueError(
                    f"size {one.size} at {run.steps} steps is in a grid of role fit and in one of "
                    "role held_out; what is predicted must not be fitted: leave it out of one"
                )
            run = replace(run, name=_name(run, one.size, key))
            whole = replace(one, run=run, family=_family(config, run), fingerprint=key, leads=leads)
            first = distinct.setdefault(key, whole)
            distinct[key] = replace(first, arms=tuple(dict.fromkeys((*first.arms, *one.arms))))
        named += distinct.values()
    return named


def _family(config: SweepConfig, run: PretrainConfig) -> str:
    """Return what the runs that may share a trunk have in common; all of a run of its own."""
    # a run's own patience counts measurements
    alone = (run.steps, run.validate_every) if config.schedule == "own" else ()
    return _hash(run, run.corpus, *alone)


def _paced(
    config: SweepConfig, run: PretrainConfig, shortest: int, *, leads: bool, trunk: bool
) -> PretrainConfig:
    """Return when the run logs, measures and saves: a trunk where its branches will leave it."""
    stable = decay_start(run.optimizer, shortest)
    log = max(1, stable // LOGGED)
    rhythm = stable // log * log
    validate = max(1, run.steps // config.validations // log) * log
    return replace(
        run,
        log_every=log,
        checkpoint_every=rhythm,
        keep_every=rhythm if leads and trunk else 0,
        validate_every=validate if leads and config.validations > 1 else run.steps,
    )


def _name(run: PretrainConfig, size: str, fingerprint: str) -> str:
    """Return a directory's name that a person can read."""
    length = run.decoder if run.objective == "next_item" else run.views
    parts = [size, f"u{run.users}" if run.users else "", f"b{run.batch}", f"e{length.max_events}"]
    parts += [f"s{run.seed}", f"n{run.steps}", fingerprint[:6]]
    return "-".join(part for part in parts if part)


def _hash(run: PretrainConfig, *beside: object) -> str:
    """Return sha256 of what decides how the weights of a run move, but for corpus and length."""
    deciding = {key: value for key, value in asdict(run).items() if key not in UNHASHED}
    text = json.dumps([deciding, *beside], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
