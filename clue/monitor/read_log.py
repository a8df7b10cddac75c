"""What a run has logged so far: the lines that clue/monitor/run_log.py writes."""

import json
from pathlib import Path
from typing import Any


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, in the order of its steps.

    Raises FileNotFoundError without a log and ValueError for one that a kill has torn.
    """
    file = run / "log.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"no run log {file}; clue/pretrain.py writes one")
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: {error}; was the run killed while writing? resume it") from None
