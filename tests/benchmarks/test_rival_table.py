# pyright: standard
"""Two systems side by side: the time to the loss that both reached."""

import pytest

from benchmarks.rival_table import table


def test_the_times_are_those_to_the_loss_that_both_reached() -> None:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value}

    named = {"HR@10": interval(0.3), "NDCG@10": interval(0.2)}
    rival = {
        "curve": [{"processor_seconds": 100.0 * n, "loss": 7.0 - n} for n in (1, 2)],
        "measures": {"test": {"seen left out": named, "seen kept": named}},
    }
    ours = {
        "models": {
            "m": {"curve": [{"processor_seconds": 9.0 * n, "loss": 6.6 - n} for n in (1, 2)]}
        },
        "tables": {"seen left out": {"m": named}, "seen kept": {"m": named}},
    }
    lines = table(rival, ours).splitlines()
    assert "processor s to 5.000 nats" in lines[0]  # the rival's lowest; ours is 4.6
    assert lines[2].endswith("| 200 | 200 |")
    assert lines[4].endswith("| 18 | 18 |")
    assert len(lines) == 6
    with pytest.raises(ValueError, match="empty"):
        table({**rival, "curve": []}, ours)
