"""A prediction's file: its content and the SHA-256 that shows whether it was changed since."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def hashed(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the content as JSON with sorted keys and no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_prediction(file: Path) -> dict[str, Any]:
    """Return the content; FileNotFoundError without the file, ValueError if it was changed."""
    if not file.is_file():
        raise FileNotFoundError(
            f"no prediction {file}; `predict` writes one before the runs are there"
        )
    tree = json.loads(file.read_text(encoding="utf-8"))
    if hashed(tree["content"]) != tree["sha256"]:
        raise ValueError(
            f"{file} was changed after it was written: its content hashes to "
            f"{hashed(tree['content'])[:12]}, it says {tree['sha256'][:12]}; restore it"
        )
    return tree["content"]
