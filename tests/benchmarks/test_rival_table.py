# pyright: standard
"""Two systems side by side: our curve from a log, and the time to the loss that both reached."""

import json
from pathlib import Path

import pytest

from benchmarks.rival_table import our_curve, table


def test_the_clock_of_a_log_counts_steps_alone(tmp_path: Path) -> None:
    figures = {"cross_entropy": 6.0, "recall_at_10": 0.2, "ndcg_at_10": 0.1}
    lines = [
        {"kind": "start", "step": 0},
        {"kind": "train", "step": 10, "processor_seconds": 0.5},
        {"kind": "train", "step": 15, "processor_seconds": 1.0},
        {"kind": "valid", "step": 15, "next_item": {"next item": figures}},
        {"kind": "train", "step": 20, "processor_seconds": 2.0},
        {"kind": "valid", "step": 20, "next_item": {"next item": {**figures, "cross_entropy": 5}}},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = our_curve(log)
    assert [line["processor_seconds"] for line in curve] == [10.0, 20.0]
    assert curve[0]["HR@10 seen kept"] == 0.2
    assert curve[1]["loss"] == 5
    assert our_curve(tmp_path / "nothing.jsonl") == []


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
