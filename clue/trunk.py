"""The start of a run that branches off another's constant phase: one trunk, many lengths.

Under warm-up, constant, decay the steps before the decay do not depend on where it begins, so that
runs of many lengths share them (Hu et al. 2024, arXiv 2404.06395; for scaling curves: Haegele et
al. 2024, arXiv 2405.18392). A branch ends bitwise where the whole run would:

    accelerate launch clue/pretrain.py name=long optimizer.schedule=wsd steps=4000
    accelerate launch clue/pretrain.py name=short optimizer.schedule=wsd steps=1000 trunk=runs/long
"""

from pathlib import Path

from clue import checkpoint
from clue.checkpoint import Checkpoint
from clue.config import PretrainConfig, changed
from clue.data.corpus import Corpus
from clue.train.optimiser import decay_start


def stable_checkpoint(config: PretrainConfig, corpus: Corpus) -> Checkpoint:
    """Gives the newest checkpoint of `config.trunk` from before its decay and that of `config`.

    Raises ValueError where there is none, or where the trunk learnt with another config than this
    but for `steps`, or on another corpus.
    """
    trunk = config.trunk
    assert trunk is not None
    found: list[tuple[int, Path]] = []
    for path in trunk.glob("checkpoints/step_*"):
        found.append((int(path.name.removeprefix("step_")), path))
    if not found:
        raise ValueError(f"trunk={trunk} has no checkpoint; give the directory of a run")
    theirs = checkpoint.find(max(found)[1]).config
    differing = [key for key in changed(theirs, config) if key not in ("name", "steps")]
    if differing:
        raise ValueError(
            f"trunk={trunk} was trained with another {', '.join(differing)}; a branch may differ "
            "in steps alone"
        )
    ends = (decay_start(config.optimizer, steps) for steps in (config.steps, theirs.steps))
    limit = min(ends)
    stable = [place for place in found if place[0] <= limit]
    if not stable:
        raise ValueError(
            f"trunk={trunk} has no checkpoint at or before step {limit}, where a decay begins: its "
            f"first is of step {min(found)[0]}; raise steps, or train the trunk with a smaller "
            "checkpoint_every and keep its checkpoints"
        )
    start = checkpoint.find(max(stable)[1])
    if start.corpus["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"trunk={trunk} was trained on corpus {start.corpus['fingerprint'][:12]}, "
            f"{config.corpus} is {corpus.fingerprint[:12]}; give the trunk's corpus"
        )
    return start
