"""Which precision a run computes in where it is left to us."""

from pathlib import Path
from typing import Literal

import torch

# bf16 over fp32, seconds a step with AVX512-BF16, without and with layers over tokens: 1.08, 1.25
# at width 64, .95, 1.06 at 128, .94, .88 at 192, and .79 at 256 (results/speed/precision.json).
BF16_WIDTH = 192


def uses_bf16(precision: Literal["auto", "bf16", "fp32"], width: int) -> bool:
    """Return whether a model of this width computes in bf16: as asked, or where that is faster."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")
    return bf16_pays(cpu.read_text(encoding="utf-8").split() if cpu.is_file() else [], width)


def bf16_pays(flags: list[str], width: int) -> bool:
    """Return whether a CPU with these flags trains a model of this width faster in bf16.

    With AMX always; with AVX512-BF16 alone from BF16_WIDTH on: below it the casts cost more than
    the products save.
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and width >= BF16_WIDTH)
