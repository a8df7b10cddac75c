"""The figures of a run's speed, by arithmetic on hand-made steps."""

import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from clue.monitor.throughput import StepTiming, ThroughputMeter, peak_memory
from clue.nn.dual_encoder import DualEncoderConfig
from clue.train.flops import Peak, Work, step_flops

CONFIG = DualEncoderConfig()
WORK = Work(
    pairs=32,
    items=40,
    tokens=300,
    token_squares=3000,
    events=200,
    event_squares=2000,
    logits=1024,
)


def meter() -> ThroughputMeter:
    made = ThroughputMeter(partial(step_flops, CONFIG), Accelerator(cpu=True))
    made.peak = Peak(1e12, "by hand")
    return made


def test_two_steps_by_hand() -> None:
    made = meter()
    made.add(WORK, StepTiming(1.0, 0.0, 0.5))
    padded = replace(WORK, token_padding=80, event_padding=20, items_recomputed=1.0)
    made.add(padded, StepTiming(3.0, 1.0, 0.5))
    speed = made.read()
    assert speed.pairs_per_s == 64 / 4
    assert speed.tokens_per_s == 600 / 4
    assert speed.events_per_item == 5
    assert speed.packing == 1000 / 1100
    assert speed.seconds == 2
    assert speed.data_wait == 1 / 4
    assert speed.processor_seconds == 0.5
    one, other = step_flops(CONFIG, WORK), step_flops(CONFIG, padded)
    assert speed.model_flops == one.model
    assert speed.mfu == pytest.approx(2 * one.model / 4e12)
    assert speed.hfu == pytest.approx((one.hardware + other.hardware) / 4e12)
    assert speed.memory_bytes > 10**8
    made.add(WORK, StepTiming(2.0, 0.0, 0.5))  # a reading begins anew
    assert made.read().pairs_per_s == 16


def test_graphs_made_after_the_first_step_are_recompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Counter({"unique_graphs": 3})
    dynamo = SimpleNamespace(counters={"stats": graphs})
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", dynamo)
    made = meter()
    graphs["unique_graphs"] += 2  # the first step's own
    made.add(WORK, StepTiming(1.0, 0.0, 0.5))
    assert made.read().recompiles == 0
    graphs["unique_graphs"] += 1
    made.add(WORK, StepTiming(1.0, 0.0, 0.5))
    assert made.read().recompiles == 1
    made.add(WORK, StepTiming(1.0, 0.0, 0.5))
    assert made.read().recompiles == 1  # so many since the run began


def test_peak_memory_grows_with_what_is_held() -> None:
    accelerator = Accelerator(cpu=True)
    before = peak_memory(accelerator.device)
    held = bytearray(300 * 2**20)
    assert peak_memory(accelerator.device) >= before
    assert peak_memory(accelerator.device) > len(held)
