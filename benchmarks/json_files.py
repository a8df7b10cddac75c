"""JSON without NaN, and files of predictions, which show whether they were changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clue.atomic import write_text


def plain(value: Any) -> Any:
    """Return a tree as JSON can hold it: dataclasses as objects, arrays as lists, NaN as null."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_json(file: Path, content: Any) -> Any:
    """Write the content, made plain, and return what the file holds."""
    tree = plain(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(tree, indent=1, allow_nan=False) + "\n")
    return tree


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
