"""Where the published runs are, and the mark of tests that need them."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("CLUE_DATA", "/nowhere")) / "scaling"
needs_data = pytest.mark.skipif(
    not (FOLDER / "expected.json").is_file(), reason="CLUE_DATA holds no scaling/expected.json"
)
