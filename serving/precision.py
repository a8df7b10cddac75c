"""bf16 in place of fp32: where it is wanted, the processor has it, and it is exact enough.

On a processor with AVX512-BF16 it encodes 1.5 to 2 times as fast at a width of 256 or more, and at
64 a single user 0.7 times as fast: so it is the operator's to choose. The index stays fp32.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from clue.inference.encoder import Encoder
from serving.vectors import Vectors

log = logging.getLogger("clue.serving")

LEAST_COSINE = 0.999
SAMPLE = 64  # users of the index, and as many items, that are encoded both ways


@dataclass(frozen=True)
class Precision:
    """In what a model computes, and how far bf16 is from fp32, by block ("all" without blocks).

    `cosine` is the least of a vector with that of fp32, `deviation` the largest of a coordinate.
    `fallback` says why it is not bf16 though that was wanted.
    """

    name: Literal["fp32", "bf16"]
    cosine: Mapping[str, float] = field(default_factory=dict[str, float])
    deviation: Mapping[str, float] = field(default_factory=dict[str, float])
    fallback: str = ""


FP32 = Precision("fp32")


def computing(precision: Precision) -> torch.autocast:
    """Return the context in which a model computes so."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision.name == "bf16")


def chosen_precision(
    wanted: Literal["fp32", "bf16"], encoder: Encoder, index: Vectors
) -> Precision:
    """Return what a model may compute in: bf16 where wanted and, on users of the index, as good."""
    if wanted == "fp32":
        return FP32
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return _fallen("the processor has no bf16")
    histories = _sample(encoder, index)
    exact = encoder.encode_events(histories)
    with computing(Precision("bf16")):
        other = encoder.encode_events(histories)
    blocks = encoder.blocks or {"all": slice(0, encoder.width)}
    pairs = {name: (exact[:, each], other[:, each]) for name, each in blocks.items()}
    cosine = {name: _least_cosine(*pair) for name, pair in pairs.items()}
    deviation = {name: float(np.abs(a - b).max()) for name, (a, b) in pairs.items()}
    poor = [f"{name} {each:.4f}" for name, each in cosine.items() if not each >= LEAST_COSINE]
    if poor:
        reason = f"the cosine of bf16 with fp32 is below {LEAST_COSINE}: {', '.join(poor)}"
        return _fallen(reason, cosine, deviation)
    log.info("the model computes in bf16: cosine with fp32 at least %.5f", min(cosine.values()))
    return Precision("bf16", cosine, deviation)


def _fallen(
    reason: str,
    cosine: Mapping[str, float] | None = None,
    deviation: Mapping[str, float] | None = None,
) -> Precision:
    log.warning("the model computes in fp32: %s", reason)
    return Precision("fp32", cosine or {}, deviation or {}, reason)


def _sample(encoder: Encoder, index: Vectors) -> Sequence[Sequence[tuple[str, str]]]:
    """Return histories of users of the index, and of its items alone."""
    catalogue = index.catalogue
    last = catalogue.num_items - 1
    items = np.unique(np.linspace(0, last, min(SAMPLE, last + 1)).astype(int))
    users = index.some_users(SAMPLE)
    rows = [*(user.seen.tolist() for user in users), *([item] for item in items.tolist())]
    histories: list[list[tuple[str, str]]] = []
    for each in (row for row in rows if row):
        known = [catalogue.item(item) for item in each]
        histories.append([(s, i if encoder.reads == "item_id" else text) for i, s, text in known])
    return histories


def _least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the least cosine of rows; two of zero agree, one of zero agrees with no other."""
    inner, lengths = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = np.where((a == 0).all(1) & (b == 0).all(1), 1.0, 0.0)
    return float(np.divide(inner, lengths, out=alike, where=lengths > 0).min(initial=1.0))
