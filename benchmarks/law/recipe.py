"""Which model's law a log allows, and by which recipe; or the figure by which it is too small."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.law.law_config import HEAD, LawConfig
from benchmarks.scaling.fit.law_summary import EPOCHS
from benchmarks.scaling.sweep.sweep_config import Size
from clue.config import load
from clue.data.corpus import Corpus
from clue.data.sequences import Sequences, SequencesConfig
from clue.evaluation.matching import matching_pairs
from clue.run.pretrain_config import PretrainConfig

Objective = Literal["contrastive", "next_item"]
WINDOW = 50  # events of a window of the next-item model, as in configs/pretrain/next_item
BATCHES: dict[str, tuple[int, ...]] = {"contrastive": (128, 64), "next_item": (64, 32, 16)}
UNITS = {"contrastive": "users", "next_item": f"windows of up to {WINDOW} events"}
LEAST, WANTED = 240, 480  # steps of the longest runs of the least ladder, and of a good one
FEWEST, POOL = 500, 1000  # held-out queries of any law, and those for which contrast is preferred
FULL = 1000  # steps that leave the plateau on which only what is popular is known
BASE_WIDTH = 64  # at which the rates below were found
# Of all runs; what is fresh are slices of one draw, so that sizes begin alike.
COMMON = ("nested=true", "validate_every=100", "checkpoint_every=100", "trackers=[]")


@dataclass(frozen=True)
class Recipe:
    """The run that all sizes share, what one reading of the log is, and how many are asked."""

    pretrain: PretrainConfig
    objective: Objective
    once: int
    queries: int

    @property
    def most_steps(self) -> int:
        """The steps in which the log is read EPOCHS times."""
        return int(EPOCHS * self.once / self.pretrain.batch)


def recipe_of(corpus: Corpus, config: LawConfig) -> Recipe:
    """Return the recipe; ValueError, with the figure and the limit, for a log that is too small."""
    chosen: Objective = "next_item"
    if config.objective != "auto":
        chosen = config.objective
    elif _suits_contrast(*supply(corpus, "contrastive")):
        chosen = "contrastive"
    once, queries = supply(corpus, chosen)
    batch = batch_of(chosen, once)
    if not batch:
        least = LEAST * min(BATCHES[chosen]) / EPOCHS
        raise ValueError(
            f"{corpus.path}: one reading of the log is {once:,} {UNITS[chosen]}, a law of the "
            f"{chosen} model needs {least:,.0f}: its longest runs take {LEAST} steps of "
            f"{min(BATCHES[chosen])} or more and read nothing more than {EPOCHS:g} times; give a "
            "longer log, or one of more users" + _other(config, chosen)
        )
    if queries < FEWEST:
        raise ValueError(
            f"{corpus.path}: {queries:,} held-out users can be asked, a law needs {FEWEST}: with "
            "fewer the loss does not tell one size from the next; give a log of more users"
            + _other(config, chosen)
        )
    words = next_item(config) if chosen == "next_item" else contrastive(corpus, config)
    words = [*COMMON, f"name={config.name}", f"corpus={corpus.path}", f"batch={batch}", *words]
    return Recipe(load(PretrainConfig, None, words), chosen, once, queries)


def supply(corpus: Corpus, objective: Objective) -> tuple[int, int]:
    """Return the windows, or training users, of one reading, and the held-out queries."""
    if objective == "next_item":
        try:
            sequences = Sequences(corpus, SequencesConfig())
        except ValueError:  # no sequence is long enough
            return 0, 0
        windows = -(-np.maximum(sequences.trained - 1, 0) // WINDOW)
        return int(windows.sum()), len(sequences.questions("valid").targets)
    services = range(len(corpus.services))
    lengths = np.stack([corpus.items_of(n).lengths for n in services])[:, corpus.users_in("train")]
    fit = (lengths > 0).sum(0) >= 2 if len(services) > 1 else lengths[0] >= 2
    pairs = matching_pairs(corpus, corpus.users_in("valid"), max_events=1)
    return int(fit.sum()), sum(len(each.users) for each in pairs)


def popularity(corpus: Corpus) -> float:
    """Return the loss in nats of knowing how often each item is trained on, and nothing else."""
    sequences = Sequences(corpus, SequencesConfig())
    counts = sequences.counts() + 1.0  # nothing is impossible
    targets = sequences.questions("valid").targets
    return float(-np.log(counts[targets] / counts.sum()).mean())


def batch_of(objective: Objective, once: int) -> int:
    """Return the largest batch that leaves FULL steps, or else WANTED, or LEAST; 0 for none."""
    for steps in (FULL, WANTED, LEAST):
        for batch in BATCHES[objective]:
            if EPOCHS * once / batch >= steps:
                return batch
    return 0


def _suits_contrast(once: int, queries: int) -> bool:
    return EPOCHS * once >= WANTED * BATCHES["contrastive"][0] and queries >= POOL


def _other(config: LawConfig, chosen: Objective) -> str:
    if config.objective == "auto":
        return ""
    return f"; or leave out objective={chosen}"


def next_item(config: LawConfig) -> list[str]:
    """Return the recipe of the next-item model, whose events of all services are one sequence."""
    shape = f"layers: {config.layers}, width: {BASE_WIDTH}, heads: {BASE_WIDTH // HEAD}"
    return [
        "objective=next_item",
        f"decoder={{{shape}, dropout: [0.1], max_events: {WINDOW}}}",
        f"optimizer={{lr: 5.0e-3, {_optimizer(config)}}}",
    ]


def contrastive(corpus: Corpus, config: LawConfig) -> list[str]:
    """Return the recipe of the encoder: pairs of two services, or of two parts of one's history."""
    shape = f"width: {BASE_WIDTH}, heads: {BASE_WIDTH // HEAD}"
    tokens = max(32, corpus.manifest.max_item_tokens)
    cross = 1.0 if len(corpus.services) > 1 else 0.0
    half = (1 - cross) / 2
    return [
        f"model.item={{layers: 0, {shape}, max_tokens: {tokens}}}",
        f"model.user={{layers: {config.layers}, {shape}, dropout: 0.0, max_events: 16, "
        f"embedding: {2 * BASE_WIDTH}, bag: {BASE_WIDTH}}}",
        f"views={{cross_service: {cross}, past_future: {half}, slices: {half}, max_events: 16}}",
        "gallery=1024",
        f"optimizer={{lr: 8.0e-3, {_optimizer(config)}}}",
    ]


def _optimizer(config: LawConfig) -> str:
    """Return what both recipes share: one rate for all sizes, constant and then down to 0."""
    base = f"base_width: {BASE_WIDTH}, base_layers: {config.layers}"
    return f"kind: muon, {base}, schedule: wsd, final_lr_share: 0.0, warmup_steps: 30"


def size_of(objective: str, width: int, layers: int, lr: float | None = None) -> Size:
    """Return the model of a width and a depth."""
    if objective == "next_item":
        return Size(width=width, layers=layers, head=HEAD, lr=lr)
    more = {"item_layers": 0, "embedding": 2 * width, "bag": width}
    return Size(width=width, layers=layers, head=HEAD, lr=lr, **more)
