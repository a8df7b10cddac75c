"""Benchmark `embed`: users a second of a universal encoder, whole and block by block.

    python -m benchmarks.speed embed checkpoint=runs/universal_0 corpus=corpora/universal

An arm makes what `clue embed` writes of the same users, the vectors in each service and over all,
from items encoded before; the reference is the contrastive encoder with the same weights, which
projects the items of each event anew. Weights are drawn, since no speed depends on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from benchmarks.speed.interleave import clock_figures, interleaved
from benchmarks.speed.report import Report, Row, Spread, claim
from clue.data.corpus import Corpus, first_users
from clue.inference.pooling import histories_of
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder

TOLERANCE = 1e-4  # of a coordinate
REFERENCE, WHOLE = "contrastive encoder", "universal"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A universal run, and so many users of a corpus, drawn once, in `rounds` rounds."""

    checkpoint: Path
    corpus: Path
    users: PositiveInt = 2048
    rounds: PositiveInt = 5
    threads: PositiveInt = 1
    out: Path = Path("results/speed/embed.json")


def measure(config: Config) -> Report:
    """Return the times and users/s of each arm; one whose vectors differ does not compare."""
    corpus = Corpus.open(config.corpus)
    whole = UniversalEncoder.load(config.checkpoint, seed=0)
    users = np.sort(first_users(np.arange(corpus.num_users), config.users))
    parts, amounts = histories_of(corpus, users)
    inputs = whole.item_inputs(corpus)
    text = TextEncoder(whole.source, whole.model.contrastive, whole.fingerprint)
    arms: dict[str, Callable[[], tuple[list[np.ndarray], np.ndarray]]] = {
        REFERENCE: partial(text.encode_services, corpus, parts, items=text.item_inputs(corpus)),
        WHOLE: partial(whole.encode_services, corpus, parts, amounts=amounts, items=inputs),
    }
    for name in whole.blocks:
        one = UniversalEncoder(whole.source, whole.model, whole.fingerprint, [name])
        arms[name] = partial(one.encode_services, corpus, parts, amounts=amounts, items=inputs)
    each, over_all = arms[WHOLE]()
    truth = np.stack([*each, over_all])
    columns = {REFERENCE: whole.blocks["contrastive"], WHOLE: slice(None), **whole.blocks}
    errors: dict[str, float] = {}
    for arm, encode in arms.items():
        each, over_all = encode()
        errors[arm] = float(np.abs(np.stack([*each, over_all]) - truth[..., columns[arm]]).max())
    times = interleaved(arms, config.rounds)
    rows: list[Row] = []
    for arm, error in errors.items():
        seconds = times[arm]["processor"]
        figures = {"users/s": Spread.of([len(users) / each for each in seconds])}
        figures |= clock_figures(times, arm, REFERENCE)
        wrong = "" if error <= TOLERANCE else f"vectors differ by {error:.1e}"
        status = "not comparable" if wrong else "measured"
        rows.append(Row(case="users", arm=arm, status=status, note=wrong, figures=figures))
    comparable = all(row.status == "measured" for row in rows[:2])
    rates = [row.figures["users/s"].median for row in rows[:2]]
    ratio = rates[1] / rates[0] if comparable else None
    aim = claim("users/s of all blocks, part of the contrastive encoder's", ratio, "at least", 0.8)
    events = sum(len(items.values) for items, _ in parts)
    return Report(rows=rows, claims=[aim], notes=[f"{len(users):,} users, {events:,} events."])
