"""Users embedded a second: equal vectors are compared, and wrong ones are not."""

from typing import Any

import numpy as np
import pytest

from benchmarks.speed.embed import REFERENCE, WHOLE, Config, measure
from clue.inference.blocks import BLOCKS
from clue.inference.text_encoder import TextEncoder
from tests.conftest import TinyRun


def test_equal_vectors_are_compared_and_wrong_ones_are_not(
    tiny_universal: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(checkpoint=tiny_universal.run, corpus=tiny_universal.corpus, users=20, rounds=1)
    report = measure(config)
    assert [row.arm for row in report.rows] == [REFERENCE, WHOLE, *BLOCKS]
    assert {row.status for row in report.rows} == {"measured"}
    assert report.claims[0].found is not None
    real = TextEncoder.encode_services

    def wrong(*arguments: Any, **named: Any) -> tuple[list[np.ndarray], np.ndarray]:
        each, whole = real(*arguments, **named)
        return each, whole + 0.01

    monkeypatch.setattr(TextEncoder, "encode_services", wrong)
    report = measure(config)
    assert [row.status == "measured" for row in report.rows] == [False] + [True] * (1 + len(BLOCKS))
    assert report.claims[0].found is None
