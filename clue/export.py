"""Command: a trained encoder -> a folder of the Hugging Face Hub's shape, with its model card.

    clue export checkpoint=runs/demo out=my-encoder license=apache-2.0

`clue.load("my-encoder")` reads it, and so does every command that takes a checkpoint to encode
with; `hf upload OWNER/MODEL my-encoder` or `clue.load(...).push_to_hub("OWNER/MODEL")` shares it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from clue.config import run_command
from clue.inference.encoder import load


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which model, to where; `license` is an identifier of the Hub, such as apache-2.0."""

    checkpoint: Path
    out: Path
    license: str = "unknown"


def export(config: ExportConfig) -> Path:
    """Return the folder that the model was written into.

    Raises FileNotFoundError or ValueError where there is no whole model, and ValueError where the
    folder holds something else.
    """
    return load(config.checkpoint).save_pretrained(config.out, license=config.license)


def main() -> None:
    """Run the command line."""
    folder = run_command(ExportConfig, export, description=__doc__)
    sys.stdout.write(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}\n")


if __name__ == "__main__":
    main()
