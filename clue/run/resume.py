"""Where a run begins: at its own newest checkpoint, in another's constant phase, or anew.

One trunk serves runs of many lengths: under warm-up, constant, decay the steps before the decay do
not depend on where it begins (Hu et al. 2024, arXiv 2404.06395; for scaling curves: Haegele et al.
2024, arXiv 2405.18392). A branch ends bitwise where the whole run would:

    accelerate launch clue/pretrain.py name=long optimizer.schedule=wsd steps=4000
    accelerate launch clue/pretrain.py name=short optimizer.schedule=wsd steps=1000 trunk=runs/long
"""

from pathlib import Path

from clue.data.corpus import Corpus
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint
from clue.run.pretrain_config import PretrainConfig, changed
from clue.train.optimiser import decay_start


def find_start(config: PretrainConfig, corpus: Corpus) -> Checkpoint | None:
    """Return the checkpoint to go on from, if any: the run's own newest, else its trunk's.

    Raises ValueError where the run's checkpoints were trained with another config or corpus.
    """
    last = checkpoint.find_last(config.run)
    if last is None:
        return stable_checkpoint(config, corpus) if config.trunk else None
    if config.resume == "never":
        raise ValueError(f"{config.run} has checkpoints and resume=never; choose another name=")
    differing = changed(last.config, config)
    if differing:
        raise ValueError(
            f"{config.run} was begun with another {', '.join(differing)}; choose another name= or "
            f"give it the values of {last.path / 'config.yaml'}"
        )
    if last.corpus["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"{config.run} was begun on corpus {last.corpus['fingerprint'][:12]}, {config.corpus} "
            f"is {corpus.fingerprint[:12]} now; choose another name= or prepare the old one again"
        )
    return last


def stable_checkpoint(config: PretrainConfig, corpus: Corpus) -> Checkpoint:
    """Return the newest checkpoint of `config.trunk` from before its decay and that of `config`.

    Raises ValueError where there is none, or where the trunk learnt with another config than this
    but for `steps`, or on another corpus.
    """
    trunk = config.trunk
    assert trunk is not None
    kept: list[tuple[int, Path]] = []
    for path in trunk.glob("checkpoints/step_*"):
        kept.append((int(path.name.removeprefix("step_")), path))
    if not kept:
        raise ValueError(f"trunk={trunk} has no checkpoint; give the directory of a run")
    theirs = checkpoint.find(max(kept)[1]).config
    differing = [key for key in changed(theirs, config) if key not in ("name", "steps")]
    if differing:
        raise ValueError(
            f"trunk={trunk} was trained with another {', '.join(differing)}; a branch may differ "
            "in steps alone"
        )
    ends = (decay_start(config.optimizer, steps) for steps in (config.steps, theirs.steps))
    limit = min(ends)
    stable = [each for each in kept if each[0] <= limit]
    if not stable:
        raise ValueError(
            f"trunk={trunk} has no checkpoint at or before step {limit}, where a decay begins: its "
            f"first is of step {min(kept)[0]}; raise steps, or train the trunk with a smaller "
            "checkpoint_every and keep its checkpoints"
        )
    start = checkpoint.find(max(stable)[1])
    if start.corpus["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"trunk={trunk} was trained on corpus {start.corpus['fingerprint'][:12]}, "
            f"{config.corpus} is {corpus.fingerprint[:12]}; give the trunk's corpus"
        )
    return start
