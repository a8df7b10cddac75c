"""Command: the size ladder configs/pretrain/ladder/, every rung from one dial, the depth.

    python -m benchmarks.scaling.sweep.ladder

Depth d gives both encoders d layers of width 64 d with d heads of 64: from 1 M parameters to the
694 M of the largest, the size that the CLUE paper's authors report. The learning rate is the same
on all rungs, found at `base_width` and transferred by the rule of clue/train/optimiser.py. The
batch grows with the model. Each file's header is computed: parameters, FLOPs and memory.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clue.config import load, read_command_line
from clue.data.batches import Batch
from clue.nn.dual_encoder import DualEncoder
from clue.run.pretrain_config import PretrainConfig
from clue.train.flops import count_parameters, flops_per_pair
from clue.train.memory import CHUNK_CPU, CHUNK_CUDA, activation_bytes

DEPTHS = {"1m": 1, "3m": 2, "6m": 3, "11m": 4, "41m": 7, "142m": 11, "694m": 19}
BATCHES = {1: 1024, 2: 1024, 3: 2048, 4: 2048, 7: 4096, 11: 8192, 19: 8192}
VOCABULARY = 16_384  # of configs/prepare/multi8.yaml, as the three figures below
TOKENS, EVENTS, EVENTS_PER_ITEM = 17, 9, 1.6
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """Where the files go."""

    out: Path = Path("configs/pretrain/ladder")


def rung(name: str) -> str:
    """Return the YAML text of the rung `name`."""
    depth = DEPTHS[name]
    shape = f"layers: {depth}, width: {64 * depth}, heads: {depth}"
    keys = {
        "name": f"ladder_{name}",
        "corpus": "corpora/multi8",
        "batch": BATCHES[depth],
        "steps": 2000,
        "validate_every": 200,
        "checkpoint_every": 200,
        "model": f"{{item: {{{shape}, max_tokens: 128}}, "
        f"user: {{{shape}, max_events: 32, embedding: {64 * depth}}}}}",
        "views": "{cross_service: 0.5, past_future: 0.5, slices: 0.0, max_events: 16}",
        "optimizer": "{lr: 4e-3, base_width: 128, weight_decay: 0.1, warmup_steps: 200}",
    }
    config = load(PretrainConfig, None, [f"{key}={value}" for key, value in keys.items()])
    body = "".join(f"{key}: {value}\n" for key, value in keys.items())
    return header(name, config) + body


def header(name: str, config: PretrainConfig) -> str:
    """Return what stands above a rung: what it is, its command, and what it costs."""
    count = count_parameters(config.model, VOCABULARY)
    flops = flops_per_pair(
        config.model,
        batch=config.batch,
        events=float(EVENTS),
        tokens=float(TOKENS),
        events_per_item=EVENTS_PER_ITEM,
    )
    token, event = position_bytes(config)
    most = max(token, event)
    return (
        f"# Sizes at depth {DEPTHS[name]}, by `python -m benchmarks.scaling.sweep.ladder`.\n"
        "#   python clue/prepare.py configs/prepare/multi8.yaml\n"
        f"#   accelerate launch clue/pretrain.py configs/pretrain/ladder/{name}.yaml\n"
        f"# Parameters: {count:,}, of them {VOCABULARY * config.model.item.width:,} of tokens.\n"
        f"# Model FLOPs a pair: {flops:.2e} in a batch of {config.batch:,}, at {EVENTS} events a "
        f"view, {EVENTS_PER_ITEM} events\n"
        f"# a distinct item and {TOKENS} tokens an item.\n"
        f"# Memory: {16 * count / GIB:.2f} GiB for weights, gradients and AdamW's moments; in fp32 "
        f"{most * CHUNK_CPU / MIB:,.0f} MiB a chunk of\n"
        f"# {CHUNK_CPU:,} positions (processor), {most * CHUNK_CUDA / GIB:,.1f} GiB one of "
        f"{CHUNK_CUDA:,} (GPU, about half in bf16).\n"
    )


def position_bytes(config: PretrainConfig) -> tuple[float, float]:
    """Return the bytes that a position of an item, and of a history, leaves, without weights."""
    with torch.device("meta"):
        core = DualEncoder(config.model, VOCABULARY)
    lengths, views = np.full(64, TOKENS), np.full(64, EVENTS)
    empty = np.zeros(0, np.int64)
    batch = Batch(empty, lengths, empty, views, *[empty] * 5)
    return activation_bytes(core, batch, CHUNK_CPU)


def main() -> None:
    """Write all rungs."""
    config = read_command_line(LadderConfig, sys.argv[1:], description=__doc__ or "")
    config.out.mkdir(parents=True, exist_ok=True)
    for name in DEPTHS:
        (config.out / f"{name}.yaml").write_text(rung(name), encoding="utf-8")
        sys.stdout.write(f"{config.out / name}.yaml\n")


if __name__ == "__main__":
    main()
