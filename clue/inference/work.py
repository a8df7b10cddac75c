"""FLOPs of encoding users, by the formulas of training (clue/train/flops.py), and their report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clue.inference.encoder import Encoder
from clue.inference.item_id_encoder import ItemIdEncoder
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder
from clue.nn.dual_encoder import DualEncoderConfig
from clue.train.flops import Work, peak_flops, predictive_flops, sequence_flops, step_flops


@dataclass
class Done:
    """What a process has encoded: users, in so many seconds, beside its peak in FLOP/s."""

    users: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak: float = 0.0

    def end(self, seconds: float, device: torch.device) -> "Done":
        """Return it with the time that it took and the device's peak in fp32."""
        return replace(self, seconds=seconds, peak=peak_flops(device, "fp32").flops)


def in_words(done: Sequence[Done]) -> str:
    """Return users a second of all processes and their share of the peak; the slowest sets both."""
    users, seconds = sum(one.users for one in done), max(one.seconds for one in done)
    share = sum(one.flops for one in done) / (seconds * sum(one.peak for one in done))
    peak = " + ".join(f"{one.peak / 1e9:.0f}" for one in done)
    return (
        f"{users:,} users in {seconds:.1f} s: {users / seconds:,.0f} users/s, {share:.1%} of the "
        f"peak, {peak} GFLOP/s in fp32"
    )


def user_flops(encoder: Encoder, lengths: Sequence[np.ndarray], clocks: Sequence[bool]) -> float:
    """Return the FLOPs of encoding users in each service and over all.

    `lengths` (n,) of each service are the events of n users, `clocks` says which have a clock.
    Matrix products alone are counted; those of items are not.
    """
    if isinstance(encoder, TextEncoder):
        return _dual(encoder.model.config, lengths)
    if isinstance(encoder, ItemIdEncoder):
        config = encoder.model.config
        joined = [np.sum(lengths, axis=0)] if encoder.join == "time" and len(lengths) > 1 else []
        work = [_work(each, config.max_events) for each in [*lengths, *joined]]
        return sum(sequence_flops(config, each).model for each in work) / 3
    if not isinstance(encoder, UniversalEncoder):
        raise TypeError(f"no formula for the work of {type(encoder).__name__}")
    flops = 0.0
    if "contrastive" in encoder.blocks:
        config = encoder.model.contrastive.config
        flops += _dual(config, lengths)
        events = sum(_work(each, config.user.max_events).events for each in lengths)
        # an item enters the user encoder once, not with each of its events
        flops -= 2 * config.item.width * (config.user.width + config.user.bag) * events
    if "predictive" in encoder.blocks:
        config = encoder.model.predictive.config
        read = list(lengths)
        if config.join == "time":
            timed = [each for each, clock in zip(lengths, clocks, strict=True) if clock]
            read += [each for each, clock in zip(lengths, clocks, strict=True) if not clock]
            read += [np.sum(timed, axis=0)] if timed else []
        work = [_work(each, config.max_events) for each in read]
        flops += sum(predictive_flops(config, each).model for each in work) / 3
    return flops


def _dual(config: DualEncoderConfig, lengths: Sequence[np.ndarray]) -> float:
    work = [_work(each, config.user.max_events) for each in lengths]
    users = sum(int((each > 0).sum()) for each in lengths)
    leave = 2 * config.user.width * (config.user.embedding - config.user.bag) * users
    return sum(step_flops(config, each).model for each in work) / 3 + leave  # forward alone


def _work(lengths: np.ndarray, most: int) -> Work:
    """Return the work of histories, of which the newest `most` events are read."""
    read = np.minimum(lengths[lengths > 0], most).astype(np.int64)
    return Work(
        pairs=0,
        items=0,
        tokens=0,
        token_squares=0,
        events=int(read.sum()),
        event_squares=int((read**2).sum()),
        logits=0,
    )
